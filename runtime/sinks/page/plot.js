"use strict";

// The running score: two lines in dB over the last seconds, at the screen's full resolution.
class Plot {
  static SPANS = [10, 20, 40]; // seconds: the axis grows with the run, then scrolls

  constructor(canvas) {
    this.canvas = canvas;
    this.points = []; // [time in seconds, PSNR of the prediction, PSNR of copying]; nulls if it was not scored
    this.due = false;
    new ResizeObserver(() => this.redraw()).observe(canvas);
    matchMedia("(prefers-color-scheme: light)").addEventListener("change", () => this.redraw());
  }

  clear() {
    this.points = [];
    this.redraw();
  }

  // One point a frame. A frame that was not scored has nulls, which break the line.
  add(points) {
    for (const point of points) {
      if (this.points.length && point[0] <= this.points.at(-1)[0]) this.points = []; // the source has started over
      this.points.push(point);
    }
    const newest = this.points.at(-1)?.[0];
    const first = this.points.findIndex(([time]) => time > newest - Plot.SPANS.at(-1));
    if (first > 0) this.points.splice(0, first);
    if (points.length) this.redraw();
  }

  redraw() {
    if (this.due) return;
    this.due = true;
    requestAnimationFrame(() => {
      this.due = false;
      this.draw();
    });
  }

  draw() {
    const { canvas, points } = this;
    const scale = window.devicePixelRatio;
    const width = canvas.clientWidth, height = canvas.clientHeight;
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    const style = getComputedStyle(canvas);
    const colour = (name) => style.getPropertyValue(`--${name}`);
    const pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    pen.font = `12px ${style.fontFamily}`;

    const left = 52, right = width - 8, top = 8, bottom = height - 24;
    const values = points.flatMap((p) => p.slice(1)).filter((v) => v !== null);
    const { low, high, step } = Plot.range(values);
    const newest = points.at(-1)?.[0] ?? 0, oldest = points[0]?.[0] ?? 0;
    const span = Plot.SPANS.find((s) => newest - oldest <= s) ?? Plot.SPANS.at(-1);
    const x = (time) => right - ((newest - time) / span) * (right - left);
    const y = (value) => bottom - ((value - low) / (high - low)) * (bottom - top);

    pen.fillStyle = colour("soft");
    pen.strokeStyle = colour("edge");
    pen.lineWidth = 1;
    pen.textBaseline = "middle";
    pen.textAlign = "right";
    for (let tick = low; tick <= high + step / 2; tick += step) {
      const line = Math.round(y(tick)) + 0.5;
      pen.beginPath();
      pen.moveTo(left, line);
      pen.lineTo(right, line);
      pen.stroke();
      if (values.length) pen.fillText(`${+tick.toFixed(1)} dB`, left - 8, line);
    }
    pen.textBaseline = "top";
    for (let ago = 0; ago <= span; ago += span / 4) {
      pen.textAlign = ago === 0 ? "right" : ago === span ? "left" : "center";
      pen.fillText(ago === 0 ? "now" : `−${ago} s`, x(newest - ago), bottom + 7);
    }

    this.line(pen, (p) => p[2], x, y, colour("copy"), 1.5, [5, 3]);
    this.line(pen, (p) => p[1], x, y, colour("prediction"), 2, []);
  }

  line(pen, value, x, y, colour, width, dash) {
    pen.strokeStyle = colour;
    pen.lineWidth = width;
    pen.lineJoin = "round";
    pen.setLineDash(dash);
    pen.beginPath();
    let drawing = false;
    for (const [at, point] of this.points.entries()) {
      const next = value(point);
      if (next !== null) {
        pen[drawing ? "lineTo" : "moveTo"](x(point[0]), y(next));
        // A short stroke for a frame whose neighbours were not scored.
        if (!drawing && value(this.points[at + 1] ?? []) == null) pen.lineTo(x(point[0]) + 3, y(next));
      }
      drawing = next !== null;
    }
    pen.stroke();
    pen.setLineDash([]);
  }

  // A range that contains all values, and a step that divides it into a few round ticks.
  static range(values) {
    if (!values.length) return { low: 20, high: 40, step: 5 };
    const least = Math.min(...values), most = Math.max(...values);
    const step = [0.5, 1, 2, 5, 10].find((s) => (most - least) / s <= 4) ?? 20;
    const low = Math.floor(least / step) * step;
    return { low, high: Math.max(Math.ceil(most / step) * step, low + 2 * step), step };
  }
}
