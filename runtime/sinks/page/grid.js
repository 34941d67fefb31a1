"use strict";

// The cameras as small pictures, which are asked for a few times a second. A click shows one large, at its full rate.
const REST = 500; // ms between two pictures of a camera
const STATS = 1000; // ms between two requests for the figures
const STALE = 3; // seconds without a new frame after which a camera is not live

const query = new URLSearchParams(location.search); // may hold a token
const tiles = new Map();

function address(path, fields) {
  const all = new URLSearchParams(query);
  for (const [name, value] of Object.entries(fields)) all.set(name, value);
  return `${path}?${all}`;
}

function made(name, kind, ...children) {
  const element = document.createElement(name);
  element.className = kind;
  element.append(...children);
  return element;
}

class Tile {
  constructor(name) {
    this.name = name;
    this.image = made("img", "");
    this.state = made("span", "state");
    this.worth = made("span", "worth");
    this.screen = made("div", "screen", this.image);
    this.link = made("a", "tile", this.screen, made("p", "words", made("span", "name", name), this.state, this.worth));
    this.link.href = address("./", { camera: name });
    this.image.hidden = true;
    this.item = made("li", "", this.link);
    this.refresh();
  }

  // The next picture takes the place of this one once it is there.
  refresh() {
    if (document.hidden || this.gone) return;
    const next = new Image();
    next.alt = `The prediction of ${this.name}`;
    const again = () => (this.timer = setTimeout(() => this.refresh(), REST));
    next.onload = () => {
      this.image.replaceWith(next);
      this.image = next;
      document.body.dataset.frames = Number(document.body.dataset.frames) + 1;
      again();
    };
    next.onerror = again; // there is none yet, or the server is gone
    next.src = address("tile.jpg", { camera: this.name, at: Date.now() });
  }

  remove() {
    clearTimeout(this.timer);
    this.gone = true;
    this.item.remove();
  }

  call(state, words) {
    this.link.dataset.state = state;
    this.screen.toggleAttribute("data-old", state !== "live");
    if (this.state.textContent !== words) this.state.textContent = words;
  }

  show(report) {
    this.call(...stateOf(report));
    const error = report.ended?.startsWith("error: ") ? report.ended.slice("error: ".length) : null;
    this.link.title = report.trouble ?? error ?? report.source ?? "";
    const psnr = report.psnr_db ?? {};
    const fps = typeof report.fps === "number" && report.ended === null ? `${number(report.fps, 1)} fps` : "";
    this.worth.textContent = [fps, psnr.trusted ? `${signed(psnr.prediction - psnr.copy_last, 1)} dB` : ""].filter(Boolean).join(" · ");
  }
}

function stateOf(report) {
  if (report.ended?.startsWith("error")) return ["failed", "failed"];
  if (report.ended !== null) return ["ended", "ended"];
  if (report.trouble) return ["outage", "out: trying again"];
  if (!report.frames) return ["waiting", "waiting for frames"];
  if (report.silent_s > Math.max(STALE, 5e-3 * report.interval_ms)) return ["outage", `no frame for ${number(report.silent_s)} s`];
  return ["live", "live"];
}

function showAll({ cameras, total }) {
  for (const [name, report] of Object.entries(cameras)) {
    if (!tiles.has(name)) {
      tiles.set(name, new Tile(name));
      byId("grid").append(tiles.get(name).item);
    }
    tiles.get(name).show(report);
  }
  for (const [name, tile] of tiles) {
    if (name in cameras) continue;
    tile.remove();
    tiles.delete(name);
  }
  byId("grid").style.setProperty("--most", Math.ceil(Math.sqrt(tiles.size)));
  byId("source").textContent = `${total.source}, ${total.model} on ${total.engine}, ${number(total.fps, 1)} fps together`;
  const live = [...tiles.values()].filter((tile) => tile.link.dataset.state === "live").length;
  setStatus(total.ended === null ? "live" : "ended", total.ended === null ? `${live} of ${tiles.size} live` : "the run has ended");
}

function setStatus(name, text) {
  document.body.dataset.status = name;
  if (byId("status-text").textContent !== text) byId("status-text").textContent = text; // a screen reader reads it
}

let asking = 0;

async function ask() {
  clearTimeout(asking);
  if (document.hidden) return;
  try {
    showAll(await (await fetch(address("stats.json", {}))).json());
  } catch {
    if (document.body.dataset.status !== "ended") {
      setStatus("reconnecting", "connection lost, retrying");
      for (const tile of tiles.values()) tile.call("waiting", "connection lost");
    }
  }
  asking = setTimeout(ask, STATS);
}

// A hidden page asks for nothing.
document.addEventListener("visibilitychange", () => {
  for (const tile of tiles.values()) clearTimeout(tile.timer);
  if (document.hidden) return;
  for (const tile of tiles.values()) tile.refresh();
  ask();
});

ask();
