// The worklist: new examinations appear by themselves; arrows move, Enter opens, "v" opens the viewer.

const EVERY_MS = 5000;
const MOST_ROWS = 200; // a longer list is somebody looking back: leave it still
const live = document.getElementById("live");

function links() {
  return [...document.querySelectorAll("#rows a.open")];
}

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const all = links();
  const here = all.indexOf(document.activeElement);
  const inSearch = document.activeElement?.id === "q";
  if (event.key === "ArrowDown" && (here >= 0 || inSearch || document.activeElement === document.body)) {
    event.preventDefault();
    all[Math.min(here + 1, all.length - 1)]?.focus();
  } else if (event.key === "ArrowUp" && here >= 0) {
    event.preventDefault();
    (here === 0 ? document.getElementById("q") : all[here - 1]).focus();
  } else if (event.key === "v" && here >= 0) {
    location.href = all[here].dataset.viewer;
  } else if (event.key === "Enter" && inSearch && all.length) {
    event.preventDefault();
    all[0].focus();
  }
});

function state(fine) {
  live.classList.toggle("off", !fine);
  live.querySelector("span").textContent = fine ? live.dataset.fine : live.dataset.stale;
}

let seen = "";
async function look() {
  const shown = links().length;
  const query = document.getElementById("shown")?.dataset.query ?? "";
  if (document.hidden || shown > MOST_ROWS || document.querySelector(".htmx-request")) return;
  const known = new Set([...document.querySelectorAll("#rows tr")].map((row) => row.id));
  const headers = { "HX-Request": "true" };
  if (seen.startsWith(`${query} `)) headers["If-None-Match"] = seen.slice(query.length + 1);
  const answer = await fetch(`/worklist/live?${query}&shown=${shown}`, { headers });
  if (answer.status === 304) return;
  if (answer.redirected || answer.status === 401) location.reload();
  if (!answer.ok) throw new Error(String(answer.status));
  const text = await answer.text();
  if (query !== document.getElementById("shown")?.dataset.query) return; // another search since
  seen = `${query} ${answer.headers.get("ETag") ?? ""}`;
  if (shown === 0) {
    if (text.includes("<tr")) location.reload(); // from the empty picture to a table
    return;
  }
  await htmx.swap({ target: "#rows", swap: "innerMorph", text });
  for (const row of document.querySelectorAll("#rows tr")) row.classList.toggle("fresh", !known.has(row.id));
}

async function forever() {
  try {
    await look();
    state(true);
  } catch {
    state(false);
  }
  setTimeout(forever, EVERY_MS);
}
setTimeout(forever, EVERY_MS);

// What was typed before the scripts had come, or kept by the browser on going back, is searched too.
addEventListener("load", () => {
  const field = document.getElementById("q");
  if (field.value !== field.defaultValue) htmx.trigger("#search", "submit");
});
