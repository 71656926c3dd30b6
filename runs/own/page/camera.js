// Records a few seconds of the webcam and hands them on; or watches on and on, and says what it sees.
import { $, ask, pause } from "./common.js";

const SECONDS = 3, COUNT = 3;
const KINDS = ["video/mp4;codecs=avc1", "video/mp4", "video/webm;codecs=vp9", "video/webm"];
let stream = null, kept = null, stays = false, number = 0, round = 0; // round: grows as the dialog opens or closes

const words = text => { $("camera-words").textContent = text; };

async function open(title) {
  round += 1;
  $("camera-title").textContent = title;
  $("count").textContent = "";
  words("Your browser asks for the camera …");
  $("camera").showModal();
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 640 }, height: { ideal: 480 } } });
    $("preview").srcObject = stream;
    await $("preview").play();
    words("");
    return true;
  } catch (error) {
    words(`No camera can be used (${error.message}). Choose or drop files instead.`);
    return false;
  }
}

function close() {
  round += 1;
  for (const track of stream?.getTracks() ?? []) track.stop();
  stream = null;
  $("preview").srcObject = null;
}

// Returns a File of so many seconds of the camera; null where the dialog was closed meanwhile.
function taken(seconds, name) {
  const mine = round, type = KINDS.find(kind => MediaRecorder.isTypeSupported(kind)), parts = [];
  const recorder = new MediaRecorder(stream, { mimeType: type, videoBitsPerSecond: 2500000 });
  return new Promise(done => {
    recorder.ondataavailable = event => parts.push(event.data);
    recorder.onstop = () => done(mine === round ? new File(parts, name, { type }) : null);
    recorder.onerror = () => done(null);
    recorder.start();
    setTimeout(() => recorder.state !== "inactive" && recorder.stop(), 1000 * seconds);
  });
}

async function take() {
  if (!stream) return;
  const mine = round;
  $("again").disabled = true;
  for (let left = COUNT; left; left -= 1) {
    $("count").textContent = left;
    await pause(700);
    if (mine !== round) return;
  }
  $("count").textContent = "● recording";
  const file = await taken(SECONDS, `recording ${number += 1}`);
  if (!file) return;
  $("count").textContent = "";
  $("again").disabled = false;
  $("again").textContent = "Record another";
  $("again").focus();
  if (stays) words("Kept. Record another, or you are done."); else $("camera").close();
  kept(file);
}

// Records one clip after another while the dialog stays open, or one; each goes to keep(file).
export async function record(title, keep, stay) {
  [kept, stays] = [keep, stay];
  $("again").hidden = false;
  $("again").textContent = `Record ${SECONDS} s`;
  if (await open(title)) take();
}

async function answered(current, id, mine) {
  while (mine === round) {
    const query = current().queries.find(one => one.id === id);
    if (query?.answer) return query.answer;
    await pause(100);
  }
  return null;
}

// Watches stretches as long as a typical clip, one after another, and shows the last answer with its age.
export async function live(current) {
  $("again").hidden = true;
  if (!await open("Live")) return;
  const mine = round, seconds = Math.min(Math.max(current().typical ?? SECONDS, 1), 10);
  let shown = null, every = 0;
  const clock = setInterval(() => {
    if (mine !== round) return clearInterval(clock);
    const age = shown ? (Date.now() - shown) / 1000 : 0;
    words(!shown ? "Watching …" : `${age.toFixed(0)} s ago${every ? `; one answer every ${every.toFixed(0)} s` : ""}`);
  }, 500);
  let file = await taken(seconds, "live");
  while (mine === round && file) {
    const begun = Date.now(), next = taken(seconds, "live"); // the camera goes on while the model is at work
    try {
      const { id } = await ask("PUT", "query?name=live", file);
      const answer = await answered(current, id, mine);
      if (answer) $("count").textContent = answer.error ? "…" : answer.unknown ? "unknown" : answer.answer ?? "…";
      await ask("DELETE", `query/${id}`);
      shown = Date.now();
    } catch (error) {
      if (mine === round) words(error.message);
    }
    file = await next;
    every = (Date.now() - begun) / 1000;
  }
}

$("again").addEventListener("click", take);
$("camera-close").addEventListener("click", () => $("camera").close());
$("camera").addEventListener("close", close);
