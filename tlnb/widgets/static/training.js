// A run of training: which layers trained in which stage, how far it is, curves, and a table of epochs.
const STATES = { running: "training", paused: "paused", stopping: "stopping at the next batch", done: "done", stopped: "stopped", failed: "ended by an error" };
const NEXT = { done: "next: %tl_results, %tl_predict a picture, %tl_export a file", stopped: "%tl_train --continue goes on where it stopped" };
const NARROW = new Set(["stage", "rate", "seconds"]); // columns that a narrow page does without

class Training {
  constructor(model, wire) {
    this.model = model;
    this.wire = wire;
    this.state = make("strong", { role: "status", "aria-live": "polite" });
    this.left = make("span", { class: "tlnb-left" });
    this.pause = button("Pause", () => wire.send(this.model.get("state") === "paused" ? "go_on" : "pause"));
    this.stopper = button("Stop", () => wire.send("stop"), { class: "tlnb-button tlnb-stop" });
    this.fill = make("div", { class: "tlnb-fill" });
    this.bar = make("div", { class: "tlnb-bar", role: "progressbar", "aria-label": "steps of the stage", "aria-valuemin": 0 }, this.fill);
    this.live = make("div", { class: "tlnb-curve-still" });
    this.late = make("div", { class: "tlnb-detail" }, "Here a click is heard only after the cell has ended; Jupyter's own stop button (■) ends the run at the next batch.");
    this.stages = make("div", { class: "tlnb-stages" });
    this.charts = make("div", { class: "tlnb-charts" });
    this.table = make("div", { class: "tlnb-scroll" });
    this.message = make("div", { class: "tlnb-summary" });
    this.next = make("div", { class: "tlnb-next" });
    this.notes = make("div", { class: "tlnb-detail tlnb-notes", role: "status" }); // placed by the view that owns this
    this.element = make("div", { class: "tlnb-training" }, make("div", { class: "tlnb-row" }, this.state, this.left, make("span", { class: "tlnb-buttons" }, this.pause, this.stopper)),
      this.bar, this.live, this.late, this.stages, this.charts, this.table, this.message, this.next);
    this.size = new ResizeObserver(() => { if (this.charts.clientWidth !== this.width) this.drawCharts(); });
    this.size.observe(this.charts);
    const stops = [follow(model, ["stages", "metric", "count"], () => this.update()), follow(model, ["points", "progress", "state"], () => this.drawLive()), follow(model, ["progress", "state", "message", "notes", "at_once", "disabled"], () => this.move())];
    this.stop = () => { stops.forEach((stop) => stop()); this.size.disconnect(); };
    this.update();
    this.move();
    this.drawLive();
  }

  get running() {
    return ["running", "paused", "stopping"].includes(this.model.get("state"));
  }

  move() {
    const state = this.model.get("state");
    const notes = this.model.get("notes");
    const progress = this.model.get("progress") || {};
    const stage = this.model.get("stages").at(-1);
    this.element.hidden = !state;
    this.notes.hidden = !notes.length || this.running;
    say(this.notes, notes.join("\n"));
    this.element.dataset.state = state;
    const message = this.model.get("message");
    let words = (!this.running && message) || STATES[state] || ""; // a run's last word says how it ended
    if (progress.what && this.running) {
      words = `${progress.what}${state === "running" ? "" : `, ${words}`}${progress.steps ? ` · ${number.format(progress.done)} of ${number.format(progress.steps)}` : " …"}`;
    } else if (progress.testing && this.running) {
      words = `range test${state === "running" ? "" : `, ${words}`} · ${progress.done} of at most ${progress.steps} passes`;
      if (message) words += ` · ${message}`;
    } else if (stage && this.running) {
      words += ` · stage ${stage.number} of ${stage.count} · epoch ${Math.min(progress.epoch || 1, stage.epochs)} of ${stage.epochs}`;
      if (!progress.done && state === "running") words += " · getting ready";
    }
    say(this.state, words);
    say(this.left, this.running && progress.left !== null && progress.left !== undefined ? `about ${duration(progress.left)} left${progress.what ? "" : ` in this ${progress.testing ? "test" : "stage"}`}` : "");
    const share = progress.steps ? progress.done / progress.steps : 0;
    this.fill.style.width = `${100 * share}%`;
    this.bar.setAttribute("aria-valuemax", progress.steps || 1);
    this.bar.setAttribute("aria-valuenow", progress.done || 0);
    this.bar.hidden = !this.running;
    this.pause.hidden = this.stopper.hidden = !this.running;
    this.stopper.disabled = this.pause.disabled = state === "stopping" || Boolean(this.model.get("disabled"));
    say(this.pause, state === "paused" ? "Go on" : "Pause");
    this.late.hidden = !this.running || this.model.get("at_once");
    say(this.message, words.includes(message) ? "" : message);
    this.message.hidden = !this.message.textContent;
    say(this.next, this.running ? "" : NEXT[state] || "");
    this.next.hidden = !this.next.textContent;
  }

  /** The curve of a range test as far as it is measured. */
  drawLive() {
    const points = this.model.get("points");
    this.live.hidden = points.length < 3 || !this.running || !(this.model.get("progress") || {}).testing;
    if (this.live.hidden || this.live.drawn === points) return;
    this.live.drawn = points;
    const [rates, losses] = [points.map((point) => point[0]), points.map((point) => point[1])];
    const curve = { rates, losses, smoothed: losses, suggestions: {}, rule: "", note: "not measured wholly yet" };
    this.live.replaceChildren(drawCurve(curve, Math.max(this.live.clientWidth || 560, 240), null, 190).svg);
  }

  update() {
    const stages = this.model.get("stages");
    while (this.stages.children.length > stages.length) this.stages.lastChild.remove();
    stages.forEach((stage, i) => {
      let row = this.stages.children[i];
      if (!row) this.stages.append(row = this.newStage());
      this.fillStage(row, stage);
    });
    this.drawTable();
    this.drawCharts();
    this.move();
  }

  newStage() {
    const row = make("div", { class: "tlnb-stage" }, make("div", { class: "tlnb-stage-text" }), make("div", { class: "tlnb-cells", role: "img" }), make("div", { class: "tlnb-summary" }), make("div", { class: "tlnb-detail" }),
      make("details", { hidden: "" }, make("summary", {}), make("div", { class: "tlnb-curve-still" })));
    row.lastChild.open = true;
    row.lastChild.addEventListener("toggle", () => { if (row.curve) this.drawStageCurve(row); });
    return row;
  }

  fillStage(row, stage) {
    const [text, cells, note, proof, details] = row.children;
    say(text, `${stage.number}. ${stage.text}`);
    const count = this.model.get("count");
    if (cells.children.length !== count) cells.replaceChildren(...Array.from({ length: count }, () => make("span")));
    const trained = new Set(stage.trained);
    [...cells.children].forEach((cell, i) => { cell.dataset.frozen = String(!trained.has(i)); });
    cells.setAttribute("aria-label", `layers that train: ${stage.trained.join(", ")}; all others are frozen`);
    say(note, stage.note);
    say(proof, stage.ended && stage.proof !== "none frozen" ? stage.proof : "");
    for (const words of [note, proof]) words.hidden = !words.textContent;
    details.hidden = !stage.curve;
    if (stage.curve && !row.curve) {
      row.curve = stage.curve;
      say(details.firstChild, `range test: ${stage.curve.note}`);
      this.drawStageCurve(row);
    }
    if (stage.ended && !row.ended) {
      row.ended = true;
      details.open = false;
    }
  }

  drawStageCurve(row) {
    const room = row.lastChild.lastChild;
    if (row.lastChild.open && room.clientWidth !== room.drawn) {
      room.drawn = room.clientWidth;
      room.replaceChildren(drawCurve(row.curve, Math.max(room.clientWidth || 560, 240), row.curve.rate, 190).svg);
    }
  }

  records() {
    return this.model.get("stages").flatMap((stage) => stage.records.map((record) => ({ ...record, stage: stage.number, epochs: stage.epochs })));
  }

  drawTable() {
    const records = this.records();
    this.table.hidden = !records.length;
    const heads = ["stage", "epoch", "rate", "train loss", "valid loss", this.model.get("metric"), "seconds"];
    const rows = records.map((r) => [r.stage, `${r.epoch}/${r.epochs}`, r.rate ? rate(r.rate) : "-", r.train_loss.toFixed(4), r.valid_loss.toFixed(4), r.shown, r.seconds.toFixed(1)]);
    const line = (tag, cells) => make("tr", {}, ...cells.map((cell, i) => make(tag, { scope: tag === "th" ? "col" : null, class: NARROW.has(heads[i]) ? "tlnb-spare" : null }, String(cell))));
    this.table.replaceChildren(make("table", { class: "tlnb-table" }, make("thead", {}, line("th", heads)), make("tbody", {}, ...rows.map((row) => line("td", row)))));
    this.table.scrollTop = this.table.scrollHeight;
  }

  drawCharts() {
    const records = this.records();
    const planned = this.model.get("stages").reduce((sum, stage) => sum + stage.epochs, 0);
    this.charts.hidden = !records.length || planned < 2; // one point is no curve
    this.width = this.charts.clientWidth;
    if (this.charts.hidden) return;
    const room = this.width || 560;
    const width = room > 620 ? Math.floor((room - 16) / 2) : room;
    const shares = records.length > 0 && records.every((r) => r.shown.endsWith("%")); // the table says them so too
    const edges = records.flatMap((record, i) => (i && record.stage !== records[i - 1].stage ? [i + 0.5] : []));
    this.charts.replaceChildren(
      drawSeries(width, edges, [["train loss", "tlnb-train", records.map((r) => r.train_loss)], ["valid loss", "tlnb-valid", records.map((r) => r.valid_loss)]]),
      drawSeries(width, edges, [[this.model.get("metric"), "tlnb-figure", records.map((r) => (shares ? 100 : 1) * r.figure)]], shares ? " %" : ""));
  }
}

/** Lines over epochs, with an upright line where a stage ends and names at the top. */
function drawSeries(width, edges, series, unit = "", height = 150) {
  const values = series.flatMap(([, , points]) => points).filter(Number.isFinite);
  let [low, high] = [Math.min(...values), Math.max(...values)];
  if (high - low < 1e-9) [low, high] = [low - 0.05, high + 0.05];
  const margin = 0.06 * (high - low);
  [low, high] = [low - margin, high + margin];
  const count = series[0][2].length;
  const [left, right, top, floor] = [46, 12, 22, height - 24];
  const x = (i) => left + ((i - 0.5) / Math.max(count, 1)) * (width - left - right);
  const y = (v) => floor - ((v - low) / (high - low)) * (floor - top);
  const svg = draw("svg", { class: "tlnb-plot", width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": series.map(([name, , points]) => `${name} ${points.map((v) => v.toPrecision(3)).join(", ")}`).join("; ") });
  for (const [value, words] of ticks(low, high, 5)) {
    svg.append(draw("line", { class: "tlnb-grid", x1: left, x2: width - right, y1: y(value), y2: y(value) }), draw("text", { class: "tlnb-tick", x: left - 5, y: y(value) + 4, "text-anchor": "end" }, words + unit));
  }
  const every = Math.ceil(count / 10);
  for (let i = 1; i <= count; i += 1) if (i % every === 0) svg.append(draw("text", { class: "tlnb-tick", x: x(i), y: floor + 15, "text-anchor": "middle" }, String(i)));
  for (const edge of edges) svg.append(draw("line", { class: "tlnb-edge", x1: x(edge), x2: x(edge), y1: top, y2: floor }));
  let at = left;
  for (const [name, look, points] of series) {
    const path = points.map((v, i) => `${i ? "L" : "M"}${x(i + 1).toFixed(1)} ${y(v).toFixed(1)}`).join("");
    svg.append(draw("path", { class: `tlnb-line ${look}`, d: path }), ...points.map((v, i) => draw("circle", { class: `tlnb-dot ${look}`, cx: x(i + 1), cy: y(v), r: 2.5 })),
      draw("line", { class: `tlnb-line ${look}`, x1: at, x2: at + 18, y1: 9, y2: 9 }), draw("text", { class: "tlnb-tick", x: at + 23, y: 13 }, name));
    at += 40 + 6.5 * name.length;
  }
  if (at < width - 60) svg.append(draw("text", { class: "tlnb-tick", x: width - right, y: 13, "text-anchor": "end" }, "epochs →"));
  return svg;
}
