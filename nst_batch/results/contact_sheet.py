"""Draws a labelled grid of pictures with Pillow. Which pictures stand on it is decided in `sheets`.

A sheet is a stack of strips: the title, then for each band of columns their labels and the rows, then the caption.
Text is set in the font that comes with Pillow (ASCII and a little more), so that it is the same on every machine.
"""

from __future__ import annotations

import functools
import math
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

MAX_WIDTH = 4096
"""Pixels. Columns that do not fit beside each other are set in bands below each other."""

_PAPER, _BOX, _LINE = "#fdfdfb", "#f3f2ee", "#deddd8"
_INK, _QUIET = "#202226", "#767980"
_LABEL_LINES, _CAPTION_LINES, _PARAGRAPH_LINES = 5, 3, 12
_TEXT_SCALE = 4
_SPELLINGS = str.maketrans({"×": "x", "–": "-", "—": "-", "−": "-", "α": "alpha", "β": "beta", "→": "->", "‘": "'"})
_IN_THE_FONT = "…·°“”’"


@dataclass(frozen=True, slots=True)
class Tile:
    """One picture on a sheet."""

    image: Image.Image | None
    """Any size; None for a trial without a picture, shown as a quiet box."""
    text: str = ""
    """Below the picture; in the box, the reason why there is none."""


@dataclass(frozen=True, slots=True)
class Font:
    """Pillow's font in one size (pixels) and colour."""

    size: float
    ink: str = _INK

    @property
    def line(self) -> int:
        """Pixels from one line to the next."""
        return round(1.3 * self.size)

    def width(self, text: str) -> float:
        """Pixels that a line of text takes."""
        return _face(self.size).getlength(text) / _TEXT_SCALE

    def write(self, image: Image.Image, corner: tuple[int, int], lines: Sequence[str]) -> None:
        """Draws lines below each other; `corner` is the left and top of the first.

        They are drawn finer and reduced: set directly, the font's hinting eats the spaces.
        """
        left, top = corner
        for number, line in enumerate(lines):
            size = math.ceil(self.width(line)) + 2, self.line
            mask = Image.new("L", (_TEXT_SCALE * size[0], _TEXT_SCALE * size[1]))
            ImageDraw.Draw(mask).text((0, 0), line, fill=255, font=_face(self.size))
            ImageDraw.Draw(image).bitmap((left, top + number * self.line), mask.reduce(_TEXT_SCALE), fill=self.ink)

    def wrap(self, text: str, width: int, max_lines: int) -> list[str]:
        """`text` in lines of at most `width` pixels; an ellipsis stands for what does not fit `max_lines`."""
        lines = [line for paragraph in _plain(text).splitlines() for line in self._lines(paragraph, width)]
        if len(lines) <= max_lines:
            return lines
        last = lines[max(max_lines - 1, 0)]
        while last and self.width(last + "…") > width:
            last = last[:-1]
        return [*lines[: max_lines - 1], last + "…"][:max_lines]

    def _lines(self, paragraph: str, width: int) -> Iterator[str]:
        """A paragraph broken between words, and in a word that is too long after punctuation if there is some."""
        line = ""
        for word in paragraph.split():
            if line and self.width(f"{line} {word}") > width:
                yield line
                line = ""
            line = f"{line} {word}".lstrip()
            while self.width(line) > width and len(line) > 1:
                fitting = [end for end in range(1, len(line)) if self.width(line[:end]) <= width] or [1]
                natural = [end for end in fitting if line[end - 1] in "_/,.=+-"]
                end = (natural or fitting)[-1]
                yield line[:end]
                line = line[end:]
        yield line


def contact_sheet(
    rows: Sequence[Sequence[Tile]],
    *,
    column_labels: Sequence[str] = (),
    row_labels: Sequence[str] = (),
    title: str = "",
    caption: str = "",
    tile_edge: int = 256,
    repeated_columns: int = 0,
) -> Image.Image:
    """A grid of labelled pictures on light paper, at most `MAX_WIDTH` wide.

    Args:
        rows: Pictures keep their proportions within square tiles. Rows may differ in length.
        column_labels: One per column, above; empty for none.
        row_labels: One per row, on the left; empty for none.
        title: A heading.
        caption: A paragraph below the grid.
        tile_edge: Pixels of a tile's edge.
        repeated_columns: So many first columns are shown again in every band.

    Raises:
        ValueError: There is no tile, or the labels do not fit the grid.
    """
    columns = max(map(len, rows), default=0)
    if not columns:
        raise ValueError("expected at least one tile, found none")
    for name, labels, count in (("column", column_labels, columns), ("row", row_labels, len(rows))):
        if labels and len(labels) != count:
            raise ValueError(f"expected {count} {name} labels, found {len(labels)}")
    layout = _Layout(tile_edge, has_row_labels=bool(row_labels))
    bands = list(layout.bands(columns, repeated_columns))
    width = layout.left(max(map(len, bands))) - layout.gap
    strips = [_paragraph(title, layout.title, width)] if title else []
    for band in bands:
        if band is not bands[0]:
            strips.append(Image.new("RGB", (width, 1), _LINE))
        if column_labels:
            strips.append(_header(layout, width, [column_labels[column] for column in band]))
        for row, label in zip(rows, row_labels or [""] * len(rows), strict=True):
            strips.append(_row(layout, width, label, [row[column] for column in band if column < len(row)]))
    if caption:
        strips.append(_paragraph(caption, layout.small, width))
    return _stacked(strips, layout.gap)


class _Layout:
    """Lengths in pixels, and fonts; all follow from the tile's edge."""

    def __init__(self, tile: int, *, has_row_labels: bool) -> None:
        self.tile = tile
        self.gap = max(tile // 16, 8)
        self.row_labels = max(tile * 3 // 4, 110) + self.gap if has_row_labels else 0
        self.title = Font(min(max(tile / 8, 22), 40))
        self.label = Font(min(max(tile / 14, 13), 22))
        self.small = Font(min(max(tile / 16, 12), 18), _QUIET)

    def left(self, column: int) -> int:
        """Where a column begins within a strip."""
        return self.row_labels + column * (self.tile + self.gap)

    def bands(self, columns: int, repeated: int) -> Iterator[list[int]]:
        """The columns of each band: the repeated ones, then as many of the others as fit, evenly spread."""
        fitting = (MAX_WIDTH - 4 * self.gap - self.row_labels) // (self.tile + self.gap)
        others = range(min(repeated, columns), columns)
        bands = -(-len(others) // max(fitting - repeated, 1)) or 1
        size = -(-len(others) // bands)
        for band in range(bands):
            yield [*range(others.start), *others[band * size : (band + 1) * size]]


def _paragraph(text: str, font: Font, width: int) -> Image.Image:
    lines = font.wrap(text, width, _PARAGRAPH_LINES)
    strip = Image.new("RGB", (width, font.line * len(lines)), _PAPER)
    font.write(strip, (0, 0), lines)
    return strip


def _header(layout: _Layout, width: int, labels: Sequence[str]) -> Image.Image:
    """Column labels; the last lines stand just above the pictures."""
    font = layout.label
    blocks = [font.wrap(label, layout.tile, _LABEL_LINES) for label in labels]
    strip = Image.new("RGB", (width, font.line * max(map(len, blocks))), _PAPER)
    for column, lines in enumerate(blocks):
        font.write(strip, (layout.left(column), strip.height - font.line * len(lines)), lines)
    return strip


def _row(layout: _Layout, width: int, label: str, tiles: Sequence[Tile]) -> Image.Image:
    """A row of pictures with its label on the left, and captions below."""
    small, tile = layout.small, layout.tile
    pictures = [each.image and _fitted(each.image, tile) for each in tiles]
    captions = [small.wrap(each.text, tile, _CAPTION_LINES) if each.image else [] for each in tiles]
    height = max((picture.height for picture in pictures if picture), default=tile * 2 // 3)
    below = small.line * max(map(len, captions), default=0)
    strip = Image.new("RGB", (width, height + below + (small.line // 3 if below else 0)), _PAPER)
    if layout.row_labels:
        lines = layout.label.wrap(label, layout.row_labels - layout.gap, _LABEL_LINES)
        layout.label.write(strip, (0, (height - layout.label.line * len(lines)) // 2), lines)
    for column, (each, picture, lines) in enumerate(zip(tiles, pictures, captions, strict=True)):
        left = layout.left(column)
        shown = picture or _box(layout, height, each.text)
        strip.paste(shown, (left + (tile - shown.width) // 2, (height - shown.height) // 2))
        small.write(strip, (left, height + small.line // 3), lines)
    return strip


def _box(layout: _Layout, height: int, reason: str) -> Image.Image:
    """What stands where there is no picture: the reason, as much of it as there is room for."""
    font, inset = layout.small, layout.gap
    box = Image.new("RGB", (layout.tile, height), _BOX)
    ImageDraw.Draw(box).rectangle((0, 0, layout.tile - 1, height - 1), outline=_LINE)
    lines = font.wrap(reason, layout.tile - 2 * inset, max((height - inset) // font.line, 0))
    font.write(box, (inset, (height - font.line * len(lines)) // 2), lines)
    return box


def _stacked(strips: Sequence[Image.Image], gap: int) -> Image.Image:
    height = sum(strip.height + gap for strip in strips) + 3 * gap
    sheet = Image.new("RGB", (strips[0].width + 4 * gap, height), _PAPER)
    top = 2 * gap
    for strip in strips:
        sheet.paste(strip, (2 * gap, top))
        top += strip.height + gap
    return sheet


def _fitted(image: Image.Image, edge: int) -> Image.Image:
    scale = edge / max(image.size)
    size = max(round(image.width * scale), 1), max(round(image.height * scale), 1)
    return image.convert("RGB").resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


@functools.cache
def _face(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(_TEXT_SCALE * size)


def _plain(text: str) -> str:
    """`text` in characters that the font has: accents are dropped, what remains becomes a question mark."""
    return "".join(
        char
        if char in _IN_THE_FONT
        else unicodedata.normalize("NFKD", char).encode("ascii", "ignore").decode() or "?"
        for char in text.translate(_SPELLINGS)
    )
