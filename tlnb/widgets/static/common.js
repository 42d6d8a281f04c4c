// Shared by every view. Names of layers, classes and files reach the page as text nodes alone.
const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes and children; a string child becomes a text node. */
function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
function draw(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Put text into an element only where it differs, so that nothing flickers. */
function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** What comes from a click: sent with a number, answered by the kernel, with a word while it waits. */
class Wire {
  constructor(model, status) {
    this.model = model;
    this.status = status;
    this.sent = 0;
    this.timer = null;
    this.waits = new Map(); // what was asked for and is waited for, by number
    this.heard = (message) => {
      if (!message || message.done === undefined) return;
      if (message.done === this.sent) this.settle();
      this.waits.get(message.done)?.();
      this.waits.delete(message.done);
    };
    model.on("msg:custom", this.heard);
    this.onsend = this.onsettle = () => {};
    this.shown = () => this.show();
    this.stop = follow(model, ["error", "doing", "state"], this.shown);
    this.show();
  }

  send(action, values = {}, buffers = undefined) {
    this.sent += 1;
    this.onsend(action);
    this.model.send({ do: action, id: this.sent, ...values }, undefined, buffers);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.show("waiting: the kernel takes this up when the running cell has ended"), 700);
  }

  /** Send, and wait until the kernel has taken it; false where it said that something is wrong. */
  async ask(action, values = {}, buffers = undefined) {
    this.send(action, values, buffers);
    await new Promise((done) => this.waits.set(this.sent, done));
    return !this.model.get("error");
  }

  settle() {
    clearTimeout(this.timer);
    this.timer = null;
    this.show();
    this.onsettle();
  }

  show(waiting = "") {
    const error = this.model.get("error");
    // A run says itself how far it is.
    const doing = ["running", "paused", "stopping"].includes(this.model.get("state")) ? "" : this.model.get("doing");
    this.status.classList.toggle("tlnb-error", Boolean(error) && !waiting && !doing);
    say(this.status, doing || waiting || (error ? `⚠ ${error}` : ""));
    this.status.hidden = !this.status.textContent;
  }

  close() {
    clearTimeout(this.timer);
    this.model.off("msg:custom", this.heard);
    this.stop();
  }
}

/** The line for errors and for waiting, which a screen reader speaks. */
function statusLine() {
  return make("div", { class: "tlnb-status", role: "status", "aria-live": "polite", hidden: "" });
}

function button(label, onclick, attributes = {}) {
  return make("button", { class: "tlnb-button", type: "button", onclick, ...attributes }, label);
}

/** The view is on the page: its static twins rest as long as it is and the kernel is the one that it came from. */
function rest(model, el) {
  const key = CSS.escape(model.get("key"));
  // Only the output that holds nothing but the twin goes wholly: it may stand in another one (Output, interact), and
  // what an answer says beside its twin stays.
  const twin = `.tlnb-twin[data-of="${key}"]`;
  const rule = make("style", {}, `${twin} { display: none; } .jp-OutputArea-child:has(> .jp-OutputArea-output > ${twin}:only-child) { display: none; }`);
  const lost = make("div", { class: "tlnb-lost-note", role: "status" }, "The kernel of this view is gone; run its cell again.");
  el.classList.add("tlnb-host");
  const twins = () => [...document.querySelectorAll(`.tlnb-twin[data-of="${key}"]`)];
  const alive = () => {
    if (model.get("retired")) return gone(true);
    lost.remove();
    el.classList.remove("tlnb-lost");
    if (el.contains(rule)) return;
    el.hidden = false;
    el.append(rule);
  };
  const gone = (always) => {
    if (always !== true && !twins().some((twin) => twin.textContent.trim())) {
      el.classList.add("tlnb-lost"); // nothing else would be left to see
      el.prepend(lost);
      return;
    }
    rule.remove();
    el.hidden = true;
  };
  alive();
  model.on("comm_live_update", gone); // the kernel was restarted
  model.on("change", alive); // it is back after all
  return () => { model.off("comm_live_update", gone); model.off("change", alive); };
}

/** Follow traits until the view goes away. */
function follow(model, names, redraw) {
  for (const name of names) model.on(`change:${name}`, redraw);
  return () => names.forEach((name) => model.off(`change:${name}`, redraw));
}

let serial = 0;
function fresh(prefix) {
  serial += 1;
  return `tlnb-${prefix}-${serial}-${Math.random().toString(36).slice(2, 8)}`;
}

/** Whether a click could not be taken up now. */
const engaged = (model) => Boolean(model.get("disabled") || (model.get("busy") && !(model.filming && model.get("busy") === "predicting")) || model.get("doing"));

const number = new Intl.NumberFormat("en-GB");
const rate = (value) => Number(value).toExponential(1).replace("e+", "e").replace(/e(-?)(\d)$/, "e$10$2");
const percent = (value) => `${(100 * value).toFixed(1)} %`;

function duration(seconds) {
  if (seconds === null || seconds === undefined) return "";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

/** A snowflake, a flame or a diamond, drawn, since not every machine has such letters. */
function icon(state) {
  const frozen = state === "frozen";
  const shape = state === "adapted" ? "M8 1l5.500 7-5.500 7-5.500-7z" : frozen
    ? "M8 1v14M1.9 4.5l12.2 7M14.1 4.5l-12.2 7M6 2.2l2 2 2-2M6 13.8l2-2 2 2M1.9 7.2l2.6-.7-.7-2.6M14.1 8.8l-2.6.7.7 2.6M14.1 7.2l-2.6-.7.7-2.6M1.9 8.8l2.6.7-.7 2.6"
    : "M8 15c-3 0-5-2-5-4.700 0-2.300 1.600-3.500 2.300-5.300.5 1.200.9 1.700 1.700 2.200C7 5 7.600 2.800 9 1c.2 3 4 5 4 9.300 0 2.700-2 4.700-5 4.700z";
  return draw("svg", { class: "tlnb-icon", viewBox: "0 0 16 16", width: 14, height: 14, "aria-hidden": "true" },
    draw("path", frozen ? { d: shape, fill: "none", stroke: "currentColor", "stroke-width": 1.2 } : { d: shape, fill: "currentColor" }));
}
