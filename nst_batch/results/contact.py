"""A run's contact sheets as PNG files, and Gatys' reconstruction figure from two runs."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Literal

from PIL import Image

from nst_batch.errors import ImageError, RunDirectoryError
from nst_batch.records import Configuration, Picture
from nst_batch.results import labels, sheets
from nst_batch.results.overview import Overview
from nst_batch.results.pictures import finished_picture, input_picture
from nst_batch.results.sheets import PairRow, Tile
from nst_batch.store.run_directory import RunDirectory
from nst_batch.vocabulary import block_and_index

Kind = Literal["content", "style"]

MAX_PAIRS, MAX_CONFIGURATIONS = 24, 40

_TILE_EDGES = ((60, 256), (200, 192), (480, 128), (10**9, 96))
"""Pixels of a tile by the number of tiles at most."""


def write_sheets(run: RunDirectory) -> list[str]:
    """Writes the run's contact sheet, and for reconstruction studies their figure; returns relative paths.

    At most 24 pairs and 40 configurations are shown; the caption says when there are more. Trials that have not
    ended, and failed ones, are placeholders. Nothing is written while no trial has ended.
    """
    drawn = draw_sheets(run)
    for name, sheet in drawn.items():
        run.directory.write(f"report/{name}", png(sheet))
    return [f"report/{name}" for name in drawn]


def draw_sheets(run: RunDirectory) -> dict[str, Image.Image]:
    """What `write_sheets` writes, by file name."""
    board = _overview(run)
    if not board.num_ended:
        return {}
    pictures = _Pictures(board)
    drawn = {"sheet.png": _sheet(board, pictures)}
    kind = reconstructs(run)
    if kind is not None:
        drawn["reconstruction.png"] = _reconstructions(board, pictures, kind)
    return drawn


def _overview(run: RunDirectory, *, max_pairs: int = MAX_PAIRS) -> Overview:
    columns = ("error_message", "image_path")
    return Overview(run, max_pairs=max_pairs, max_configurations=MAX_CONFIGURATIONS, columns=columns)


def png(image: Image.Image) -> bytes:
    """A sheet or plot as a PNG file."""
    file = io.BytesIO()
    image.save(file, "png")
    return file.getvalue()


def reconstructs(run: RunDirectory) -> Kind | None:
    """`content` or `style` if the study reconstructs that from features alone, without a loss for the other."""
    configurations = run.configurations.values()
    if configurations and all(not each.content_layers for each in configurations):
        return "style"
    if configurations and all(not each.style_layers for each in configurations):
        return "content"
    return None


def reconstruction_sheet(content_run: RunDirectory, style_run: RunDirectory) -> Image.Image:
    """Figure 1 of Gatys, Ecker, Bethge (CVPR 2016) from the first picture of two reconstruction studies.

    Top row: the style from growing sets of layers. Bottom row: the content from each of those layers alone.

    Raises:
        RunDirectoryError: A run is not such a study, or they have no layer in common.
    """
    rows: dict[Kind, dict[str, Tile]] = {}
    originals: dict[Kind, Image.Image | None] = {}
    studies: tuple[tuple[Kind, RunDirectory], ...] = (("content", content_run), ("style", style_run))
    for kind, run in studies:
        if reconstructs(run) != kind:
            raise RunDirectoryError(f"{run.directory.url()}: expected a study of {kind} reconstructions")
        board = _overview(run, max_pairs=1)
        pictures = _Pictures(board)
        rows[kind] = {deepest: pictures.result(0, key) for deepest, key in _by_depth(board).items()}
        originals[kind] = pictures.original(0, kind).image
    layers = [layer for layer in rows["style"] if layer in rows["content"]]
    if not layers:
        raise RunDirectoryError(
            f"expected reconstructions from the same layers, found {', '.join(rows['content'])} in "
            f"{content_run.directory.url()} and {', '.join(rows['style'])} in {style_run.directory.url()}"
        )
    return sheets.reconstruction_figure(
        layers=layers,
        style_reconstructions=[rows["style"][layer] for layer in layers],
        content_reconstructions=[rows["content"][layer] for layer in layers],
        style=originals["style"],
        content=originals["content"],
        title="What the layers keep",
        caption=_settings(next(iter(style_run.configurations.values()))),
    )


# Sheets


def _sheet(board: Overview, pictures: _Pictures) -> Image.Image:
    rows = [
        PairRow(
            label=board.pair_labels[pair],
            content=pictures.content(pair),
            style=pictures.style(pair),
            results=[pictures.result(pair, configuration) for configuration in board.configurations],
        )
        for pair in range(len(board.pairs))
    ]
    return sheets.configuration_sheet(
        rows,
        configuration_labels=board.configuration_labels,
        title=str(board.run.study["name"]),
        caption=_caption(board),
        tile_edge=pictures.edge,
    )


def _reconstructions(board: Overview, pictures: _Pictures, kind: Kind) -> Image.Image:
    """One row per picture: the original, then what is left of it from layer to layer."""
    ordered = _by_depth(board)
    growing = kind == "style" and all(
        len(board.configurations[key].style_layers) > 1 for key in [*ordered.values()][1:]
    )
    rows = [
        [pictures.original(pair, kind), *(pictures.result(pair, key) for key in ordered.values())]
        for pair in range(len(board.pairs))
    ]
    names = [f"+ {layer}" if growing and number else layer for number, layer in enumerate(ordered)]
    return sheets.contact_sheet(
        rows,
        column_labels=["original", *names],
        row_labels=board.pair_labels,
        title=f"{board.run.study['name']}: {kind} reconstructions",
        caption=_caption(board),
        tile_edge=pictures.edge,
        repeated_columns=1,
    )


def _by_depth(board: Overview) -> dict[str, str]:
    """The first configuration for each deepest layer, from shallow to deep."""
    found: dict[str, str] = {}
    for key, configuration in board.configurations.items():
        used = configuration.content_layers or configuration.style_layers
        if used:
            found.setdefault(max(used, key=block_and_index), key)
    return {layer: found[layer] for layer in sorted(found, key=block_and_index)}


def _caption(board: Overview) -> str:
    parts = [_settings(next(iter(board.run.configurations.values())))]
    if board.num_pairs > len(board.pairs):
        parts.append(f"the first {len(board.pairs)} of {board.num_pairs:,} pairs")
    if board.num_configurations > len(board.configurations):
        parts.append(f"{len(board.configurations)} of {board.num_configurations:,} configurations, evenly spread")
    if not board.run.is_complete():
        parts.append("the run is not finished")
    return "; ".join(parts) + "."


def _settings(configuration: Configuration) -> str:
    return (
        f"{labels.weights_text(configuration)}; {configuration.size} pixels, "
        f"{configuration.optimizer}, {configuration.steps} steps"
    )


# Tiles


class _Pictures:
    """The tiles of an overview: every picture is reduced as soon as it is read, and inputs are read once."""

    def __init__(self, board: Overview) -> None:
        self._board = board
        num_tiles = len(board.pairs) * (len(board.configurations) + 2)
        self.edge = next(edge for limit, edge in _TILE_EDGES if num_tiles <= limit)
        self._inputs: dict[Picture, Tile] = {}
        self._shape = next(iter(board.run.configurations.values()))

    def content(self, pair: int) -> Tile | None:
        content = self._board.pairs[pair].content
        return self._input(content) if content else None

    def style(self, pair: int) -> Tile | None:
        styles = self._board.pairs[pair].styles
        tiles = [self._input(style) for style in styles]
        if len(tiles) < 2:
            return tiles[0] if tiles else None
        return Tile(_side_by_side([tile.image for tile in tiles], self.edge), reason="blend")

    def original(self, pair: int, kind: Kind) -> Tile:
        return (self.style(pair) if kind == "style" else self.content(pair)) or Tile(None, reason="none")

    def result(self, pair: int, configuration: str) -> Tile:
        trial = self._board.trials.get((pair, configuration))
        if trial is None:
            return Tile(None, reason="not in the plan")
        if trial["status"] == "pending":
            return Tile(None, reason="pending")
        if trial["image_path"] is None:
            return Tile(None, reason=trial["error_message"] or trial["status"])
        try:
            image = finished_picture(self._board.run, trial["image_path"])
        except ImageError as error:
            return Tile(None, reason=str(error))
        return Tile(self._reduced(image))

    def _input(self, picture: Picture) -> Tile:
        if picture not in self._inputs:
            try:
                image = input_picture(picture, self._shape, edge=min(self.edge, self._shape.size))
                self._inputs[picture] = Tile(self._reduced(image))
            except ImageError as error:
                self._inputs[picture] = Tile(None, reason=str(error))
        return self._inputs[picture]

    def _reduced(self, image: Image.Image) -> Image.Image:
        image.thumbnail((self.edge, self.edge), Image.Resampling.LANCZOS, reducing_gap=3.0)
        return image


def _side_by_side(images: Sequence[Image.Image | None], edge: int) -> Image.Image | None:
    """A blend of styles: a vertical strip of each."""
    known = [image for image in images if image is not None]
    if not known:
        return None
    blend = Image.new("RGB", (edge, edge))
    for number, image in enumerate(known):
        left, right = number * edge // len(known), (number + 1) * edge // len(known)
        square = image.resize((edge, edge))
        blend.paste(square.crop((left, 0, right, edge)), (left, 0))
    return blend
