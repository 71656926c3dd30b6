// Draws what the server says (GET /state) and asks it for changes. Text from outside is only ever text, never HTML.
import { live, record } from "./camera.js";
import { $, ask, h, pause, say } from "./common.js";

const sending = new Map(); // id of an action, or "query": how many videos are on their way
const drawn = new WeakMap(); // container: id of what it shows, the JSON it was drawn from, and its node
const COLOURS = 8; // of timelines, see page.css
let state, wish; // wish: data-key of what gets the focus once it is drawn

const placed = (node, left, width) => {
  node.style.setProperty("left", `${left}%`);
  node.style.setProperty("width", `${width}%`);
  return node;
};
const clock = s => `${Math.floor(s / 60)}:${(s % 60).toFixed(1).padStart(4, "0")}`;
const told = name => name.replaceAll("_", " ");
const clips = n => `${n} clip${n === 1 ? "" : "s"}`;

// Asking the server

async function tried(work) {
  try { return await work(); } catch (error) { say(error.message); }
}
const change = (method, path, body) => tried(() => ask(method, path, body && JSON.stringify(body)));

async function send(target, files) {
  const path = file => target === "query" ? `query?name=${encodeURIComponent(file.name)}` : `clips/${target}`;
  sending.set(target, (sending.get(target) ?? 0) + files.length);
  draw();
  for (const file of files) {
    try {
      if (file.size > state.limits.upload) throw new Error(`at most ${state.limits.upload / 1e6} MB a video are taken`);
      await ask("PUT", path(file), file);
    } catch (error) {
      say(`${file.name}: ${error.message}`);
    }
    sending.set(target, sending.get(target) - 1);
    draw();
  }
}

function droppable(node, target) {
  const over = on => event => { event.preventDefault(); node.classList.toggle("over", on); };
  node.addEventListener("dragover", over(true));
  node.addEventListener("dragleave", over(false));
  node.addEventListener("drop", event => { over(false)(event); send(target, [...event.dataTransfer.files]); });
  return node;
}

function chooser(target, name) {
  const input = h("input", { type: "file", accept: "video/*,.mkv,.avi,.ts", multiple: true, hidden: true,
    "aria-label": `Videos of ${name}`,
    change: () => { send(target, [...input.files]); input.value = ""; } });
  return [h("button", { "data-key": `files ${target}`, click: () => input.click() }, "Add files"), input];
}

// Drawing: what has not changed keeps its node, so that nothing loses its focus or stops playing

function fill(container, items, make) {
  const before = drawn.get(container) ?? new Map(), now = new Map();
  for (const item of items) {
    const text = JSON.stringify(item), old = before.get(item.id);
    const keep = old && (old.text === text || old.node.querySelector("form.editing"));
    now.set(item.id, keep ? old : { text, node: make(item) });
  }
  const focused = document.activeElement?.dataset.key;
  for (const { node } of before.values()) if (![...now.values()].some(one => one.node === node)) node.remove();
  let at = container.firstElementChild;
  for (const { node } of now.values()) {
    if (node === at) at = at.nextElementSibling; else container.insertBefore(node, at);
  }
  drawn.set(container, now);
  if (focused && document.activeElement === document.body) focusOn(focused);
}

// Returns whether there is something with that data-key, which then has the focus.
function focusOn(key) {
  const found = document.querySelector(`[data-key="${CSS.escape(key)}"]`);
  found?.focus();
  return document.activeElement === found;
}

function clipTile(clip, action) {
  const held = clip.right == null ? null : clip.right ? "right" : "wrong";
  const got = !held ? "not checked" : !clip.right ? `taken for ${told(clip.got)}` :
    action.none ? "seen as unknown" : "recognised";
  const picture = clip.strip ? h("img", { src: clip.strip, alt: "", loading: "lazy" }) :
    h("span", { class: "blank" }, clip.note ?? "…");
  const open = () => play(`${action.name}: ${clip.name}`, `media/${clip.id}`);
  return h("li", { class: "clip" },
    clip.playable ? h("button", { class: "picture", click: open, "data-key": `play ${clip.id}`,
      "aria-label": `Play ${clip.name} of ${action.name}` }, picture) : picture,
    h("span", { class: `held ${held}` }, held ? h("b", { "aria-hidden": "true" }, clip.right ? "✓ " : "✗ ") : null,
      got, h("span", { class: "soft" }, clip.seconds ? ` · ${clip.seconds}\u00a0s` : "")),
    h("button", { class: "quiet", "aria-label": `Remove ${clip.name} of ${action.name}`, title: "Remove",
      click: () => { wish = `card ${action.id}`; change("DELETE", `clips/${clip.id}`); } }, "✕"),
    clip.note && clip.strip ? h("span", { class: "soft wide" }, clip.note) : null);
}

function renaming(action, heading) {
  const input = h("input", { value: action.name, maxlength: 60, "aria-label": `New name of ${action.name}` });
  const back = () => { form.replaceWith(heading); heading.querySelector("button")?.focus(); };
  const form = h("form", { class: "row editing", keydown: event => event.key === "Escape" && back(),
    submit: async event => {
      event.preventDefault();
      if (!await change("PATCH", `actions/${action.id}`, { name: input.value })) return input.focus();
      wish = `rename ${input.value.trim()}`;
      back();
    } }, input, h("button", {}, "Rename"), h("button", { type: "button", click: back }, "Cancel"));
  heading.replaceWith(form);
  input.select();
}

function card(action) {
  const held = action.leave_one_out, more = action.sending;
  const heading = h("div", { class: "row" },
    h("h3", { tabindex: -1, "data-key": `card ${action.id}` }, action.none ? "None of these" : told(action.name)),
    h("span", { class: "soft" }, action.none ? "" : held ? `${held[0]} of ${held[1]} right` :
      clips(action.clips.length)),
    action.none ? null : h("button", { class: "quiet", "data-key": `rename ${action.name}`,
      "aria-label": `Rename ${action.name}`, click: () => renaming(action, heading) }, "Rename"),
    action.none ? null : h("button", { class: "quiet", "aria-label": `Remove ${action.name}`, click: () => {
      wish = action.clips.length ? "undo" : "new";
      change("DELETE", `actions/${action.id}`);
    } }, "Remove"));
  return droppable(h("article", { class: "card drop" }, heading,
    action.none ? h("p", { class: "soft" }, "Clips of other things measure how many of them would be taken for one of "
      + "your actions.") : null,
    h("ul", { class: "clips" }, action.clips.map(clip => clipTile(clip, action))),
    more ? h("p", { class: "soft", role: "status" }, `adding ${clips(more)} …`) : null,
    h("div", { class: "row" },
      h("button", { class: action.clips.length ? null : "main", "data-key": `record ${action.id}`,
        "aria-label": `Record 3 s of ${action.none ? "none of these" : action.name}`,
        click: () => record(action.name, file => send(action.id, [file]), true) }, "Record 3 s"),
      chooser(action.id, action.name))), action.id);
}

function bars(answer, calibrated) {
  return h("ol", { class: "bars" }, answer.ranked.slice(0, 8).map(name => h("li", {}, h("span", {}, told(name)),
    h("span", { class: "bar", "aria-hidden": "true" }, placed(h("i"), 0, 100 * answer.shares[name])),
    h("span", { class: "figure" }, calibrated ? `${Math.round(100 * answer.probabilities[name])} %` : ""))));
}

function shortAnswer(query) {
  const answer = query.answer, calibrated = answer.probabilities !== null;
  return [h("p", { class: "answer" }, answer.unknown ? "Unknown" : told(answer.answer)),
    answer.unknown ? h("p", { class: "soft" }, `None of your actions; the nearest is ${told(answer.ranked[0])}.`) :
      answer.margin === null ? h("p", { class: "soft" }, "The nearest of your actions. Whether it is one of them at "
        + "all cannot be told yet: see above.") : null,
    bars(answer, calibrated),
    calibrated ? null : h("p", { class: "soft" }, "Bars without figures: more clips are needed to measure how sure "
      + "this is."),
    h("img", { class: "frames", src: `strip/${query.id}`,
      alt: `The ${answer.frames_s.length} frames that were looked at` }),
    h("p", { class: "soft" }, `Frames at ${answer.frames_s.map(s => s.toFixed(1)).join(", ")} s.`),
    keeping(query)];
}

// The loop's other half: what was answered wrongly becomes an example.
function keeping(query) {
  const select = h("select", {}, query.actions.map(({ id, name, none }) =>
    h("option", { value: id, selected: name === query.answer.answer }, none ? "none of these" : told(name))));
  return h("form", { class: "row", submit: event => {
    event.preventDefault();
    change("POST", `query/${query.id}/keep`, { action: select.value });
  } }, h("label", {}, "Add it to ", select), h("button", {}, "Add"));
}

function longAnswer(query) {
  const answer = query.answer, segments = answer.segments ?? answer.windows;
  const names = query.actions.map(action => action.name);
  const video = h("video", { src: `media/${query.id}`, controls: true, playsinline: true, preload: "metadata",
    "aria-label": query.name });
  const head = h("i", { class: "now", "aria-hidden": "true" });
  video.addEventListener("timeupdate", () => placed(head, 100 * video.currentTime / query.seconds, 0));
  const part = one => ({ class: `c${names.indexOf(one.action) % COLOURS}`, "data-start": one.start,
    click: () => { video.currentTime = one.start; } });
  const label = one => `${clock(one.start)} to ${clock(one.end)}`;
  const line = h("div", { class: "line" }, segments.map(one => placed(h("button", { ...part(one), tabindex: -1,
    title: `${told(one.action)}, ${label(one)}`, "aria-hidden": "true" }), 100 * one.start / query.seconds,
  100 * (one.end - one.start) / query.seconds)), head);
  const counts = Object.entries(answer.counts).map(([name, [n, seconds]]) =>
    `${told(name)}: ${n}\u00a0time${n === 1 ? "" : "s"}, ${seconds.toFixed(1)}\u00a0s`);
  return [video, line, answer.segments ? h("p", {}, counts.join(" · ") || "None of your actions was seen.") :
    h("p", { class: "soft" }, "The nearest action of each stretch. Which of them are one of your actions at all "
      + "cannot be told yet: see above."),
  answer.segments ? h("ol", { class: "segments" }, segments.map(one => h("li", {},
    h("button", { ...part(one), "aria-label": `Go to ${told(one.action)}, ${label(one)}` },
      h("b", {}, told(one.action)), ` ${label(one)}`),
    h("button", { class: "quiet", "aria-label": `${label(one)} is none of your actions`,
      click: () => change("POST", `query/${query.id}/none`, { start: one.start, end: one.end }) },
    "None of them")))) : null];
}

function queryCard(query) {
  const answer = query.answer;
  const content = !answer ? [h("p", { class: "soft" }, "Watching …")] : answer.error ?
    [h("p", {}, `Cannot be answered: ${answer.error}`)] : answer.windows ? longAnswer(query) : shortAnswer(query);
  return h("article", { class: "card query" },
    h("div", { class: "row" }, h("h3", { tabindex: -1 }, query.name),
      h("span", { class: "soft" }, `${query.seconds.toFixed(1)} s`),
      h("button", { class: "quiet", "aria-label": `Forget ${query.name}`,
        click: () => change("DELETE", `query/${query.id}`) }, "Forget")),
    query.stale || answer?.error ? h("p", { class: "row" }, query.stale ? "Your actions have changed since." : "",
      h("button", { "data-key": `again ${query.id}`, click: () => change("POST", `query/${query.id}`) },
        "Ask again")) : null,
    content, [...(answer?.notes ?? []), answer?.same_as_support ? `The same video as ${answer.same_as_support}.` : null]
      .filter(Boolean).map(note => h("p", { class: "soft" }, note)));
}

function play(title, source) {
  const video = $("player").querySelector("video");
  $("player-title").textContent = title;
  video.src = source;
  $("player").showModal();
  video.play().catch(() => {});
}

function draw() {
  const { sentence, busy } = state;
  $("folder").textContent = state.folder;
  $("sentence").className = sentence.kind;
  if ($("headline").textContent !== sentence.text) $("headline").textContent = sentence.text;
  $("more").hidden = !sentence.more && !state.warnings.length;
  $("words").replaceChildren(...[sentence.more, ...state.warnings].filter(Boolean).map(text => h("p", {}, text)));
  $("busy").hidden = !busy;
  $("busy").firstElementChild.textContent = busy ? `${busy.text} …` : "";
  $("busy").lastElementChild.hidden = busy?.share == null;
  $("busy").lastElementChild.value = busy?.share ?? 0;
  $("undo").hidden = !state.undo;
  $("undo").textContent = state.undo ? `Undo: ${state.undo}` : "";
  const more = item => ({ ...item, sending: sending.get(item.id) ?? 0 });
  fill($("actions"), state.actions.map(more), card);
  fill($("none"), [{ ...more(state.none), none: true }], card);
  const actions = [...state.actions, { ...state.none, none: true }].map(({ id, name, none }) => ({ id, name, none }));
  fill($("queries"), state.queries.map(query => ({ ...query, actions })), queryCard);
  const count = sending.get("query");
  $("asking").hidden = !count;
  $("asking").textContent = count ? `sending ${count} …` : "";
  $("model").textContent = state.model;
  $("threshold").textContent = state.threshold ?? "";
  $("pack").hidden = !state.ready;
  for (const link of document.querySelectorAll(".result")) link.hidden = !state.queries.some(query => query.answer);
  if (wish && focusOn(wish)) wish = undefined;
}

async function follow() {
  for (let version = ""; ;) {
    try {
      const answer = await fetch(`state?after=${version}`);
      if (answer.status === 403) {
        return say("This page's server has ended. Open the address that the terminal shows now.");
      }
      state = await answer.json();
      version = state.version;
    } catch {
      await pause(1000);
      continue;
    }
    draw();
  }
}

history.replaceState(null, "", "/"); // the address bar need not show the secret
for (const name of ["dragover", "drop"]) addEventListener(name, event => event.preventDefault());
droppable($("ask"), "query");
$("choose").addEventListener("click", () => $("files").click());
$("files").addEventListener("change", () => { send("query", [...$("files").files]); $("files").value = ""; });
$("record").addEventListener("click", () => record("What is this?", file => send("query", [file]), false));
$("live").addEventListener("click", () => live(() => state));
$("undo").addEventListener("click", () => change("POST", "undo"));
$("player-close").addEventListener("click", () => $("player").close());
$("player").addEventListener("close", () => $("player").querySelector("video").removeAttribute("src"));
$("new").addEventListener("submit", async event => {
  event.preventDefault();
  const made = await change("POST", "actions", { name: $("name").value });
  if (!made) return;
  $("name").value = "";
  wish = `record ${made.id}`;
});
follow();
