"""Draws a labelled grid of pictures with Pillow. Which pictures stand on it is decided in `sheets`.

Columns that do not fit beside each other are set in bands below each other. Text is set in the font that comes with
Pillow (ASCII and a little more), so that it is the same on every machine.
"""

from __future__ import annotations

import functools
import textwrap
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont, ImageOps

from nst_batch.results.pictures import Tile, fitted

MAX_WIDTH = 4096
"""Pixels."""

_PAPER, _BOX, _LINE, _INK, _QUIET = "#fdfdfb", "#f3f2ee", "#deddd8", "#202226", "#767980"
_LABEL_LINES, _CAPTION_LINES, _PARAGRAPH_LINES = 5, 3, 12
_TEXT_SCALE = 4
_SPELLINGS = str.maketrans({"×": "x", "–": "-", "—": "-", "−": "-", "α": "alpha", "β": "beta", "→": "->", "‘": "'"})
_IN_THE_FONT = "…·°“”’"


@dataclass(frozen=True, slots=True)
class Font:
    """Pillow's font in one size (pixels) and colour."""

    size: float
    ink: str = _INK

    @property
    def line(self) -> int:
        """Pixels from one line to the next."""
        return round(1.3 * self.size)

    def block(self, text: str, width: int, max_lines: int, paper: str = _PAPER) -> Image.Image:
        """`text` as a picture of `width` pixels, as high as its lines.

        It is drawn finer and reduced: set directly, the font's hinting eats the spaces.
        """
        lines = self.wrap(text, width, max_lines)
        block = Image.new("RGB", (width, self.line * len(lines)), paper)
        for number, line in enumerate(lines):
            mask = Image.new("L", (_TEXT_SCALE * width, _TEXT_SCALE * self.line))
            ImageDraw.Draw(mask).text((0, 0), line, fill=255, font=_face(self.size))
            block.paste(self.ink, (0, number * self.line), mask.reduce(_TEXT_SCALE))
        return block

    def wrap(self, text: str, width: int, max_lines: int) -> list[str]:
        """`text` in lines of about `width` pixels; an ellipsis stands for what does not fit `max_lines`."""
        plain = " ".join(_plain(text).split())
        share = _TEXT_SCALE * width / max(_face(self.size).getlength(plain), 1)
        if not max_lines or not plain or share >= 1:
            return [plain][:max_lines] if plain else []
        num_chars = max(int(0.9 * share * len(plain)), 1)  # letters differ in width: some room for wide ones
        return textwrap.wrap(plain, num_chars, max_lines=max_lines, placeholder="…")


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
        column_labels, row_labels: One each, above and on the left; empty for none.
        title, caption: A heading, and a paragraph below the grid.
        tile_edge: Pixels.
        repeated_columns: So many first columns are shown again in every band.
    """
    layout = _Layout(tile_edge, bool(row_labels))
    bands = []
    for band in layout.bands(max(map(len, rows)), repeated_columns):
        heads = [layout.label.block(column_labels[each], tile_edge, _LABEL_LINES) for each in band if column_labels]
        strips = [layout.strip(heads, align=1)] if heads else []
        for row, label in zip(rows, row_labels or [""] * len(rows), strict=True):
            strips.append(layout.row([row[each] for each in band if each < len(row)], label))
        bands.append(_stacked(strips, layout.gap))
    width = max(band.width for band in bands)
    line = Image.new("RGB", (width, 1), _LINE)
    above = [layout.title.block(title, width, _PARAGRAPH_LINES)] if title else []
    below = [layout.small.block(caption, width, _PARAGRAPH_LINES)] if caption else []
    ruled = [each for band in bands for each in (line, band)][1:]
    return ImageOps.expand(_stacked([*above, *ruled, *below], layout.gap), 2 * layout.gap, _PAPER)


class _Layout:
    """Lengths in pixels, and fonts; all follow from the tile's edge."""

    def __init__(self, tile: int, labelled: bool) -> None:
        self.tile, self.gap = tile, max(tile // 16, 8)
        self.labels = max(tile * 3 // 4, 110) if labelled else 0
        self.begin = self.labels + self.gap if labelled else 0
        self.title = Font(min(max(tile / 8, 22), 40))
        self.label = Font(min(max(tile / 14, 13), 22))
        self.small = Font(min(max(tile / 16, 12), 18), _QUIET)

    def bands(self, columns: int, repeated: int) -> Iterator[list[int]]:
        """The columns of each band: the repeated ones, then as many of the others as fit, evenly spread."""
        fitting = (MAX_WIDTH - 4 * self.gap - self.begin) // (self.tile + self.gap)
        others = range(min(repeated, columns), columns)
        bands = -(-len(others) // max(fitting - repeated, 1)) or 1
        size = -(-len(others) // bands)
        for band in range(bands):
            yield [*range(others.start), *others[band * size : (band + 1) * size]]

    def strip(self, images: Sequence[Image.Image], align: float, label: Image.Image | None = None) -> Image.Image:
        """Images in the middles of their columns, a label on the left; `align` is 0 at the top, 1 at the bottom."""
        placed = [(0, label)] if label else []
        for number, image in enumerate(images):
            placed.append((self.begin + number * (self.tile + self.gap) + (self.tile - image.width) // 2, image))
        width = self.begin + len(images) * (self.tile + self.gap) - self.gap
        strip = Image.new("RGB", (width, max(image.height for _, image in placed)), _PAPER)
        for left, image in placed:
            strip.paste(image, (left, round(align * (strip.height - image.height))))
        return strip

    def row(self, tiles: Sequence[Tile], label: str) -> Image.Image:
        """A row of pictures with its label on the left, and captions below."""
        pictures = [each.image and fitted(each.image, self.tile) for each in tiles]
        height = max((picture.height for picture in pictures if picture), default=self.tile * 2 // 3)
        shown = [picture or self.box(tile.text, height) for picture, tile in zip(pictures, tiles, strict=True)]
        texts = [each.text if each.image else "" for each in tiles]
        captions = self.strip([self.small.block(text, self.tile, _CAPTION_LINES) for text in texts], align=0)
        heading = self.label.block(label, self.labels, _LABEL_LINES) if label else None
        gap = self.small.line // 3 if any(texts) else 0
        return _stacked([self.strip(shown, 0.5, heading), captions], gap)

    def box(self, reason: str, height: int) -> Image.Image:
        """What stands where there is no picture: the reason, as much of it as there is room for."""
        max_lines = max((height - self.gap) // self.small.line, 0)
        text = self.small.block(reason, self.tile - 2 * self.gap, max_lines, _BOX)
        box = Image.new("RGB", (self.tile, height), _BOX)
        ImageDraw.Draw(box).rectangle((0, 0, self.tile - 1, height - 1), outline=_LINE)
        box.paste(text, (self.gap, (height - text.height) // 2))
        return box


def _stacked(strips: Sequence[Image.Image], gap: int) -> Image.Image:
    width = max(strip.width for strip in strips)
    sheet = Image.new("RGB", (width, sum(strip.height + gap for strip in strips) - gap), _PAPER)
    top = 0
    for strip in strips:
        sheet.paste(strip, (0, top))
        top += strip.height + gap
    return sheet


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
