// Suspects as cards in a grid: each says what its sample is labelled, what it is likely, and why. K keeps, R or Enter
// takes the likely label, L picks another, D drops, U takes back; arrows move.
const KINDS = [["all", "all"], ["label", "wrong labels"], ["copy", "copies"], ["odd", "odd"], ["dark", "dark"], ["blurred", "blurred"], ["empty", "empty"], ["marked", "marked"]];
const KEYS_OF_SUSPECTS = "keys: arrows move · K keep · R likely label · L other label · D drop · U undo · Page Up, Page Down";

class SuspectGrid {
  constructor(model, wire) {
    this.model = model;
    this.wire = wire;
    this.active = 0; // the card that Tab reaches
    this.pictures = new Map(); // by sample, as they were sent
    this.asked = new Set();
    this.cards = [];
    this.summary = make("div", { class: "tlnb-summary" });
    this.kinds = make("div", { class: "tlnb-row", role: "group", "aria-label": "Which suspects are shown" });
    this.grid = make("div", { class: "tlnb-suspects-grid", role: "list", "aria-label": "Suspects, the most suspicious first", "data-lm-suppress-shortcuts": "true", onkeydown: (event) => this.key(event) });
    this.empty = make("div", { class: "tlnb-detail" }, "nothing to show here");
    this.back = button("‹ Previous", () => this.turn(-1));
    this.next = button("Next ›", () => this.turn(1));
    this.where = make("span", { class: "tlnb-detail", "aria-live": "polite" });
    this.undo = button("Undo", () => this.wire.send("undo"));
    this.again = button("Look again", () => this.wire.send("clean"), { title: "look for suspects in the data as it is now" });
    this.standing = make("span", { class: "tlnb-detail", role: "status" });
    this.magic = make("code", { class: "tlnb-magic" });
    this.element = make("div", { class: "tlnb-suspects" }, this.summary, this.kinds, this.grid, this.empty,
      make("div", { class: "tlnb-row" }, this.back, this.where, this.next, this.undo, this.again, this.standing),
      make("div", { class: "tlnb-detail tlnb-spare" }, KEYS_OF_SUSPECTS), this.magic);
    const stops = [follow(model, ["rows"], () => this.build()), follow(model, ["marks", "busy", "doing", "disabled", "counts", "standing", "summary", "magic", "show", "page", "pages", "found"], () => this.update())];
    this.heard = (message) => this.hear(message);
    model.on("msg:custom", this.heard);
    this.stop = () => { stops.forEach((stop) => stop()); model.off("msg:custom", this.heard); };
    this.build();
  }

  get off() {
    return engaged(this.model) || this.model.get("disabled");
  }

  build() {
    const focused = this.grid.contains(this.grid.getRootNode().activeElement);
    this.rows = this.model.get("rows");
    this.active = Math.min(this.active, Math.max(this.rows.length - 1, 0));
    this.cards = this.rows.map((row, i) => this.card(row, i));
    this.grid.replaceChildren(...this.cards.map((card) => card.element));
    const wanted = this.model.get("seen") === "text" || !this.model.get("seen") ? [] : this.rows.map((row) => row.sample).filter((sample) => !this.pictures.has(sample) && !this.asked.has(sample));
    if (wanted.length) {
      wanted.forEach((sample) => this.asked.add(sample));
      this.model.send({ do: "thumbs", samples: wanted });
    }
    this.update();
    if (focused && this.cards.length) this.cards[this.active].element.focus({ preventScroll: true });
  }

  card(row, i) {
    const seen = this.model.get("seen");
    const picture = seen === "picture" || seen === "sound" ? make("img", { alt: "", class: "tlnb-suspect-picture" }) : null;
    if (picture && this.pictures.has(row.sample)) this.put(picture, this.pictures.get(row.sample));
    const text = row.text ? make("div", { class: "tlnb-suspect-text" }, row.text) : null;
    const play = seen === "sound" ? button("▶", (event) => { event.stopPropagation(); this.model.send({ do: "listen", sample: row.sample }); }, { "aria-label": `play ${row.name}`, tabindex: -1 }) : null;
    const label = make("div", { class: "tlnb-suspect-label" }, make("b", {}, row.given), ...(row.likely ? [" → ", make("span", { class: "tlnb-suspect-likely" }, row.likely), "?"] : []));
    const why = make("div", { class: "tlnb-detail", title: `${row.name} (${row.part})` }, row.why);
    const mark = make("div", { class: "tlnb-suspect-mark" });
    const buttons = [button("Keep", () => this.decide(i, "keep"), { title: "it is right as it is (K)", tabindex: -1 }), button("Drop", () => this.decide(i, "drop"), { title: "leave it out (D)", tabindex: -1 })];
    const classes = this.model.get("classes");
    let select = null;
    if (classes.length) {
      if (row.likely) buttons.push(button(row.likely, () => this.decide(i, "relabel", row.likely), { title: `relabel: ${row.likely} (R)`, "aria-label": `relabel ${row.likely}`, class: "tlnb-button tlnb-suspect-take", tabindex: -1 }));
      select = make("select", { class: "tlnb-text tlnb-suspect-other", "aria-label": "another label", title: "another label (L)", tabindex: -1, onkeydown: (event) => event.stopPropagation(),
        onchange: (event) => { if (event.target.value) this.decide(i, "relabel", classes[Number(event.target.value) - 1]); event.target.value = ""; this.focus(i); } },
      make("option", { value: "" }, "other…"), ...classes.map((name, at) => make("option", { value: at + 1 }, name)));
      buttons.push(select);
    }
    const element = make("div", { class: "tlnb-suspect", role: "listitem", tabindex: -1, onfocus: () => this.reach(i), onpointerdown: (event) => { if (!event.target.closest("button, select")) this.focus(i); } },
      picture, text, label, why, mark, make("div", { class: "tlnb-suspect-row" }, play, ...buttons));
    return { row, element, picture, mark, controls: [...buttons], select };
  }

  put(picture, uri) {
    if (!uri) { picture.hidden = true; return; }
    picture.src = uri;
    picture.onload = () => picture.classList.toggle("tlnb-small", Math.max(picture.naturalWidth, picture.naturalHeight) <= 64);
  }

  hear(message) {
    for (const [sample, uri] of Object.entries((message && message.pictures) || {})) {
      this.pictures.set(Number(sample), uri);
      this.cards.filter((card) => card.row.sample === Number(sample) && card.picture).forEach((card) => this.put(card.picture, uri));
    }
    for (const uri of Object.values((message && message.sounds) || {})) if (uri) new Audio(uri).play();
  }

  update() {
    const off = this.off, marks = this.model.get("marks"), counts = this.model.get("counts"), show = this.model.get("show"), found = this.model.get("found");
    say(this.summary, this.model.get("summary"));
    const shown = KINDS.filter(([kind]) => counts[kind] || kind === show || kind === "all");
    // Made once, then changed: a press must not lose its button.
    if (this.shownKinds !== shown.map(([kind]) => kind).join()) {
      this.shownKinds = shown.map(([kind]) => kind).join();
      this.kindButtons = shown.map(([kind, words]) => [kind, words, button("", () => this.wire.send("choose", { show: kind }))]);
      this.kinds.replaceChildren(...this.kindButtons.map(([, , control]) => control));
    }
    for (const [kind, words, control] of this.kindButtons) {
      say(control, `${words} ${number.format(counts[kind] || 0)}`);
      control.setAttribute("aria-pressed", String(kind === show));
    }
    this.kinds.hidden = !found;
    this.empty.hidden = !found || this.cards.length > 0;
    this.cards.forEach((card, i) => {
      const words = marks[String(card.row.sample)] || "";
      const done = words.replace(/^keep$/, "kept").replace(/^drop$/, "dropped").replace(/^relabel /, "labelled ");
      say(card.mark, done ? `✓ ${done}` : "");
      card.element.dataset.mark = words.split(" ")[0];
      card.element.tabIndex = i === this.active ? 0 : -1;
      card.element.setAttribute("aria-label", `${card.row.text || card.row.name}, labelled ${card.row.given || "nothing"}: ${card.row.why}${done ? `; ${done}` : ""}`);
      card.controls.forEach((control) => { control.disabled = off; control.tabIndex = i === this.active ? 0 : -1; });
    });
    const page = this.model.get("page"), pages = this.model.get("pages");
    say(this.where, `page ${page + 1} of ${number.format(pages)}`);
    this.back.disabled = page <= 0;
    this.next.disabled = page >= pages - 1;
    for (const part of [this.back, this.next, this.where]) part.hidden = pages < 2;
    this.undo.disabled = off || !Object.keys(marks).length;
    this.undo.hidden = !found;
    this.again.disabled = off;
    say(this.again, found ? "Look again" : "Look for suspects");
    say(this.standing, found ? this.model.get("standing") : "");
    say(this.magic, this.model.get("magic"));
  }

  turn(step) {
    const page = this.model.get("page") + step;
    if (page < 0 || page >= this.model.get("pages")) return false;
    this.wire.send("turn", { page });
    return true;
  }

  decide(i, action, label) {
    if (this.off || !this.cards[i]) return;
    this.wire.send(action, { sample: this.cards[i].row.sample, ...(label === undefined ? {} : { label }) });
  }

  reach(i) {
    if (i === this.active) return;
    this.active = i;
    this.cards.forEach((card, at) => {
      card.element.tabIndex = at === i ? 0 : -1;
      card.controls.forEach((control) => { control.tabIndex = at === i ? 0 : -1; });
    });
  }

  focus(i) {
    if (this.cards[i]) this.cards[i].element.focus();
  }

  /** How many cards stand side by side. */
  get across() {
    const top = this.cards.length ? this.cards[0].element.offsetTop : 0;
    const first = this.cards.findIndex((card) => card.element.offsetTop !== top);
    return first < 0 ? Math.max(this.cards.length, 1) : first;
  }

  key(event) {
    if (event.ctrlKey && event.key.toLowerCase() === "z") { this.done(event); this.wire.send("undo"); return; }
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("select")) return;
    const i = this.active, card = this.cards[i];
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: this.across, ArrowUp: -this.across };
    if (event.key in steps) {
      this.done(event);
      const to = i + steps[event.key];
      if (to >= 0 && to < this.cards.length) this.focus(to);
      else if (to < 0 ? this.turn(-1) : this.turn(1)) this.active = to < 0 ? this.cards.length - 1 : 0;
      return;
    }
    const onButton = event.target.closest("button");
    const key = event.key.toLowerCase();
    const does = {
      k: () => this.decide(i, "keep"), d: () => this.decide(i, "drop"), u: () => this.wire.send("undo"),
      r: () => { if (card && card.row.likely && this.model.get("classes").length) this.decide(i, "relabel", card.row.likely); },
      l: () => { if (card && card.select) card.select.focus(); },
      pagedown: () => this.turn(1), pageup: () => this.turn(-1), home: () => this.focus(0), end: () => this.focus(this.cards.length - 1),
    };
    if (key === "enter" && !onButton) { this.done(event); does.r(); return; }
    if (!(key in does)) { if (key.length === 1) event.stopPropagation(); return; }
    this.done(event);
    does[key]();
    if (["k", "d", "r"].includes(key) && i + 1 < this.cards.length) this.focus(i + 1);
  }

  done(event) {
    event.preventDefault();
    event.stopPropagation();
  }
}
