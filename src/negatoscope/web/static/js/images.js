// The light viewer: frames rendered by the server, shown as plain images. No WebGL, no library.
// Without this script the page still works: its arrows and windows are links.

const stage = document.getElementById("stage");
const frames = JSON.parse(document.getElementById("frames").textContent);
const slider = document.getElementById("slider");
const KEEP = 48; // images held decoded; a phone has little memory
const AHEAD = 6;

const places = []; // [instance UID, frame number from 1]
for (const [instance, count] of frames) {
  for (let frame = 1; frame <= count; frame += 1) places.push([instance, frame]);
}

let index = Number(stage.dataset.index);
let windowValue = stage.dataset.window;
let windowKey = new URLSearchParams(location.search).get("window") ?? "own";
let heading = 1; // which way the reader goes: what to fetch first
let shown = document.getElementById("image");
let timer = null;
const held = new Map(); // address -> Promise of a decoded image

const view = { scale: 1, x: 0, y: 0, brightness: 100, contrast: 100, invert: false };

function address(place) {
  const [instance, frame] = places[place];
  const base = `/dicom-web/studies/${stage.dataset.study}/series/${stage.dataset.series}`;
  const query = new URLSearchParams({ viewport: "1024,1024" });
  if (windowValue) query.set("window", windowValue);
  return `${base}/instances/${instance}/frames/${frame}/rendered?${query}`;
}

function load(place) {
  const key = address(place);
  let promise = held.get(key);
  if (promise) {
    held.delete(key); // move to the young end
  } else {
    const image = new Image();
    image.draggable = false;
    image.src = key;
    promise = image.decode().then(() => image);
    promise.catch(() => held.delete(key)); // a failure may pass: try again next time
  }
  held.set(key, promise);
  while (held.size > KEEP) held.delete(held.keys().next().value);
  return promise;
}

function apply() {
  shown.style.transform = `translate(${view.x}px, ${view.y}px) scale(${view.scale})`;
  shown.style.filter = `brightness(${view.brightness}%) contrast(${view.contrast}%)${view.invert ? " invert(1)" : ""}`;
  stage.classList.toggle("zoomed", view.scale > 1);
  document.getElementById("zoom").textContent = view.scale === 1 ? "" : `×${view.scale.toFixed(1)}`;
}

let wanted = index;
async function show(place) {
  if (!places.length) return;
  place = Math.max(0, Math.min(places.length - 1, place));
  if (place !== index) heading = place > index ? 1 : -1;
  wanted = index = place;
  slider.value = place + 1;
  document.getElementById("position").textContent = `${place + 1} / ${places.length}`;
  const key = address(place);
  stage.classList.toggle("busy", true);
  const failure = document.getElementById("failure");
  try {
    const image = await load(place);
    if (wanted !== place || address(place) !== key) return; // the reader has moved on
    image.id = "image";
    image.alt = shown.alt.replace(/\d+(?=\D+\d+\D*$)/, String(place + 1));
    if (image !== shown) {
      shown.replaceWith(image);
      shown = image;
    }
    shown.hidden = false;
    failure.hidden = true;
    apply();
  } catch {
    if (wanted !== place) return;
    shown.hidden = true;
    failure.textContent = stage.dataset.failed;
    failure.hidden = false;
    return;
  } finally {
    if (wanted === place) stage.classList.remove("busy");
  }
  for (let step = 1; step <= AHEAD; step += 1) {
    const next = place + heading * step;
    if (next >= 0 && next < places.length) load(next).catch(() => {});
  }
  if (place - heading >= 0 && place - heading < places.length) load(place - heading).catch(() => {});
  remember();
}

let rememberLater = 0;
function remember() {
  clearTimeout(rememberLater);
  rememberLater = setTimeout(() => {
    history.replaceState(null, "", `?${new URLSearchParams({ window: windowKey, i: index + 1 })}`);
  }, 400);
}

// Cine ------------------------------------------------------------------------------------------
const cine = document.getElementById("cine");
function setCine(on) {
  cine.setAttribute("aria-pressed", String(on));
  cine.querySelector("span").textContent = on ? stage.dataset.pause : stage.dataset.play;
  const use = cine.querySelector("use");
  use.setAttribute("href", use.getAttribute("href").replace(/#.*/, on ? "#pause" : "#play"));
  clearTimeout(timer);
  timer = null;
  if (on) beat();
}
function beat() {
  const started = performance.now();
  timer = setTimeout(async () => {
    await show((index + 1) % places.length); // slower than asked rather than skipping images
    if (timer !== null) beat();
    cine.dataset.rate = (1000 / (performance.now() - started)).toFixed(1);
  }, 1000 / Number(document.getElementById("speed").value));
}

// Zoom and position -----------------------------------------------------------------------------
function zoom(factor, x = stage.clientWidth / 2, y = stage.clientHeight / 2) {
  const scale = Math.max(1, Math.min(12, view.scale * factor));
  const change = scale / view.scale;
  const left = x - stage.clientWidth / 2;
  const top = y - stage.clientHeight / 2;
  view.x = scale === 1 ? 0 : left - (left - view.x) * change;
  view.y = scale === 1 ? 0 : top - (top - view.y) * change;
  view.scale = scale;
  bound();
  apply();
}
function bound() {
  const widest = (stage.clientWidth * (view.scale - 1)) / 2;
  const tallest = (stage.clientHeight * (view.scale - 1)) / 2;
  view.x = Math.max(-widest, Math.min(widest, view.x));
  view.y = Math.max(-tallest, Math.min(tallest, view.y));
}
function resetView() {
  Object.assign(view, { scale: 1, x: 0, y: 0, brightness: 100, contrast: 100, invert: false });
  document.getElementById("brightness").value = 100;
  document.getElementById("contrast").value = 100;
  document.getElementById("invert").checked = false;
  apply();
}

// One finger: scroll through the series, or move when zoomed. Two fingers: zoom. Two taps: zoom there.
const fingers = new Map();
let startIndex = 0;
let startY = 0;
let spread = 0;
let tapped = 0;
function distance() {
  const [a, b] = [...fingers.values()];
  return Math.hypot(a.x - b.x, a.y - b.y);
}
function middle() {
  const box = stage.getBoundingClientRect();
  const [a, b] = [...fingers.values()];
  return [(a.x + b.x) / 2 - box.left, (a.y + b.y) / 2 - box.top];
}
stage.addEventListener("pointerdown", (event) => {
  if (event.button !== 0) return;
  stage.setPointerCapture(event.pointerId);
  fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
  startIndex = index;
  startY = event.clientY;
  if (fingers.size === 2) spread = distance();
});
stage.addEventListener("pointermove", (event) => {
  const before = fingers.get(event.pointerId);
  if (!before) return;
  fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
  if (fingers.size === 2) {
    const now = distance();
    zoom(now / spread, ...middle());
    spread = now;
  } else if (view.scale > 1) {
    view.x += event.clientX - before.x;
    view.y += event.clientY - before.y;
    bound();
    apply();
  } else if (fingers.size === 1 && places.length > 1) {
    const step = Math.max(3, Math.min(24, stage.clientHeight / places.length));
    const place = startIndex + Math.round((event.clientY - startY) / step);
    if (place !== index) show(place);
  }
});
function lift(event) {
  if (!fingers.delete(event.pointerId)) return;
  startIndex = index;
  startY = [...fingers.values()][0]?.y ?? 0;
  const now = performance.now();
  if (event.type === "pointerup" && fingers.size === 0 && event.pointerType !== "mouse") {
    if (now - tapped < 300) doubleTap(event);
    tapped = now;
  }
}
function doubleTap(event) {
  const box = stage.getBoundingClientRect();
  zoom(view.scale > 1 ? 1 / view.scale : 2.5, event.clientX - box.left, event.clientY - box.top);
}
stage.addEventListener("pointerup", lift);
stage.addEventListener("pointercancel", lift);
stage.addEventListener("dblclick", doubleTap);
stage.addEventListener("wheel", (event) => {
  event.preventDefault();
  const box = stage.getBoundingClientRect();
  if (event.ctrlKey) zoom(event.deltaY < 0 ? 1.15 : 1 / 1.15, event.clientX - box.left, event.clientY - box.top);
  else if (places.length > 1) show(index + Math.sign(event.deltaY));
}, { passive: false });
addEventListener("resize", () => { bound(); apply(); });

// Controls --------------------------------------------------------------------------------------
function setWindow(link) {
  windowValue = link.dataset.value;
  windowKey = link.dataset.key;
  for (const other of document.querySelectorAll(".im-chip")) other.toggleAttribute("aria-current", false);
  link.setAttribute("aria-current", "true");
  document.getElementById("window-label").textContent = link.dataset.label;
  show(index);
}

if (places.length) {
  slider.addEventListener("input", () => show(Number(slider.value) - 1));
  document.getElementById("previous").addEventListener("click", (event) => { event.preventDefault(); show(index - 1); });
  document.getElementById("next").addEventListener("click", (event) => { event.preventDefault(); show(index + 1); });
  cine.addEventListener("click", () => setCine(timer === null));
  document.getElementById("zoom-in").addEventListener("click", () => zoom(1.4));
  document.getElementById("zoom-out").addEventListener("click", () => zoom(1 / 1.4));
  document.getElementById("reset").addEventListener("click", resetView);
  const opener = document.getElementById("tune-open");
  opener.addEventListener("click", () => {
    const panel = document.getElementById("tune");
    panel.hidden = !panel.hidden;
    opener.setAttribute("aria-expanded", String(!panel.hidden));
  });
  for (const name of ["brightness", "contrast"]) {
    document.getElementById(name).addEventListener("input", (event) => { view[name] = Number(event.target.value); apply(); });
  }
  document.getElementById("invert").addEventListener("change", (event) => { view.invert = event.target.checked; apply(); });
  for (const link of document.querySelectorAll(".im-chip")) {
    link.addEventListener("click", (event) => { event.preventDefault(); setWindow(link); });
  }
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const target = event.target;
    if (target.matches("select")) return;
    if (target.matches("input[type=range]") && event.key.startsWith("Arrow")) return; // its own keys
    const press = {
      ArrowUp: () => show(index - 1),
      ArrowLeft: () => show(index - 1),
      PageUp: () => show(index - 10),
      ArrowDown: () => show(index + 1),
      ArrowRight: () => show(index + 1),
      PageDown: () => show(index + 10),
      Home: () => show(0),
      End: () => show(places.length - 1),
      " ": () => (target.matches("button, a, input") ? null : setCine(timer === null)),
      c: () => setCine(timer === null),
      "+": () => zoom(1.25),
      "-": () => zoom(0.8),
      r: resetView,
      i: () => document.getElementById("invert").click(),
    }[event.key];
    const presets = document.querySelectorAll(".im-chip");
    if (press) {
      if (press() !== null) event.preventDefault();
    } else if (/^[1-9]$/.test(event.key) && presets[event.key - 1]) {
      setWindow(presets[event.key - 1]);
    }
  });
  document.querySelector('.im-series [aria-current="true"]')?.scrollIntoView({ block: "nearest", inline: "center" });
  show(index);
}
