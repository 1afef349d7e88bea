const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const { configurations, pairs, inputs, trials, fields } = data;
const place = new Map(trials.map((trial) => [`${trial.pair}/${trial.configuration}`, trial]));
const trialOf = (pair, configuration) => place.get(`${pair}/${configuration}`);
const byIndex = new Map(trials.map((trial) => [trial.trial_index, trial]));
const numberOf = new Map(configurations.map((each, number) => [each.id, number]));
const describe = (trial) => `${pairs[trial.pair].label || "the only pair"}\n${configurations[trial.configuration].label}`;

// Tiles

function tile(trial, list = null) {
  if (!trial) return el("div", { className: "tile empty" }, "pending");
  if (!trial.thumbnail) return el("div", { className: "tile empty", title: trial.error_message || trial.status }, trial.error_message || trial.status);
  const button = el("button", { type: "button", className: "tile", title: describe(trial), onclick: () => zoom.open(trial, list) });
  button.append(el("img", { loading: trial.thumbnail.startsWith("data:") ? "eager" : "lazy", decoding: "async", alt: describe(trial), src: trial.thumbnail }));
  return button;
}

function inputTile(number, role) {
  const input = inputs[number];
  const picture = input.thumbnail
    ? el("div", { className: "tile" }, el("img", { src: input.thumbnail, alt: `${role}: ${input.name}` }))
    : el("div", { className: "tile empty", title: input.reason }, input.reason);
  return el("figure", { title: input.uri }, picture, el("figcaption", {}, `${role}: ${input.name}`));
}

// Large pictures

const zoom = {
  dialog: byId("zoom"), list: [], at: 0,
  open(trial, list) {
    this.list = (list || [trial]).filter((each) => each && each.thumbnail);
    this.at = Math.max(0, this.list.indexOf(trial));
    this.draw();
    if (!this.dialog.open) this.dialog.showModal();
  },
  step(by) {
    if (!this.list.length) return;
    this.at = (this.at + by + this.list.length) % this.list.length;
    this.draw();
  },
  draw() {
    const trial = this.list[this.at], image = byId("zoom-image");
    image.onerror = () => { image.onerror = null; image.src = trial.thumbnail; };
    image.src = trial.picture || trial.thumbnail;
    image.alt = describe(trial);
    byId("zoom-text").textContent = `${describe(trial)}\ncontent distance ${short(trial.content_distance)} · style distance ${short(trial.style_distance)} · ${trial.steps_done} steps · ${trial.trial_id.slice(0, 10)}`;
  },
};
byId("zoom-back").addEventListener("click", () => zoom.step(-1));
byId("zoom-on").addEventListener("click", () => zoom.step(1));
zoom.dialog.addEventListener("click", (event) => { if (event.target === zoom.dialog) zoom.dialog.close(); });
zoom.dialog.addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft") zoom.step(-1);
  if (event.key === "ArrowRight") zoom.step(1);
  if (event.key.toLowerCase() === "c") { zoom.dialog.close(); compare.take(zoom.list[zoom.at]); }
});

// Controls

function select(label, options, value, onchange) {
  const box = el("select", { "aria-label": label, onchange: () => onchange(box.value) });
  for (const [key, text] of options) box.append(el("option", { value: key, textContent: text, selected: String(key) === String(value) }));
  return el("label", {}, label, box);
}

function pairSlider(get, set) {
  if (pairs.length < 2) return null;
  const shown = el("output", {}, pairs[get()].label);
  const slider = el("input", { type: "range", min: 0, max: pairs.length - 1, "aria-label": "pair" });
  slider.value = get();
  slider.addEventListener("input", () => { shown.textContent = pairs[slider.value].label; set(Number(slider.value)); });
  return el("label", { className: "wide" }, "pair", slider, shown);
}

function segments(options, value, onchange) {
  const box = el("div", { className: "segments", role: "group" });
  for (const [key, text] of options) {
    box.append(el("button", { type: "button", "aria-pressed": String(key === value), onclick: () => {
      for (const each of box.children) each.setAttribute("aria-pressed", "false");
      box.children[options.findIndex((option) => option[0] === key)].setAttribute("aria-pressed", "true");
      onchange(key);
    } }, text));
  }
  return box;
}

// The grid: two of the fields that vary span it, the others and the pair are chosen

const grid = { pair: 0, rows: null, columns: null, fixed: {} };

// As large as fits beside each other, on a wide screen
function sizeByDefault() {
  const columns = grid.rows ? fields[fieldNumber(grid.columns)].values.length : configurations.length <= 8 ? configurations.length : 6;
  const room = byId("grid").clientWidth - (grid.rows ? 130 : 0);
  if (room > 560) document.documentElement.style.setProperty("--thumb", `${Math.round(Math.max(96, Math.min(190, room / columns - 16)))}px`);
}

function axesByDefault() {
  const names = fields.map((field) => field.name);
  const layered = ["content_layers", "style_layers"].filter((name) => names.includes(name));
  const others = names.filter((name) => !layered.includes(name));
  const order = layered.length === 1 ? [layered[0], ...others] : [...layered, ...others];
  [grid.rows, grid.columns] = order.length > 1 ? order : [null, order[0] ?? null];
  fields.forEach((field) => { grid.fixed[field.name] = field.values[0]; });
}

const fieldNumber = (name) => fields.findIndex((field) => field.name === name);

function drawControls() {
  const names = fields.map((field) => [field.name, field.label]);
  const swap = (axis, other) => (name) => {
    if (grid[other] === name) grid[other] = grid[axis];
    grid[axis] = name;
    drawControls();
    drawGrid();
  };
  const size = el("input", { type: "range", min: 64, max: 320, "aria-label": "size of the pictures" });
  size.value = parseInt(getComputedStyle(document.documentElement).getPropertyValue("--thumb"), 10);
  size.addEventListener("input", () => document.documentElement.style.setProperty("--thumb", `${size.value}px`));
  byId("grid-controls").replaceChildren(...[
    pairSlider(() => grid.pair, (pair) => { grid.pair = pair; drawGrid(); }),
    fields.length > 1 ? select("rows", names, grid.rows, swap("rows", "columns")) : null,
    fields.length > 1 ? select("columns", names, grid.columns, swap("columns", "rows")) : null,
    ...fields.filter((field) => ![grid.rows, grid.columns].includes(field.name)).map((field) =>
      select(field.label, field.values.map((value) => [value, value]), grid.fixed[field.name], (value) => { grid.fixed[field.name] = value; drawGrid(); })),
    el("label", {}, "size", size),
  ].filter(Boolean));
}

function drawGrid() {
  const pair = pairs[grid.pair];
  byId("inputs").replaceChildren(...[
    pair.content === null ? null : inputTile(pair.content, "content"),
    ...pair.styles.map((style) => inputTile(style, "style")),
  ].filter(Boolean));
  const fixed = fields.map((field) => ([grid.rows, grid.columns].includes(field.name) ? null : grid.fixed[field.name]));
  const fitting = configurations.map((each, number) => [each.values, number])
    .filter(([values]) => values.every((value, i) => fixed[i] === null || fixed[i] === value));
  const list = fitting.map(([, number]) => trialOf(grid.pair, number));
  if (!grid.rows) {
    byId("grid").replaceChildren(el("div", { className: "gallery" }, ...fitting.map(([, number]) =>
      el("figure", {}, tile(trialOf(grid.pair, number), list), el("figcaption", {}, configurations[number].label)))));
    return;
  }
  const [row, column] = [fieldNumber(grid.rows), fieldNumber(grid.columns)];
  const head = el("tr", {}, el("th", {}, `${fields[row].label} ↓ ${fields[column].label} →`),
    ...fields[column].values.map((value) => el("th", { scope: "col" }, value)));
  const body = fields[row].values.map((value) => el("tr", {}, el("th", { scope: "row" }, value),
    ...fields[column].values.map((other) => {
      const found = fitting.find(([values]) => values[row] === value && values[column] === other);
      return el("td", {}, found ? tile(trialOf(grid.pair, found[1]), list) : "");
    })));
  byId("grid").replaceChildren(el("table", { className: "pictures" }, el("thead", {}, head), el("tbody", {}, ...body)));
}

// Compare: two pictures of one pair with a handle between them

const compare = {
  pair: 0, left: "content", right: 0,
  options() {
    const pair = pairs[this.pair];
    return [
      ...(pair.content === null ? [] : [["content", "content picture"]]),
      ...pair.styles.map((number, i) => [`style${i}`, pair.styles.length > 1 ? `style ${i + 1}` : "style picture"]),
      ...configurations.map((each, number) => [String(number), each.label]),
    ];
  },
  source(side) {
    const pair = pairs[this.pair];
    if (side === "content") return pair.content === null ? {} : inputs[pair.content];
    if (String(side).startsWith("style")) return inputs[pair.styles[Number(side.slice(5))]] ?? {};
    return trialOf(this.pair, Number(side)) ?? {};
  },
  take(trial) {
    this.pair = trial.pair;
    if (String(this.right) !== String(trial.configuration)) [this.left, this.right] = [this.right, trial.configuration];
    this.draw();
    byId("compare").scrollIntoView({ behavior: "smooth" });
  },
  draw() {
    const options = this.options(), known = options.map(([key]) => key);
    for (const side of ["left", "right"]) if (!known.includes(String(this[side]))) this[side] = known[0];
    byId("compare-controls").replaceChildren(...[
      pairSlider(() => this.pair, (pair) => { this.pair = pair; this.picture(); }),
      select("left", options, this.left, (key) => { this.left = key; this.picture(); }),
      select("right", options, this.right, (key) => { this.right = key; this.picture(); }),
    ].filter(Boolean));
    this.picture();
  },
  picture() {
    const image = (side, className) => {
      const source = this.source(side);
      const node = el("img", { className, alt: "", draggable: false });
      node.addEventListener("error", () => { if (source.thumbnail && node.src !== source.thumbnail) node.src = source.thumbnail; });
      if (source.thumbnail) node.src = source.picture || source.thumbnail;
      return node;
    };
    const name = (side) => this.options().find(([key]) => key === String(side))?.[1] ?? "";
    const stage = el("div", { className: "stage" }, image(this.left, "under"), image(this.right, "over"));
    const handle = el("input", { type: "range", min: 0, max: 100, step: 0.5, "aria-label": "divide" });
    handle.value = 50;
    handle.addEventListener("input", () => byId("swipe").style.setProperty("--at", `${handle.value}%`));
    byId("swipe").style.setProperty("--at", "50%");
    stage.append(handle, el("div", { className: "handle" }));
    byId("swipe").replaceChildren(stage, el("div", { className: "sides" }, el("span", {}, name(this.left)), el("span", {}, name(this.right))));
  },
};
