// Network, data, layers, rate and training in one place, with the magics that do the same.
class Panel {
  constructor(model, wire) {
    this.model = model;
    const list = fresh("networks");
    this.network = this.field("network", "convnet5", "load", "model", "Load", list);
    this.data = this.field("data", "digits", "data", "source", "Use", fresh("sources"));
    this.lists = [make("datalist", { id: list }, ...model.get("names").map((name) => make("option", { value: name }))),
      make("datalist", { id: this.data.list }, make("option", { value: "digits" }), make("option", { value: "glyphs" }))];
    this.strip = new Strip(model, wire);
    this.strip.magic.remove();
    this.picker = new Picker(model, wire);
    this.training = new Training(model, wire);
    this.magics = make("pre", { class: "tlnb-magics", "aria-label": "what was done, as magics" });
    this.none = make("span", { class: "tlnb-detail" }, "what you do here is written down as magics");
    this.networkPart = this.part("1", "Network", this.network.row, this.network.says);
    this.dataPart = this.part("2", "Data", this.data.row, this.data.says, this.training.notes);
    this.layersPart = this.part("3", "Layers", this.strip.element);
    this.ratePart = this.part("4", "Rate and training", this.picker.element, this.training.element);
    this.element = make("div", { class: "tlnb-panel" }, ...this.lists, this.networkPart, this.dataPart, this.layersPart, this.ratePart, this.part("≙", "The same as magics", this.none, this.magics));
    // What is said about an action stands where it was clicked.
    const places = { load: this.networkPart, data: this.dataPart, set: this.layersPart, preset: this.layersPart };
    wire.onsend = (action) => (places[action] || this.picker.element).append(wire.status);
    for (const [field, action, key] of [[this.network, "load", "model"], [this.data, "data", "source"]]) {
      const go = () => wire.send(action, { [key]: field.input.value || field.input.placeholder });
      field.button.addEventListener("click", go);
      field.input.addEventListener("keydown", (event) => { event.stopPropagation(); if (event.key === "Enter") go(); });
    }
    const stops = follow(model, ["network", "source", "magics", "layers", "busy", "doing"], () => this.update());
    this.stop = () => { stops(); this.strip.stop(); this.picker.stop(); this.training.stop(); };
    this.update();
  }

  field(name, usual, action, key, label, list) {
    const input = make("input", { type: "text", class: "tlnb-text", placeholder: usual, list, "aria-label": name, spellcheck: "false" });
    const go = button(label, () => {});
    return { input, button: go, list, row: make("div", { class: "tlnb-row" }, input, go), says: make("div", { class: "tlnb-summary" }) };
  }

  /** What is in use stands in the field, unless something else is being typed there. */
  known(field, words) {
    const name = words.split(": ")[0];
    if (name !== field.name && field.input.value === (field.name || "")) field.input.value = name;
    field.name = name;
  }

  part(sign, title, ...children) {
    return make("section", { class: "tlnb-part" }, make("h4", {}, make("span", { class: "tlnb-sign", "aria-hidden": "true" }, sign), title), ...children);
  }

  update() {
    const busy = engaged(this.model);
    const layers = this.model.get("layers").length > 0;
    this.known(this.network, this.model.get("network"));
    this.known(this.data, this.model.get("source"));
    say(this.network.says, this.model.get("network") || "none yet: convnet5 ships with tlnb");
    say(this.data.says, this.model.get("source") || "none yet: digits, glyphs, or a folder of class folders");
    this.network.button.disabled = this.data.button.disabled = busy;
    this.layersPart.hidden = !layers;
    this.ratePart.hidden = !(layers && this.model.get("source"));
    say(this.magics, this.model.get("magics").join("\n"));
    this.magics.hidden = !this.magics.textContent;
    this.none.hidden = !this.magics.hidden;
  }
}
