// Pictures of one's own into classes: dropped, picked, or filmed. They go to the kernel piece by piece.
const PIECE = 3 << 20; // bytes; a server cuts the line at messages of ten million
const FILMED = 250; // milliseconds between two frames that are kept
const ZIP = /\.zip$/i;
const PICTURE = /\.(jpe?g|jpe|jfif|a?png|gif|bmp|dib|tiff?|webp|avif|p[pgbn]m)$/i;

/** Files that were dropped, each with the folders above it; folders are walked through. */
async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry && item.webkitGetAsEntry()).filter(Boolean);
  if (!entries.length) return [...transfer.files].map((file) => ({ file, folders: [] }));
  const found = [];
  const walk = async (entry, folders) => {
    if (entry.name.startsWith(".")) return;
    if (entry.isFile) {
      found.push({ file: await new Promise((done, failed) => entry.file(done, failed)), folders });
      return;
    }
    const reader = entry.createReader();
    for (;;) { // it gives a hundred at a time
      const part = await new Promise((done, failed) => reader.readEntries(done, failed));
      if (!part.length) return;
      for (const one of part) await walk(one, [...folders, entry.name]);
    }
  };
  for (const entry of entries) await walk(entry, []);
  return found;
}

class OwnPictures {
  constructor(model, wire, use) {
    this.model = model;
    this.wire = wire;
    this.webcam = new Webcam();
    this.filming = ""; // the class that the webcam is open for
    this.cards = new Map();
    this.queue = Promise.resolve();
    this.folder = make("input", { type: "text", class: "tlnb-text tlnb-short", value: "my-pictures", "aria-label": "folder for your pictures", title: "a folder beside the notebook", spellcheck: "false",
      onkeydown: (event) => { event.stopPropagation(); if (event.key === "Enter") this.reopen(); }, onchange: () => this.reopen() });
    this.newClass = make("input", { type: "text", class: "tlnb-text tlnb-short", placeholder: "name of a class", "aria-label": "name of a new class", spellcheck: "false",
      onkeydown: (event) => { event.stopPropagation(); if (event.key === "Enter") this.add(); } });
    this.addButton = button("Add class", () => this.add());
    this.grid = make("div", { class: "tlnb-own-grid" });
    this.progress = make("div", { class: "tlnb-own-progress", role: "status", "aria-live": "polite", hidden: "" });
    this.refused = make("details", { class: "tlnb-detail", hidden: "" }, make("summary", {}), make("div", { class: "tlnb-notes" }));
    this.use = button("Use these pictures", () => { this.film(""); use(this.model.get("own").folder); }, { class: "tlnb-button tlnb-main" });
    this.hint = make("span", { class: "tlnb-detail" });
    const all = this.zone("", "Drop a folder with a folder for each class, or a zip of one");
    this.element = make("div", { class: "tlnb-folder tlnb-own", hidden: "" },
      make("div", { class: "tlnb-row" }, make("span", { class: "tlnb-detail" }, "pictures go into"), this.folder, this.newClass, this.addButton),
      this.grid, all, this.progress, this.refused, make("div", { class: "tlnb-row" }, this.use, this.hint));
    const stops = [follow(model, ["own"], () => this.draw()), follow(model, ["busy", "doing", "disabled"], () => this.update())];
    this.stop = () => { stops.forEach((stop) => stop()); this.webcam.stop(); clearInterval(this.timer); };
    this.draw();
  }

  reopen() {
    this.film("");
    this.wire.send("own", { folder: this.folder.value });
  }

  async add() {
    const name = this.newClass.value.trim();
    if (name && (await this.wire.ask("begin", { into: name }))) this.newClass.value = "";
  }

  /** A place to drop pictures on or pick them for a class; for "" each folder is a class. */
  zone(into, words) {
    const choose = make("input", { type: "file", multiple: "", accept: into ? "image/*,.zip" : ".zip", class: "tlnb-hidden-file", "aria-label": into ? `pictures of ${into}` : "a zip of class folders",
      onchange: () => { this.take(into, [...choose.files].map((file) => ({ file, folders: [] }))); choose.value = ""; } });
    const made = make("label", { class: "tlnb-drop tlnb-own-drop", ondragover: (event) => { event.preventDefault(); made.classList.add("tlnb-over"); }, ondragleave: () => made.classList.remove("tlnb-over"),
      ondrop: async (event) => { event.preventDefault(); event.stopPropagation(); made.classList.remove("tlnb-over"); this.take(into, await dropped(event.dataTransfer)); } }, choose, words);
    return made;
  }

  /** Send files, one batch after another: into one class, or each into that of its folder. */
  take(into, files) {
    this.queue = this.queue.then(() => this.sendAll(into, files)).catch((error) => this.tell(`⚠ ${error.message || error}`));
  }

  async sendAll(into, files) {
    const good = files.filter(({ file }) => PICTURE.test(file.name) || ZIP.test(file.name) || file.type.startsWith("image/"));
    const homeless = into ? [] : good.filter(({ file, folders }) => !folders.length && !ZIP.test(file.name));
    const wanted = good.filter((one) => !homeless.includes(one));
    if (!wanted.length) {
      this.tell(homeless.length ? "⚠ drop these on a class, so that it is known what they are" : "⚠ no pictures among these");
      return;
    }
    const begun = new Set();
    for (const [number, { file, folders }] of wanted.entries()) {
      const zip = ZIP.test(file.name);
      const name = into || (zip ? "" : folders[folders.length - 1]);
      if (name && !begun.has(name)) {
        if (!(await this.wire.ask("begin", { into: name }))) return;
        begun.add(name);
      }
      this.tell(`${number + 1} of ${wanted.length} ${zip ? "zips" : "pictures"} …`);
      if (!(await this.sendFile(name, file.name, await file.arrayBuffer()))) break;
    }
    await this.wire.ask("done_putting");
    this.tell("");
  }

  async sendFile(into, name, content) {
    const token = fresh("file");
    let at = 0;
    do {
      const piece = content.slice(at, at + PIECE);
      if (!(await this.wire.ask("piece", { into, name, token, at, size: content.byteLength }, [piece]))) return false;
      at += piece.byteLength;
    } while (at < content.byteLength);
    return true;
  }

  tell(words) {
    say(this.progress, words);
    this.progress.hidden = !words;
  }

  // ---------------------------------------------------------------- the webcam

  /** Open the webcam for a class, or close it. */
  async film(name) {
    this.hold(false);
    this.webcam.stop();
    this.filming = "";
    if (name) {
      const trouble = await this.webcam.start();
      if (trouble) this.tell(`⚠ ${trouble}`);
      else { this.tell(""); this.filming = name; }
    }
    this.draw();
  }

  /** Keep frames while the button is held. */
  async hold(held) {
    if (held === this.holding) return;
    this.holding = held;
    const name = this.filming;
    if (!held || !name) return;
    if (!(await this.wire.ask("begin", { into: name }))) return;
    for (let count = 1; this.holding && this.webcam.on; count += 1) {
      const began = performance.now();
      const frame = await this.webcam.grab();
      if (frame && !(await this.sendFile(name, `webcam-${Date.now()}.jpg`, frame))) break;
      this.tell(`${count} frame${count > 1 ? "s" : ""} of ${name}`);
      await new Promise((done) => setTimeout(done, Math.max(0, FILMED - (performance.now() - began))));
    }
    await this.wire.ask("done_putting");
  }

  // ---------------------------------------------------------------- what is seen

  card(one) {
    const held = { onpointerdown: (event) => { event.preventDefault(); this.hold(true); }, onpointerup: () => this.hold(false), onpointerleave: () => this.hold(false),
      onkeydown: (event) => { if (event.key === " " && !event.repeat) { event.preventDefault(); event.stopPropagation(); this.hold(true); } }, onkeyup: (event) => { if (event.key === " ") this.hold(false); } };
    const parts = { title: make("div", { class: "tlnb-class-name", title: one.name }, one.name), count: make("span", {}), thumbs: make("div", { class: "tlnb-thumbs tlnb-own-thumbs" }), film: make("div", { class: "tlnb-own-film" }),
      record: button("Hold to record", () => {}, { class: "tlnb-button tlnb-main", ...held }), camera: button("Webcam", () => this.film(this.filming === one.name ? "" : one.name)), back: button("Take back", () => this.wire.send("take_back", { into: one.name }), { title: "remove the pictures of this class that came last" }) };
    parts.element = make("div", { class: "tlnb-own-card" }, make("div", { class: "tlnb-own-head" }, parts.title, parts.count), parts.thumbs, this.zone(one.name, "Drop or choose pictures"), parts.film,
      make("div", { class: "tlnb-row" }, parts.camera, parts.record, parts.back));
    return parts;
  }

  draw() {
    const own = this.model.get("own");
    const open = Boolean(own.folder);
    this.element.hidden = !open;
    if (!open) { if (this.webcam.on) this.film(""); return; }
    if (this.folder.getRootNode().activeElement !== this.folder) this.folder.value = own.folder;
    const names = new Set(own.classes.map((one) => one.name));
    for (const [name, parts] of this.cards) if (!names.has(name)) { parts.element.remove(); this.cards.delete(name); }
    for (const one of own.classes) {
      if (!this.cards.has(one.name)) { this.cards.set(one.name, this.card(one)); }
      const parts = this.cards.get(one.name);
      this.grid.append(parts.element);
      say(parts.count, number.format(one.count));
      const known = [...parts.thumbs.children].map((image) => image.src).join();
      if (known !== one.pictures.join()) parts.thumbs.replaceChildren(...one.pictures.map((uri) => make("img", { src: uri, alt: `a picture of ${one.name}` })));
      const films = this.filming === one.name;
      parts.film.hidden = parts.record.hidden = !films;
      if (films && !parts.film.contains(this.webcam.video)) { parts.film.append(this.webcam.video); this.webcam.video.play().catch(() => {}); }
      say(parts.camera, films ? "Close webcam" : "Webcam");
      parts.back.hidden = !one.back;
    }
    const refused = own.refused || [];
    this.refused.hidden = !refused.length;
    say(this.refused.firstChild, `${refused.length} not taken`);
    say(this.refused.lastChild, refused.join("\n"));
    this.update();
  }

  update() {
    const full = (this.model.get("own").classes || []).filter((one) => one.count > 1);
    this.use.disabled = engaged(this.model) || full.length < 2;
    say(this.hint, full.length < 2 ? "two classes with two pictures each, at least; some twenty of each are a good beginning" : "");
  }
}

/** Film, and say of each frame what it is: the next one goes when the last was answered. */
class LiveTry {
  constructor(model, wire) {
    this.model = model;
    this.wire = wire;
    this.webcam = new Webcam();
    this.number = 0;
    this.words = make("div", { class: "tlnb-detail tlnb-said", role: "status" });
    this.label = make("div", { class: "tlnb-live-label", "aria-live": "polite" });
    this.bars = make("div", { class: "tlnb-live-bars" });
    this.picture = make("img", { class: "tlnb-live-picture", alt: "what the network saw, and beside it what spoke for the answer", hidden: "" });
    this.toggle = button("Try with the webcam", () => (this.webcam.on ? this.close() : this.open()), { "aria-pressed": "false" });
    this.film = make("div", { class: "tlnb-live", hidden: "" }, make("div", {}, this.webcam.video, this.picture), make("div", { class: "tlnb-live-said" }, this.label, this.bars));
    const stops = [follow(model, ["seen"], () => this.draw())];
    this.stop = () => { stops.forEach((stop) => stop()); this.close(); };
  }

  async open() {
    const trouble = await this.webcam.start();
    say(this.words, trouble ? `⚠ ${trouble}` : "");
    if (!trouble) this.loop();
    this.show();
  }

  close() {
    this.webcam.stop();
    this.model.filming = false;
    this.show();
  }

  show() {
    this.film.hidden = !this.webcam.on;
    say(this.toggle, this.webcam.on ? "Close the webcam" : "Try with the webcam");
    this.toggle.setAttribute("aria-pressed", String(this.webcam.on));
  }

  async loop() {
    this.model.filming = true; // that a frame is predicted on keeps no button from being pressed
    while (this.webcam.on) {
      const frame = await this.webcam.grab();
      const idle = !this.model.get("doing") && ["", "predicting"].includes(this.model.get("busy"));
      if (frame && idle) {
        this.number += 1;
        const said = new Promise((done) => { this.said = done; setTimeout(done, 20000); });
        this.model.send({ do: "frame", number: this.number }, undefined, [frame]);
        await said;
        if (this.model.get("seen").label === undefined) { this.close(); return; } // the line of errors says why
      }
      await new Promise((done) => setTimeout(done, frame && idle ? 30 : 200));
    }
  }

  draw() {
    const seen = this.model.get("seen");
    if (seen.frame === this.number && this.said) this.said();
    if (seen.label === undefined) return;
    say(this.label, seen.label);
    this.label.classList.toggle("tlnb-none", Boolean(seen.none));
    this.picture.hidden = !seen.picture;
    if (seen.picture) this.picture.src = seen.picture;
    if (this.bars.children.length !== 3 * seen.bars.length) this.bars.replaceChildren(...seen.bars.flatMap(() => [make("span", {}), make("i", {}), make("span", {})]));
    seen.bars.forEach(([name, share], i) => {
      const [word, bar, figure] = [0, 1, 2].map((k) => this.bars.children[3 * i + k]);
      say(word, name);
      bar.style.setProperty("--share", `${Math.max(100 * share, 0.5)}%`);
      say(figure, `${Math.round(100 * share)} %`);
    });
  }
}
