// Network, data, layers, rate, training and what came of it in one place, with the magics that do the same.
const AUGMENTS = [["none", "as they are"], ["light", "small moves"], ["standard", "crops and mirror images"], ["strong", "strong changes"]];
const AFTER = [["results", "Results"], ["advise", "Advise"], ["further", "Go on"], ["undo", "Undo"], ["resume", "Resume"]];

class Panel {
  constructor(model, wire) {
    this.model = model;
    this.wire = wire;
    const list = fresh("networks");
    this.network = this.field("network", "convnet5", "Load", list);
    this.data = this.field("data", "digits", "Use", fresh("sources"));
    this.lists = [make("datalist", { id: list }, ...model.get("names").map(([name, says]) => make("option", { value: name, label: `${name} · ${says}` }))),
      make("datalist", { id: this.data.list }, make("option", { value: "digits" }), make("option", { value: "glyphs" }))];
    this.about = make("div", { class: "tlnb-detail" }, "a name from the list, or a file of weights (.pth, .safetensors)");
    this.browse = button("Browse …", () => wire.send(Object.keys(model.get("folder")).length ? "look_away" : "look"), { "aria-expanded": "false" });
    this.augment = make("select", { class: "tlnb-text tlnb-short", "aria-label": "random changes to the training pictures", title: "random changes to the training pictures", onkeydown: (event) => event.stopPropagation() },
      ...AUGMENTS.map(([name, says]) => make("option", { value: name }, says)));
    this.mine = button("Own pictures …", () => wire.send(Object.keys(model.get("own")).length ? "own_close" : "own"), { "aria-expanded": "false", title: "drop, pick or film pictures into classes" });
    this.data.row.append(this.browse, this.mine, this.augment);
    this.own = new OwnPictures(model, wire, (folder) => this.takeData(folder));
    this.folder = make("div", { class: "tlnb-folder", hidden: "" });
    this.gallery = make("div", { class: "tlnb-gallery" });
    this.look = button("Look at the pictures", () => wire.send("pictures"));
    this.strip = new Strip(model, wire);
    this.strip.magic.remove();
    this.picker = new Picker(model, wire);
    this.training = new Training(model, wire);
    this.magics = make("pre", { class: "tlnb-magics", "aria-label": "what was done, as magics" });
    this.copy = button("Copy", () => this.copied(), { class: "tlnb-button tlnb-copy" });
    this.none = make("span", { class: "tlnb-detail" }, "what you do here is written down as magics");
    this.networkPart = this.part("Network", this.network.row, this.about, this.network.says);
    this.dataPart = this.part("Data", this.data.row, this.own.element, this.folder, this.data.says, this.look, this.gallery, this.training.notes);
    this.layersPart = this.part("Layers", this.strip.element);
    this.ratePart = this.part("Rate and training", this.picker.element, this.training.element);
    this.afterPart = this.part("What came of it", ...this.after());
    this.element = make("div", { class: "tlnb-panel" }, ...this.lists, this.networkPart, this.dataPart, this.layersPart, this.ratePart, this.afterPart,
      this.part("The same as magics", this.none, this.magics, this.copy));
    // What is said about an action stands where it was clicked.
    const places = { load: this.networkPart, data: this.dataPart, look: this.dataPart, pictures: this.dataPart, own: this.dataPart, begin: this.dataPart, piece: this.dataPart, take_back: this.dataPart, set: this.layersPart, preset: this.layersPart };
    const after = new Set(["results", "advise", "further", "undo", "resume", "save", "export", "script", "picture"]);
    wire.onsend = (action) => {
      const place = places[action] || (after.has(action) ? this.afterPart : this.picker.element);
      place.append(wire.status);
      if (place === this.networkPart || place === this.dataPart || place === this.afterPart) place.append(this.training.notes);
    };
    this.enter(this.network, () => wire.send("load", { model: this.value(this.network) }));
    this.enter(this.data, () => wire.send("data", { source: this.value(this.data), augment: this.augment.value }));
    const stops = [follow(model, ["network", "source", "magics", "layers", "busy", "doing", "can", "disabled"], () => this.update()),
      follow(model, ["folder"], () => this.drawFolder()), follow(model, ["own"], () => this.mine.setAttribute("aria-expanded", String(Boolean(model.get("own").folder)))), follow(model, ["none_of_these"], () => { this.none_of.checked = model.get("none_of_these"); }), follow(model, ["gallery"], () => this.drawGallery()), follow(model, ["shown"], () => this.drawShown())];
    this.stop = () => { stops.forEach((stop) => stop()); this.strip.stop(); this.picker.stop(); this.training.stop(); this.own.stop(); this.live.stop(); };
    this.update();
    this.drawFolder();
    this.drawGallery();
    this.drawShown();
  }

  field(name, usual, label, list) {
    const input = make("input", { type: "text", class: "tlnb-text", placeholder: usual, list, "aria-label": name, spellcheck: "false" });
    const go = button(label, () => {});
    return { input, button: go, list, row: make("div", { class: "tlnb-row" }, input, go), says: make("div", { class: "tlnb-summary" }) };
  }

  value(field) {
    return field.input.value || field.input.placeholder;
  }

  enter(field, go) {
    field.button.addEventListener("click", go);
    field.input.addEventListener("keydown", (event) => { event.stopPropagation(); if (event.key === "Enter") go(); });
  }

  /** What is in use stands in the field, unless something else is being typed there. */
  known(field, words) {
    const name = words.split(": ")[0];
    if (name !== field.name && field.input.value === (field.name || "")) field.input.value = name;
    field.name = name;
  }

  /** A step; the style numbers those that are there. */
  part(title, ...children) {
    return make("section", { class: "tlnb-part" }, make("h4", {}, make("span", { class: "tlnb-sign", "aria-hidden": "true" }), title), ...children);
  }

  /** Buttons for what comes after training, a place for a picture, and a file to write. */
  after() {
    this.buttons = Object.fromEntries(AFTER.map(([name, label]) => [name, button(label, () => this.wire.send(name))]));
    const choose = make("input", { type: "file", accept: "image/*", class: "tlnb-hidden-file", "aria-label": "a picture to try", onchange: () => { this.send(choose.files[0]); choose.value = ""; } });
    this.drop = make("label", { class: "tlnb-drop", ondragover: (event) => { event.preventDefault(); this.drop.classList.add("tlnb-over"); }, ondragleave: () => this.drop.classList.remove("tlnb-over"),
      ondrop: (event) => { event.preventDefault(); event.stopPropagation(); this.drop.classList.remove("tlnb-over"); this.send(event.dataTransfer.files[0]); } }, choose, "Try a picture: drop a photo here, or click to choose one");
    this.live = new LiveTry(this.model, this.wire);
    this.none_of = make("input", { type: "checkbox", "aria-label": "say none of these", onchange: () => { this.model.set("none_of_these", this.none_of.checked); this.model.save_changes(); } });
    this.tries = make("div", { class: "tlnb-row" }, this.live.toggle, make("label", { class: "tlnb-check", title: "a picture like nothing that was learned is answered so; needs some ten validation samples" }, this.none_of, " say “none of these”"));
    this.file = make("input", { type: "text", class: "tlnb-text tlnb-short", placeholder: "my-network", "aria-label": "file to write", onkeydown: (event) => event.stopPropagation() });
    const path = () => this.file.value || this.file.placeholder;
    this.buttons.save = button("Save session", () => this.wire.send("save", { path: path() }), { title: "all of the session, to go on later: %tl_resume" });
    this.buttons.export = button("Export network", () => this.wire.send("export", { path: `${path()}-export` }), { title: "the network with what loads it, for others" });
    this.buttons.script = button("Write script", () => this.wire.send("script", { path: `${path()}.py` }), { title: "what was done as plain PyTorch that runs without tlnb" });
    this.shown = make("div", { class: "tlnb-shown" });
    return [make("div", { class: "tlnb-row" }, ...AFTER.map(([name]) => this.buttons[name])), this.drop, this.tries, this.live.words, this.live.film,
      make("div", { class: "tlnb-row" }, this.file, this.buttons.save, this.buttons.export, this.buttons.script), this.shown];
  }

  async send(file) {
    if (!file || engaged(this.model)) return;
    if (file.size > 8 << 20) { this.live.words.textContent = "⚠ larger than 8 MB: make it smaller, or predict it by its file: %tl_predict FILE"; return; }
    say(this.live.words, "");
    this.wire.send("picture", { name: file.name }, [await file.arrayBuffer()]);
  }

  async copied() {
    const text = this.magics.textContent;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      getSelection().selectAllChildren(this.magics); // not every page may write: what is marked can be copied
      return;
    }
    say(this.copy, "Copied");
    setTimeout(() => say(this.copy, "Copy"), 1500);
  }

  takeData(path) {
    this.data.input.value = path;
    this.data.name = "";
    this.data.button.click();
  }

  drawFolder() {
    const folder = this.model.get("folder");
    const open = Boolean(folder.path);
    this.folder.hidden = !open;
    this.browse.setAttribute("aria-expanded", String(open));
    if (!open) return;
    const entry = (name, says, go) => make("li", {}, button(name, go, { class: "tlnb-entry" }), make("span", { class: "tlnb-detail" }, says));
    const take = (path) => this.takeData(path);
    this.folder.replaceChildren(
      make("div", { class: "tlnb-row" }, make("code", { class: "tlnb-magic" }, folder.path), make("span", { class: "tlnb-detail" }, folder.says), button("Use this folder", () => take(folder.path), { class: "tlnb-button tlnb-main" })),
      make("ul", {}, entry("↑ ..", "the folder above", () => this.wire.send("look", { path: folder.parent })),
        ...folder.folders.map((one) => entry(`${one.name}/`, one.says, () => this.wire.send("look", { path: one.path }))),
        ...folder.tables.map((one) => entry(one.name, one.says, () => take(one.path)))));
  }

  drawGallery() {
    const classes = this.model.get("gallery");
    this.gallery.hidden = !classes.length;
    this.gallery.replaceChildren(...classes.map((one) => make("div", { class: "tlnb-class" },
      make("div", { class: "tlnb-class-name", title: one.name }, one.name),
      make("div", { class: "tlnb-count" }, make("i", { style: `width:${Math.max(100 * one.share, 2)}%` }), make("span", {}, number.format(one.count))),
      make("div", { class: "tlnb-thumbs" }, ...one.pictures.map((uri) => make("img", { src: uri, alt: `a picture of ${one.name}` }))))));
    this.update();
  }

  drawShown() {
    // Made by the kernel, every name in it escaped there.
    this.shown.innerHTML = this.model.get("shown");
    this.shown.hidden = !this.model.get("shown");
  }

  update() {
    const busy = engaged(this.model);
    const layers = this.model.get("layers").length > 0;
    const source = this.model.get("source");
    const can = new Set(this.model.get("can"));
    this.known(this.network, this.model.get("network"));
    this.known(this.data, source);
    say(this.network.says, this.model.get("network") || "none yet: convnet5 ships with tlnb");
    say(this.data.says, source || "none yet: pictures of your own, a folder of class folders, or digits, which ship with tlnb");
    for (const control of [this.network.button, this.data.button, this.browse, this.mine, this.look]) control.disabled = busy;
    this.about.hidden = Boolean(this.model.get("network"));
    this.look.hidden = !source || this.model.get("gallery").length > 0;
    this.layersPart.hidden = !layers;
    this.ratePart.hidden = !(layers && source);
    for (const [name, control] of Object.entries(this.buttons)) { control.hidden = !can.has(name); control.disabled = busy; }
    this.drop.hidden = this.tries.hidden = !can.has("picture");
    if (!can.has("picture") && this.live.webcam.on) this.live.close();
    this.file.hidden = !can.has("save");
    this.afterPart.hidden = !can.size;
    say(this.magics, this.model.get("magics").join("\n"));
    this.magics.hidden = this.copy.hidden = !this.magics.textContent;
    this.none.hidden = !this.magics.hidden;
  }
}
