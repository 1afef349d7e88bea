// Ranking: mean ranks with their intervals, and the numbers

let rankedBy = Object.keys(data.ranking)[0];
const rowLabel = (row) => configurations[numberOf.get(row.configuration)]?.label ?? row.configuration;
const MAX_RANKED = 30, MAX_LEGEND = 16;
const percent = (share) => (share === null ? "–" : `${Math.round(100 * share)}%`);

function openBest(row) {
  const number = numberOf.get(row.configuration);
  const list = pairs.map((_, pair) => trialOf(pair, number));
  const first = list.find((trial) => trial?.thumbnail);
  if (first) zoom.open(first, list);
}

function drawRanking() {
  if (!rankedBy) {
    byId("ranking-plot").replaceChildren(el("p", { className: "hint" }, "Nothing to rank yet."));
    return;
  }
  const { rows, notes } = data.ranking[rankedBy];
  const holder = byId("ranking-plot"), shown = rows.slice(0, MAX_RANKED), narrow = holder.clientWidth < 620;
  const line = narrow ? 38 : 24, longest = Math.max(...shown.map((row) => rowLabel(row).length));
  const left = narrow ? 12 : Math.min(360, holder.clientWidth * 0.36, 24 + longest * 7.6);
  const last = Math.max(2, ...shown.map((row) => row.high ?? row.mean_rank));
  const { root, sx, sy } = frame(holder, {
    height: line * shown.length + 52, left, top: 8,
    x: { low: 1, high: Math.min(last * 1.05, Math.max(rows.length, 2)), label: "mean rank (1 is best)" },
    y: { low: shown.length - 0.5, high: -0.5, ticks: [] },
  });
  shown.forEach((row, position) => {
    const y = sy(position), color = row.pareto ? "var(--front)" : "var(--mark)";
    const text = rowLabel(row), room = Math.floor((narrow ? holder.clientWidth - 24 : left) / 7.4), middle = narrow ? y + 9 : y;
    const interval = row.low === null ? "no interval" : `95%: ${short(row.low)} to ${short(row.high)}`;
    const say = `${text}\nmean rank ${short(row.mean_rank)} (${interval})\nfirst in ${percent(row.won)} of ${row.pairs} pairs`;
    const group = svg("g", { class: "hit", tabindex: 0, "aria-label": say });
    group.append(svg("rect", { x: 0, y: y - line / 2, width: "100%", height: line, fill: "transparent" }));
    group.append(svg("text", { class: "name", x: narrow ? left : left - 10, y: narrow ? y - 5 : y + 4, "text-anchor": narrow ? "start" : "end" }, text.length > room ? `${text.slice(0, room - 1)}…` : text));
    if (row.low !== null) group.append(svg("line", { x1: sx(row.low), x2: sx(row.high), y1: middle, y2: middle, stroke: color, "stroke-width": 2, opacity: 0.55 }));
    group.append(svg("circle", { cx: sx(row.mean_rank), cy: middle, r: 5, fill: color }));
    hint(group, say, () => openBest(row));
    root.append(group);
  });
  const columns = [
    ["rank", (row) => row.rank, true], ["configuration", rowLabel, false, (row) => rowLabel(row)], ["mean rank", (row) => row.mean_rank, true],
    ["low", (row) => row.low, true], ["high", (row) => row.high, true], ["won", (row) => row.won, true, (row) => percent(row.won)],
    ["content distance", (row) => row.content_distance, true], ["style distance", (row) => row.style_distance, true],
    ["Pareto", (row) => (row.pareto ? "front" : "")], ["failed", (row) => row.failed, true],
  ];
  sortable(byId("ranking-table"), columns, () => rows, { limit: MAX_RANKED });
  byId("ranking-notes").replaceChildren(...notes.map((note) => el("li", {}, note)));
}

// Shows a text beside the pointer, or beside the element when it has the keyboard's focus
function hint(node, text, onclick, image) {
  node.addEventListener("pointermove", (event) => tip.show(event.clientX, event.clientY, text, image));
  node.addEventListener("pointerleave", () => tip.hide());
  node.addEventListener("focus", () => { const box = node.getBoundingClientRect(); tip.show(box.right - box.width / 2, box.bottom, text, image); });
  node.addEventListener("blur", () => tip.hide());
  if (onclick) {
    node.addEventListener("click", onclick);
    node.addEventListener("keydown", (event) => { if (event.key === "Enter") onclick(); });
  }
}

// Content distance against style distance

function drawTradeoff() {
  const holder = byId("tradeoff-plot");
  const rows = (data.ranking.both?.rows ?? []).filter((row) => Number.isFinite(row.content_distance) && Number.isFinite(row.style_distance));
  if (!rows.length) {
    holder.replaceChildren(el("p", { className: "hint" }, "This needs trials with a content and a style picture."));
    return;
  }
  const around = (name, label) => {
    const values = rows.map((row) => row[name]), low = Math.min(...values), high = Math.max(...values);
    const log = low > 0 && high / low > 30;
    const room = (high - low) * 0.08 || high * 0.1 || 1;
    return log ? { low: low / 1.3, high: high * 1.3, log, label } : { low: Math.max(0, low - room), high: high + room, label };
  };
  const { root, sx, sy, width } = frame(holder, { height: Math.min(460, Math.max(300, holder.clientWidth * 0.6)),
    x: around("content_distance", "content distance →"), y: around("style_distance", "style distance →") });
  const front = rows.filter((row) => row.pareto).sort((a, b) => a.content_distance - b.content_distance);
  root.append(svg("path", { d: path(front.map((row) => [sx(row.content_distance), sy(row.style_distance)])), fill: "none", stroke: "var(--front)", "stroke-width": 1.5, "stroke-dasharray": "4 3" }));
  const labels = [];
  for (const row of [...rows].sort((a, b) => a.pareto - b.pareto)) {
    const [x, y] = [sx(row.content_distance), sy(row.style_distance)];
    const say = `${rowLabel(row)}\ncontent distance ${short(row.content_distance)}\nstyle distance ${short(row.style_distance)}`;
    const dot = svg("circle", { class: "hit", cx: x, cy: y, r: row.pareto ? 6 : 4.5, fill: row.pareto ? "var(--front)" : "var(--mark)", stroke: "var(--card)", "stroke-width": 1.5, tabindex: row.pareto ? 0 : -1, "aria-label": say });
    const number = numberOf.get(row.configuration);
    hint(dot, say, () => openBest(row), pairs.map((_, pair) => trialOf(pair, number)).find((trial) => trial?.thumbnail)?.thumbnail);
    root.append(dot);
    const text = rowLabel(row), size = text.length * 7;
    const free = labels.every(([a, b, c]) => Math.abs(b - y) > (front.length > 6 ? 46 : 17) || x > a + c || a > x + size);
    if (row.pareto && size < width * 0.6 && free) {
      const end = x + 12 + size > width;
      root.append(svg("text", { class: "name halo", x: x + (end ? -10 : 10), y: y - 8, "text-anchor": end ? "end" : "start" }, text));
      labels.push([x, y, size]);
    }
  }
}

// Loss curves: all medians, or one configuration with its band and single trials

const curves = { term: "total", configuration: "all" };
const at = (trial, term) => data.curves[term][trial.trial_index];

function relativeGroup(number) {
  const own = trials.filter((trial) => trial.configuration === number && at(trial, curves.term)?.[0]);
  return data.curves.steps.map((_, i) => own.map((trial) => {
    const values = at(trial, curves.term), value = values[Math.min(i, values.length - 1)];
    return value === null ? null : value / values[0];
  }));
}

function drawCurves() {
  const holder = byId("curve-plot"), steps = data.curves.steps, all = curves.configuration === "all";
  const lines = [];
  let band = null;
  if (all) {
    const used = configurations.map((_, number) => number).filter((number) => trials.some((trial) => trial.configuration === number && at(trial, curves.term)));
    used.slice(0, 200).forEach((number, order) => lines.push({
      name: configurations[number].label, color: hue(order, used.length), width: 2,
      points: relativeGroup(number).map((values, i) => [steps[i], quantile(values, 0.5)]), open: () => { curves.configuration = String(number); drawCurveControls(); drawCurves(); },
    }));
  } else {
    const own = trials.filter((trial) => trial.configuration === Number(curves.configuration) && at(trial, curves.term));
    const columns = steps.map((_, i) => own.map((trial) => at(trial, curves.term)[i]));
    band = steps.map((step, i) => [step, quantile(columns[i], 0.1), quantile(columns[i], 0.9)]).filter(([, low]) => low > 0);
    own.forEach((trial) => lines.push({ name: pairs[trial.pair].label, trial, color: "var(--quiet)", width: 1,
      points: at(trial, curves.term).map((value, i) => [steps[i], value]), open: () => zoom.open(trial, own) }));
    lines.push({ name: "median", color: "var(--mark)", width: 3, points: steps.map((step, i) => [step, quantile(columns[i], 0.5)]) });
  }
  for (const line of lines) line.points = line.points.filter(([, value]) => value > 0);
  const values = lines.flatMap((line) => line.points.map((point) => point[1]));
  byId("curve-hint").textContent = all
    ? "Medians over pairs, relative to the initial picture. Losses of different layers differ in scale: compare the shapes only. Click a line for its trials."
    : "Each thin line is a trial; the band holds the middle 80% of them. Click a line for its picture.";
  if (!values.length) { holder.replaceChildren(el("p", { className: "hint" }, "No curve to show.")); return; }
  const { root, sx, sy } = frame(holder, { height: 380, x: { low: 0, high: steps[steps.length - 1] || 1, label: "step" },
    y: { low: Math.min(...values) / 1.15, high: Math.max(...values) * 1.15, log: true, label: all ? "loss / initial loss" : `${curves.term} loss` } });
  if (band?.length) root.append(svg("path", { d: `${path([...band.map(([x, , high]) => [sx(x), sy(high)]), ...[...band].reverse().map(([x, low]) => [sx(x), sy(low)])])}Z`, fill: "var(--mark)", opacity: 0.14 }));
  const drawn = lines.map((line) => {
    line.screen = line.points.map(([x, y]) => [sx(x), sy(y)]);
    const node = svg("path", { d: path(line.screen), fill: "none", stroke: line.color, "stroke-width": line.width, "stroke-linejoin": "round" });
    root.append(node);
    return node;
  });
  followPointer(root, lines, drawn);
  if (all && lines.length <= MAX_LEGEND) holder.append(el("p", { className: "legend" }, ...lines.map((line) => {
    const chip = el("i");
    chip.style.background = line.color;
    return el("span", {}, chip, line.name);
  })));
}

function followPointer(root, lines, drawn) {
  const nearest = (event) => {
    const box = root.getBoundingClientRect(), factor = root.viewBox.baseVal.width / box.width;
    const [x, y] = [(event.clientX - box.left) * factor, (event.clientY - box.top) * factor];
    let best = { distance: 40 };
    lines.forEach((line, number) => line.screen.forEach(([a, b], i) => {
      const distance = Math.hypot(a - x, b - y);
      if (distance < best.distance) best = { distance, number, point: line.points[i] };
    }));
    return best.number === undefined ? null : best;
  };
  root.addEventListener("pointermove", (event) => {
    const found = nearest(event);
    drawn.forEach((node, number) => {
      node.classList.toggle("faint", Boolean(found) && number !== found.number);
      node.setAttribute("stroke-width", found?.number === number ? lines[number].width + 1.5 : lines[number].width);
    });
    root.style.cursor = found && lines[found.number].open ? "pointer" : "";
    if (!found) { tip.hide(); return; }
    const line = lines[found.number];
    tip.show(event.clientX, event.clientY, `${line.name}\nstep ${found.point[0]}: ${short(found.point[1])}`, line.trial?.thumbnail);
  });
  root.addEventListener("pointerleave", () => { drawn.forEach((node) => node.classList.remove("faint")); tip.hide(); });
  root.addEventListener("click", (event) => { const found = nearest(event); if (found) lines[found.number].open?.(); });
}

function drawCurveControls() {
  byId("curve-controls").replaceChildren(
    select("show", [["all", "all configurations (medians)"], ...configurations.map((each, number) => [String(number), each.label])], curves.configuration, (key) => { curves.configuration = key; drawCurves(); }),
    segments([["total", "total"], ["content", "content"], ["style", "style"]], curves.term, (term) => { curves.term = term; drawCurves(); }),
  );
}

// Tables

function sortable(holder, columns, rowsOf, { limit = 100 } = {}) {
  const state = { column: null, descending: false, limit };
  const draw = () => {
    const rows = [...rowsOf()];
    if (state.column !== null) {
      const value = columns[state.column][1], sign = state.descending ? -1 : 1;
      const empty = (x) => x === null || x === undefined || x === "";
      rows.sort((a, b) => {
        const [x, y] = [value(a), value(b)];
        if (empty(x) || empty(y)) return empty(x) - empty(y);
        return sign * (typeof x === "number" ? x - y : String(x).localeCompare(String(y), "en", { numeric: true }));
      });
    }
    const head = columns.map(([name, , numeric], number) => {
      const cell = el("th", { className: numeric ? "number" : "", scope: "col" }, el("button", { type: "button", onclick: () => {
        if (state.column === number) state.descending = !state.descending;
        else Object.assign(state, { column: number, descending: false });
        draw();
        holder.querySelectorAll("th button")[number].focus();
      } }, name));
      if (state.column === number) cell.setAttribute("aria-sort", state.descending ? "descending" : "ascending");
      return cell;
    });
    const body = rows.slice(0, state.limit).map((row) => el("tr", {}, ...columns.map(([, value, numeric, render]) => {
      if (render) return el("td", { className: numeric ? "number" : "name" }, render(row, rows));
      const found = value(row);
      return el("td", { className: numeric ? "number" : found === "failed" || found === "diverged" ? "failed" : found === "front" ? "front" : "" },
        typeof found === "number" ? short(found) : found ?? "–");
    })));
    holder.replaceChildren(el("table", { className: "rows" }, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...body)));
    if (rows.length > state.limit) holder.append(el("p", {}, el("button", { type: "button", onclick: () => { state.limit += 500; draw(); } }, `Show more: ${rows.length - state.limit} of ${rows.length} rows are hidden`)));
  };
  draw();
  return draw;
}

function drawTrials() {
  const filter = { text: "", status: "" };
  const texts = new Map(trials.map((trial) => [trial, `${describe(trial)} ${trial.trial_id} ${trial.error_message ?? ""}`.toLowerCase()]));
  const rowsOf = () => trials.filter((trial) => (!filter.status || trial.status === filter.status)
    && filter.text.toLowerCase().split(/\s+/).every((word) => texts.get(trial).includes(word)));
  const columns = [
    ["", (trial) => trial.trial_index, false, (trial, rows) => tile(trial, rows)],
    ["trial", (trial) => trial.trial_index, true], ["pair", (trial) => pairs[trial.pair].label],
    ["configuration", (trial) => configurations[trial.configuration].label, false, (trial) => configurations[trial.configuration].label], ["status", (trial) => trial.status],
    ["content distance", (trial) => trial.content_distance, true], ["style distance", (trial) => trial.style_distance, true],
    ["final loss", (trial) => trial.final_total_loss, true], ["steps", (trial) => trial.steps_done, true],
    ["seconds", (trial) => trial.seconds, true], ["id", (trial) => trial.trial_id.slice(0, 10)],
  ];
  const count = el("output", {});
  const redraw = sortable(byId("trial-table"), columns, rowsOf, { limit: 50 });
  const draw = () => { redraw(); count.textContent = `${rowsOf().length} of ${trials.length}`; };
  const search = el("input", { type: "search", placeholder: "picture, layer, id …", "aria-label": "filter" });
  search.addEventListener("input", () => { filter.text = search.value; draw(); });
  const states = [...new Set(trials.map((trial) => trial.status))].sort();
  byId("trial-controls").replaceChildren(el("label", {}, "filter", search),
    select("status", [["", "all"], ...states.map((state) => [state, state])], "", (state) => { filter.status = state; draw(); }), count);
  draw();
}

function drawSheet() {
  const size = Math.max(1, Math.floor(2000 / Math.max(configurations.length, 1)));
  const shown = pairs.slice(0, size);
  const head = el("tr", {}, el("th", {}), ...configurations.map((each) => el("th", { scope: "col" }, each.label)));
  const body = shown.map((pair, number) => {
    const list = configurations.map((_, each) => trialOf(number, each));
    return el("tr", {}, el("th", { scope: "row" }, pair.label), ...list.map((trial) => el("td", {}, tile(trial, list))));
  });
  byId("sheet-table").replaceChildren(el("table", { className: "pictures" }, el("thead", {}, head), el("tbody", {}, ...body)));
  if (shown.length < pairs.length) byId("sheet-table").append(el("p", { className: "hint" }, `The first ${shown.length} of ${pairs.length} pairs.`));
}

// All of it

function drawCounts() {
  const { counts, num_trials: total } = data.study;
  const colors = { ok: "var(--ok)", failed: "var(--bad)", diverged: "var(--front)", pending: "var(--pending)" };
  for (const [state, color] of Object.entries(colors)) {
    const bar = el("i");
    bar.style.width = `${(100 * counts[state]) / Math.max(total, 1)}%`;
    bar.style.background = color;
    byId("progress").append(bar);
  }
  const text = Object.keys(colors).filter((state) => counts[state]).map((state) => `${counts[state].toLocaleString("en")} ${state}`).join(" · ");
  byId("counts").textContent = `${total.toLocaleString("en")} trials: ${text}`;
  byId("progress").setAttribute("aria-label", byId("counts").textContent);
}

byId("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});

function drawPlots() { drawRanking(); drawTradeoff(); drawCurves(); }

drawCounts();
axesByDefault();
sizeByDefault();
if (data.ranking.both?.rows.length) compare.right = numberOf.get(data.ranking.both.rows[0].configuration) ?? 0;
if (pairs.length) { drawControls(); drawGrid(); compare.draw(); }
if (rankedBy) byId("ranking-controls").replaceChildren(segments(Object.keys(data.ranking).map((by) => [by, by === "both" ? "content and style" : by]), rankedBy, (by) => { rankedBy = by; drawRanking(); }));
drawCurveControls();
drawPlots();
drawSheet();
drawTrials();
if (data.failures.length) {
  sortable(byId("failure-table"), [["how many", (row) => row.count, true], ["status", (row) => row.status], ["kind", (row) => row.error_type], ["what happened", (row) => row.error_message], ["first trial", (row) => row.trial, true]], () => data.failures);
} else {
  byId("failures").hidden = true;
  document.querySelector('nav a[href="#failures"]').hidden = true;
}
let resizing = null;
addEventListener("resize", () => { clearTimeout(resizing); resizing = setTimeout(drawPlots, 120); });
