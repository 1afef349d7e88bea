// Elements are made with text nodes only: nothing that comes from a run is ever parsed as HTML.

const byId = (id) => document.getElementById(id);
const data = JSON.parse(byId("data").textContent);
const { configurations, pairs, inputs, trials, fields } = data;
const trialByPlace = new Map(trials.map((trial) => [`${trial.pair}/${trial.configuration}`, trial]));
const trialByIndex = new Map(trials.map((trial) => [trial.trial_index, trial]));
const numberById = new Map(configurations.map((each, number) => [each.id, number]));
const trialOf = (pair, configuration) => trialByPlace.get(`${pair}/${configuration}`);
const describe = (trial) => `${pairs[trial.pair].label}\n${configurations[trial.configuration].label}`;

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name in node) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

function short(value) {
  if (typeof value !== "number") return value ?? "–";
  const size = Math.abs(value);
  return size && (size >= 1e5 || size < 1e-3) ? value.toExponential(2) : String(Number(value.toPrecision(4)));
}

// Tiles and large pictures

const emptyTile = (reason) => el("div", { className: "tile empty", title: reason }, reason);

function tile(trial, list) {
  if (!trial?.thumbnail) return emptyTile(trial?.reason ?? "pending");
  const image = el("img", { loading: "lazy", alt: describe(trial), src: trial.thumbnail });
  return el("button", { type: "button", className: "tile", title: describe(trial), onclick: () => zoom.open(trial, list) }, image);
}

function inputTile(number, role) {
  const { name, uri, thumbnail, mask, reason } = inputs[number];
  const picture = thumbnail ? el("div", { className: "tile" }, el("img", { src: thumbnail, alt: `${role}: ${name}` }),
    mask && el("img", { className: "mask", src: mask, alt: "its regions", title: "its regions" })) : emptyTile(reason);
  return el("figure", { title: reason || uri }, picture, el("figcaption", {}, `${role}: ${name}`));
}

function showPicture(image, source) {
  image.onerror = () => { image.onerror = null; image.src = source.thumbnail; };
  image.hidden = !source?.thumbnail;
  if (source?.thumbnail) image.src = source.picture || source.thumbnail;
}

const zoom = {
  dialog: byId("zoom"), list: [], at: 0,
  open(trial, list = [trial]) {
    this.list = list.filter((each) => each?.thumbnail);
    this.at = Math.max(0, this.list.indexOf(trial));
    this.step(0);
    if (!this.dialog.open) this.dialog.showModal();
  },
  step(by) {
    this.at = (this.at + by + this.list.length) % this.list.length;
    const trial = this.list[this.at];
    showPicture(byId("zoom-image"), trial);
    byId("zoom-image").alt = describe(trial);
    byId("zoom-text").textContent = [describe(trial), trial.scores, `${trial.steps_done} steps · ${trial.trial_id.slice(0, 10)}`]
      .filter(Boolean).join("\n");
  },
};
for (const [id, by] of [["zoom-back", -1], ["zoom-on", 1]]) byId(id).addEventListener("click", () => zoom.step(by));
zoom.dialog.addEventListener("click", (event) => { if (event.target === zoom.dialog) zoom.dialog.close(); });
zoom.dialog.addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft") zoom.step(-1);
  if (event.key === "ArrowRight") zoom.step(1);
  if (event.key.toLowerCase() === "c") { zoom.dialog.close(); compare.take(zoom.list[zoom.at]); }
});

// Controls

function select(label, texts, value, onchange) {
  const box = el("select", { "aria-label": label, onchange: () => onchange(box.value) });
  for (const [key, text] of Object.entries(texts)) box.append(el("option", { value: key, textContent: text }));
  box.value = value;
  return el("label", {}, label, box);
}

// Pictures: the pair and the fields that vary are axes; two of them span a table (or one a gallery), the others are fixed

const axes = [{ label: "pair", values: pairs.map((pair) => pair.label) }, ...fields];
const numberByPlace = new Map(configurations.map(({ values }, number) =>
  [values.map((value, i) => fields[i].values.indexOf(value)).join(), number]));
const grid = { rows: 0, columns: -1, fixed: axes.map(() => 0) };

function chooseAxes() {
  const isLayers = (i) => i > 0 && fields[i - 1].name.endsWith("_layers");
  const varying = fields.map((_, i) => i + 1);
  const order = [...varying.filter(isLayers), ...varying.filter((i) => !isLayers(i))];
  if (order.length > 1) [grid.rows, grid.columns] = order;
  else if (order.length === 1) [grid.rows, grid.columns] = pairs.length > 1 ? [0, 1] : [1, -1];
  const columns = (grid.rows === 0 ? 2 : 0)
    + (grid.columns > 0 ? axes[grid.columns].values.length : Math.min(axes[grid.rows].values.length, 6));
  const room = byId("grid").clientWidth - (grid.columns > 0 ? 130 : 0);
  setSize(Math.max(96, Math.min(190, room / columns - 16)));
}

const setSize = (pixels) => document.documentElement.style.setProperty("--thumb", `${Math.round(pixels)}px`);

function drawGridControls() {
  const names = axes.map((axis) => axis.label);
  const choose = (axis, other) => (value) => {
    if (grid[other] === Number(value)) grid[other] = grid[axis];
    grid[axis] = Number(value);
    drawGridControls();
    drawGrid();
  };
  const fixed = [...axes.keys()].filter((i) => i !== grid.rows && i !== grid.columns && axes[i].values.length > 1);
  const pixels = parseInt(document.documentElement.style.getPropertyValue("--thumb"), 10);
  const size = el("input", { type: "range", min: 64, max: 320, value: pixels, "aria-label": "size of the pictures",
    oninput: () => setSize(size.value) });
  byId("grid-controls").replaceChildren(
    ...fixed.map((i) => select(names[i], axes[i].values, grid.fixed[i], (value) => { grid.fixed[i] = value; drawGrid(); })),
    select("rows", names, grid.rows, choose("rows", "columns")),
    select("columns", { ...names, "-1": "none" }, grid.columns, choose("columns", "rows")),
    el("label", {}, "size", size));
}

function trialAt(row, column) {
  const place = grid.fixed.map((value, i) => (i === grid.rows ? row : i === grid.columns ? column : value));
  const number = numberByPlace.get(place.slice(1).join());
  return number === undefined ? null : trialOf(place[0], number);
}

const originals = ({ content, styles }) =>
  [...(content === null ? [] : [inputTile(content, "content")]), ...styles.map((style) => inputTile(style, "style"))];

function drawGrid() {
  byId("inputs").hidden = grid.rows === 0 || grid.columns === 0;
  byId("inputs").replaceChildren(...originals(pairs[grid.fixed[0]]));
  const rows = axes[grid.rows].values, columns = grid.columns < 0 ? [""] : axes[grid.columns].values;
  const cells = rows.map((_, row) => columns.map((_, column) => trialAt(row, column)));
  const list = cells.flat();
  const picture = (trial) => (trial === null ? "" : el("figure", {}, tile(trial, list), el("figcaption", {}, trial?.scores ?? "")));
  const own = (row) => (grid.rows === 0 ? el("td", {}, el("div", { className: "originals row" }, ...originals(pairs[row]))) : null);
  const head = el("tr", {}, el("th", {}, `${axes[grid.rows].label} ↓ ${axes[grid.columns]?.label} →`), grid.rows === 0 ? el("th") : null,
    ...columns.map((value) => el("th", { scope: "col" }, value)));
  const body = rows.map((value, row) => el("tr", {}, el("th", { scope: "row" }, value), own(row),
    ...cells[row].map((trial) => el("td", {}, picture(trial)))));
  const gallery = rows.map((value, row) => [cells[row][0], el("div", {}, picture(cells[row][0]), el("strong", {}, value))]);
  gallery.sort(([a], [b]) => (b?.transfer_score ?? 0) - (a?.transfer_score ?? 0));
  byId("grid").replaceChildren(
    grid.columns < 0 ? el("div", { className: "gallery row" }, ...gallery.map(([, node]) => node))
      : el("table", { className: "pictures" }, el("thead", {}, head), el("tbody", {}, ...body)));
}

// Compare: two pictures of one pair with a handle between them

const compare = {
  pair: 0, sides: ["content", 0], stage: document.querySelector(".stage"),
  texts() {
    const { content, styles } = pairs[this.pair];
    return { ...configurations.map((each) => each.label), ...(content === null ? {} : { content: "content picture" }),
      ...Object.fromEntries(styles.map((number) => [`style${number}`, `style picture ${inputs[number].name}`])) };
  },
  source(side) {
    if (side === "content") return inputs[pairs[this.pair].content];
    return side.startsWith("style") ? inputs[side.slice(5)] : trialOf(this.pair, side);
  },
  take(trial) {
    this.pair = trial.pair;
    this.sides = [this.sides[1], trial.configuration];
    this.draw();
    byId("compare").scrollIntoView({ behavior: "smooth" });
  },
  draw() {
    const texts = this.texts();
    this.sides = this.sides.map((side) => (side in texts ? String(side) : Object.keys(texts).at(-1)));
    byId("compare-controls").replaceChildren(
      select("pair", axes[0].values, this.pair, (pair) => { this.pair = pair; this.draw(); }),
      ...this.sides.map((side, i) => select(["left", "right"][i], texts, side, (key) => { this.sides[i] = key; this.draw(); })));
    this.stage.querySelectorAll("img").forEach((image, i) => showPicture(image, this.source(this.sides[i])));
    document.querySelectorAll("#swipe span").forEach((node, i) => { node.textContent = texts[this.sides[i]]; });
  },
};
compare.stage.querySelector("input").addEventListener("input", ({ target }) => byId("swipe").style.setProperty("--at", `${target.value}%`));

// Tables: a click on a column's name sorts by it

function drawTable(holder, names, rowsOf, show, limit = 50) {
  const columns = names.filter((name) => rowsOf().some((row) => row[name] != null));
  const state = { column: null, descending: false, limit };
  const order = (a, b) => {
    const [x, y] = [a[state.column] ?? "", b[state.column] ?? ""];
    if (x === "" || y === "") return (x === "") - (y === "");
    const found = typeof x === "number" ? x - y : String(x).localeCompare(String(y), "en", { numeric: true });
    return state.descending ? -found : found;
  };
  const sortBy = (column) => {
    Object.assign(state, { column, descending: state.column === column && !state.descending });
    draw();
    holder.querySelectorAll("th button")[columns.indexOf(column)].focus();
  };
  const draw = () => {
    const rows = state.column === null ? rowsOf() : [...rowsOf()].sort(order);
    const heads = columns.map((name) => el("th", {
      scope: "col", ariaSort: state.column !== name ? null : state.descending ? "descending" : "ascending",
    }, el("button", { type: "button", onclick: () => sortBy(name) }, name.replaceAll("_", " "))));
    const cell = (name, row) => el("td", { className: typeof row[name] === "number" ? "number" : name },
      show[name] ? show[name](row, rows) : short(row[name]));
    const body = rows.slice(0, state.limit).map((row) => el("tr", {}, ...columns.map((name) => cell(name, row))));
    const more = el("button", { type: "button", onclick: () => { state.limit += 500; draw(); } }, `Show more of ${rows.length} rows`);
    holder.replaceChildren(el("table", { className: "rows" }, el("thead", {}, el("tr", {}, ...heads)), el("tbody", {}, ...body)),
      rows.length > state.limit ? more : "");
  };
  draw();
  return draw;
}

function drawRankingTable({ rows, notes }) {
  const columns = ["rank", "configuration", "transfer_score", "score_low", "score_high", "content_kept", "style_taken",
    "mean_rank", "low", "high", "won", "pareto", "content_distance", "style_distance", "failed"];
  const open = (row) => el("button", { type: "button", onclick: () => openPictures(row) },
    configurations[numberById.get(row.configuration)]?.label ?? row.configuration);
  drawTable(byId("ranking-table"), columns, () => rows, { configuration: open });
  byId("ranking-notes").replaceChildren(...notes.map((note) => el("li", {}, note)));
}

function drawTrialTable() {
  const rows = trials.map((trial) => ({ ...trial, "": trial.trial_index, trial: trial.trial_index, pair: pairs[trial.pair].label,
    configuration: configurations[trial.configuration].label, id: trial.trial_id.slice(0, 10), of: trial }));
  const texts = new Map(rows.map((row) => [row, [row.pair, row.configuration, row.trial_id, row.error_message].join(" ").toLowerCase()]));
  const words = el("input", { type: "search", placeholder: "picture, layer, id …", "aria-label": "filter", oninput: () => draw() });
  const count = el("output");
  let status = "all";
  const rowsOf = () => rows.filter((row) => (status === "all" || row.status === status)
    && words.value.toLowerCase().split(/\s+/).every((word) => texts.get(row).includes(word)));
  const columns = ["", "trial", "pair", "configuration", "status", "transfer_score", "content_kept", "style_taken",
    "content_distance", "style_distance", "final_total_loss", "steps_done", "seconds", "id"];
  const redraw = drawTable(byId("trial-table"), columns, rowsOf, { "": (row, list) => tile(row.of, list.map((each) => each.of)) });
  const draw = () => { redraw(); count.textContent = `${rowsOf().length} of ${rows.length}`; };
  const states = ["all", ...new Set(rows.map((row) => row.status))];
  byId("trial-controls").replaceChildren(el("label", {}, "filter", words),
    select("status", states, 0, (number) => { status = states[number]; draw(); }), count);
  draw();
}

// Plots: Vega's, in the page's colours; what a mark stands for opens on a click

const picturesOf = ({ trial, configuration }) =>
  (trial === undefined ? pairs.map((_, pair) => trialOf(pair, numberById.get(configuration))) : [trialByIndex.get(trial)])
    .filter((each) => each?.thumbnail);

function openPictures(datum) {
  const list = picturesOf(datum);
  if (list.length) zoom.open(list[0], list);
}

function showTip(_, event, item, value) {
  const tip = byId("tip");
  tip.hidden = !value;
  if (!value) return;
  const thumbnail = picturesOf(item.datum)[0]?.thumbnail;
  tip.replaceChildren(Object.entries(value).map(([name, text]) => `${name}: ${text}`).join("\n"),
    thumbnail ? el("img", { src: thumbnail, alt: "" }) : "");
  const { width, height } = tip.getBoundingClientRect(), { clientX: x, clientY: y } = event;
  tip.style.left = `${Math.max(6, Math.min(x + 14, innerWidth - width - 8))}px`;
  tip.style.top = `${y + height + 20 > innerHeight ? Math.max(4, y - height - 12) : y + 14}px`;
}

async function drawPlot(name, { title, config, ...plot }) {
  const holder = byId(`${name}-plot`), narrow = holder.clientWidth < 640;
  const text = { labelColor: "var(--quiet)", titleColor: "var(--quiet)", titleFontWeight: "normal" };
  const colors = {
    background: "transparent", view: { stroke: null }, text: { color: "var(--ink)" },
    axis: { ...text, gridColor: "var(--line)", domainColor: "var(--line)", tickColor: "var(--line)", labelLimit: narrow ? 110 : 340 },
    legend: { ...text, labelLimit: 300, ...(narrow ? { orient: "bottom", columns: 1 } : {}) },
  };
  const options = { ast: true, actions: false, renderer: "svg", logLevel: 1, config: colors, tooltip: showTip };
  const { view } = await vegaEmbed(holder, { ...plot, width: "container" }, options);
  view.addEventListener("click", (_, item) => { if (item?.datum) openPictures(item.datum); });
}

const [best] = data.ranking.rows;
if (best) compare.sides[1] = numberById.get(best.configuration) ?? 0;
if (best) drawRankingTable(data.ranking);
chooseAxes();
drawGridControls();
drawGrid();
compare.draw();
drawTrialTable();
if (data.failures.length) drawTable(byId("failure-table"), ["count", "status", "error_type", "error_message", "trial"], () => data.failures, {});
for (const [name, plot] of Object.entries(data.plots)) drawPlot(name, plot);
