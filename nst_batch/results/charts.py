"""The report's plots as pictures, drawn with Pillow: ranking, content against style, loss curves."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from nst_batch.results.lettering import Color, Font, wrapped, write

WIDTH = 1100
MAX_RANKED = 40
"""Configurations in a plot; the best ones, when there are more."""

_FINER = 3
_PAPER: Color = (253, 253, 251)
_GRID: Color = (232, 231, 226)
_QUIET: Color = (118, 121, 128)
_MARK: Color = (36, 92, 168)
_FRONT: Color = (214, 96, 38)
_SHALLOW, _DEEP = (224, 148, 52), (38, 70, 156)
_TITLE, _LABEL, _SMALL = Font.of_size(22), Font.of_size(14), Font.of_size(13, _QUIET)


def draw(data: dict[str, Any]) -> dict[str, Image.Image]:
    """Each plot for which there is something to draw, by file name.

    Args:
        data: From `report_data`.
    """
    names = {each["id"]: each["label"] for each in data["configurations"]}
    found = {}
    if "both" in data["ranking"]:
        rows = data["ranking"]["both"]["rows"]
        found["ranking.png"] = ranking_plot(rows, names)
        if rows[0].get("content_distance") is not None and rows[0].get("style_distance") is not None:
            found["pareto.png"] = pareto_plot(rows, names)
    if data["curves"]["total"]:
        found["curves.png"] = curves_plot(data)
    return found


def ranking_plot(rows: Sequence[dict[str, Any]], names: dict[str, str]) -> Image.Image:
    """Mean ranks with their intervals, best at the top."""
    shown, line = rows[:MAX_RANKED], 26
    labels = [names.get(row["configuration"], row["configuration"]) for row in shown]
    left = min(330, 40 + 8 * max(map(len, labels)))
    plot = _Plot(
        "Mean rank, content and style" + (f": the best {MAX_RANKED}" if len(rows) > MAX_RANKED else ""),
        height=110 + line * len(shown), left=left, x=_Axis(1, max(len(rows), 2), label="mean rank (1 is best)"),
        y=_Axis(len(shown) - 0.5, -0.5),
    )  # fmt: skip
    for position, row in enumerate(shown):
        y = plot.at(1, position)[1]
        plot.text((16, y - 9), wrapped(labels[position], _LABEL, left - 24, 1), _LABEL)
        color = _FRONT if row["pareto"] else _MARK
        if row["low"] is not None:
            plot.line([plot.at(row["low"], position), plot.at(row["high"], position)], color, 2)
        plot.dot(plot.at(row["mean_rank"], position), color, 5)
    return plot.finished("Lines: 95% intervals over pairs. Orange: on the Pareto front.")


def pareto_plot(rows: Sequence[dict[str, Any]], names: dict[str, str]) -> Image.Image:
    """Content distance against style distance; the front is labelled."""
    known = [row for row in rows if row["content_distance"] is not None and row["style_distance"] is not None]
    content, style = ([row[name] for row in known] for name in ("content_distance", "style_distance"))
    plot = _Plot(
        "Content kept against style matched", height=620,
        x=_Axis.around(content, label="content distance (left: more content kept)"),
        y=_Axis.around(style, label="style distance (down: closer to the style)"),
    )  # fmt: skip
    front = sorted((row for row in known if row["pareto"]), key=lambda row: row["content_distance"])
    points = [plot.at(row["content_distance"], row["style_distance"]) for row in front]
    plot.line(points, _FRONT, 2)
    for row in known:
        plot.dot(plot.at(row["content_distance"], row["style_distance"]), _FRONT if row["pareto"] else _MARK, 5)
    taken: list[tuple[int, int]] = []
    for row, (x, y) in zip(front, points, strict=True):
        if all(abs(x - other[0]) > 300 or abs(y - other[1]) > 24 for other in taken):
            taken.append((x, y))
            label = wrapped(names.get(row["configuration"], ""), _SMALL, 300, 1)
            plot.text((min(x + 9, WIDTH - 310), y - 20), label, _SMALL)
    return plot.finished("One point per configuration, means over pairs. Orange: no other is better in both.")


def curves_plot(data: dict[str, Any]) -> Image.Image:
    """The loss relative to its start, by configuration: medians over pairs, and the band of the middle 80%."""
    steps, groups = data["curves"]["steps"], _relative_curves(data)
    values = [value for _, curves in groups for value in np.nanmedian(curves, axis=0) if value > 0]
    plot = _Plot(
        "Total loss, relative to the initial picture", height=620, right=250,
        x=_Axis(0, max(steps[-1], 1), label="step"),
        y=_Axis(_power(min(values), math.floor), _power(max(values), math.ceil), log=True),
    )  # fmt: skip
    shown = groups[:MAX_RANKED]
    for number, (label, curves) in enumerate(shown):
        color = _between(_SHALLOW, _DEEP, number / max(len(shown) - 1, 1))
        middle = np.nanmedian(curves, axis=0)
        if len(shown) == 1:
            low, high = np.nanquantile(curves, [0.1, 0.9], axis=0)
            edge = [plot.at(x, y) for x, y in zip(steps, high, strict=True) if y > 0]
            edge += [plot.at(x, y) for x, y in reversed(list(zip(steps, low, strict=True))) if y > 0]
            plot.area(edge, _between(color, _PAPER, 0.75))
        plot.line([plot.at(x, y) for x, y in zip(steps, middle, strict=True) if y > 0], color, 2)
        if number < 24:
            plot.line([(WIDTH - 238, 78 + 21 * number), (WIDTH - 216, 78 + 21 * number)], color, 3)
            plot.text((WIDTH - 208, 69 + 21 * number), wrapped(label, _SMALL, 200, 1), _SMALL)
    return plot.finished("Medians over pairs. Losses of different layers differ in scale: compare the shapes only.")


def _relative_curves(data: dict[str, Any]) -> list[tuple[str, Any]]:
    """For each configuration its label and an array of curves: trials × steps, NaN where a trial had stopped."""
    curves = data["curves"]
    groups: dict[int, list[list[float]]] = {}
    for trial in data["trials"]:
        values = curves["total"].get(trial["trial_index"])
        if values and values[0]:
            padded = [*(math.nan if value is None else value / values[0] for value in values)]
            padded += [padded[-1]] * (len(curves["steps"]) - len(values))
            groups.setdefault(trial["configuration"], []).append(padded)
    return [(data["configurations"][key]["label"], np.array(each)) for key, each in sorted(groups.items())]


# Drawing


@dataclass(frozen=True, slots=True)
class _Axis:
    low: float
    high: float
    label: str = ""
    log: bool = False

    @classmethod
    def around(cls, values: Sequence[float], label: str) -> _Axis:
        low, high = min(values), max(values)
        room = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
        return cls(max(low - room, 0.0), high + room, label)

    def place(self, value: float) -> float:
        """0 at the low end, 1 at the high end."""
        scale: Callable[[float], float] = math.log10 if self.log else float
        return (scale(value) - scale(self.low)) / (scale(self.high) - scale(self.low))

    def ticks(self) -> Iterator[tuple[float, str]]:
        if not self.label and not self.log:
            return
        if self.log:
            for power in range(round(math.log10(self.low)), round(math.log10(self.high)) + 1):
                yield 10.0**power, f"{10.0**power:g}"
            return
        step = 10 ** math.floor(math.log10((self.high - self.low) / 3))
        step *= next(factor for factor in (1, 2, 5, 10) if (self.high - self.low) / (step * factor) <= 8)
        for number in range(math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9) + 1):
            yield number * step, f"{number * step:g}"


class _Plot:
    """A frame with axes; lines and dots are drawn finer and reduced, text goes on top."""

    def __init__(self, title: str, *, height: int, x: _Axis, y: _Axis, left: int = 90, right: int = 30) -> None:
        self._title, self._x, self._y = title, x, y
        self._box = (left, 60, WIDTH - right, height - 70)
        self._image = Image.new("RGB", (WIDTH * _FINER, height * _FINER), _PAPER)
        self._draw = ImageDraw.Draw(self._image)
        self._texts: list[tuple[tuple[int, int], list[str], Font]] = []
        for value, text in x.ticks():
            place = self.at(value, y.low)[0]
            self.line([(place, 60), (place, height - 70)], _GRID, 1)
            self.text((place - 4 * len(text), height - 64), [text], _SMALL)
        for value, text in y.ticks():
            place = self.at(x.low, value)[1]
            self.line([(left, place), (WIDTH - right, place)], _GRID, 1)
            self.text((left - 12 - 7 * len(text), place - 8), [text], _SMALL)
        self.text((left, height - 44), [x.label], _SMALL)
        if y.label:
            self.text((left, 40), [y.label], _SMALL)

    def at(self, x: float, y: float) -> tuple[int, int]:
        """Where a point of the data is, in pixels."""
        left, top, right, bottom = self._box
        return round(left + self._x.place(x) * (right - left)), round(bottom - self._y.place(y) * (bottom - top))

    def line(self, points: Sequence[tuple[int, int]], color: Color, width: int) -> None:
        if len(points) > 1:
            self._draw.line(_fine(points), fill=color, width=width * _FINER, joint="curve")

    def area(self, points: Sequence[tuple[int, int]], color: Color) -> None:
        if len(points) > 2:
            self._draw.polygon(_fine(points), fill=color)

    def dot(self, point: tuple[int, int], color: Color, radius: int) -> None:
        [(x, y)], reach = _fine([point]), radius * _FINER
        self._draw.ellipse((x - reach, y - reach, x + reach, y + reach), fill=color, outline=_PAPER, width=_FINER)

    def text(self, corner: tuple[int, int], lines: list[str], font: Font) -> None:
        self._texts.append((corner, lines, font))

    def finished(self, caption: str) -> Image.Image:
        image = self._image.reduce(_FINER)
        draw = ImageDraw.Draw(image)
        write(draw, (16, 8), [self._title], _TITLE)
        write(draw, (16, image.height - 22), [caption], _SMALL)
        for corner, lines, font in self._texts:
            write(draw, corner, lines, font)
        return image


def _power(value: float, rounded: Callable[[float], int]) -> float:
    """The power of ten beside a positive value."""
    return float(10.0 ** rounded(math.log10(max(value, 1e-12))))


def _fine(points: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    return [(x * _FINER, y * _FINER) for x, y in points]


def _between(one: Color, other: Color, share: float) -> Color:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue
