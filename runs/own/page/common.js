// What the other scripts share: elements by id and by tag, requests, messages.
export const $ = id => document.getElementById(id);
export const pause = ms => new Promise(done => setTimeout(done, ms));

// Makes an element; children are elements or text, which is only ever text.
export function h(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value == null || value === false) continue;
    if (typeof value === "function") node.addEventListener(name, value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter(child => child != null && child !== false));
  return node;
}

export async function ask(method, path, body) {
  const answer = await fetch(path, { method, body });
  if (!answer.ok) throw new Error((await answer.json().catch(() => null))?.error ?? `the server says ${answer.status}`);
  return answer.json();
}

export function say(text) {
  const line = h("p", {}, text, h("button", { class: "quiet", click: () => line.remove() }, "OK"));
  $("alerts").append(line);
}
