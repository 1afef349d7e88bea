"""What must hold between the keys of a study."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from nst_batch.errors import LayerError
from nst_batch.study.mistakes import Mistake
from nst_batch.vocabulary import block_and_index, canonical, is_list_file, layer_shape, scaled_size

MAX_WEBP_SIZE = 16_383
Entry = tuple[str, ...]
Values = Mapping[str, Any]
"""By dotted key, those alone that passed their own checks."""


def broken(values: Values) -> Iterator[Mistake]:
    """Every broken rule. One that misses a value says nothing, so that one mistake is reported once."""
    for rule in (
        partial(_pictures, "content"),
        partial(_pictures, "style"),
        _weights_fit_arch,
        partial(_layers, "content"),
        partial(_layers, "style"),
        _style_weights,
        _fits_format,
        _something_to_optimise,
    ):
        with suppress(KeyError):
            yield from rule(values)


def canonical_layers(axis: Sequence[Entry], arch: str) -> tuple[Entry, ...]:
    """Entries by canonical names in network order; a LayerError if a name is not a layer of `arch`."""
    return tuple(tuple(sorted((canonical(name, arch) for name in entry), key=block_and_index)) for entry in axis)


def _pictures(side: str, values: Values) -> Iterator[Mistake]:
    """Pictures of a side that are named twice, or not at all although something needs them."""
    axis, inits, colors = (values[f"grid.{key}"] for key in (f"{side}_layers", "init", "color"))
    given = values[side]
    if is_list_file(values["pairs"]):
        if given:
            yield Mistake((side,), f"the list file under 'pairs' names the {side} pictures already; keep one")
        return
    needs = [f"the {side} loss"] if any(axis) else []
    needs += [f"grid.init {init!r}" for init in inits if init == side]
    needs += [f"grid.color {color!r}" for color in colors if color != "style"]
    if needs and not given:
        message = f"no {side} pictures, and {needs[0]} needs them; give --{side}, or name them in the study file"
        yield Mistake((side,), message)


def _weights_fit_arch(values: Values) -> Iterator[Mistake]:
    arch = values["network.arch"]
    if values["network.weights"] == "imagenet" and arch != "vgg16":
        instead = "random:0 or a file" if arch in ("vgg11_lrn", "vgg16_c") else "'imagenet_v1'"
        yield Mistake(("network", "weights"), f"'imagenet' exists for vgg16 only; for {arch} use {instead}")


def _layers(side: str, values: Values) -> Iterator[Mistake]:
    """Layers that do not exist, come twice, or that a square picture cannot reach; of others planning tells."""
    arch, key, size = values["network.arch"], f"{side}_layers", values.get("image.size")
    scale = min(values.get("grid.style_scale", (1.0,))) if side == "style" else 1.0
    note = "" if scale == 1 else f" (the style picture is {scale:g} of size {size})"
    for index, entry in enumerate(values[f"grid.{key}"]):
        seen: set[str] = set()
        for position, spelled in enumerate(entry):
            path = ("grid", key, index, position)
            try:
                name = canonical(spelled, arch)
            except LayerError as error:
                yield Mistake(path, str(error))
                continue
            if name in seen:
                yield Mistake(path, f"{name} is listed twice")
            seen.add(name)
            try:
                if size is not None:
                    layer_shape(name, scaled_size(size, scale), scaled_size(size, scale))
            except LayerError as error:
                yield Mistake(path, f"{error}{note}")


def _style_weights(values: Values) -> Iterator[Mistake]:
    arch, weights = values["network.arch"], values["grid.style_layer_weights"]
    if not any(weights):
        return
    for index, entry in enumerate(values["grid.style_layers"]):
        for which, given in enumerate(weights):
            if given and len(given) != len(entry):
                yield Mistake(
                    ("grid", "style_layer_weights", which),
                    f"expected {len(entry)} weights, as style_layers[{index}] has that many layers, "
                    f"found {len(given)}; every entry must fit every entry of style_layers",
                )
        with suppress(LayerError):  # reported by `_layers`
            [ordered] = canonical_layers([entry], arch)
            if ordered != tuple(canonical(name, arch) for name in entry):
                yield Mistake(
                    ("grid", "style_layers", index),
                    f"with style_layer_weights the layers must be in network order: {', '.join(ordered)}",
                )


def _fits_format(values: Values) -> Iterator[Mistake]:
    size = values["image.size"]
    if values["output.format"] == "webp" and size > MAX_WEBP_SIZE:
        message = (
            f"WebP holds at most {MAX_WEBP_SIZE} pixels along an edge, and image.size is {size}; "
            "use png, jpeg or tiff"
        )
        yield Mistake(("output", "format"), message)


def _something_to_optimise(values: Values) -> Iterator[Mistake]:
    """The axes multiply: a way to lose the content term and a way to lose the style term meet somewhere."""
    terms = ({"content_layers": (), "alpha": 0}, {"style_layers": (), "beta": 0})
    lost = [[key for key, none in term.items() if none in values[f"grid.{key}"]][:1] for term in terms]
    if all(lost):
        keys = [key for [key] in lost]
        reasons = " and ".join(f"{key} holds {'[]' if key.endswith('layers') else 0}" for key in keys)
        yield Mistake(("grid", keys[-1]), f"{reasons}, so a configuration would have nothing to optimise")
