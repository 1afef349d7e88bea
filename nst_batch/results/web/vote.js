// Elements are made with text nodes only. The page knows configurations by their identity and shows no name.

const byId = (id) => document.getElementById(id);
const { run, pairs } = JSON.parse(byId("data").textContent);
const key = `nst-batch votes ${run} ${Object.keys(pairs[0].pictures).join()}`;
const votes = restored();
let shown = null;

function restored() {
  try { return JSON.parse(localStorage.getItem(key)) ?? []; } catch { return []; }
}

function keep() {
  try { localStorage.setItem(key, JSON.stringify(votes)); } catch { /* no storage: saving the file still works */ }
}

const isOf = (pair) => (vote) => vote.content_sha256 === pair.content_sha256 && vote.style_sha256 === pair.style_sha256;
const shuffled = (list) => list.map((each) => [Math.random(), each]).sort(([a], [b]) => a - b).map(([, each]) => each);
// The one for which the first measure is least, among equals the second, and so on; then any.
const least = (list, ...measures) => measures.reduce((rest, measure) => {
  const lowest = Math.min(...rest.map(measure));
  return rest.filter((each) => measure(each) === lowest);
}, shuffled(list))[0];
const count = (list, ...names) =>
  list.filter(({ better, worse }) => names.every((name) => name === better || name === worse)).length;

// The pair with the fewest votes. Of its pictures two that were not compared yet, then two configurations that were
// compared least often on any pair, then those with the fewest votes.
function next() {
  const pair = least(pairs, (each) => votes.filter(isOf(each)).length);
  const own = votes.filter(isOf(pair));
  const names = Object.keys(pair.pictures);
  const couples = names.flatMap((a, i) => names.slice(i + 1).map((b) => [a, b]));
  const couple = least(couples,
    ([a, b]) => count(own, a, b), ([a, b]) => count(votes, a, b), ([a, b]) => count(votes, a) + count(votes, b));
  return { pair, names: shuffled(couple) };
}

function draw() {
  const { pair, names } = shown;
  byId("originals").replaceChildren(...pair.originals.map(({ name, picture }) => {
    const figure = document.createElement("figure"), caption = document.createElement("figcaption");
    caption.textContent = name;
    if (picture) figure.append(Object.assign(new Image(), { src: picture, alt: name }));
    figure.append(caption);
    return figure;
  }));
  document.querySelectorAll("#choices img").forEach((image, i) => { image.src = pair.pictures[names[i]]; });
  byId("count").textContent = `${votes.length} vote${votes.length === 1 ? "" : "s"}.`;
}

function choose(choice) {
  const { pair: { content_sha256, style_sha256 }, names } = shown;
  const [better, worse] = choice === "right" ? [names[1], names[0]] : names;
  const tie = choice === "tie" ? { tie: true } : {};
  votes.push({ content_sha256, style_sha256, better, worse, at: new Date().toISOString(), ...tie });
  keep();
  shown = next();
  draw();
}

function undo() {
  const last = votes.pop();
  if (!last) return;
  keep();
  shown = { pair: pairs.find((pair) => isOf(pair)(last)) ?? shown.pair, names: shuffled([last.better, last.worse]) };
  draw();
}

function save() {
  const file = new Blob([JSON.stringify({ run, votes }, null, 1)], { type: "application/json" });
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(file), download: "votes.json" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

for (const button of document.querySelectorAll("[data-choice]")) button.addEventListener("click", () => choose(button.dataset.choice));
byId("undo").addEventListener("click", undo);
byId("save").addEventListener("click", save);
const keys = {
  ArrowLeft: () => choose("left"), ArrowRight: () => choose("right"), ArrowDown: () => choose("tie"), u: undo, s: save,
};
addEventListener("keydown", (event) => {
  const action = keys[event.key];
  if (!action || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  action();
});
shown = next();
draw();
