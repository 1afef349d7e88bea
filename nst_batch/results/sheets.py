"""Labelled contact sheets and figures, drawn with Pillow. Functions return pictures; the caller saves them.

A sheet is a stack of strips: the title, then for each band of columns their labels and the rows, then the caption.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from PIL import Image, ImageDraw

from nst_batch.results.lettering import Color, Font, wrapped, write

MAX_WIDTH = 4096
"""Pixels. Columns that do not fit beside each other are set in bands below each other."""

_PAPER: Color = (253, 253, 251)
_QUIET_INK: Color = (118, 121, 128)
_PLACEHOLDER: Color = (243, 242, 238)
_HAIRLINE: Color = (222, 221, 216)

_LABEL_LINES, _CAPTION_LINES, _REASON_LINES = 5, 3, 6


@dataclass(frozen=True, slots=True)
class Tile:
    """One picture on a sheet."""

    image: Image.Image | None
    """Any size; None for a trial without a picture, shown as a quiet placeholder."""
    caption: str = ""
    """Below the picture."""
    reason: str = "no picture"
    """Why there is none; shown on the placeholder."""


@dataclass(frozen=True, slots=True)
class PairRow:
    """A row of a configuration sheet: one pair, and what became of it under each configuration."""

    label: str
    content: Tile | None
    style: Tile | None
    """None where the study has no such picture."""
    results: Sequence[Tile]


@dataclass(frozen=True, slots=True)
class _Metrics:
    """Lengths in pixels, and fonts; all follow from the tile's edge."""

    tile: int
    gap: int
    row_labels: int
    """Width of the row labels with the gap after them; 0 for none."""
    title: Font
    label: Font
    small: Font

    @classmethod
    def of_tile(cls, tile: int, *, row_labels: bool) -> _Metrics:
        gap = max(tile // 16, 8)
        return cls(
            tile=tile,
            gap=gap,
            row_labels=max(tile * 3 // 4, 110) + gap if row_labels else 0,
            title=Font.of_size(min(max(tile / 8, 22), 40)),
            label=Font.of_size(min(max(tile / 14, 13), 22)),
            small=Font.of_size(min(max(tile / 16, 12), 18), _QUIET_INK),
        )

    def left(self, column: int) -> int:
        """Where a column begins within a strip."""
        return self.row_labels + column * (self.tile + self.gap)


def contact_sheet(
    rows: Sequence[Sequence[Tile]],
    *,
    column_labels: Sequence[str] = (),
    row_labels: Sequence[str] = (),
    title: str | None = None,
    caption: str | None = None,
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
    columns = max((len(row) for row in rows), default=0)
    if not columns:
        raise ValueError("expected at least one tile, found none")
    for name, labels, count in (("column", column_labels, columns), ("row", row_labels, len(rows))):
        if labels and len(labels) != count:
            raise ValueError(f"expected {count} {name} labels, found {len(labels)}")
    metrics = _Metrics.of_tile(tile_edge, row_labels=bool(row_labels))
    bands = list(_bands(columns, repeated_columns, metrics))
    width = metrics.left(max(map(len, bands))) - metrics.gap
    strips = [_paragraph(title, metrics.title, width)] if title else []
    for index, band in enumerate(bands):
        if index:
            strips.append(Image.new("RGB", (width, 1), _HAIRLINE))
        if column_labels:
            strips.append(_header(metrics, width, [column_labels[column] for column in band]))
        for row, label in zip(rows, row_labels or [""] * len(rows), strict=True):
            strips.append(_row(metrics, width, label, [row[column] for column in band if column < len(row)]))
    if caption:
        strips.append(_paragraph(caption, metrics.small, width))
    return _stacked(strips, metrics.gap, margin=2 * metrics.gap)


def configuration_sheet(
    rows: Sequence[PairRow],
    *,
    configuration_labels: Sequence[str],
    title: str | None = None,
    caption: str | None = None,
    tile_edge: int = 256,
) -> Image.Image:
    """Pairs down, configurations across; the content and style pictures come first.

    Args:
        configuration_labels: One per result of a row: what distinguishes the configuration, say `block4_conv2`.

    Raises:
        ValueError: There is no row, or one has not as many results as there are labels.
    """
    for row in rows:
        if len(row.results) != len(configuration_labels):
            raise ValueError(
                f"expected {len(configuration_labels)} results for {row.label}, found {len(row.results)}"
            )
    absent = Tile(None, reason="none")
    inputs = {"content": [row.content for row in rows], "style": [row.style for row in rows]}
    shown = {name: tiles for name, tiles in inputs.items() if any(tiles)}
    return contact_sheet(
        [[*(tiles[index] or absent for tiles in shown.values()), *row.results] for index, row in enumerate(rows)],
        column_labels=[*shown, *configuration_labels],
        row_labels=[row.label for row in rows] if any(row.label for row in rows) else (),
        title=title,
        caption=caption,
        tile_edge=tile_edge,
        repeated_columns=len(shown),
    )


def reconstruction_figure(
    *,
    layers: Sequence[str],
    style_reconstructions: Sequence[Tile],
    content_reconstructions: Sequence[Tile],
    style: Image.Image | None = None,
    content: Image.Image | None = None,
    title: str | None = None,
    caption: str | None = None,
    tile_edge: int = 256,
) -> Image.Image:
    """Figure 1 of Gatys, Ecker, Bethge (CVPR 2016): what the layers a, b, c, … keep of a style and of a content.

    Args:
        layers: From shallow to deep. The style reconstruction below a letter uses its layer and all before it,
            the content reconstruction its layer alone.
        style_reconstructions: The top row, one per layer.
        content_reconstructions: The bottom row, one per layer.
        style, content: The originals, on the left of their rows.

    Raises:
        ValueError: A row has not as many tiles as there are layers.
    """
    originals = style is not None or content is not None
    rows: list[list[Tile]] = []
    for tiles, original, plus in ((style_reconstructions, style, "+ "), (content_reconstructions, content, "")):
        if len(tiles) != len(layers):
            raise ValueError(f"expected {len(layers)} reconstructions, one per layer, found {len(tiles)}")
        captions = [layers[0], *(plus + layer for layer in layers[1:])]
        row = [replace(tile, caption=tile.caption or text) for tile, text in zip(tiles, captions, strict=True)]
        rows.append([Tile(original, reason="no original"), *row] if originals else row)
    letters = [chr(ord("a") + index) for index in range(len(layers))]
    return contact_sheet(
        rows,
        column_labels=["original", *letters] if originals else letters,
        row_labels=("style reconstructions", "content reconstructions"),
        title=title,
        caption=caption,
        tile_edge=tile_edge,
        repeated_columns=int(originals),
    )


# Layout


def _bands(columns: int, repeated: int, metrics: _Metrics) -> Iterator[list[int]]:
    """The columns of each band: the repeated ones, then as many of the others as fit, evenly spread."""
    fitting = (MAX_WIDTH - 4 * metrics.gap - metrics.row_labels) // (metrics.tile + metrics.gap)
    others = range(min(repeated, columns), columns)
    bands = -(-len(others) // max(fitting - repeated, 1)) or 1
    size = -(-len(others) // bands)
    for band in range(bands):
        yield [*range(others.start), *others[band * size : (band + 1) * size]]


def _stacked(strips: Sequence[Image.Image], gap: int, margin: int) -> Image.Image:
    height = sum(strip.height for strip in strips) + gap * (len(strips) - 1)
    sheet = Image.new("RGB", (strips[0].width + 2 * margin, height + 2 * margin), _PAPER)
    top = margin
    for strip in strips:
        sheet.paste(strip, (margin, top))
        top += strip.height + gap
    return sheet


# Strips


def _paragraph(text: str, font: Font, width: int) -> Image.Image:
    lines = wrapped(text, font, width, max_lines=12)
    strip = Image.new("RGB", (width, font.line * len(lines)), _PAPER)
    write(ImageDraw.Draw(strip), (0, 0), lines, font)
    return strip


def _header(metrics: _Metrics, width: int, labels: Sequence[str]) -> Image.Image:
    """Column labels; the last lines stand just above the pictures."""
    font = metrics.label
    blocks = [wrapped(label, font, metrics.tile, _LABEL_LINES) for label in labels]
    strip = Image.new("RGB", (width, font.line * max(map(len, blocks))), _PAPER)
    draw = ImageDraw.Draw(strip)
    for column, lines in enumerate(blocks):
        write(draw, (metrics.left(column), strip.height - font.line * len(lines)), lines, font)
    return strip


def _row(metrics: _Metrics, width: int, label: str, tiles: Sequence[Tile]) -> Image.Image:
    """A row of pictures with its label on the left, and captions below."""
    pictures = [tile.image and _fitted(tile.image, metrics.tile) for tile in tiles]
    height = max((picture.height for picture in pictures if picture), default=metrics.tile * 2 // 3)
    small = metrics.small
    captions = [
        wrapped(tile.caption, small, metrics.tile, _CAPTION_LINES) if tile.caption else [] for tile in tiles
    ]
    lines_below = max(map(len, captions), default=0)
    below = small.line * lines_below + (small.line // 3 if lines_below else 0)
    strip = Image.new("RGB", (width, height + below), _PAPER)
    draw = ImageDraw.Draw(strip)
    if label and metrics.row_labels:
        lines = wrapped(label, metrics.label, metrics.row_labels - metrics.gap, _LABEL_LINES)
        write(draw, (0, (height - metrics.label.line * len(lines)) // 2), lines, metrics.label)
    for column, (tile, picture, lines) in enumerate(zip(tiles, pictures, captions, strict=True)):
        left = metrics.left(column)
        if picture:
            strip.paste(picture, (left + (metrics.tile - picture.width) // 2, (height - picture.height) // 2))
        else:
            _place_holder(draw, metrics, left, height, tile.reason)
        write(draw, (left, height + small.line // 3), lines, small)
    return strip


def _place_holder(draw: ImageDraw.ImageDraw, metrics: _Metrics, left: int, height: int, reason: str) -> None:
    """A quiet box with the reason in its middle, as much of it as there is room for."""
    font, inset = metrics.small, metrics.gap
    draw.rectangle((left, 0, left + metrics.tile - 1, height - 1), fill=_PLACEHOLDER, outline=_HAIRLINE)
    room = max(min((height - inset) // font.line, _REASON_LINES), 0)
    lines = wrapped(reason, font, metrics.tile - 2 * inset, room)
    write(draw, (left + inset, (height - font.line * len(lines)) // 2), lines, font)


def _fitted(image: Image.Image, edge: int) -> Image.Image:
    scale = edge / max(image.size)
    size = max(round(image.width * scale), 1), max(round(image.height * scale), 1)
    return image.convert("RGB").resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
