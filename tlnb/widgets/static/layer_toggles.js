// The layers of a network as a strip in data order: a box a layer, ice where frozen, warm where it trains, dotted where
// it is adapted: its weights stay, and what is added to them trains.
const FLOOR = 26; // pixels; narrower boxes cannot be hit
const PRESETS = [["head", "Head only"], ["third", "Last third"], ["all", "All train"], ["none", "All frozen"]];

/** A strip of toggles; used by the view of its own and by the panel. */
class Strip {
  constructor(model, wire) {
    this.model = model;
    this.wire = wire;
    this.active = 0; // the box that Tab reaches
    this.anchor = null; // where a shift-click's range starts
    this.drag = null;
    this.boxes = [];
    this.wish = new Map(); // states that were asked for, by box, until they are answered: the next key goes from there
    this.bar = make("div", { class: "tlnb-strip", role: "group", "aria-label": "Layers of the network, in the order in which data flows",
      onkeydown: (event) => this.key(event), onpointerdown: (event) => this.press(event), onpointermove: (event) => this.move(event),
      onpointerup: (event) => this.release(event), onpointercancel: () => this.cancel() });
    this.detail = make("div", { class: "tlnb-detail", "aria-hidden": "true" });
    this.summary = make("div", { class: "tlnb-summary", "aria-live": "polite" });
    this.magic = make("code", { class: "tlnb-magic" });
    this.presets = make("div", { class: "tlnb-row", role: "group", "aria-label": "Presets" },
      ...PRESETS.map(([name, label]) => button(label, () => this.wire.send("preset", { name }))),
      make("span", { class: "tlnb-legend" }, icon("frozen"), " frozen", icon("adapted"), " adapted", icon("trains"), " trains"));
    this.element = make("div", { class: "tlnb-toggles" }, this.bar, this.detail, this.presets, this.summary, this.magic);
    this.size = new ResizeObserver(() => this.widths());
    this.size.observe(this.bar);
    const stops = [follow(model, ["layers"], () => this.build()), follow(model, ["states", "summary", "magic", "busy", "doing", "disabled"], () => this.update())];
    this.stop = () => { stops.forEach((stop) => stop()); this.size.disconnect(); };
    wire.onsettle = () => this.settled();
    this.build();
  }

  get states() {
    return this.model.get("states").map((state, i) => this.wish.get(i) ?? state);
  }

  /** All that was asked for is answered. */
  settled() {
    if (!this.wish.size) return;
    this.wish.clear();
    // A front end with values of its own (marimo) learns them when a view sets them; elsewhere nothing is sent.
    this.model.set("states", this.model.get("states"));
    this.model.save_changes();
    this.update();
  }

  build() {
    const before = this.layers || [];
    this.layers = this.model.get("layers");
    this.room = null;
    // The same layers keep their boxes: a key, a drag and what was asked for last go on.
    const same = this.layers.length > 0 && before.length === this.layers.length && before.every((layer, i) => layer.name === this.layers[i].name);
    if (!same) this.fill();
    this.widths();
    this.update();
  }

  /** New boxes; where one had the focus, one has it again. */
  fill() {
    const focused = this.bar.contains(this.bar.getRootNode().activeElement);
    this.active = Math.min(this.active, Math.max(this.layers.length - 1, 0));
    this.drag = this.anchor = null;
    this.wish.clear();
    // Without a tabindex no box could take the focus.
    this.boxes = this.layers.map((layer, i) => make("div", { class: "tlnb-layer", role: "checkbox", tabindex: i === this.active ? 0 : -1, "data-index": i,
      onfocus: () => { this.reach(i); this.describe(i); }, onpointerenter: () => this.describe(i), onpointerleave: () => this.describe(this.active, true) },
    make("span", { class: "tlnb-state" }), make("span", { class: "tlnb-name" }, layer.name), make("span", { class: "tlnb-number" }, String(i))));
    this.bar.replaceChildren(...this.boxes);
    if (focused && this.boxes.length) this.boxes[this.active].focus({ preventScroll: true });
  }

  widths() {
    const room = this.bar.clientWidth;
    const count = this.layers.length;
    if (!room || !count || (room === this.room && count === this.counted)) return;
    [this.room, this.counted] = [room, count];
    const gap = 3;
    const total = this.layers.reduce((sum, layer) => sum + layer.parameters, 0) || 1;
    const free = room - count * (FLOOR + gap);
    const rows = free < 0;
    this.bar.classList.toggle("tlnb-wrapped", rows);
    const most = Math.max(...this.layers.map((layer) => layer.parameters), 1);
    this.boxes.forEach((box, i) => {
      const share = rows ? (this.layers[i].parameters / most) * FLOOR * 1.5 : (this.layers[i].parameters / total) * free;
      const width = Math.floor(FLOOR + share);
      box.style.flexBasis = `${width}px`;
      box.classList.toggle("tlnb-wide", !rows && width > 64);
    });
  }

  update() {
    const states = this.states;
    const busy = engaged(this.model);
    this.boxes.forEach((box, i) => {
      const layer = this.layers[i];
      const state = states[i] || "trains";
      if (box.dataset.state !== state) {
        box.dataset.state = state;
        box.dataset.frozen = String(state === "frozen");
        box.firstChild.replaceChildren(icon(state));
      }
      box.setAttribute("aria-checked", { frozen: "false", adapted: "mixed", trains: "true" }[state]);
      box.setAttribute("aria-disabled", String(busy));
      box.setAttribute("aria-label", this.words(i));
      box.title = this.words(i);
      box.tabIndex = i === this.active ? 0 : -1;
      box.classList.toggle("tlnb-head", layer.head);
    });
    this.bar.classList.toggle("tlnb-busy", busy);
    for (const preset of this.presets.querySelectorAll("button")) preset.disabled = busy;
    say(this.summary, this.model.get("summary"));
    say(this.magic, this.model.get("magic"));
    this.magic.hidden = !this.model.get("magic");
    this.describe(this.active, true);
  }

  words(i) {
    const layer = this.layers[i];
    const state = this.state(i);
    const output = layer.shape ? `output ${layer.shape.join("×")}, ` : "";
    return `layer ${i}, ${layer.name}${layer.head ? " (head)" : ""}, ${layer.kind}, ${output}${number.format(layer.parameters)} parameters, ${state}`;
  }

  describe(i, quiet = false) {
    const words = this.layers.length ? this.words(i) : "no layers yet";
    say(this.detail, quiet && !this.bar.contains(this.bar.ownerDocument.activeElement) ? "click a layer to thaw, adapt or freeze it; drag or shift-click for a range" : words);
  }

  reach(i) {
    this.active = i;
    this.boxes.forEach((box, j) => { box.tabIndex = i === j ? 0 : -1; });
  }

  state(i) {
    return this.states[i] || "trains";
  }

  /** The state that a click gives: frozen layers train, what trains is adapted where that can be, else frozen. */
  next(i) {
    const state = this.state(i);
    if (state === "frozen") return "trains";
    return state === "trains" && this.layers[i].adaptable ? "adapted" : "frozen";
  }

  /** Give the boxes between two, both included, a state. */
  set(from, to, state) {
    const [low, high] = from < to ? [from, to] : [to, from];
    if (!engaged(this.model)) {
      for (let i = low; i <= high; i += 1) if (state !== "adapted" || this.layers[i].adaptable) this.wish.set(i, state);
      this.update();
    }
    this.wire.send("set", { low, high, state });
  }

  at(event) {
    const under = this.bar.getRootNode().elementFromPoint(event.clientX, event.clientY);
    const box = under && under.closest(".tlnb-layer");
    return box && this.bar.contains(box) ? Number(box.dataset.index) : null;
  }

  press(event) {
    const i = this.at(event);
    if (event.button !== 0 || i === null) return;
    event.preventDefault();
    this.boxes[i].focus({ preventScroll: true });
    this.bar.setPointerCapture(event.pointerId);
    this.drag = { from: event.shiftKey && this.anchor !== null ? this.anchor : i, to: i, shift: event.shiftKey && this.anchor !== null };
    this.mark();
  }

  move(event) {
    if (!this.drag) return;
    const i = this.at(event);
    if (i !== null && i !== this.drag.to) {
      this.drag.to = i;
      this.describe(i);
      this.mark();
    }
  }

  release() {
    if (!this.drag) return;
    const { from, to, shift } = this.drag;
    // A range takes the state that its first box gets; after a shift-click that box has it already.
    this.set(from, to, shift ? this.state(from) : this.next(from));
    if (!shift) this.anchor = from;
    this.cancel();
  }

  cancel() {
    this.drag = null;
    this.mark();
  }

  mark() {
    const { from, to } = this.drag || { from: 1, to: 0, none: true };
    const [low, high] = this.drag ? [Math.min(from, to), Math.max(from, to)] : [1, 0];
    this.boxes.forEach((box, i) => box.classList.toggle("tlnb-marked", i >= low && i <= high));
  }

  key(event) {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const last = this.boxes.length - 1;
    let to = this.active;
    if (step) to = Math.min(Math.max(to + step, 0), last);
    else if (event.key === "Home") to = 0;
    else if (event.key === "End") to = last;
    else if (event.key === " " || event.key === "Enter") {
      this.anchor = this.active;
      this.set(this.active, this.active, this.next(this.active));
    } else return;
    event.preventDefault();
    event.stopPropagation(); // JupyterLab would move to another cell
    if (to !== this.active) {
      if (event.shiftKey) this.set(this.active, to, this.state(this.active));
      this.boxes[to].focus();
    }
  }
}
