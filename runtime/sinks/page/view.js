"use strict";

// The views: which pictures are shown, the slider between late and now, full screen, and their keys.
class View {
  static PICTURES = {
    late: ["late"],
    now: ["now"],
    slider: ["late", "now"],
    beside: ["late", "now"],
    errors: ["was", "due", "real", "error_was", "error_due"],
    film: ["film_due", "film_real"],
  };
  static KEYS = { 1: "late", 2: "now", 3: "slider", 4: "beside", 5: "errors", 6: "film" };

  // `changed` is called when different pictures are needed.
  constructor(changed) {
    this.changed = changed;
    this.stage = document.getElementById("stage");
    this.screens = document.querySelector(".screens");
    this.split = document.getElementById("split");
    this.trust = document.getElementById("trust-on");
    this.full = document.getElementById("full");
    for (const radio of this.radios()) radio.addEventListener("change", () => this.choose(radio.value));
    this.split.addEventListener("input", () => this.slide());
    this.trust.addEventListener("change", () => this.changed());
    this.full.addEventListener("click", () => this.toggleFull());
    document.addEventListener("fullscreenchange", () => this.setFull(document.fullscreenElement !== null));
    document.addEventListener("keydown", (event) => this.press(event));
    this.apply(this.remembered());
    this.slide();
  }

  radios() {
    return document.querySelectorAll("input[name=view]");
  }

  // The view of the last visit. Storage may be forbidden.
  remembered() {
    try {
      const view = localStorage.getItem("view");
      return view in View.PICTURES ? view : "slider";
    } catch {
      return "slider";
    }
  }

  get name() {
    return document.body.dataset.view;
  }

  // The names of the pictures that are needed, in a fixed order.
  get pictures() {
    const names = View.PICTURES[this.name];
    return this.trust.checked && names.includes("now") ? [...names, "trust"] : names;
  }

  apply(view) {
    document.body.dataset.view = view;
    for (const radio of this.radios()) radio.checked = radio.value === view;
  }

  choose(view) {
    if (view === this.name) return;
    this.apply(view);
    try {
      localStorage.setItem("view", view);
    } catch {
      // Then the view is not remembered.
    }
    this.changed();
  }

  slide() {
    this.screens.style.setProperty("--split", `${this.split.value / 10}%`);
  }

  // The aspect ratio limits the width of the pictures.
  shape(width, height) {
    this.screens.style.setProperty("--aspect", width / height);
  }

  toggleFull() {
    if (document.fullscreenElement) document.exitFullscreen();
    else if (document.fullscreenEnabled) this.stage.requestFullscreen().catch(() => this.setFull(true));
    else this.setFull(!("full" in document.body.dataset)); // some phones let only videos fill the screen
  }

  setFull(full) {
    document.body.toggleAttribute("data-full", full);
    this.full.textContent = full ? "Leave full screen" : "Full screen";
  }

  press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = { ArrowLeft: -20, ArrowRight: 20 }[event.key];
    if (event.key in View.KEYS) this.choose(View.KEYS[event.key]);
    else if (event.key === "f" || event.key === "F") this.toggleFull();
    else if (event.key === "t" || event.key === "T") this.trust.click();
    else if (event.key === "Escape" && !document.fullscreenElement) this.setFull(false);
    else if (step && this.name === "slider" && document.activeElement === document.body) {
      this.split.value = +this.split.value + step;
      this.slide();
    }
  }
}
