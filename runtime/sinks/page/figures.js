"use strict";

// The figures of the run, from its report. All text is set as text, never as markup.
const byId = (id) => document.getElementById(id);
const ENOUGH = 50; // scored frames: a mean over fewer is not shown
const MOST = 5; // the most lookaheads shown

function number(value, digits = 0) {
  if (typeof value !== "number") return "–";
  const options = { minimumFractionDigits: digits, maximumFractionDigits: digits };
  return value.toLocaleString("en", options).replace("-", "−");
}

function signed(value, digits = 0) {
  const text = number(Math.abs(value), digits);
  if (typeof value !== "number" || !/[1-9]/.test(text)) return text;
  return value > 0 ? `+${text}` : `−${text}`;
}

function decibels(value) {
  return typeof value === "number" ? `${number(value, 1)} dB` : "–";
}

function milliseconds(value) {
  return `${number(value)} ms`;
}

function showStats(stats) {
  const latency = stats.latency_ms ?? {};
  const sharpness = stats.sharpness?.prediction;
  const figures = {
    source: stats.source ?? "",
    fps: number(stats.fps, 1),
    "latency-p50": number(latency.p50, 1),
    "latency-p99": number(latency.p99, 1),
    "latency-n": number(latency.n ?? 0),
    frames: number(stats.frames),
    dropped: number(stats.dropped),
    sharpness: typeof sharpness === "number" ? `${number(100 * sharpness)} %` : "–",
    model: stats.model ?? "–",
    engine: stats.engine ?? "–",
  };
  for (const [id, text] of Object.entries(figures)) byId(id).textContent = text;
  byId("source").title = figures.source;
  showWarnings(stats.warnings ?? []);
  showLine(stats);
  showScore(stats);
  showEvents(stats.events ?? {});
}

function showWarnings(warnings) {
  const list = byId("warnings");
  document.body.toggleAttribute("data-warned", warnings.length > 0);
  list.hidden = !warnings.length;
  const shown = [...list.children].map((item) => item.textContent);
  if (shown.join("\n") === warnings.join("\n")) return; // else a screen reader would read them again
  list.replaceChildren(
    ...warnings.map((warning) => {
      const item = document.createElement("li");
      item.textContent = warning;
      return item;
    }),
  );
}

// A summary in one line: how late the camera is, how long the prediction takes, and how close to the present it is.
function showLine({ now, ahead_ms: ahead, latency_ms: latency }) {
  const made = latency?.p50;
  const known = typeof now?.error === "number";
  const parts = [];
  if (known) {
    parts.push(`camera ${milliseconds(now.late - (made ?? 0))} late`);
    if (typeof made === "number") parts.push(`prediction ${milliseconds(made)}`);
    parts.push(`showing now ${signed(now.error)} ms`);
  } else {
    if (typeof ahead === "number") parts.push(`predicting ${milliseconds(ahead)} ahead`);
    if (typeof made === "number") parts.push(`prediction takes ${milliseconds(made)}`);
  }
  byId("line").textContent = parts.join(" · ");
  byId("late-tag").textContent = known ? ` by ${milliseconds(now.late)}` : "";
  const away = known ? `${signed(now.error)} ms` : `${milliseconds(ahead)} ahead`;
  byId("now-tag").textContent = known || typeof ahead === "number" ? `: ${away}` : "";
  byId("due-tag").textContent = byId("film-tag").textContent = typeof ahead === "number" ? `: ${milliseconds(ahead)} ahead` : "";
}

// The gain turns green only if the report trusts the score (enough frames are scored) and there is no warning.
function showScore({ psnr_db: psnr, psnr_db_by_ahead: all, frames, ahead_ms: ahead, warnings }) {
  const { prediction, copy_last: copy, dis, n = 0, trusted } = psnr ?? {};
  document.body.dataset.scored = n;
  byId("scored").textContent = `Mean PSNR over ${number(n)} frame${n === 1 ? "" : "s"}. Higher is better.`;
  byId("psnr-prediction").textContent = decibels(prediction);
  byId("psnr-copy").textContent = decibels(copy);
  showRival(dis);

  const scored = typeof prediction === "number" && typeof copy === "number";
  const enough = scored && trusted;
  const gain = scored ? prediction - copy : null;
  const where = typeof ahead === "number" ? `, ${milliseconds(ahead)} ahead` : "";
  byId("gain").textContent = enough ? signed(gain, 1) + " dB" : "–";
  byId("gain").className = !enough ? "" : gain < 0 ? "below" : warnings?.length ? "" : "above";
  let text = `${gain < 0 ? "below" : "above"} copying the last frame${where}`;
  if (!scored || n === 0) text = "no frame has been scored yet";
  else if (!enough) text = `too few frames are scored to judge: ${number(n)} of ${number(frames)}`;
  byId("gain-text").textContent = text;

  // The lookaheads that were used most.
  const judged = (all ?? []).filter((row) => row.n >= ENOUGH && typeof row.prediction === "number");
  const others = judged.sort((a, b) => b.n - a.n).slice(0, MOST).sort((a, b) => a.ahead_ms - b.ahead_ms);
  byId("by-ahead").hidden = others.length < 2;
  const gains = others.map((row) => `${milliseconds(row.ahead_ms)} ${signed(row.prediction - row.copy_last, 1)}`);
  byId("by-ahead").textContent = `Gain in dB by lookahead: ${gains.join(" · ")}`;
}

// DIS flow is computed only now and then. Both gains are over the frames for which it was.
function showRival(dis) {
  byId("dis").hidden = !dis || dis.n < ENOUGH;
  if (!dis) return;
  const gains = [dis.prediction, dis.dis_flow].map((value) => signed(value - dis.copy_last, 1));
  byId("dis").textContent = `Over ${number(dis.n)} frames, optical flow (DIS) gains ${gains[1]} dB and this model ${gains[0]} dB.`;
}

function showEvents(events) {
  const words = { repeats: "repeats", cuts: "cuts", gaps: "gaps", reconnects: "reconnects", damaged: "damaged", concealed: "concealed", copied: "copied" };
  const parts = Object.entries(words).filter(([key]) => events[key] > 0);
  byId("events-figure").hidden = !parts.length;
  byId("events").textContent = parts.map(([key, word]) => `${number(events[key])} ${events[key] === 1 ? word.replace(/s$/, "") : word}`).join(" · ");
}

// The score of one moment, beside its pictures.
function showMoment({ psnr, psnr_copy: copy }) {
  const scored = typeof psnr === "number" && typeof copy === "number";
  byId("error_was-tag").textContent = scored ? `  ${decibels(copy)}` : "";
  byId("error_due-tag").textContent = scored ? `  ${decibels(psnr)}` : "";
  const ratio = scored ? 10 ** ((psnr - copy) / 20) : 1; // of the errors' root mean squares
  const times = number(Math.max(ratio, 1 / ratio), 1);
  const compared = times === "1.0" ? "as large as" : `${times} times ${ratio > 1 ? "smaller" : "larger"} than`;
  byId("verdict").textContent = scored ? `The error of now is ${compared} that of the late picture.` : "";
}
