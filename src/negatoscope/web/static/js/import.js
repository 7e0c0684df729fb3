// Files, folders and ZIP archives to STOW-RS, one object a request, several at once, each with its own answer.

import { entries } from "./zip.js";

const AT_ONCE = 4;
const TRIES = 3;
const ROWS_KEPT = 150; // of objects that went well; those refused all stay
const queue = document.getElementById("queue");
const list = document.getElementById("uploads");
const words = JSON.parse(queue.dataset.words);
const waiting = [];
const running = new Set();
const tally = { found: 0, stored: 0, held: 0, refused: 0, skipped: 0 };
const wellDone = [];
let stopped = false;

function say(text, values) {
  return text.replace(/\{(\w+)\}/g, (_whole, name) => values[name]);
}

function report() {
  const ended = tally.stored + tally.held + tally.refused + tally.skipped;
  document.getElementById("total").value = tally.found ? ended / tally.found : 0;
  document.getElementById("summary").textContent = say(words.summary, tally);
  const busy = ended < tally.found && !stopped;
  document.getElementById("stop").hidden = !busy;
  queue.toggleAttribute("data-finished", !busy);
}

function row(name) {
  const made = document.createElement("div");
  made.className = "upload";
  const label = document.createElement("span");
  label.className = "mono clip";
  label.textContent = name;
  const bar = document.createElement("progress");
  bar.max = 1;
  bar.value = 0;
  bar.setAttribute("aria-label", name);
  const state = document.createElement("span");
  state.className = "state";
  state.textContent = words.sending;
  made.append(label, bar, state);
  list.prepend(made);
  return {
    progress(part) { bar.value = part; },
    end(kind, why) {
      bar.value = 1;
      bar.className = kind === "stored" ? "good" : kind === "refused" ? "bad" : "";
      state.textContent = words[kind];
      made.dataset.kind = kind;
      tally[kind] += 1;
      if (why) {
        const reason = document.createElement("span");
        reason.className = "why";
        reason.textContent = why;
        made.append(reason);
      } else {
        wellDone.push(made);
        if (wellDone.length > ROWS_KEPT) wellDone.shift().remove();
      }
      report();
    },
  };
}

async function looksLikeDicom(blob) {
  const head = new DataView(await blob.slice(0, 132).arrayBuffer());
  if (head.byteLength === 132 && head.getUint32(128) === 0x4449434d) return true;
  // written before 1993: no preamble; begins with group 2 or group 8
  return head.byteLength >= 8 && [0x0002, 0x0008].includes(head.getUint16(0, true)) && head.getUint16(2, true) < 0x20;
}

function send(blob, progress) {
  const boundary = `negatoscope-${crypto.randomUUID()}`;
  const body = new Blob([`--${boundary}\r\nContent-Type: application/dicom\r\n\r\n`, blob, `\r\n--${boundary}--\r\n`]);
  return new Promise((resolve) => {
    const request = new XMLHttpRequest();
    request.open("POST", "/dicom-web/studies");
    request.setRequestHeader("Content-Type", `multipart/related; type="application/dicom"; boundary=${boundary}`);
    request.setRequestHeader("Accept", "application/dicom+json");
    request.setRequestHeader("X-CSRF-Token", queue.dataset.csrf);
    request.upload.addEventListener("progress", (event) => progress(event.loaded / event.total));
    request.addEventListener("loadend", () => resolve(request));
    request.send(body);
  });
}

function numberIn(answer, sequence, tag) {
  return answer?.[sequence]?.Value?.[0]?.[tag]?.Value?.[0];
}

/** [kind, why] of a STOW answer: PS3.18 table 10.5.3-1 and 10.5.3-2. */
function outcome(request) {
  let answer = null;
  try { answer = JSON.parse(request.responseText); } catch { /* a proxy's page */ }
  if (Array.isArray(answer)) answer = answer[0];
  const failure = numberIn(answer, "00081198", "00081197");
  if (failure !== undefined) return ["refused", words.reasons[failure] ?? say(words.code, { code: failure.toString(16).toUpperCase().padStart(4, "0") })];
  const warning = numberIn(answer, "00081199", "00081196");
  if (request.status < 300) return warning === undefined ? ["stored", ""] : ["held", words.warned];
  return ["refused", words.statuses[request.status] ?? say(words.status, { status: request.status || "—" })];
}

async function one(item) {
  let blob;
  try {
    blob = await item.open();
    if (/(^|\/)DICOMDIR$/i.test(item.name)) {
      row(item.name).end("skipped", words.index);
      return;
    }
    if (!(await looksLikeDicom(blob))) {
      row(item.name).end("skipped", words.foreign);
      return;
    }
  } catch (error) {
    row(item.name).end("refused", words.zips[error.message] ?? words.unreadable);
    return;
  }
  const line = row(item.name);
  let request;
  for (let attempt = 1; attempt <= TRIES; attempt += 1) {
    request = await send(blob, line.progress);
    if (request.status !== 0 && request.status !== 503) break;
    await new Promise((resolve) => setTimeout(resolve, 1000 * attempt));
  }
  line.end(...outcome(request));
}

function pump() {
  while (!stopped && running.size < AT_ONCE && waiting.length) {
    const work = one(waiting.shift()).finally(() => { running.delete(work); pump(); });
    running.add(work);
  }
}

async function add(name, blob) {
  queue.hidden = false;
  stopped = false;
  if (/\.zip$/i.test(name)) {
    try {
      for await (const entry of entries(blob)) enqueue({ name: `${name} › ${entry.name}`, open: entry.open });
    } catch (error) {
      tally.found += 1;
      row(name).end("refused", words.zips[error.message] ?? words.unreadable);
    }
  } else {
    enqueue({ name, open: async () => blob });
  }
}

function enqueue(item) {
  tally.found += 1;
  waiting.push(item);
  report();
  pump();
}

async function walk(entry) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    await add(entry.fullPath.replace(/^\//, ""), file);
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    const batch = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!batch.length) return;
    for (const child of batch) await walk(child);
  }
}

const drop = document.getElementById("drop");
for (const kind of ["dragenter", "dragover"]) {
  drop.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.add("over"); });
}
for (const kind of ["dragleave", "drop"]) {
  drop.addEventListener(kind, () => drop.classList.remove("over"));
}
drop.addEventListener("drop", async (event) => {
  event.preventDefault();
  const dropped = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  for (const entry of dropped) await walk(entry);
});
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => event.preventDefault());

for (const name of ["files", "folder"]) {
  const input = document.getElementById(name);
  document.getElementById(`choose-${name}`).addEventListener("click", () => input.click());
  input.addEventListener("change", async () => {
    for (const file of input.files) await add(file.webkitRelativePath || file.name, file);
    input.value = "";
  });
}
document.getElementById("stop").addEventListener("click", () => {
  stopped = true;
  tally.found -= waiting.length;
  waiting.length = 0;
  report();
});
addEventListener("beforeunload", (event) => { if (running.size) event.preventDefault(); });
