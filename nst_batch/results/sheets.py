"""A run's contact sheets, and Gatys' reconstruction figure from two runs: which pictures stand where."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Literal

from PIL import Image, ImageOps

from nst_batch.errors import RunDirectoryError
from nst_batch.records import Configuration
from nst_batch.results import labels
from nst_batch.results.contact_sheet import contact_sheet
from nst_batch.results.overview import Overview
from nst_batch.results.pictures import Tile
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
    drawn = {f"report/{name}": sheet for name, sheet in draw_sheets(run, fetch=fetch).items()}
    for path, sheet in drawn.items():
        run.directory.write(path, png(sheet))
    return list(drawn)


def draw_sheets(run: RunDirectory, *, fetch: bool = False) -> dict[str, Image.Image]:
    """What `write_sheets` writes, by file name."""
    overview = Overview(run, max_pairs=MAX_PAIRS, max_configurations=MAX_CONFIGURATIONS, fetch=fetch)
    if all(trial["status"] == "pending" for trial in overview.trials.values()):
        return {}
    name, texts = str(run.study["name"]), overview.configuration_labels
    kinds: list[Kind] = ["content"] if any(pair.content for pair in overview.pairs) else []
    kinds += ["style"] if any(pair.styles for pair in overview.pairs) else []
    best_first = sorted(texts, key=lambda configuration: -_mean_score(overview, configuration))
    drawn = {"sheet.png": _sheet(overview, name, kinds, {each: texts[each] for each in best_first})}
    if {"content_layers", labels.STRENGTH} <= set(overview.varying):
        drawn["matrix.png"] = _matrix(overview, name)
    if kind := reconstructs(run):
        layers = {
            key: labels.layer_set(_layers(overview.configurations[key])) for key in _by_depth(overview).values()
        }
        drawn["reconstruction.png"] = _sheet(overview, f"{name}: {kind} reconstructions", [kind], layers)
    return drawn


def png(image: Image.Image) -> bytes:
    """A sheet as a PNG file."""
    file = io.BytesIO()
    image.save(file, "png")
    return file.getvalue()


def _mean_score(overview: Overview, configuration: str) -> float:
    """The mean transfer score over the pairs whose trial has ended; a trial without one counts as 0."""
    own = [trial for (_, key), trial in overview.trials.items() if key == configuration]
    scores = [trial["transfer_score"] or 0.0 for trial in own if trial["status"] != "pending"]
    return sum(scores) / max(len(scores), 1)


def _edge(overview: Overview) -> int:
    num_tiles = len(overview.pairs) * (len(overview.configurations) + 2)
    return next(edge for limit, edge in _TILE_EDGES if num_tiles <= limit)


def _sheet(overview: Overview, title: str, kinds: Sequence[Kind], configurations: Mapping[str, str]) -> Image.Image:
    """Pairs down; across first the originals, then the configurations, under their labels."""
    edge = _edge(overview)
    rows = [
        [
            *(_original(overview, pair, kind, edge) for kind in kinds),
            *(overview.result(pair, configuration, edge) for configuration in configurations),
        ]
        for pair in range(len(overview.pairs))
    ]
    return contact_sheet(
        rows,
        column_labels=[*kinds, *configurations.values()],
        row_labels=overview.pair_labels if any(overview.pair_labels) else (),
        title=title,
        caption=caption(overview),
        tile_edge=edge,
        repeated_columns=len(kinds),
    )


def _matrix(overview: Overview, name: str) -> Image.Image:
    """The first pair: content layers down, alpha across; of what else varies, the first."""
    first: dict[tuple[tuple[str, ...], float], str] = {}
    for key, each in overview.configurations.items():
        first.setdefault((each.content_layers, each.alpha), key)
    layers, strengths = (list(dict.fromkeys(side)) for side in zip(*first, strict=True))
    edge = _edge(overview)
    rows = [
        [
            overview.result(0, first[each, alpha], edge) if (each, alpha) in first else Tile(None, "none")
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
        tile_edge=edge,
    )


def _original(overview: Overview, pair: int, kind: Kind, edge: int) -> Tile:
    """A pair's content or style; several styles are strips beside each other."""
    content, styles = overview.pairs[pair]
    pictures = styles if kind == "style" else [content] if content else []
    tiles = [overview.input(picture, edge) for picture in pictures]
    images = [tile.image for tile in tiles if tile.image]
    if len(tiles) < 2 or not images:
        return tiles[0] if tiles else Tile(None, "none")
    blend = Image.new("RGB", (edge, edge))
    for number, image in enumerate(images):
        strip = ImageOps.fit(image, (-(-edge // len(images)), edge))
        blend.paste(strip, (number * edge // len(images), 0))
    return Tile(blend)


def caption(overview: Overview) -> str:
    """What a sheet says of its run: weights, settings, and what is not on it."""
    parts = [_settings(overview), *overview.limits]
    return "; ".join(parts if overview.run.is_complete() else [*parts, "the run is not finished"]) + "."


def _settings(overview: Overview) -> str:
    configuration = next(iter(overview.run.configurations.values()))
    return (
        f"{labels.weights_text(configuration)}; {configuration.size} pixels, "
        f"{configuration.optimizer}, {configuration.steps} steps"
    )


# Reconstructions


def reconstructs(run: RunDirectory) -> Kind | None:
    """`content` or `style` if the study reconstructs that from features alone, without a loss for the other."""
    configurations = run.configurations.values()
    if configurations and all(not each.content_layers for each in configurations):
        return "style"
    if configurations and all(not each.style_layers for each in configurations):
        return "content"
    return None


def _layers(configuration: Configuration) -> tuple[str, ...]:
    """Of a reconstruction."""
    return configuration.content_layers or configuration.style_layers


def _by_depth(overview: Overview) -> dict[str, str]:
    """The first configuration for each deepest layer, from shallow to deep."""
    found: dict[str, str] = {}
    for key, configuration in overview.configurations.items():
        if used := _layers(configuration):
            found.setdefault(max(used, key=block_and_index), key)
    return {layer: found[layer] for layer in sorted(found, key=block_and_index)}


def reconstruction_sheet(content_run: RunDirectory, style_run: RunDirectory) -> Image.Image:
    """Figure 1 of Gatys, Ecker, Bethge (CVPR 2016) from the first picture of two reconstruction studies.

    Top row: the style from growing sets of layers. Bottom row: the content from each of those layers alone.

    Raises:
        RunDirectoryError: A run is not such a study, or they have no layer in common.
    """
    _, content, contents = _reconstructions(content_run, "content")
    settings, style, styles = _reconstructions(style_run, "style")
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
        caption=settings,
        repeated_columns=1,
    )


def _reconstructions(run: RunDirectory, kind: Kind) -> tuple[str, Tile, dict[str, Tile]]:
    """The settings and the first picture of such a study, and what is left of it by the deepest layer used."""
    if reconstructs(run) != kind:
        raise RunDirectoryError(f"{run.directory.url()}: expected a study of {kind} reconstructions")
    overview = Overview(run, max_pairs=1, max_configurations=MAX_CONFIGURATIONS)
    edge = _edge(overview)
    left = {layer: overview.result(0, key, edge) for layer, key in _by_depth(overview).items()}
    return _settings(overview), _original(overview, 0, kind, edge), left
