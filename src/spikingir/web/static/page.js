// The page: a list of photographs, one of which is shown; the server restores them one after the other.
// What a strength below 1 gives, y + s (restored - y), is what an opacity of s shows: no new run is needed to see it.

const $ = (id) => document.getElementById(id);
const TILE = 512; // pixels; parts of a large photograph are fetched when they come into view at 100 %
const LOOK = 400; // milliseconds between two questions how far the server is
const AGAIN = 3000; // milliseconds until a busy server, or one that does not answer, is asked again
const LOST = 20; // questions without an answer until it is given up: a phone that wakes has no network for a while
const KEPT = "photographs"; // under this name the tab keeps what it has sent, as phones load pages anew
const TASKS = { denoise: "Noise", dehaze: "Haze" };

const items = [];
let chosen = null;
let about = null;
let busy = false;

// ---------------------------------------------------------------- what the server offers

async function json(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    const silence = new Error("the server does not answer: see whether it still runs, then press Restore again");
    throw Object.assign(silence, { lost: true });
  }
  if (answer.status === 204) return null;
  const said = await answer.json().catch(() => ({}));
  if (answer.ok) return said;
  const error = new Error(said.error ?? `the server answers ${answer.status}`);
  error.status = answer.status;
  throw error;
}

function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
}

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

async function start() {
  const before = remembered(); // before anything is added
  about = await json("/v1/");
  $("version").textContent = about.version;
  $("minutes").textContent = about.limits.minutes;
  $("files").accept = about.suffixes.join(",");
  $("accepted").textContent =
    `PNG, JPEG, TIFF, WebP, BMP; up to ${about.limits.megabytes} MB and ${about.limits.megapixels} megapixels each`;
  const offered = Object.keys(TASKS).filter((task) => about.models.some((model) => model.task === task));
  for (const task of offered) {
    const radio = element("input", { type: "radio", name: "task", value: task, checked: task === offered[0] });
    $("tasks").append(element("label", {}, radio, TASKS[task]));
  }
  $("tasks").hidden = offered.length < 2;
  for (const example of document.querySelectorAll(".example")) example.hidden = !offered.includes(example.dataset.task);
  $("schedule").append(...about.schedules.map((name) => element("option", { value: name, textContent: name === "trained" ? "as trained" : name })));
  offerModels();
  await resume(before);
}

function task() {
  return document.querySelector("[name=task]:checked").value;
}

function offerModels() {
  const models = about.models.filter((model) => model.task === task());
  $("model").replaceChildren(...models.map(({ name, about }) => {
    const text = name === "auto" ? about : `${name}: ${about}`;
    return element("option", { value: name, textContent: text });
  }));
  offerLevel();
}

function offerLevel() {
  $("sigma-field").hidden = $("model").value !== "auto";
}

// What is asked for a photograph: the settings are for those with the task that they show, the others get what is usual.
function wishes(item) {
  const model = item.task === task() ? $("model").value : about.models.find((model) => model.task === item.task).name;
  const asked = new URLSearchParams({ model });
  const level = $("sigma").value.trim();
  const steps = $("time_steps").value.trim();
  if (level && model === "auto") asked.set("sigma", level);
  if (steps) asked.set("time_steps", steps);
  if ($("schedule").value !== about.schedules[0]) asked.set("schedule", $("schedule").value);
  return asked.toString();
}

function todo() {
  return items.filter((item) => item.file && (item.state === "new" || item.state === "failed" || (item.state === "done" && item.asked !== wishes(item))));
}

// ---------------------------------------------------------------- the queue

function add(files, what = task()) {
  const added = [...files].map((file) => ({ file, name: file.name || "photograph", url: URL.createObjectURL(file),
    state: "new", task: what, strength: Number($("strength").value) / 100, stop: new AbortController() }));
  items.push(...added);
  complain("");
  if (added.length) show(added[0]);
}

function remove(item) {
  item.stop.abort();
  forget(item);
  URL.revokeObjectURL(item.url);
  const at = items.indexOf(item);
  items.splice(at, 1);
  show(chosen === item ? items[Math.min(at, items.length - 1)] ?? null : chosen);
  (document.querySelectorAll("#queue .show")[Math.min(at, items.length - 1)] ?? $("files")).focus();
}

function forget(item) {
  if (item.id) json(`/v1/photos/${item.id}`, { method: "DELETE" }).catch(() => {}); // it is gone already
  item.id = null;
}

// A page that is loaded anew, as phones do behind a locked screen, knows what it sent, but has the files no more.
async function resume(kept) {
  const jobs = await Promise.all(kept.map(({ id }) => id && json(`/v1/photos/${id}`).catch(() => null)));
  const found = kept.filter((_, i) => jobs[i]).map((one) => ({ ...one, file: null, url: "", state: "waiting",
    text: "waits", stop: new AbortController() }));
  items.push(...found);
  const unsent = kept.filter(({ id }) => !id).map(({ name }) => name);
  if (unsent.length) complain(`The page was loaded anew. Not yet sent, so choose again: ${unsent.join(", ")}.`);
  if (!found.length) return;
  show(found[0]);
  work();
}

function remembered() {
  try {
    return JSON.parse(sessionStorage.getItem(KEPT)) ?? [];
  } catch {
    return []; // the browser lets no page keep anything
  }
}

function remember() {
  const sent = items.filter(({ state }) => state !== "failed")
    .map(({ id, name, task, strength, asked }) => ({ id, name, task, strength, asked }));
  try {
    sessionStorage.setItem(KEPT, JSON.stringify(sent));
  } catch {} // likewise
}

async function restoreAll() {
  if (!about) return;
  if (!items.length) return complain("Choose a photograph first, or one of the two examples.");
  complain("");
  const idle = !busy && chosen?.file ? [chosen] : []; // nothing is new: the one that is seen, once more
  const next = todo().length ? todo() : idle;
  if (!next.length && !busy) return complain("The page was loaded anew, and has this photograph no more: choose it again.");
  for (const item of next) Object.assign(item, { state: "waiting", asked: wishes(item), error: null, text: "waits" });
  if (next.length && !next.includes(chosen)) show(next[0]);
  drawAll();
  goToPicture();
  work();
}

async function work() {
  if (busy) return;
  busy = true;
  for (let item; (item = items.find(({ state }) => state === "waiting")); ) {
    try {
      await restore(item);
    } catch (error) {
      if (error.name !== "AbortError") Object.assign(item, { state: "failed", error: error.message });
    }
    drawAll(item);
  }
  busy = false;
}

// Where it lies below the list, and out of sight.
function goToPicture() {
  if (window.matchMedia("(max-width: 859px)").matches) document.querySelector(".look").scrollIntoView();
}

async function restore(item) {
  let job = item.file ? await send(item) : await json(`/v1/photos/${item.id}`, { signal: item.stop.signal });
  item.id = job.id;
  item.state = "working";
  for (let unanswered = 0; job.state !== "done" && job.state !== "failed"; ) {
    const before = job.before_it ?? 0;
    const share = Math.floor(100 * job.progress);
    item.done = job.state === "working" && share > 0 ? job.progress : null;
    item.text = unanswered ? "waits: the server does not answer" : before ? `waits: ${before} before it`
      : share > 0 ? `${share} % restored` : "is being restored";
    drawAll(item);
    await pause(unanswered ? AGAIN : LOOK, item);
    try {
      job = await json(`/v1/photos/${item.id}`, { signal: item.stop.signal });
      unanswered = 0;
    } catch (error) {
      if (!error.lost || ++unanswered > LOST) throw error;
    }
  }
  if (job.error) throw new Error(job.error);
  Object.assign(item, { state: "done", report: job.report, url_of: `/v1/photos/${job.id}` });
}

async function send(item) {
  const most = about.limits.megabytes * 2 ** 20;
  if (item.file.size > most) {
    throw new Error(`the file has ${(item.file.size / 2 ** 20).toFixed(1)} MB; at most ${about.limits.megabytes} can be sent: give a smaller one`);
  }
  Object.assign(item, { state: "sending", text: "is being sent", done: null });
  drawAll(item);
  const asked = new URLSearchParams(item.asked);
  asked.set("name", item.name);
  const request = { method: "POST", body: item.file, headers: { "Content-Type": "application/octet-stream" }, signal: item.stop.signal };
  let job = null;
  while (!job) {
    try {
      job = await json(`/v1/photos?${asked}`, request);
    } catch (error) {
      if (error.status !== 503) throw error;
      item.text = "waits: the server is busy with other photographs";
      drawAll(item);
      await pause(AGAIN, item);
    }
  }
  forget(item);
  return job;
}

async function pause(time, item) {
  await new Promise((go) => setTimeout(go, time));
  item.stop.signal.throwIfAborted();
}

// What the server says was removed is so at full strength.
function findingOf(item) {
  const share = Math.round(100 * item.strength);
  return share === 100 ? item.report.finding : item.report.finding.replace(/; removed$/, `; ${share} % of it removed`);
}

function resultOf(item) {
  return `${item.url_of}/result?strength=${item.strength.toFixed(2)}`;
}

// ---------------------------------------------------------------- what is seen

function drawAll(item = chosen) {
  drawQueue();
  if (item === chosen) draw();
}

function drawQueue() {
  remember();
  $("photographs").hidden = !items.length;
  const left = todo().length;
  $("restore").textContent = left > 1 ? `Restore ${left} photographs` : "Restore";
  const entries = items.map((item) => (item.entry ??= entryOf(item)));
  if (entries.length !== $("queue").children.length || entries.some((entry, i) => entry !== $("queue").children[i])) {
    $("queue").replaceChildren(...entries);
  }
  items.forEach(drawEntry);
}

// Made once: what is replaced under a finger takes no click.
function entryOf(item) {
  const shows = element("button", { type: "button", className: "show", onclick: () => { show(item); goToPicture(); } },
    element("span", { className: "name", textContent: item.name }), element("span", { className: "what" }));
  const link = element("a", { className: "small", textContent: "⤓" });
  const out = element("button", { type: "button", className: "small", textContent: "✕", onclick: () => remove(item) });
  out.setAttribute("aria-label", `Remove ${item.name}`);
  return element("li", {}, shows, link, out);
}

function drawEntry(item) {
  const [shows, link] = item.entry.children;
  item.entry.className = item === chosen ? `${item.state} chosen` : item.state;
  shows.setAttribute("aria-pressed", item === chosen);
  shows.lastChild.textContent = { new: "not yet restored", done: item.report && findingOf(item), failed: item.error }[item.state] ?? item.text;
  link.hidden = item.state !== "done";
  if (link.hidden) return;
  link.href = resultOf(item);
  link.download = item.report.file;
  link.setAttribute("aria-label", `Download ${item.report.file}`);
}

function show(item) {
  chosen = item;
  if (item && item.task !== task()) {
    document.querySelector(`[name=task][value=${item.task}]`).checked = true;
    offerModels();
  }
  drawAll();
}

function draw() {
  const item = chosen;
  const done = item?.state === "done";
  const failed = item?.state === "failed";
  const working = item && !["new", "done", "failed"].includes(item.state);
  $("failure").hidden = !failed;
  $("failure").textContent = failed ? (item.error.startsWith(item.name) ? item.error : `${item.name}: ${item.error}`) : "";
  $("working").hidden = !working;
  if (working) {
    $("progress-text").textContent = `${item.name} ${item.text}`;
    if (item.done === null || item.done === undefined) $("progress").removeAttribute("value");
    else $("progress").value = item.done;
  }
  $("status").textContent = done ? `${sentence(findingOf(item))} Done in ${item.report.seconds.toFixed(1)} seconds.` : "";
  $("strength-field").hidden = done && item.report.copied; // there is nothing of which less could be removed
  $("tools").hidden = $("how").hidden = !done;
  $("viewer").classList.toggle("alone", !done);
  drawPictures(item, done);
  if (!done) return void ($("notes").hidden = true);
  $("strength").value = Math.round(100 * item.strength);
  drawStrength();
  const { notes } = item.report;
  $("notes").hidden = !notes.length;
  $("notes").replaceChildren(...notes.map((note) => element("li", { textContent: sentence(note) })));
  drawReport(item.report);
}

function drawPictures(item, done) {
  const key = item && `${item.url} ${done ? item.url_of : item.state === "failed"}`;
  if ($("viewer").dataset.key === key) return;
  $("viewer").dataset.key = key ?? "";
  $("viewer").hidden = true;
  $("empty").hidden = Boolean(item);
  $("empty").textContent = "Your photograph appears here, before and after.";
  $("before").replaceChildren();
  $("after").replaceChildren();
  if (!item) return;
  const before = picture(done ? `${item.url_of}/before.png` : item.url, `${item.name}, before`);
  $("before").append(before);
  if (done) $("after").append(picture(`${item.url_of}/after.png`, `${item.name}, restored`));
  before.onload = () => {
    item.width = done ? item.report.width : before.naturalWidth;
    item.height = done ? item.report.height : before.naturalHeight;
    $("viewer").hidden = false;
    layout();
  };
  before.onerror = () => { // TIFF, mostly, or a damaged file
    $("empty").hidden = item.state === "failed";
    $("empty").textContent = done ? "The picture is there no more: press Restore again."
      : `${item.name} can be shown once it is restored.`;
  };
}

function picture(source, text) {
  return element("img", { className: "whole", alt: text, src: source, draggable: false });
}

function layout() {
  if ($("viewer").hidden) return;
  const full = chosen.state === "done" && document.querySelector("[name=zoom]:checked").value === "full";
  const ratio = window.devicePixelRatio || 1;
  const room = document.querySelector(".look").clientWidth;
  const tall = Math.max(220, 0.7 * window.innerHeight);
  const fit = Math.min(room / chosen.width, tall / chosen.height, 1);
  const scale = full ? 1 / ratio : fit;
  const [width, height] = [chosen.width * scale, chosen.height * scale];
  const seen = Math.min(height, full ? Math.max(chosen.height * fit, 0.6 * window.innerHeight) : height);
  $("viewer").style.width = `${Math.min(width, room)}px`;
  $("viewer").style.setProperty("--tall", `${seen}px`);
  $("pane").style.height = `${seen}px`;
  $("stage").style.width = `${width}px`;
  $("stage").style.height = `${height}px`;
  const entered = full && !$("viewer").classList.contains("full");
  $("viewer").classList.toggle("full", full);
  if (full && Math.max(chosen.width, chosen.height) > about.picture) addTiles(ratio);
  else for (const tile of document.querySelectorAll(".layer .tile")) tile.remove();
  if (entered) $("pane").scrollTo((width - $("pane").clientWidth) / 2, (height - seen) / 2);
  drawCut();
}

function addTiles(ratio) {
  for (const side of ["before", "after"]) {
    for (const tile of $(side).querySelectorAll(".tile")) tile.remove();
    for (let top = 0; top < chosen.height; top += TILE) {
      for (let left = 0; left < chosen.width; left += TILE) {
        const [width, height] = [Math.min(TILE, chosen.width - left), Math.min(TILE, chosen.height - top)];
        const tile = element("img", { className: "tile", alt: "", loading: "lazy", draggable: false });
        Object.assign(tile.style, { left: `${left / ratio}px`, top: `${top / ratio}px`, width: `${width / ratio}px`, height: `${height / ratio}px` });
        tile.src = `${chosen.url_of}/${side}.png?${new URLSearchParams({ left, top, width, height })}`;
        $(side).append(tile);
      }
    }
  }
}

function drawCut() {
  const share = Number($("cut").value);
  const pane = $("pane");
  const at = pane.scrollLeft + (share / 100) * pane.clientWidth;
  $("cut").setAttribute("aria-valuetext", `${share} % before, ${100 - share} % after`);
  $("viewer").style.setProperty("--cut", `${share}%`);
  document.querySelector(".tag.left").hidden = share < 10 && !$("viewer").classList.contains("alone");
  document.querySelector(".tag.right").hidden = share > 90;
  $("after").style.clipPath = `inset(0 0 0 ${at}px)`;
}

function drawStrength() {
  $("after").style.opacity = chosen.strength;
  $("strength-text").textContent = `${Math.round(100 * chosen.strength)} %`;
  const link = $("download");
  link.href = resultOf(chosen);
  link.download = chosen.report.file;
  link.setAttribute("aria-label", `Download ${chosen.report.file}`);
}

function drawReport(report) {
  const many = (number) => number.toLocaleString("en");
  const longest = Math.max(report.snn_mj, report.ann_mj);
  const energy = (spent, kind) => {
    const bar = element("span", { className: `bar ${kind}` });
    bar.style.width = `${(100 * spent) / longest}%`;
    return [`${many(Number(spent.toPrecision(3)))} mJ`, bar];
  };
  const rows = {
    Photograph: [`${report.width} x ${report.height}, ${report.bits} bits`],
    Model: [report.sigma === null ? report.model : `${report.model}, told a noise of ${Number(report.sigma.toPrecision(2))} levels of 255`],
    Removed: [removed(report)],
    "Time steps": [`T = ${report.time_steps}, ${report.schedule}`],
    Spikes: [`${many(report.spikes)}, ${report.spikes_per_neuron.toFixed(2)} per neuron`],
    "Energy, spiking network": energy(report.snn_mj, "snn"),
    "Energy, conventional network": energy(report.ann_mj, "other"),
    "Spiking to conventional": [`${Math.round((100 * report.snn_mj) / report.ann_mj)} %; estimated from the operations alone, as the paper counts them`],
  };
  $("figures").replaceChildren(...Object.entries(rows).map(([name, values]) =>
    element("tr", {}, element("th", { scope: "row", textContent: name }), element("td", {}, ...values))));
  const rates = Object.entries(report.firing_rates);
  const most = Math.max(...rates.map(([, rate]) => rate)) || 1;
  $("rates").replaceChildren(...rates.map(([layer, rate]) => {
    const bar = element("span", { className: "bar" });
    bar.style.width = `${(100 * rate) / most}%`;
    return element("tr", {}, element("th", { scope: "row", textContent: layer }), element("td", {}, rate.toFixed(3), bar));
  }));
}

function removed({ removed_rms, bands }) {
  const parts = Object.entries(bands).filter(([, rms]) => rms !== null).map(([name, rms]) => `${name} ${rms.toFixed(1)}`);
  return `${removed_rms.toFixed(1)} levels of 255, root of the mean square (${parts.join(", ")})`;
}

function complain(text) {
  $("complaint").textContent = text;
}

// ---------------------------------------------------------------- what people do

$("restore").addEventListener("click", restoreAll);
$("tasks").addEventListener("change", () => {
  // what is to be removed from the photograph that is seen, and from all that are not yet restored
  for (const item of items) if (item === chosen || item.state === "new") item.task = task();
  offerModels();
  drawQueue();
});
$("model").addEventListener("change", offerLevel);
$("more").addEventListener("change", drawQueue);
$("cut").addEventListener("input", drawCut);
$("pane").addEventListener("scroll", drawCut);
$("strength").addEventListener("input", () => {
  chosen.strength = Number($("strength").value) / 100;
  drawStrength();
});
$("strength").addEventListener("change", () => drawAll());
for (const choice of document.querySelectorAll("[name=zoom]")) choice.addEventListener("change", layout);
new ResizeObserver(layout).observe(document.querySelector(".look"));

$("files").addEventListener("change", () => {
  add($("files").files);
  $("files").value = ""; // the same file may be chosen again
});
for (const kind of ["dragenter", "dragover"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    document.body.classList.add("over");
  });
}
document.addEventListener("dragleave", (event) => event.relatedTarget ?? document.body.classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  add(event.dataTransfer.files);
});
document.addEventListener("paste", (event) => add(event.clipboardData.files));

for (const example of document.querySelectorAll(".example")) {
  example.addEventListener("click", async () => {
    const answer = await fetch(`/examples/${example.dataset.name}`).catch(() => null);
    if (!answer?.ok) return complain("The example cannot be fetched: see whether the server still runs.");
    add([new File([await answer.blob()], example.dataset.name, { type: "image/jpeg" })], example.dataset.task);
  });
}

// at 100 %, a mouse drags the photograph; fingers and arrow keys move it anyway
$("pane").addEventListener("pointerdown", (event) => {
  if (event.pointerType !== "mouse" || event.button !== 0) return;
  const pane = $("pane");
  const move = (now) => pane.scrollBy(-now.movementX, -now.movementY);
  pane.setPointerCapture(event.pointerId);
  pane.addEventListener("pointermove", move);
  for (const kind of ["pointerup", "pointercancel"]) {
    pane.addEventListener(kind, () => pane.removeEventListener("pointermove", move), { once: true });
  }
});

start().catch((error) => complain(sentence(error.message)));
