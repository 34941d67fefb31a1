"use strict";

// Shows the stream, whose format is in page/__init__.py.
const plot = new Plot(byId("plot"));
const OUTAGE = 3; // seconds without a new frame after which the page no longer claims to be live
const LOST = 5000; // ms without an update, of which there is at least one a second: the connection is lost
const RETRY = [500, 1000, 2000, 5000, 10000]; // ms
const SHADE = [255, 0, 160]; // the trust shade's colour; the residual decides its opacity
const OPACITY = 0.75; // at most

const STATUS = {
  connecting: "connecting",
  live: "live",
  waiting: "waiting for frames",
  out: "the camera is out: trying again", // from the start; the warnings tell why
  outage: "no frame for",
  reconnecting: "connection lost, retrying",
  ended: "the run has ended",
};

function setStatus(name, detail = "") {
  byId("status-detail").textContent = detail;
  if (document.body.dataset.status === name) return; // else a screen reader would read it again
  document.body.dataset.status = name;
  byId("status-text").textContent = STATUS[name];
}

// The server's word on the camera. The page stays as it is through an outage, and goes on with the next frame.
function showAge(age) {
  if (age === null) setStatus(trouble ? "out" : "waiting");
  else if (age > Math.max(OUTAGE, 5e-3 * interval)) setStatus("outage", ` ${number(age)} s`);
  else setStatus("live");
}

// Pictures are decoded off the main thread. Meanwhile, only the newest update waits.
let waiting = null;
let busy = false;
let shown = 0;

async function take(update) {
  waiting = update;
  if (busy) return;
  busy = true;
  try {
    while (waiting) {
      const next = waiting;
      waiting = null;
      await show(next);
    }
  } finally {
    busy = false;
  }
}

function parse(message) {
  const length = new DataView(message).getUint32(0);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(message, 4, length)));
  let at = 4 + length;
  const pictures = Object.entries(header.pictures).map(([name, size]) => [name, new Uint8Array(message, (at += size) - size, size)]);
  return { header, pictures };
}

// All pictures of an update are drawn together, because they belong to one moment.
async function show({ header, pictures }) {
  const decoded = pictures.map(async ([name, data]) => [name, await createImageBitmap(new Blob([data], { type: "image/jpeg" }))]);
  const images = new Map(await Promise.all(decoded));
  byId("warming").hidden = !["errors", "film"].includes(view.name) || images.has("due") || images.has("film_due");
  if (!images.size) return;
  const { width, height } = images.get("now") ?? images.get("late") ?? images.get("real") ?? images.get("film_due");
  view.shape(width, height);
  for (const name of view.pictures) {
    if (name === "trust") shade(images.get(name));
    else draw(byId(name), images.get(name), width, height);
  }
  if (!view.pictures.includes("trust")) shade(undefined);
  for (const image of images.values()) image.close();
  showMoment(header);
  document.body.dataset.frames = ++shown;
  document.body.dataset.index = header.index;
  document.body.dataset.concealed = header.concealed ?? false;
}

function draw(canvas, image, width, height) {
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const pen = canvas.getContext("2d");
  if (image) pen.drawImage(image, 0, 0);
  else pen.clearRect(0, 0, width, height);
}

// The residual becomes the opacity of one colour. The small canvas is stretched over the picture.
function shade(image) {
  const canvas = byId("trust");
  canvas.hidden = byId("shade-note").hidden = !image;
  if (!image) return;
  Object.assign(canvas, { width: image.width, height: image.height });
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  pen.drawImage(image, 0, 0);
  const pixels = pen.getImageData(0, 0, image.width, image.height);
  for (let at = 0; at < pixels.data.length; at += 4) {
    const residual = pixels.data[at];
    pixels.data.set([...SHADE, OPACITY * residual], at);
  }
  pen.putImageData(pixels, 0, 0);
}

let attempt = 0;
let interval = 0; // of the camera, ms
let trouble = null; // why no frames come
let heard = 0;
let stream = null;
let retry = 0;

// Leave the stream. If it is still connecting, onopen closes it: closing it now would log an error in the browser.
function leave() {
  clearTimeout(retry);
  if (stream?.readyState !== WebSocket.CONNECTING) stream?.close();
  stream = null;
}

// Open a stream of the view's pictures, in place of the previous one.
function connect() {
  leave();
  const address = new URL(`stream${location.search}`, location.href);
  address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
  address.searchParams.set("show", view.pictures.join(","));
  const opened = (stream = new WebSocket(address));
  heard = performance.now();
  let fresh = true;
  opened.binaryType = "arraybuffer";
  opened.onopen = () => {
    if (opened !== stream) opened.close();
  };
  opened.onmessage = ({ data }) => {
    if (opened !== stream) return;
    const update = parse(data);
    attempt = 0;
    heard = performance.now();
    interval = update.header.stats?.interval_ms ?? interval;
    trouble = update.header.stats ? update.header.stats.trouble : trouble;
    showAge(update.header.age_s);
    if (update.header.stats) showStats(update.header.stats);
    if (fresh) plot.clear(); // a new stream begins with the history
    fresh = false;
    plot.add(update.header.scores);
    take(update);
  };
  opened.onclose = ({ code }) => {
    if (opened === stream) reconnect(code === 1000 ? "ended" : "reconnecting");
  };
}

// Try again later: a server that was restarted, or a run that is started again, continues on this page.
function reconnect(status) {
  leave();
  if (document.body.dataset.status !== "ended") setStatus(status);
  if (status === "ended") attempt = RETRY.length;
  const wait = RETRY[Math.min(attempt++, RETRY.length - 1)];
  retry = setTimeout(connect, wait * (0.75 + Math.random() / 2)); // so that many pages do not come at once
}

const view = new View(connect);

// A hidden page leaves the stream, so it costs nothing. When it is visible again, it gets the history.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) leave();
  else connect();
});

setInterval(() => {
  if (stream && performance.now() - heard > LOST) reconnect("reconnecting");
}, 500);
addEventListener("online", connect); // the network is back: do not wait for the next try
connect();

// One of several cameras: Esc and a link lead back to all of them.
const all = new URL(location.href);
const camera = all.searchParams.get("camera");
if (camera !== null) {
  all.searchParams.delete("camera");
  byId("camera").textContent = camera;
  Object.assign(byId("back"), { href: all.href, hidden: false });
  addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !document.fullscreenElement) location.assign(all);
  });
}
