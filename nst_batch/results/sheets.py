"""A run's contact sheets, and Gatys' reconstruction figure from two runs: which pictures stand where."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Literal

from PIL import Image, ImageOps

from nst_batch.errors import ImageError, RunDirectoryError
from nst_batch.records import Configuration, Picture
from nst_batch.results import labels
from nst_batch.results.contact_sheet import Tile, contact_sheet
from nst_batch.results.overview import Overview
from nst_batch.results.pictures import finished_picture, input_picture
from nst_batch.store.run_directory import RunDirectory
from nst_batch.vocabulary import block_and_index

Kind = Literal["content", "style"]

MAX_PAIRS, MAX_CONFIGURATIONS = 24, 40

_TILE_EDGES = ((60, 256), (200, 192), (480, 128), (10**9, 96))
"""Pixels of a tile by the number of tiles at most."""


def write_sheets(run: RunDirectory, *, fetch: bool = False) -> list[str]:
    """Writes the run's contact sheet, and for reconstruction studies their figure; returns relative paths.

    At most 24 pairs and 40 configurations are shown; the caption says when there are more. Trials that have not
    ended, and failed ones, are boxes with the reason. Nothing is written while no trial has ended.

    Args:
        fetch: Whether inputs that are named by a URL may be fetched.
    """
    drawn = draw_sheets(run, fetch=fetch)
    for name, sheet in drawn.items():
        run.directory.write(f"report/{name}", png(sheet))
    return [f"report/{name}" for name in drawn]


def draw_sheets(run: RunDirectory, *, fetch: bool = False) -> dict[str, Image.Image]:
    """What `write_sheets` writes, by file name."""
    overview = _overview(run, MAX_PAIRS)
    if not overview.num_ended:
        return {}
    pictures, name = _Pictures(overview, fetch), str(run.study["name"])
    configurations = dict(zip(overview.configurations, overview.configuration_labels, strict=True))
    best_first = dict(sorted(configurations.items(), key=lambda each: -pictures.mean_score(each[0])))
    drawn = {"sheet.png": _sheet(pictures, name, pictures.kinds, best_first)}
    if {"content_layers", labels.STRENGTH} <= set(overview.varying):
        drawn["matrix.png"] = _matrix(pictures, name)
    if kind := reconstructs(run):
        title = f"{name}: {kind} reconstructions"
        used = {key: overview.configurations[key] for key in _by_depth(overview).values()}
        layers = {key: labels.layer_set(each.content_layers or each.style_layers) for key, each in used.items()}
        drawn["reconstruction.png"] = _sheet(pictures, title, [kind], layers)
    return drawn


def _overview(run: RunDirectory, max_pairs: int) -> Overview:
    columns = ("error_message", "image_path", *labels.SCORES)
    return Overview(run, max_pairs=max_pairs, max_configurations=MAX_CONFIGURATIONS, columns=columns)


def png(image: Image.Image) -> bytes:
    """A sheet as a PNG file."""
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
    (content, contents), (style, styles) = _first_row(content_run, "content"), _first_row(style_run, "style")
    layers = [layer for layer in styles if layer in contents]
    if not layers:
        raise RunDirectoryError(
            f"expected reconstructions from the same layers, found {', '.join(contents)} in "
            f"{content_run.directory.url()} and {', '.join(styles)} in {style_run.directory.url()}"
        )
    top = [Tile(styles[layer].image, f"{'+ ' if number else ''}{layer}") for number, layer in enumerate(layers)]
    bottom = [Tile(contents[layer].image, layer) for layer in layers]
    return contact_sheet(
        [[style, *top], [content, *bottom]],
        column_labels=["original", *(chr(ord("a") + number) for number in range(len(layers)))],
        row_labels=("style reconstructions", "content reconstructions"),
        title="What the layers keep",
        caption=_settings(next(iter(style_run.configurations.values()))),
        repeated_columns=1,
    )


def _first_row(run: RunDirectory, kind: Kind) -> tuple[Tile, dict[str, Tile]]:
    """The first picture of a reconstruction study, and what is left of it by the deepest layer used."""
    if reconstructs(run) != kind:
        raise RunDirectoryError(f"{run.directory.url()}: expected a study of {kind} reconstructions")
    overview = _overview(run, 1)
    pictures = _Pictures(overview)
    return pictures.original(0, kind), {
        layer: pictures.result(0, key) for layer, key in _by_depth(overview).items()
    }


def _sheet(
    pictures: _Pictures, title: str, kinds: Sequence[Kind], configurations: Mapping[str, str]
) -> Image.Image:
    """Pairs down; across first the originals, then the configurations, under their labels."""
    overview = pictures.overview
    rows = [
        [
            *(pictures.original(pair, kind) for kind in kinds),
            *(pictures.result(pair, configuration) for configuration in configurations),
        ]
        for pair in range(len(overview.pairs))
    ]
    return contact_sheet(
        rows,
        column_labels=[*kinds, *configurations.values()],
        row_labels=overview.pair_labels if any(overview.pair_labels) else (),
        title=title,
        caption=caption(overview),
        tile_edge=pictures.edge,
        repeated_columns=len(kinds),
    )


def _matrix(pictures: _Pictures, name: str) -> Image.Image:
    """The first pair: content layers down, alpha across; of what else varies, the first."""
    overview = pictures.overview
    layers, strengths = (
        list(dict.fromkeys(getattr(each, field) for each in overview.configurations.values()))
        for field in ("content_layers", labels.STRENGTH)
    )
    first: dict[tuple[object, object], str] = {}
    for key, each in overview.configurations.items():
        first.setdefault((each.content_layers, each.alpha), key)
    rows = [
        [
            pictures.result(0, first[each, alpha]) if (each, alpha) in first else Tile(None, "none")
            for alpha in strengths
        ]
        for each in layers
    ]
    return contact_sheet(
        rows,
        column_labels=[f"{labels.STRENGTH} {alpha:g}" for alpha in strengths],
        row_labels=[labels.layer_set(each) for each in layers],
        title=f"{name}: {overview.pair_labels[0] or 'layers and strength'}",
        caption=caption(overview),
        tile_edge=pictures.edge,
    )


def _by_depth(overview: Overview) -> dict[str, str]:
    """The first configuration for each deepest layer, from shallow to deep."""
    found: dict[str, str] = {}
    for key, configuration in overview.configurations.items():
        used = configuration.content_layers or configuration.style_layers
        if used:
            found.setdefault(max(used, key=block_and_index), key)
    return {layer: found[layer] for layer in sorted(found, key=block_and_index)}


def caption(overview: Overview) -> str:
    """What a sheet says of its run: weights, settings, and what is not on it."""
    parts = [_settings(next(iter(overview.run.configurations.values())))]
    if overview.num_pairs > len(overview.pairs):
        parts.append(f"the first {len(overview.pairs)} of {overview.num_pairs:,} pairs")
    if overview.num_configurations > len(overview.configurations):
        parts.append(
            f"{len(overview.configurations)} of {overview.num_configurations:,} configurations, evenly spread"
        )
    if not overview.run.is_complete():
        parts.append("the run is not finished")
    return "; ".join(parts) + "."


def _settings(configuration: Configuration) -> str:
    return (
        f"{labels.weights_text(configuration)}; {configuration.size} pixels, "
        f"{configuration.optimizer}, {configuration.steps} steps"
    )


class _Pictures:
    """The tiles of an overview: every picture is reduced as soon as it is read, and inputs are read once."""

    def __init__(self, overview: Overview, fetch: bool = False) -> None:
        self.overview, self._fetch = overview, fetch
        num_tiles = len(overview.pairs) * (len(overview.configurations) + 2)
        self.edge = next(edge for limit, edge in _TILE_EDGES if num_tiles <= limit)
        self._inputs: dict[Picture, Tile] = {}

    @property
    def kinds(self) -> list[Kind]:
        """The kinds of originals that the study has."""
        pairs = self.overview.pairs
        content: list[Kind] = ["content"] if any(pair.content for pair in pairs) else []
        return [*content, "style"] if any(pair.styles for pair in pairs) else content

    def mean_score(self, configuration: str) -> float:
        """The mean transfer score over the pairs whose trial has ended; a trial without one counts as 0."""
        pairs = range(len(self.overview.pairs))
        trials = [self.overview.trials.get((pair, configuration), {"status": "pending"}) for pair in pairs]
        scores = [trial["transfer_score"] or 0.0 for trial in trials if trial["status"] != "pending"]
        return sum(scores) / max(len(scores), 1)

    def original(self, pair: int, kind: Kind) -> Tile:
        """The pair's content or style; several styles are strips beside each other."""
        found = self.overview.pairs[pair]
        tiles = [self._input(each) for each in (found.styles if kind == "style" else (found.content,)) if each]
        images = [tile.image for tile in tiles if tile.image]
        if len(tiles) < 2 or not images:
            return tiles[0] if tiles else Tile(None, "none")
        blend = Image.new("RGB", (self.edge, self.edge))
        for number, image in enumerate(images):
            strip = ImageOps.fit(image, (-(-self.edge // len(images)), self.edge))
            blend.paste(strip, (number * self.edge // len(images), 0))
        return Tile(blend)

    def result(self, pair: int, configuration: str) -> Tile:
        """What became of a pair under a configuration."""
        trial = self.overview.trials.get((pair, configuration))
        if trial is None:
            return Tile(None, "not in the plan")
        if trial["image_path"] is None:
            return Tile(None, trial["error_message"] or trial["status"])
        try:
            return Tile(
                self._reduced(finished_picture(self.overview.run, trial["image_path"])), labels.scores_text(trial)
            )
        except ImageError as error:
            return Tile(None, str(error))

    def _input(self, picture: Picture) -> Tile:
        if picture not in self._inputs:
            shape = next(iter(self.overview.run.configurations.values()))
            try:
                image = input_picture(picture, shape, edge=min(self.edge, shape.size), fetch=self._fetch)
                self._inputs[picture] = Tile(self._reduced(image))
            except ImageError as error:
                self._inputs[picture] = Tile(None, str(error))
        return self._inputs[picture]

    def _reduced(self, image: Image.Image) -> Image.Image:
        image.thumbnail((self.edge, self.edge), Image.Resampling.LANCZOS, reducing_gap=3.0)
        return image
