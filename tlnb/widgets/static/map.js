// Samples as points on a canvas: it is moved and zoomed without the kernel, which is asked only what a sample looks like.
const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F", "#A6761D"]; // as in the static picture
const SHAPES = 5;
const NEAR = 14; // pixels within which a point is hit
const BY = [["class", "Class"], ["prediction", "Prediction"], ["correct", "Right or wrong"], ["part", "Part"]];
const VIRIDIS = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];

const numbersOf = (model, name, kind) => {
  const seen = model.get(name);
  if (!seen || !seen.byteLength) return new kind(0);
  const view = seen.buffer ? seen : new DataView(seen);
  return new kind(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength)); // a copy: it may stand unaligned
};

class SampleMap {
  constructor(model, wire) {
    this.model = model;
    this.wire = wire;
    this.view = { zoom: 1, x: 0, y: 0 };
    this.muted = new Set(); // groups that are not shown
    this.at = -1; // the point that is looked at
    this.path = null; // the lasso
    this.frame = 0;
    this.stamps = new Map();
    this.mode = "lasso";
    this.canvas = make("canvas", { class: "tlnb-map-canvas", tabindex: 0, role: "application", "aria-roledescription": "map of samples",
      onpointerdown: (event) => this.press(event), onpointermove: (event) => this.move(event), onpointerup: (event) => this.release(event),
      onpointercancel: () => this.cancel(), onpointerleave: () => { if (!this.drag) this.lookAt(-1); }, ondblclick: () => this.home(),
      onkeydown: (event) => this.key(event) });
    this.canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    this.colours = BY.map(([name, label]) => button(label, () => { model.set("colour", name); model.save_changes(); }, { class: "tlnb-button tlnb-rule", "data-by": name }));
    this.tools = [["lasso", "Lasso", "draw around points to choose them; Shift adds, Alt takes away"], ["move", "Move", "drag the map; the wheel zooms in either mode"]]
      .map(([name, label, says]) => button(label, () => this.use(name), { class: "tlnb-button tlnb-rule", "data-mode": name, title: says }));
    this.layer = make("select", { class: "tlnb-text tlnb-short", "aria-label": "layer whose output is drawn", title: "layer whose output is drawn", onchange: () => this.redraw() });
    this.by = make("select", { class: "tlnb-text tlnb-map-by", "aria-label": "how the points are made", title: "PCA: the directions in which samples spread most; UMAP: neighbours stay neighbours", onchange: () => this.redraw() },
      make("option", { value: "pca" }, "PCA"), make("option", { value: "umap" }, "UMAP"));
    this.start = button("Draw the map", () => this.redraw(), { class: "tlnb-button tlnb-main" });
    this.card = make("div", { class: "tlnb-map-card", role: "status", "aria-live": "polite" });
    this.legend = make("div", { class: "tlnb-map-legend", role: "group", "aria-label": "classes: click to hide or show" });
    this.summary = make("div", { class: "tlnb-detail tlnb-notes" });
    this.words = make("span", { class: "tlnb-map-words", "aria-live": "polite" });
    this.name = make("input", { type: "text", class: "tlnb-text tlnb-map-name", value: "chosen", "aria-label": "name of the variable", spellcheck: "false",
      onkeydown: (event) => { event.stopPropagation(); if (event.key === "Enter") this.keep.click(); } });
    this.keep = button("To a variable", () => wire.send("keep", { name: this.name.value }));
    this.clear = button("Choose none", () => this.choose([]));
    this.given = make("span", { class: "tlnb-row" });
    this.magic = make("code", { class: "tlnb-magic" });
    this.bar = make("div", { class: "tlnb-row tlnb-map-chosen" }, this.words, this.name, this.keep, this.given, this.clear);
    this.head = make("div", { class: "tlnb-row" }, make("span", { class: "tlnb-row", role: "group", "aria-label": "colour" }, ...this.colours),
      make("span", { class: "tlnb-row", role: "group", "aria-label": "mouse" }, ...this.tools, button("Whole map", () => this.home(), { class: "tlnb-button tlnb-rule", title: "double click" })),
      make("span", { class: "tlnb-row tlnb-map-which" }, this.layer, this.by, this.start));
    this.side = make("div", { class: "tlnb-map-side" }, this.card, this.legend);
    this.body = make("div", { class: "tlnb-map-body" }, make("div", { class: "tlnb-map-stage" }, this.canvas), this.side);
    this.element = make("div", { class: "tlnb-map" }, this.head, this.body, this.bar, this.summary, this.magic);
    this.size = new ResizeObserver(() => this.fit());
    this.size.observe(this.canvas.parentElement);
    this.theme = new MutationObserver(() => this.paint());
    this.theme.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light", "class"] });
    const stops = [follow(model, ["points", "targets", "predicted", "groups"], () => this.load()), follow(model, ["selected", "colour", "chosen", "busy", "doing", "disabled", "magic", "summary", "given", "layers", "layer"], () => this.update()),
      follow(model, ["sample"], () => this.drawCard())];
    this.stop = () => { stops.forEach((stop) => stop()); this.size.disconnect(); this.theme.disconnect(); cancelAnimationFrame(this.frame); clearTimeout(this.asking); };
    this.load();
    this.use("lasso");
    this.drawCard();
  }

  /** Take the points from the kernel, scaled to a square of one. */
  load() {
    const flat = numbersOf(this.model, "points", Float32Array);
    this.count = flat.length / 2;
    this.targets = numbersOf(this.model, "targets", Float32Array);
    this.predicted = numbersOf(this.model, "predicted", Float32Array);
    this.wrong = numbersOf(this.model, "wrong", Uint8Array);
    this.part = numbersOf(this.model, "part", Uint8Array);
    let [left, right, low, high] = [Infinity, -Infinity, Infinity, -Infinity];
    for (let i = 0; i < this.count; i += 1) {
      left = Math.min(left, flat[2 * i]); right = Math.max(right, flat[2 * i]);
      low = Math.min(low, flat[2 * i + 1]); high = Math.max(high, flat[2 * i + 1]);
    }
    this.span = [right - left || 1, high - low || 1];
    this.x = Float32Array.from({ length: this.count }, (_, i) => (flat[2 * i] - left) / this.span[0] - 0.5);
    this.y = Float32Array.from({ length: this.count }, (_, i) => 0.5 - (flat[2 * i + 1] - low) / this.span[1]);
    this.muted.clear();
    this.at = -1;
    this.home();
    this.update();
  }

  /** What colour stands for: a number for each point, and the names of the numbers; none for values. */
  paintedBy() {
    const by = this.model.get("colour");
    const values = this.model.get("kind") === "values";
    if (by === "part") return [this.part, ["training", "validation"]];
    if (by === "correct") return [this.wrong, values ? ["off by less than half", "off by more"] : ["right", "wrong"]];
    return [by === "class" ? this.targets : this.predicted, values ? [] : this.model.get("groups")];
  }

  update() {
    const busy = engaged(this.model) || this.model.get("disabled");
    const by = this.model.get("colour");
    const [numbers, names] = this.paintedBy();
    this.chosen = new Set(this.model.get("selected"));
    this.flags = new Uint8Array(this.count);
    for (const i of this.chosen) this.flags[i] = 1;
    this.head.querySelectorAll("[data-by]").forEach((one) => {
      one.setAttribute("aria-pressed", String(one.dataset.by === by));
      one.hidden = !this.count || (["prediction", "correct"].includes(one.dataset.by) && !this.model.get("learned"));
    });
    for (const one of this.tools) one.hidden = !this.count;
    if (this.painted !== by) { this.muted.clear(); this.painted = by; }
    const layers = this.model.get("layers");
    if (this.listed !== layers) {
      this.listed = layers;
      this.layer.replaceChildren(make("option", { value: "" }, "before the head"), ...layers.map((name, i) => make("option", { value: i }, `${i} ${name}`)));
    }
    if (this.shown !== this.model.get("layer")) { this.shown = this.model.get("layer"); this.layer.value = this.shown < 0 ? "" : String(this.shown); }
    this.layer.hidden = this.by.hidden = !layers.length;
    for (const control of [this.layer, this.by, this.start]) control.disabled = busy;
    this.start.hidden = this.count > 0;
    this.body.hidden = !this.count;
    this.bar.hidden = !this.count;
    const any = this.chosen.size > 0;
    say(this.words, any ? this.model.get("chosen") : "nothing chosen: draw around points, click one, or press Space on it");
    this.name.hidden = this.keep.hidden = !any || !this.model.get("takes_name");
    this.clear.hidden = !any;
    this.given.replaceChildren(...(any ? this.model.get("given").map((to) => button(to, () => this.wire.send("give", { to }))) : []));
    say(this.summary, this.model.get("summary") || "a map of the samples, by what comes out of a layer");
    say(this.magic, this.model.get("magic"));
    this.magic.hidden = !this.magic.textContent;
    const groups = names.map((name, i) => [name, i]).slice(0, 60);
    const amounts = new Uint32Array(names.length);
    if (names.length) for (let i = 0; i < this.count; i += 1) amounts[numbers[i]] += 1;
    this.legend.replaceChildren(...groups.filter(([, i]) => amounts[i]).map(([name, i]) => make("button", { type: "button", class: "tlnb-map-key", "aria-pressed": String(!this.muted.has(i)), title: `${name}: click to hide or show, double click to choose all`,
      onclick: () => { this.muted.has(i) ? this.muted.delete(i) : this.muted.add(i); this.update(); },
      ondblclick: () => { this.muted.delete(i); this.choose([...Array(this.count).keys()].filter((p) => numbers[p] === i)); } },
    this.keyOf(i), make("span", { class: "tlnb-map-key-name" }, name), make("span", { class: "tlnb-detail" }, number.format(amounts[i])))));
    this.canvas.setAttribute("aria-label", `${number.format(this.count)} samples, coloured by ${by}. Arrow keys go from point to point, Space chooses, Escape chooses none, plus and minus zoom.`);
    this.paint();
  }

  keyOf(i) {
    const made = make("canvas", { width: 24, height: 24, class: "tlnb-map-sign", "aria-hidden": "true" });
    made.getContext("2d").drawImage(this.sprite(COLOURS[i % COLOURS.length], Math.floor(i / COLOURS.length) % SHAPES, 8), 0, 0, 24, 24);
    return made;
  }

  /** A point drawn once, to be copied for each sample: which shape, or a ring for what is chosen. */
  sprite(colour, shape, radius) {
    const side = 2 * Math.ceil(1.35 * radius + 2) + 1;
    const made = Object.assign(document.createElement("canvas"), { width: side, height: side });
    const ink = made.getContext("2d");
    const [c, r] = [side / 2, radius];
    ink.fillStyle = ink.strokeStyle = colour;
    ink.beginPath();
    if (shape === 0) ink.arc(c, c, r, 0, 7);
    else if (shape === "ring") ink.arc(c, c, r + 0.8, 0, 7);
    else if (shape === 1) ink.rect(c - 0.85 * r, c - 0.85 * r, 1.7 * r, 1.7 * r);
    else {
      const corners = { 2: [[0, -1.15], [1.1, 0.85], [-1.1, 0.85]], 3: [[0, -1.25], [1.05, 0], [0, 1.25], [-1.05, 0]], 4: [[0, 1.15], [1.1, -0.85], [-1.1, -0.85]] }[shape];
      corners.forEach(([x, y], i) => ink[i ? "lineTo" : "moveTo"](c + x * r, c + y * r));
      ink.closePath();
    }
    ink.lineWidth = Math.max(1.2, radius / 3);
    shape === "ring" ? ink.stroke() : ink.fill();
    return made;
  }

  /** The pixels of a point that are not empty, as rows of: place from the middle in x and y, colour, opacity in 0..1. */
  stamp(colour, shape, radius, opacity) {
    const key = `${colour} ${shape} ${radius} ${opacity}`;
    if (this.stamps.has(key)) return this.stamps.get(key);
    const made = this.sprite(colour, shape, radius);
    const { data, width } = made.getContext("2d").getImageData(0, 0, made.width, made.height);
    const found = [];
    for (let i = 0; i < width * width; i += 1) if (data[4 * i + 3]) found.push((i % width) - (width >> 1), Math.floor(i / width) - (width >> 1), data[4 * i], data[4 * i + 1], data[4 * i + 2], (opacity * data[4 * i + 3]) / 255);
    if (this.stamps.size > 400) this.stamps.clear();
    this.stamps.set(key, Float32Array.from(found));
    return this.stamps.get(key);
  }

  /** Lay a point over the picture. By hand, since ten thousand calls of the canvas are slow where no graphics card helps. */
  lay(data, width, height, stamp, x, y) {
    for (let k = 0; k < stamp.length; k += 6) {
      const px = x + stamp[k];
      const py = y + stamp[k + 1];
      if (px < 0 || py < 0 || px >= width || py >= height) continue;
      const at = 4 * (py * width + px);
      const above = stamp[k + 5];
      const below = (data[at + 3] / 255) * (1 - above);
      const all = above + below;
      data[at] = (stamp[k + 2] * above + data[at] * below) / all;
      data[at + 1] = (stamp[k + 3] * above + data[at + 1] * below) / all;
      data[at + 2] = (stamp[k + 4] * above + data[at + 2] * below) / all;
      data[at + 3] = 255 * all;
    }
  }

  fit() {
    const width = this.canvas.parentElement.clientWidth;
    if (!width) return;
    const height = Math.round(Math.min(Math.max(0.62 * width, 240), 460));
    this.scale = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(width * this.scale);
    this.canvas.height = Math.round(height * this.scale);
    this.canvas.style.height = `${height}px`;
    this.paint();
  }

  /** Where a point stands, in pixels of the canvas. */
  place(i) {
    const { width, height } = this.canvas;
    const { zoom, x, y } = this.view;
    return [width / 2 + (this.x[i] * zoom + x) * width * 0.94, height / 2 + (this.y[i] * zoom + y) * height * 0.92];
  }

  paint() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => { this.frame = 0; this.paintNow(); });
  }

  paintNow() {
    const ink = this.canvas.getContext("2d");
    const { width, height } = this.canvas;
    const scale = this.scale || 1;
    const [numbers, names] = this.paintedBy();
    const radius = Math.round(4 * Math.max(1.6, Math.min(4.5, 190 / Math.sqrt(this.count + 1)) * Math.min(Math.sqrt(this.view.zoom), 2)) * scale) / 4;
    const range = names.length ? null : this.rangeOf(numbers);
    const any = this.chosen.size > 0;
    const styles = getComputedStyle(this.canvas);
    if (!width || !height) return;
    if (!this.image || this.image.width !== width || this.image.height !== height) this.image = ink.createImageData(width, height);
    const { data } = this.image;
    data.fill(0);
    const { zoom, x: left, y: top } = this.view;
    const kinds = new Map(); // the stamp of each group, faint and plain
    const kindOf = (value, faint) => {
      const key = range ? range(value) : 2 * value + faint;
      const opacity = faint ? 0.22 : any ? 1 : 0.82;
      if (range) return this.stamp(key, 0, radius, opacity);
      if (!kinds.has(key)) kinds.set(key, this.stamp(COLOURS[value % COLOURS.length], Math.floor(value / COLOURS.length) % SHAPES, radius, opacity));
      return kinds.get(key);
    };
    const ring = this.stamp(styles.getPropertyValue("--ink").trim() || "#222", "ring", radius, 1);
    for (const marked of any ? [0, 1] : [0]) { // what is chosen lies above
      for (let i = 0; i < this.count; i += 1) {
        const value = numbers[i];
        if (any && this.flags[i] !== marked) continue;
        if (names.length && this.muted.has(value)) continue;
        const x = Math.round(width / 2 + (this.x[i] * zoom + left) * width * 0.94);
        const y = Math.round(height / 2 + (this.y[i] * zoom + top) * height * 0.92);
        if (x < -20 || y < -20 || x > width + 20 || y > height + 20) continue;
        this.lay(data, width, height, kindOf(value, Number(any && !marked)), x, y);
        if (marked) this.lay(data, width, height, ring, x, y);
      }
    }
    ink.putImageData(this.image, 0, 0);
    if (this.at >= 0 && this.at < this.count) {
      const [x, y] = this.place(this.at);
      ink.lineWidth = 2.5 * scale;
      ink.strokeStyle = styles.getPropertyValue("--accent") || "#0072b2";
      ink.beginPath();
      ink.arc(x, y, radius + 4 * scale, 0, 7);
      ink.stroke();
    }
    if (this.path && this.path.length > 1) {
      ink.lineWidth = 1.5 * scale;
      ink.strokeStyle = styles.getPropertyValue("--accent") || "#0072b2";
      ink.setLineDash([5 * scale, 4 * scale]);
      ink.beginPath();
      this.path.forEach(([x, y], i) => ink[i ? "lineTo" : "moveTo"](x, y));
      ink.closePath();
      ink.stroke();
      ink.setLineDash([]);
    }
  }

  /** A colour for each value, from dark to bright in 32 steps. */
  rangeOf(values) {
    let [low, high] = [Infinity, -Infinity];
    for (const value of values) { low = Math.min(low, value); high = Math.max(high, value); }
    return (value) => {
      const at = (Math.round(31 * (high > low ? (value - low) / (high - low) : 0)) / 31) * (VIRIDIS.length - 1);
      const [a, b] = [VIRIDIS[Math.floor(at)], VIRIDIS[Math.ceil(at)]];
      return `rgb(${a.map((part, i) => Math.round(part + (b[i] - part) * (at % 1))).join(" ")})`;
    };
  }

  // ---------------------------------------------------------------- mouse and keys

  /** Where the mouse is, in pixels of the canvas. */
  spot(event) {
    const box = this.canvas.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * this.canvas.width, ((event.clientY - box.top) / box.height) * this.canvas.height];
  }

  /** The nearest point that is shown, or -1. */
  hit([x, y]) {
    const [numbers, names] = this.paintedBy();
    let [found, best] = [-1, (NEAR * (this.scale || 1)) ** 2];
    for (let i = 0; i < this.count; i += 1) {
      if (names.length && this.muted.has(numbers[i])) continue;
      const [px, py] = this.place(i);
      const far = (px - x) ** 2 + (py - y) ** 2;
      if (far < best) [found, best] = [i, far];
    }
    return found;
  }

  use(mode) {
    this.mode = mode;
    for (const one of this.tools) one.setAttribute("aria-pressed", String(one.dataset.mode === mode));
    this.canvas.style.cursor = mode === "move" ? "grab" : "crosshair";
  }

  press(event) {
    if (event.button > 1) return;
    this.canvas.setPointerCapture(event.pointerId);
    const spot = this.spot(event);
    const moves = this.mode === "move" || event.button === 1;
    this.drag = { spot, from: spot, moves, still: true, view: { ...this.view } };
    if (!moves && !this.model.get("disabled")) this.path = [spot];
  }

  move(event) {
    const spot = this.spot(event);
    if (!this.drag) return this.lookAt(this.hit(spot));
    const { from, moves, view } = this.drag;
    if (Math.hypot(spot[0] - from[0], spot[1] - from[1]) > 4 * (this.scale || 1)) this.drag.still = false;
    if (moves) this.view = { ...view, x: view.x + (spot[0] - from[0]) / this.canvas.width / 0.94, y: view.y + (spot[1] - from[1]) / this.canvas.height / 0.92 };
    else if (this.path) this.path.push(spot);
    this.paint();
  }

  release(event) {
    if (!this.drag) return;
    const { still } = this.drag;
    const path = this.path;
    this.drag = this.path = null;
    if (still) {
      const found = this.hit(this.spot(event));
      if (found >= 0) { this.lookAt(found); this.choose([found], event.shiftKey ? "add" : event.altKey ? "less" : this.chosen.has(found) && this.chosen.size === 1 ? "less" : "only"); }
    } else if (path) this.choose(this.inside(path), event.shiftKey ? "add" : event.altKey ? "less" : "only");
    this.paint();
  }

  cancel() {
    this.drag = this.path = null;
    this.paint();
  }

  /** The points within a line: how often a ray to the right crosses it is odd. */
  inside(path) {
    const [numbers, names] = this.paintedBy();
    const found = [];
    for (let i = 0; i < this.count; i += 1) {
      if (names.length && this.muted.has(numbers[i])) continue;
      const [x, y] = this.place(i);
      let within = false;
      for (let a = 0, b = path.length - 1; a < path.length; b = a, a += 1) {
        const [[ax, ay], [bx, by]] = [path[a], path[b]];
        if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) within = !within;
      }
      if (within) found.push(i);
    }
    return found;
  }

  choose(places, how = "only") {
    if (this.model.get("disabled")) return;
    const chosen = how === "only" ? new Set(places) : new Set(this.chosen);
    if (how === "add") places.forEach((i) => chosen.add(i));
    if (how === "less") places.forEach((i) => chosen.delete(i));
    this.model.set("selected", [...chosen].sort((a, b) => a - b));
    this.model.save_changes();
  }

  wheel(event) {
    event.preventDefault();
    const [x, y] = this.spot(event);
    const zoom = Math.min(Math.max(this.view.zoom * Math.exp(-event.deltaY / 300), 0.5), 60);
    this.zoomAt(zoom, (x - this.canvas.width / 2) / this.canvas.width / 0.94, (y - this.canvas.height / 2) / this.canvas.height / 0.92);
  }

  /** Zoom so that what stands at (x, y) stays there. */
  zoomAt(zoom, x = 0, y = 0) {
    const ratio = zoom / this.view.zoom;
    this.view = { zoom, x: x + (this.view.x - x) * ratio, y: y + (this.view.y - y) * ratio };
    this.paint();
  }

  home() {
    this.view = { zoom: 1, x: 0, y: 0 };
    this.paint();
  }

  key(event) {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    const done = () => { event.preventDefault(); event.stopPropagation(); };
    if (step) { done(); this.walk(step); }
    else if (event.key === " " || event.key === "Enter") { done(); if (this.at >= 0) this.choose([this.at], this.chosen.has(this.at) ? "less" : "add"); }
    else if (event.key === "Escape") { done(); this.cancel(); this.choose([]); }
    else if (event.key === "+" || event.key === "=") { done(); this.zoomAt(Math.min(this.view.zoom * 1.4, 60)); }
    else if (event.key === "-") { done(); this.zoomAt(Math.max(this.view.zoom / 1.4, 0.5)); }
    else if (event.key === "0") { done(); this.home(); }
  }

  /** Go to the nearest point in a direction. */
  walk([dx, dy]) {
    if (this.at < 0) return this.lookAt(this.count ? 0 : -1);
    const [x, y] = this.place(this.at);
    let [found, best] = [-1, Infinity];
    for (let i = 0; i < this.count; i += 1) {
      const [px, py] = this.place(i);
      const ahead = (px - x) * dx + (py - y) * dy;
      const aside = Math.abs((px - x) * dy) + Math.abs((py - y) * dx);
      if (ahead > 0.5 && ahead + 2 * aside < best) [found, best] = [i, ahead + 2 * aside];
    }
    if (found >= 0) this.lookAt(found);
  }

  /** Ask what a sample looks like; of a mouse that hurries past, only the last. */
  lookAt(i) {
    if (i === this.at) return;
    this.at = i;
    this.paint();
    clearTimeout(this.asking);
    if (i < 0) return;
    this.asking = setTimeout(() => this.model.send({ do: "look", place: i }), 40);
  }

  redraw() {
    const layer = this.layer.value;
    this.wire.send("draw", { layer: layer === "" ? null : Number(layer), by: this.by.value });
  }

  drawCard() {
    const seen = this.model.get("sample");
    if (seen.place === undefined) {
      this.card.replaceChildren(make("div", { class: "tlnb-detail" }, "point at a sample to see it"));
      return;
    }
    const picture = seen.picture ? make("img", { src: seen.picture, alt: `${seen.name}: ${seen.is}`, class: seen.picture.startsWith("data:image/png") ? "tlnb-small" : "" }) : null;
    const sound = seen.sound ? make("audio", { src: seen.sound, controls: "", preload: "none" }) : null;
    const sure = seen.sure === null ? "" : ` ${Math.round(100 * seen.sure)} %`;
    const taken = seen.taken ? make("div", { class: seen.taken === seen.is ? "" : "tlnb-wrong" }, `${seen.taken === seen.is ? "taken for it" : `taken for ${seen.taken}`}${sure}`) : null;
    this.card.replaceChildren(...[picture, sound, seen.text ? make("div", { class: "tlnb-map-text" }, seen.text) : null,
      make("div", { class: "tlnb-class-name" }, seen.is), taken, make("div", { class: "tlnb-detail" }, `${seen.name} · ${seen.part}`)].filter(Boolean));
  }
}
