"use strict";

// Shows the stream, whose format is in page/__init__.py. All text is set as text, never as markup.
const byId = (id) => document.getElementById(id);
const plot = new Plot(byId("plot"));
const SILENCE = 3000; // ms without an update after which the page no longer claims to be live
const RETRY = [500, 1000, 2000, 5000]; // ms

const STATUS = {
  connecting: "connecting",
  live: "live",
  waiting: "waiting for frames",
  reconnecting: "reconnecting",
  ended: "the run has ended",
};

function setStatus(name) {
  if (document.body.dataset.status === name) return;
  document.body.dataset.status = name;
  byId("status-text").textContent = STATUS[name];
}

function number(value, digits = 0) {
  if (typeof value !== "number") return "–";
  const options = { minimumFractionDigits: digits, maximumFractionDigits: digits };
  return value.toLocaleString("en", options).replace("-", "−");
}

// Pictures are decoded off the main thread. Of the updates that arrive meanwhile, only the newest waits.
let waiting = null;
let busy = false;
let shown = 0;

async function take(message) {
  waiting = message;
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
  const pictures = header.sizes.map((size) => new Uint8Array(message, (at += size) - size, size));
  return { header, pictures };
}

async function show({ header, pictures }) {
  const images = await Promise.all(
    pictures.map((data) => (data.length ? createImageBitmap(new Blob([data], { type: "image/jpeg" })) : null)),
  );
  if (images[0]) {
    const { width, height } = images[0];
    ["input", "prediction", "error"].forEach((id, at) => draw(id, images[at], width, height));
    byId("warming").hidden = images[2] !== null;
    byId("ahead").textContent = `Predicted, ${header.ahead_ms.toFixed(0)} ms ahead`;
    document.body.dataset.frames = ++shown;
    document.body.dataset.index = header.index;
  }
}

function draw(id, image, width, height) {
  const canvas = byId(id);
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const pen = canvas.getContext("2d");
  if (image) {
    pen.drawImage(image, 0, 0);
    image.close();
  } else {
    pen.clearRect(0, 0, width, height);
  }
}

function showStats(stats) {
  const latency = stats.latency_ms ?? {};
  const figures = {
    source: stats.source ?? "",
    fps: number(stats.fps, 1),
    "latency-p50": number(latency.p50, 1),
    "latency-p99": number(latency.p99, 1),
    "latency-n": number(latency.n ?? 0),
    frames: number(stats.frames),
    dropped: number(stats.dropped),
    model: stats.model ?? "–",
    engine: stats.engine ?? "–",
  };
  for (const [id, text] of Object.entries(figures)) byId(id).textContent = text;
  byId("source").title = figures.source;
  showScore(stats.psnr_db ?? {});
}

function showScore({ prediction, copy_last: copy, n }) {
  document.body.dataset.scored = n ?? 0;
  byId("scored").textContent = number(n ?? 0);
  byId("psnr-prediction").textContent = decibels(prediction);
  byId("psnr-copy").textContent = decibels(copy);
  const scored = typeof prediction === "number" && typeof copy === "number";
  const gain = scored ? prediction - copy : null;
  const side = gain >= 0 ? "above" : "below";
  byId("gain").textContent = (gain > 0 ? "+" : "") + decibels(gain);
  byId("gain").className = scored ? side : "";
  byId("gain-text").textContent = scored ? `${side} copying the last frame` : "no frame has been scored yet";
}

function decibels(value) {
  return typeof value === "number" ? `${number(value, 1)} dB` : "–";
}

let attempt = 0;
let heard = 0;

function connect() {
  const address = new URL(`stream${location.search}`, location.href);
  address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
  const stream = new WebSocket(address);
  stream.binaryType = "arraybuffer";
  stream.onmessage = ({ data }) => {
    const update = parse(data);
    attempt = 0;
    heard = performance.now();
    setStatus(update.header.sizes[0] ? "live" : "waiting");
    if (update.header.stats) showStats(update.header.stats);
    if ("index" in update.header) plot.add(update.header.index, update.header.psnr, update.header.psnr_copy);
    take(update);
  };
  stream.onclose = ({ code }) => {
    if (code === 1000) {
      setStatus("ended");
    } else {
      setStatus("reconnecting");
      setTimeout(connect, RETRY[Math.min(attempt++, RETRY.length - 1)]);
    }
  };
}

setInterval(() => {
  if (document.body.dataset.status === "live" && performance.now() - heard > SILENCE) setStatus("waiting");
}, 500);
connect();
