"""A run's contact sheets, and Gatys' reconstruction figure from two runs: which pictures stand where."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Literal

from PIL import Image, ImageOps

from nst_batch.errors import RunDirectoryError
from nst_batch.results import labels
from nst_batch.results.contact_sheet import contact_sheet
from nst_batch.results.overview import Overview
from nst_batch.results.pictures import Tile, fitted, tile_edge, with_mask
from nst_batch.store.run_directory import RunDirectory
from nst_batch.vocabulary import block_and_index

Kind = Literal["content", "style"]

MAX_PAIRS, MAX_CONFIGURATIONS = 24, 40


def write_sheets(run: RunDirectory, *, fetch: bool = False) -> list[str]:
    """Writes the run's contact sheet, and for reconstruction studies their figure; returns relative paths.

    At most 24 pairs and 40 configurations are shown; the caption says when there are more. Trials that have not
    ended, and failed ones, are boxes with the reason. Nothing is written while no trial has ended. Inputs that are
    named by a URL are fetched with `fetch` alone.
    """
    drawn = {f"report/{name}": sheet for name, sheet in draw_sheets(run, fetch=fetch).items()}
    for path, sheet in drawn.items():
        run.directory.write(path, png(sheet))
    return list(drawn)


def draw_sheets(run: RunDirectory, *, fetch: bool = False) -> dict[str, Image.Image]:
    """What `write_sheets` writes, by file name."""
    overview = Overview(run, max_pairs=MAX_PAIRS, max_configurations=MAX_CONFIGURATIONS, fetch=fetch)
    ended = [trial for trial in overview.trials.values() if trial["status"] != "pending"]
    if not ended:
        return {}
    name, texts = str(run.study["name"]), overview.configuration_labels
    scores = {
        key: [each["transfer_score"] or 0.0 for each in ended if each["configuration"] == key] for key in texts
    }
    best_first = sorted(texts, key=lambda key: -sum(scores[key]) / max(len(scores[key]), 1))
    drawn = {"sheet.png": _sheet(overview, name, {each: texts[each] for each in best_first})}
    if {"content_layers", labels.STRENGTH} <= set(overview.varying):
        drawn["matrix.png"] = _matrix(overview, name)
    if kind := reconstructs(run):
        layers = {
            key: labels.layer_set(overview.configurations[key].layers) for key in _by_depth(overview).values()
        }
        drawn["reconstruction.png"] = _sheet(overview, f"{name}: {kind} reconstructions", layers)
    return drawn


def png(image: Image.Image) -> bytes:
    """A sheet as a PNG file."""
    file = io.BytesIO()
    image.save(file, "png")
    return file.getvalue()


def _edge(overview: Overview) -> int:
    return tile_edge(len(overview.pairs) * (len(overview.configurations) + 2))


def _sheet(overview: Overview, title: str, configurations: Mapping[str, str]) -> Image.Image:
    """Pairs down; across first the originals, then the configurations, under their labels."""
    edge = _edge(overview)
    kinds: list[Kind] = ["content"] if any(pair.content for pair in overview.pairs) else []
    kinds += ["style"] if any(pair.styles for pair in overview.pairs) else []
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
        row_labels=overview.pair_labels,
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
    return contact_sheet(
        [[overview.result(0, first.get((each, alpha), ""), edge) for alpha in strengths] for each in layers],
        column_labels=[f"{labels.STRENGTH} {alpha:g}" for alpha in strengths],
        row_labels=[labels.layer_set(each) for each in layers],
        title=f"{name}: {overview.pair_labels[0]}",
        caption=caption(overview),
        tile_edge=edge,
    )


def _original(overview: Overview, pair: int, kind: Kind, edge: int) -> Tile:
    """A pair's content or style with its mask; several styles are strips beside each other."""
    content, styles = overview.pairs[pair]
    pictures = styles if kind == "style" else [content] if content else []
    tiles = [overview.input(picture, edge) for picture in pictures]
    shown = [(fitted(tile.image, edge), tile.mask) for tile in tiles if tile.image]
    if not shown:
        return tiles[0] if tiles else Tile(None, "none")
    if len(tiles) == 1:
        return Tile(with_mask(*shown[0]), tiles[0].text)
    blend = Image.new("RGB", (edge, edge))
    for number, (image, mask) in enumerate(shown):
        strip = with_mask(ImageOps.fit(image, (-(-edge // len(shown)), edge)), mask)
        blend.paste(strip, (number * edge // len(shown), 0))
    return Tile(blend)


def caption(overview: Overview) -> str:
    """What a sheet says of its run: weights, settings, and what is not on it."""
    parts = [labels.weights_text(overview.settings), labels.settings_text(overview.settings), *overview.limits]
    return "; ".join(parts if overview.run.is_complete() else [*parts, "the run is not finished"]) + "."


# Reconstructions


def reconstructs(run: RunDirectory) -> Kind | None:
    """`content` or `style` if the study reconstructs that from features alone, without a loss for the other."""
    configurations = run.configurations.values()
    if configurations and all(not each.content_layers for each in configurations):
        return "style"
    if configurations and all(not each.style_layers for each in configurations):
        return "content"
    return None


def _by_depth(overview: Overview) -> dict[str, str]:
    """Of a reconstruction: the first configuration for each deepest layer, from shallow to deep."""
    found: dict[str, str] = {}
    for key, configuration in overview.configurations.items():
        if configuration.layers:
            found.setdefault(max(configuration.layers, key=block_and_index), key)
    return {layer: found[layer] for layer in sorted(found, key=block_and_index)}


def reconstruction_sheet(content_run: RunDirectory, style_run: RunDirectory) -> Image.Image:
    """Figure 1 of Gatys, Ecker, Bethge (CVPR 2016) from the first picture of two reconstruction studies.

    Top row: the style from growing sets of layers. Bottom row: the content from each of those layers alone.
    RunDirectoryError where a run is not such a study, or they have no layer in common.
    """
    _, content, contents = _reconstructions(content_run, "content")
    overview, style, styles = _reconstructions(style_run, "style")
    layers = [layer for layer in styles if layer in contents]
    if not layers:
        raise RunDirectoryError(
            f"expected reconstructions from the same layers, found {', '.join(contents)} in "
            f"{content_run.directory.url()} and {', '.join(styles)} in {style_run.directory.url()}"
        )
    sums = [layers[0], *(f"+ {layer}" for layer in layers[1:])]
    top = [_renamed(styles[layer], text) for layer, text in zip(layers, sums, strict=True)]
    bottom = [_renamed(contents[layer], layer) for layer in layers]
    return contact_sheet(
        [[style, *top], [content, *bottom]],
        column_labels=["original", *(chr(ord("a") + number) for number in range(len(layers)))],
        row_labels=("style reconstructions", "content reconstructions"),
        title="What the layers keep",
        caption=caption(overview),
        repeated_columns=1,
    )


def _renamed(tile: Tile, name: str) -> Tile:
    return Tile(tile.image, name if tile.image else f"{name}: {tile.text}")


def _reconstructions(run: RunDirectory, kind: Kind) -> tuple[Overview, Tile, dict[str, Tile]]:
    """The first picture of such a study, and what is left of it by the deepest layer used."""
    if reconstructs(run) != kind:
        raise RunDirectoryError(f"{run.directory.url()}: expected a study of {kind} reconstructions")
    overview = Overview(run, max_pairs=1, max_configurations=MAX_CONFIGURATIONS)
    edge = _edge(overview)
    left = {layer: overview.result(0, key, edge) for layer, key in _by_depth(overview).items()}
    return overview, _original(overview, 0, kind, edge), left
