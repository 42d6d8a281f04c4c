// What each rule looks for, in a sentence.
const RULE_WORDS = {
  basin: "a little below the rate at which the loss was lowest: the usual choice",
  valley: "the middle of the longest descent of the loss",
  steepest: "where the loss falls fastest: more careful",
  minimum: "a tenth of the rate at which the loss was lowest: careful, for a rate that stays the same",
  brink: "a tenth of the rate at which training breaks: for a network that is trained already",
};

const USUAL = 1e-3; // for AdamW

// A rate is picked on the curve, on the slider, or by the name of a rule.
class Picker {
  constructor(model, wire) {
    this.model = model;
    this.wire = wire;
    this.plot = make("div", { class: "tlnb-curve", onclick: (event) => this.click(event) });
    this.note = make("div", { class: "tlnb-detail" });
    this.stale = make("div", { class: "tlnb-status tlnb-warn", role: "status" });
    this.rules = make("div", { class: "tlnb-row", role: "group", "aria-label": "Rates that the rules suggest" });
    this.more = false; // whether all rules are shown
    this.slider = make("input", { type: "range", step: "0.01", class: "tlnb-slider", "aria-label": "learning rate, on a log scale",
      oninput: () => this.draw(this.slid()), onchange: () => this.wire.send("pick", { rate: this.slid() }), onkeydown: (event) => event.stopPropagation() });
    this.shown = make("output", { class: "tlnb-rate" });
    this.groups = make("div", { class: "tlnb-detail" });
    this.epochs = make("input", { type: "number", min: 1, class: "tlnb-number-box", "aria-label": "epochs", onkeydown: (event) => event.stopPropagation(),
      // As it is typed: told only when the field is left, by a press on Train, the page would move under that press.
      oninput: () => { if (this.typed >= this.least) this.wire.send("set_epochs", { epochs: this.typed }); this.update(); }, onchange: () => this.update() });
    this.again = button("Find a rate", () => this.wire.send("find"));
    this.train = button("Train", () => this.wire.send("train"), { class: "tlnb-button tlnb-main" });
    this.chooser = make("div", {}, this.plot, this.stale, this.note, this.rules, make("div", { class: "tlnb-row" }, this.slider, this.shown), this.groups);
    this.hint = make("div", { class: "tlnb-detail" }, "Train fits a new head first and then trains the rest. For a stage of your own, say how many epochs; Find a rate shows the curve, to pick a rate on it");
    this.skip = button(`Skip the test: ${rate(USUAL)}`, () => this.wire.send("pick", { rate: USUAL }), { title: "train at a rate that is seldom far off, without looking for a better one" });
    this.bare = make("output", { class: "tlnb-usual-rate" });
    this.bar = make("div", { class: "tlnb-row" }, this.again, this.skip, this.bare, make("label", {}, "epochs ", this.epochs), this.train);
    this.element = make("div", { class: "tlnb-picker" }, this.chooser, this.bar, this.hint);
    this.size = new ResizeObserver(() => { if (this.plot.clientWidth !== this.width) this.update(); });
    this.size.observe(this.plot);
    const stop = follow(model, ["curve", "rate", "epochs", "stale", "busy", "doing", "disabled"], () => this.update());
    this.stop = () => { stop(); this.size.disconnect(); };
    this.update();
  }

  /** The number of epochs that stands in the field; NaN where that is none, 0 where nothing need be said. */
  get typed() {
    if (!this.epochs.value && !this.epochs.validity.badInput && !this.least) return 0;
    return /^0*[1-9][0-9]*$/.test(this.epochs.value) ? Number(this.epochs.value) : NaN;
  }

  get least() {
    return this.model.get("least");
  }

  slid() {
    return 10 ** Number(this.slider.value);
  }

  update(anew = false) {
    const curve = this.model.get("curve");
    const has = Boolean(curve && curve.rates && curve.rates.length > 1);
    const busy = engaged(this.model);
    this.chooser.hidden = !has;
    const typed = has ? null : this.model.get("rate");
    this.skip.hidden = has || Boolean(typed);
    say(this.bare, typed ? `rate ${rate(typed)}` : "");
    this.bare.hidden = !typed;
    this.hint.hidden = has;
    say(this.again, has ? "Find again" : "Find a rate");
    for (const control of [this.again, this.skip, this.train, this.slider, this.epochs]) control.disabled = busy;
    if (anew || this.epochs.getRootNode().activeElement !== this.epochs) this.epochs.value = String(this.model.get("epochs") || "");
    this.epochs.placeholder = this.least ? "" : "auto";
    const wrong = !(this.typed >= this.least);
    this.epochs.setAttribute("aria-invalid", String(wrong));
    this.epochs.title = wrong ? "a whole number from 1 up" : "";
    this.train.disabled ||= wrong;
    const stale = has && this.model.get("stale");
    say(this.stale, stale ? `⚠ ${stale}` : "");
    this.stale.hidden = !stale;
    this.chooser.classList.toggle("tlnb-old", Boolean(stale));
    this.train.disabled ||= Boolean(stale);
    if (!has) return;
    const rates = curve.rates.map(Math.log10);
    [this.slider.min, this.slider.max] = [rates[0].toFixed(2), rates[rates.length - 1].toFixed(2)];
    say(this.note, curve.note);
    const all = Object.entries(curve.suggestions).filter(([, value]) => value);
    const first = [curve.rule, "basin", "minimum", "brink"]; // two are shown, those that are asked for most
    const two = [...all].sort(([a], [b]) => (first.indexOf(a) + 9) % 9 - (first.indexOf(b) + 9) % 9).slice(0, 2);
    this.rules.replaceChildren(...(this.more || all.length < 4 ? all : two).map(([name, value]) => {
      const [colour, shape] = lookOf(name);
      return make("button", { class: "tlnb-button tlnb-rule", type: "button", title: `${name}: ${RULE_WORDS[name] || "a rule of yours"}`, disabled: busy ? "" : null,
        onclick: () => this.wire.send("pick", { rate: value }) },
      draw("svg", { width: 12, height: 12, viewBox: "-6 -6 12 12", "aria-hidden": "true" }, draw("path", { d: shape, fill: colour })), ` ${name} ${rate(value)}`);
    }), ...(all.length < 4 ? [] : [button(this.more ? "fewer" : "more", () => { this.more = !this.more; this.update(); }, { "aria-expanded": String(this.more), title: "what other rules read off the curve" })]));
    const picked = this.model.get("rate");
    if (picked) this.slider.value = String(Math.log10(picked));
    this.draw(picked);
  }

  draw(picked) {
    const curve = this.model.get("curve");
    this.width = this.plot.clientWidth;
    // The middle of the thumb, 16 pixels wide, stands under the mark that it moves.
    this.slider.style.width = `${Math.max(this.width || 560, 240) - SPACE.left - SPACE.right + 16}px`;
    this.slider.style.marginLeft = `${SPACE.left - 8}px`;
    const drawn = drawCurve(curve, Math.max(this.width || 560, 240), picked);
    this.rateAt = drawn.rateAt;
    this.plot.replaceChildren(drawn.svg);
    say(this.shown, picked ? `rate ${rate(picked)}` : "no rate picked");
    const groups = picked ? Object.entries(curve.ratios).map(([name, ratio]) => `${name} ${rate(picked * ratio)}`) : [];
    say(this.groups, groups.length > 1 ? `rate of each layer: ${groups.join(" · ")}` : "");
    this.groups.hidden = groups.length < 2;
  }

  click(event) {
    if (engaged(this.model) || !this.rateAt) return;
    const picked = this.rateAt(event.clientX - this.plot.getBoundingClientRect().left);
    this.draw(picked);
    this.wire.send("pick", { rate: picked });
  }
}
