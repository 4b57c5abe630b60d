"use strict";
const { report, pictures, worst: WORST } = JSON.parse(document.getElementById("data").textContent);
const ARROW = { higher: "↑", lower: "↓", one: "→ 1" };
const COLOURS = ["var(--c0)", "var(--c1)", "var(--c2)", "var(--c3)", "var(--c4)", "var(--c5)"];
const imageMetrics = report.metrics.filter((metric) => metric.of === "image");
const setMetrics = report.metrics.filter((metric) => metric.of === "set");
let part = report.parts[0];
const sorting = { metric: null, descending: false };

const $ = (id) => document.getElementById(id);
function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}
const SVG = "http://www.w3.org/2000/svg";
function draw(tag, attributes, text) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  return node;
}
// Numbers travel as JSON numbers, null for "could not be measured", "inf" for equal pictures' PSNR.
const number = (value) => (value === null || value === undefined ? NaN : value === "inf" ? Infinity : value === "-inf" ? -Infinity : value);
function show(value, digits) {
  const x = number(value);
  return Number.isNaN(x) ? "–" : Number.isFinite(x) ? x.toFixed(digits) : x > 0 ? "∞" : "−∞";
}
const badness = (metric, value) => (metric.better === "higher" ? -value : metric.better === "one" ? Math.abs(value - 1) : value);
const columnsOf = () => Object.keys(part.columns);
const heading = (metric) => [`${metric.label} ${ARROW[metric.better]}`, metric.unit ? make("small", {}, metric.unit) : null];
function table(head, rows, attributes = {}) {
  return make("table", attributes, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...rows));
}
const column = (...content) => make("th", { scope: "col" }, ...content.flat());

function showMeans() {
  const timed = columnsOf().some((name) => part.columns[name].seconds !== null);
  const head = [column("method"), ...imageMetrics.map((m) => column(heading(m))), ...setMetrics.map((m) => column(heading(m)))];
  if (timed) head.push(column("s / picture ↓"));
  const bests = Object.fromEntries(report.metrics.map((metric) => [metric.name, best(metric)]));
  const rows = columnsOf().map((name) => {
    const found = part.columns[name];
    const cells = imageMetrics.map((metric) => {
      const estimate = found.metrics[metric.name];
      const range = estimate.low === null ? null : make("small", {}, `${show(estimate.low, metric.digits)} – ${show(estimate.high, metric.digits)}`);
      const few = estimate.count < part.images ? make("small", {}, `of ${estimate.count}`) : null;
      return make("td", { class: bests[metric.name] === name && "best" }, show(estimate.mean, metric.digits), range, few);
    });
    const sets = setMetrics.map((metric) => make("td", { class: bests[metric.name] === name && "best" }, show(found.set_metrics[metric.name], metric.digits)));
    const time = timed ? [make("td", {}, found.seconds === null ? "–" : found.seconds.toFixed(2))] : [];
    return make("tr", {}, make("td", {}, name), ...cells, ...sets, ...time);
  });
  $("means").replaceChildren(table(head, rows));
}
function best(metric) {
  let winner = null, least = Infinity;
  for (const name of columnsOf()) {
    const found = part.columns[name];
    const value = number(metric.of === "set" ? found.set_metrics[metric.name] : found.metrics[metric.name].mean);
    if (badness(metric, value) < least) [winner, least] = [name, badness(metric, value)];
  }
  return winner;
}

function showDifferences() {
  const others = Object.keys(part.differences);
  $("differences-section").hidden = others.length === 0;
  $("differences-hint").textContent = `${report.main} minus the other method, picture by picture, with the 95 % interval; gradient energy: difference of the distances to 1.`;
  const rows = others.map((name) => make("tr", {}, make("td", {}, `${report.main} − ${name}`), ...imageMetrics.map((metric) => {
    const found = part.differences[name][metric.name];
    const range = found.low === null ? "" : `${show(found.low, metric.digits)} – ${show(found.high, metric.digits)}`;
    return make("td", {}, show(found.mean, metric.digits), make("small", {}, range), make("small", { class: found.verdict }, found.verdict));
  })));
  $("differences").replaceChildren(table([column("difference"), ...imageMetrics.map((m) => column(heading(m)))], rows));
}

const DOTS = 400;
function plot(metric) {
  const names = columnsOf(), row = 34, left = 92, width = 420, height = names.length * row + 22;
  const values = names.map((name) => part.scores.map((s) => number(s.columns[name][metric.name])));
  const all = values.flat().filter(Number.isFinite);
  if (all.length === 0) return null;
  let low = Math.min(...all), high = Math.max(...all);
  if (low === high) { low -= 0.5; high += 0.5; }
  const x = (value) => left + 6 + ((Math.max(low, Math.min(high, value)) - low) / (high - low)) * (width - left - 18);
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${metric.label} of every picture by method` });
  names.forEach((name, index) => {
    const middle = index * row + row / 2, colour = COLOURS[index % COLOURS.length];
    svg.append(draw("text", { x: left - 4, y: middle + 4, "text-anchor": "end" }, name.length > 14 ? `${name.slice(0, 13)}…` : name));
    const known = values[index].filter(Number.isFinite), step = Math.max(1, Math.ceil(known.length / DOTS));
    known.filter((_, i) => i % step === 0).forEach((value, i) => {
      // A fixed scatter, so that the page looks the same every time.
      svg.append(draw("circle", { cx: x(value), cy: middle + (((i * 7919) % 97) / 97 - 0.5) * (row - 14), r: 2.2, fill: colour, opacity: 0.45 }));
    });
    const estimate = part.columns[name].metrics[metric.name], mean = number(estimate.mean);
    if (!Number.isFinite(mean)) return;
    if (estimate.low !== null) svg.append(draw("line", { x1: x(number(estimate.low)), x2: x(number(estimate.high)), y1: middle, y2: middle, stroke: "var(--text)", "stroke-width": 3 }));
    svg.append(draw("line", { x1: x(mean), x2: x(mean), y1: middle - 9, y2: middle + 9, stroke: "var(--text)", "stroke-width": 2 }));
  });
  for (const value of [low, (low + high) / 2, high]) svg.append(draw("text", { x: x(value), y: height - 6, "text-anchor": value === low ? "start" : value === high ? "end" : "middle" }, value.toFixed(metric.digits)));
  return make("figure", {}, make("figcaption", {}, `${metric.label} ${ARROW[metric.better]} `, make("small", {}, metric.unit)), svg);
}
const showPlots = () => $("plots").replaceChildren(...imageMetrics.map(plot).filter(Boolean));

function slider(key, leftName, rightName) {
  const found = (pictures[part.name] || {})[key];
  if (!found || !found[leftName] || !found[rightName]) return make("p", { class: "hint" }, "picture not in this page");
  const box = make("div", { class: "slider" });
  const input = make("input", { type: "range", min: 0, max: 100, step: 0.5, value: 50, "aria-label": `${leftName} left of the line, ${rightName} right of it: ${key}` });
  input.addEventListener("input", () => box.style.setProperty("--at", `${input.value}%`));
  box.append(make("img", { src: found[leftName], alt: `${leftName} of ${key}`, decoding: "async" }),
    make("img", { src: found[rightName], alt: `${rightName} of ${key}`, class: "after", decoding: "async" }),
    make("span", { class: "left" }, leftName), make("span", { class: "right" }, rightName), input);
  return box;
}
function pictureNames() {
  const first = Object.values(pictures[part.name] || {})[0] || {};
  return Object.keys(first);
}
function showWorst() {
  const metric = imageMetrics[$("worst-metric").selectedIndex], name = $("worst-column").value, other = $("worst-other").value;
  if (!metric) return;
  const rows = part.scores.map((s) => ({ key: s.key, value: number(s.columns[name][metric.name]) })).filter((r) => !Number.isNaN(r.value));
  rows.sort((a, b) => badness(metric, b.value) - badness(metric, a.value));
  const shown = rows.slice(0, WORST);
  $("worst-count").textContent = shown.length;
  $("worst").replaceChildren(...shown.map((r) => make("figure", {}, slider(r.key, other, name), make("figcaption", {},
    make("button", { class: "open", onclick: () => view(r.key) }, r.key), " ", make("small", {}, `${metric.label} ${show(r.value, metric.digits)}`)))));
}
function view(key) {
  const names = pictureNames(), main = $("rows-column").value;
  $("viewer-title").textContent = key;
  $("viewer-body").replaceChildren(...names.filter((name) => name !== main).map((name) => slider(key, name, main)));
  $("viewer").showModal();
}

function showRows() {
  const name = $("rows-column").value, wanted = $("rows-filter").value.toLowerCase();
  const rows = part.scores.filter((s) => s.key.toLowerCase().includes(wanted));
  if (sorting.metric !== null) {
    const value = (s) => (sorting.metric === "" ? s.key : number(s.columns[name][sorting.metric]));
    rows.sort((a, b) => {
      const x = value(a), y = value(b);
      if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
      return (x < y ? -1 : x > y ? 1 : 0) * (sorting.descending ? -1 : 1);
    });
  }
  const head = [{ name: "", label: "picture", better: null }, ...imageMetrics].map((metric) => {
    const active = sorting.metric === metric.name;
    const label = metric.better ? `${metric.label} ${ARROW[metric.better]}` : metric.label;
    const sort = () => { sorting.descending = active ? !sorting.descending : false; sorting.metric = metric.name; showRows(); };
    return make("th", { scope: "col", "aria-sort": active ? (sorting.descending ? "descending" : "ascending") : "none" },
      make("button", { onclick: sort }, label + (active ? (sorting.descending ? " ▼" : " ▲") : "")));
  });
  const has = pictures[part.name] || {};
  $("rows-count").textContent = `${rows.length} of ${part.scores.length}`;
  $("rows").replaceChildren(table(head, rows.map((s) => make("tr", {},
    make("td", {}, has[s.key] ? make("button", { class: "open", onclick: () => view(s.key) }, s.key) : s.key),
    ...imageMetrics.map((metric) => make("td", {}, show(s.columns[name][metric.name], metric.digits)))))));
}

function fill(id, names, chosen) {
  $(id).replaceChildren(...names.map((name) => make("option", { value: name, selected: name === chosen }, name)));
}
function showPart(index) {
  part = report.parts[index];
  [...$("parts").children].forEach((button, i) => button.setAttribute("aria-pressed", i === index));
  const main = columnsOf().includes(report.main) ? report.main : columnsOf()[0];
  fill("worst-column", columnsOf(), main);
  fill("rows-column", columnsOf(), main);
  const names = pictureNames().filter((name) => name !== main);
  fill("worst-other", names.length ? names : columnsOf(), names.includes("input") ? "input" : names[0]);
  showMeans(); showDifferences(); showPlots(); showWorst(); showRows();
}
function showProtocols() {
  const head = ["metric", "protocol", "better", "range", "unit", "source"].map((text) => column(text));
  $("protocols").replaceChildren(table(head, report.metrics.map((m) => make("tr", {}, make("td", {}, m.label), make("td", {}, m.protocol, m.weights_sha256 ? make("small", {}, `file ${m.weights_sha256.slice(0, 12)}`) : null),
    make("td", {}, m.better), make("td", {}, `${show(m.range[0], 0)} … ${show(m.range[1], 0)}`), make("td", {}, m.unit), make("td", {}, m.source))), { class: "wide" }));
  const items = (lines) => (lines.length ? lines : ["nothing"]).map((line) => make("li", {}, line));
  $("missing").replaceChildren(...items(Object.entries(report.not_measured).map(([name, reason]) => `${name}: ${reason}`)));
  $("problems").replaceChildren(...items([...report.problems.map((p) => `${p.left_out ? "left out: " : ""}${p.image}: ${p.cause}`), ...report.remarks]));
  const { parts, metrics, problems, remarks, not_measured, speed, calibration, ...rest } = report;
  $("raw").textContent = JSON.stringify(rest, null, 2);
}
function showExtras() {
  if (report.speed) {
    $("speed-section").hidden = false;
    const names = [...new Set(report.speed.flatMap((row) => Object.keys(row)))];
    const cell = (value) => (typeof value === "number" && !Number.isInteger(value) ? value.toFixed(2) : value ?? "–");
    $("speed").replaceChildren(table(names.map((name) => column(name.replaceAll("_", " "))), report.speed.map((row) => make("tr", {}, ...names.map((name) => make("td", {}, String(cell(row[name]))))))));
  }
  if (report.calibration) {
    $("calibration-section").hidden = false;
    const c = report.calibration;
    $("calibration").replaceChildren(
      make("p", {}, `Spread of ${c.samples} restorations of ${c.faces} faces against the true error, per pixel in 8-bit levels: Spearman ${show(c.spearman, 3)} within faces (mean), error ${show(c.ratio, 2)} times the spread on the whole.`),
      c.plot ? make("img", { src: c.plot, alt: "Reliability: spread against root mean square error, by tenths of the pixels" }) : null,
      table(["spread", "error (RMS)", "pixels"].map((text) => column(text)), c.bins.map((b) => make("tr", {}, make("td", {}, show(b.spread, 2)), make("td", {}, show(b.error, 2)), make("td", {}, String(b.count))))));
  }
}

const images = report.parts.reduce((sum, p) => sum + p.images, 0);
$("about").textContent = `${images} pictures · flipnet ${report.flipnet}${report.commit ? ` · commit ${report.commit.slice(0, 12)}${report.commit.endsWith("+") ? " with changes" : ""}` : ""} · seed ${report.seed} · ${report.protocol}`;
if (report.parts.length > 1) $("parts").replaceChildren(...report.parts.map((p, i) => make("button", { onclick: () => showPart(i) }, p.name)));
fill("worst-metric", imageMetrics.map((metric) => metric.label), imageMetrics.some((m) => m.name === "identity_distance") ? "identity" : undefined);
for (const id of ["worst-metric", "worst-column", "worst-other"]) $(id).addEventListener("change", showWorst);
$("rows-column").addEventListener("change", showRows);
$("rows-filter").addEventListener("input", showRows);
showPart(0); showProtocols(); showExtras();
