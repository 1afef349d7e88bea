"use strict";
// Elements are made with text nodes only: nothing that comes from a run is ever parsed as HTML.

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name in node && name !== "list" && name !== "form") node[name] = value;
    else if (value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

function svg(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

const short = (value) =>
  value === null || value === undefined ? "–"
    : value === 0 ? "0"
    : Math.abs(value) >= 1e5 || Math.abs(value) < 1e-3 ? value.toExponential(2)
    : String(Number(value.toPrecision(4)));

const tip = {
  node: document.getElementById("tip"),
  show(x, y, text, image) {
    this.node.replaceChildren(text);
    if (image) this.node.append(el("img", { src: image, alt: "" }));
    this.node.hidden = false;
    const { width, height } = this.node.getBoundingClientRect();
    this.node.style.left = `${Math.max(6, Math.min(x + 14, innerWidth - width - 8))}px`;
    this.node.style.top = `${y + height + 20 > innerHeight ? Math.max(4, y - height - 12) : y + 14}px`;
  },
  hide() { this.node.hidden = true; },
};

function niceTicks(low, high, count = 6) {
  const raw = (high - low || 1) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 5, 10].find((factor) => power * factor >= raw);
  const ticks = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high + step * 1e-9; n++) ticks.push(Number((n * step).toPrecision(12)));
  return ticks;
}

function logTicks(low, high) {
  const ticks = [];
  const factors = high / low > 300 ? [1] : high / low > 20 ? [1, 3] : [1, 2, 3, 5, 7];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
    for (const factor of factors) {
      const value = factor * 10 ** power;
      if (value >= low * 0.999 && value <= high * 1.001) ticks.push(Number(value.toPrecision(3)));
    }
  }
  return ticks;
}

// A frame with axes: returns the svg and the two scales. y grows upwards unless its range is reversed.
function frame(holder, { height, x, y, left = 64, right = 14, top = 12, bottom = 40 }) {
  const width = Math.max(holder.clientWidth, 280);
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
  const scale = (axis, from, to) => {
    const f = axis.log ? Math.log10 : Number;
    const low = f(axis.low), span = f(axis.high) - low || 1;
    return (value) => from + ((f(value) - low) / span) * (to - from);
  };
  const sx = scale(x, left, width - right), sy = scale(y, height - bottom, top);
  const ticks = (axis, count) => (axis.ticks ? axis.ticks : axis.log ? logTicks(axis.low, axis.high) : niceTicks(axis.low, axis.high, count));
  for (const value of ticks(x, Math.max(3, width / 110))) {
    root.append(svg("line", { class: "grid", x1: sx(value), x2: sx(value), y1: top, y2: height - bottom }));
    root.append(svg("text", { x: sx(value), y: height - bottom + 16, "text-anchor": "middle" }, short(value)));
  }
  for (const value of ticks(y, 6)) {
    root.append(svg("line", { class: "grid", x1: left, x2: width - right, y1: sy(value), y2: sy(value) }));
    root.append(svg("text", { x: left - 8, y: sy(value) + 4, "text-anchor": "end" }, short(value)));
  }
  if (x.label) root.append(svg("text", { x: width - right, y: height - 6, "text-anchor": "end" }, x.label));
  if (y.label) root.append(svg("text", { x: -top, y: 13, transform: "rotate(-90)", "text-anchor": "end" }, y.label));
  holder.replaceChildren(root);
  return { root, sx, sy, width };
}

function quantile(values, share) {
  const sorted = values.filter((value) => value !== null && value !== undefined).sort((a, b) => a - b);
  if (!sorted.length) return null;
  const place = share * (sorted.length - 1), low = Math.floor(place), high = Math.ceil(place);
  return sorted[low] + (sorted[high] - sorted[low]) * (place - low);
}

const path = (points) => points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)},${y.toFixed(1)}`).join("");

// Shallow layers are warm, deep ones blue.
const hue = (number, count) => `hsl(${Math.round(32 + (190 * number) / Math.max(count - 1, 1))} 62% 50%)`;
