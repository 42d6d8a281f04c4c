// The picture of a range test. Each rule has a colour and a shape, the same as in the static picture.
const RULES = {
  basin: ["var(--rule-basin)", "M-5-4h10L0 5z"], valley: ["#009e73", "M-4.500 0a4.500 4.500 0 1 0 9 0a4.500 4.500 0 1 0-9 0z"],
  steepest: ["#cc79a7", "M-4-4h8v8h-8z"], minimum: ["#e69f00", "M0-5.500L5.500 0 0 5.500-5.500 0z"], brink: ["#56b4e9", "M-5 4h10L0-5z"],
};
const lookOf = (name) => RULES[name] || ["var(--ink)", "M-5-1.500h3.500V-5h3v3.500H5v3H1.500V5h-3V1.500H-5z"];

/** Loss at a rate, between two points of the smoothed curve. */
function lossAt(curve, rate) {
  const { rates, smoothed } = curve;
  const i = rates.findIndex((r) => r >= rate);
  if (i <= 0) return smoothed[i === 0 ? 0 : smoothed.length - 1];
  const t = Math.log(rate / rates[i - 1]) / Math.log(rates[i] / rates[i - 1]);
  return smoothed[i - 1] + t * (smoothed[i] - smoothed[i - 1]);
}

/** The range of losses that is shown: an explosion at the end must flatten nothing. */
function lossRange(curve) {
  const start = Math.max(4, Math.floor(curve.smoothed.length / 5));
  const sorted = [...curve.losses].sort((a, b) => a - b);
  const early = curve.losses.slice(0, start).sort((a, b) => a - b);
  const low = Math.min(...curve.smoothed, sorted[Math.floor(0.05 * sorted.length)]);
  const high = Math.max(...curve.smoothed.slice(0, start), early[Math.ceil(0.95 * early.length) - 1]);
  const margin = Math.max(high - low, 0.01 * Math.abs(high), 1e-9);
  return [low - 0.1 * margin, high + 0.2 * margin];
}

/** Where numbers stand on an axis: 1, 2 or 5 times a power of ten apart. */
function ticks(low, high, count) {
  const raw = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((f) => f * power).find((s) => s >= raw);
  const places = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high; at += step) found.push([at, at.toFixed(places)]);
  return found;
}

const SPACE = { left: 48, right: 12, top: 8, bottom: 36 };

/** Draw a curve; returns the SVG and how to go from pixels to rates and back. */
function drawCurve(curve, width, picked, height = 230) {
  const marks = Object.entries(curve.suggestions).filter(([, value]) => value).sort((a, b) => a[1] - b[1]);
  const space = SPACE;
  const [first, last] = [Math.log(curve.rates[0]), Math.log(curve.rates[curve.rates.length - 1])];
  const x = (value) => space.left + ((Math.log(value) - first) / (last - first || 1)) * (width - space.left - space.right);
  // Names stand in as many rows above the curve as it takes for none to cover another.
  const ends = [];
  const labels = marks.map(([name, value]) => {
    const half = 3.3 * name.length + 5;
    const centre = Math.min(Math.max(x(value), space.left + half), width - space.right - half);
    let row = ends.findIndex((end) => end < centre - half);
    if (row < 0) row = ends.length;
    ends[row] = centre + half;
    return { name, value, centre, row };
  });
  const top = space.top + 14 * ends.length + 4;
  const [low, high] = lossRange(curve);
  const floor = height - space.bottom;
  const y = (loss) => Math.min(Math.max(floor - ((loss - low) / (high - low)) * (floor - top), top), floor);
  const line = (losses) => losses.map((loss, i) => `${i ? "L" : "M"}${x(curve.rates[i]).toFixed(1)} ${y(loss).toFixed(1)}`).join("");
  const svg = draw("svg", { class: "tlnb-plot", width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `loss against learning rate; ${curve.note}` });
  const every = Math.ceil(36 / ((width - space.left - space.right) / ((last - first) / Math.LN10 || 1))); // powers of ten a label
  for (let power = Math.ceil(first / Math.LN10 - 1e-9); power <= last / Math.LN10 + 1e-9; power += every) {
    const at = x(10 ** power);
    svg.append(draw("line", { class: "tlnb-grid", x1: at, x2: at, y1: top, y2: floor }),
      draw("text", { class: "tlnb-tick", x: at, y: floor + 14, "text-anchor": "middle" }, `1e${power}`));
  }
  for (const [loss, words] of ticks(low, high, 4)) {
    svg.append(draw("line", { class: "tlnb-grid", x1: space.left, x2: width - space.right, y1: y(loss), y2: y(loss) }),
      draw("text", { class: "tlnb-tick", x: space.left - 5, y: y(loss) + 4, "text-anchor": "end" }, words));
  }
  svg.append(draw("text", { class: "tlnb-tick", x: (space.left + width) / 2, y: height - 6, "text-anchor": "middle" }, "learning rate"),
    draw("text", { class: "tlnb-tick", transform: `translate(11 ${(top + floor) / 2}) rotate(-90)`, "text-anchor": "middle" }, Math.min(...curve.smoothed) < 0 ? "change of the loss" : "training loss"),
    draw("path", { class: "tlnb-raw", d: line(curve.losses) }), draw("path", { class: "tlnb-smooth", d: line(curve.smoothed) }),
    ...(curve.rates.length > 30 ? [] : curve.losses.map((loss, i) => draw("circle", { class: "tlnb-point", cx: x(curve.rates[i]), cy: y(loss), r: 2.5 }))));
  for (const { name, value, centre, row } of labels) {
    const [colour, shape] = lookOf(name);
    const foot = space.top + 14 * row + 11;
    const loss = y(lossAt(curve, value));
    svg.append(draw("line", { x1: centre, y1: foot, x2: x(value), y2: loss, stroke: colour, "stroke-width": 1, "stroke-dasharray": "2 3" }),
      draw("path", { d: shape, fill: colour, class: "tlnb-mark", transform: `translate(${x(value)} ${loss})` }, draw("title", {}, `${name}: ${rate(value)}`)),
      draw("text", { class: "tlnb-tick", x: centre, y: foot - 2, "text-anchor": "middle", "font-weight": name === curve.rule ? 700 : 400 }, name));
  }
  if (picked) {
    svg.append(draw("line", { class: "tlnb-picked", x1: x(picked), x2: x(picked), y1: top, y2: floor }),
      draw("circle", { class: "tlnb-picked", cx: x(picked), cy: y(lossAt(curve, picked)), r: 6 }));
  }
  const rateAt = (pixels) => Math.exp(Math.min(Math.max(first + ((pixels - space.left) / (width - space.left - space.right)) * (last - first), first), last));
  return { svg, rateAt };
}

