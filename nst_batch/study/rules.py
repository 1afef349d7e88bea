"""What must hold between the keys of a study.

A rule is a function of the values it names in `_RULES`; it runs only where all of these passed their own checks,
so that one mistake is reported once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from nst_batch.errors import LayerError
from nst_batch.study.mistakes import Mistake
from nst_batch.vocabulary import Encoding, block_and_index, canonical, is_list_file, layer_shape, scaled_size

MAX_WEBP_SIZE = 16_383
Entry = tuple[str, ...]


def broken(values: Mapping[str, Any]) -> Iterator[Mistake]:
    """Every broken rule, given the values that passed their own checks by dotted key."""
    for rule, needs in _RULES:
        if all(key in values for key in needs):
            yield from rule(*(values[key] for key in needs))


def canonical_layers(axis: Sequence[Entry], arch: str) -> tuple[Entry, ...]:
    """Entries by canonical names in network order.

    Raises:
        LayerError: A name is not a layer of `arch`.
    """
    return tuple(tuple(sorted((canonical(name, arch) for name in entry), key=block_and_index)) for entry in axis)


def _layers(key: str, arch: str, axis: Sequence[Entry]) -> Iterator[Mistake]:
    for index, entry in enumerate(axis):
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


def _depth(
    key: str, arch: str, axis: Sequence[Entry], size: int, scales: Sequence[float] = (1.0,)
) -> Iterator[Mistake]:
    """Layers that a square picture cannot reach; with `fit: keep` planning checks the shorter edge."""
    edge, scale = min((scaled_size(size, each), each) for each in scales)
    note = "" if scale == 1 else f" (the style picture is {scale:g} of size {size})"
    for index, entry in enumerate(axis):
        for position, spelled in enumerate(entry):
            try:
                name = canonical(spelled, arch)
            except LayerError:
                continue  # reported by `_layers`
            try:
                layer_shape(name, edge, edge)
            except LayerError as error:
                yield Mistake(("grid", key, index, position), f"{error}{note}")


def _style_weights(arch: str, axis: Sequence[Entry], weights: Sequence[tuple[float, ...]]) -> Iterator[Mistake]:
    if not any(weights):
        return
    for index, entry in enumerate(axis):
        for which, given in enumerate(weights):
            if given and len(given) != len(entry):
                yield Mistake(
                    ("grid", "style_layer_weights", which),
                    f"expected {len(entry)} weights, as style_layers[{index}] has that many layers, "
                    f"found {len(given)}; every entry must fit every entry of style_layers",
                )
        try:
            (ordered,) = canonical_layers([entry], arch)
        except LayerError:
            continue  # reported by `_layers`
        if ordered != tuple(canonical(name, arch) for name in entry):
            yield Mistake(
                ("grid", "style_layers", index),
                f"with style_layer_weights the layers must be in network order: {', '.join(ordered)}",
            )


def _weights_fit_arch(arch: str, weights: str) -> Iterator[Mistake]:
    if weights == "imagenet" and arch != "vgg16":
        instead = "random:0 or a file" if arch in ("vgg11_lrn", "vgg16_c") else "'imagenet_v1'"
        yield Mistake(("network", "weights"), f"'imagenet' exists for vgg16 only; for {arch} use {instead}")


def _fits_format(size: int, format: Encoding) -> Iterator[Mistake]:
    if format == "webp" and size > MAX_WEBP_SIZE:
        message = (
            f"WebP holds at most {MAX_WEBP_SIZE} pixels along an edge, and image.size is {size}; use png or jpeg"
        )
        yield Mistake(("output", "format"), message)


def _something_to_optimise(
    content_axis: Sequence[Entry], alphas: Sequence[float], style_axis: Sequence[Entry], betas: Sequence[float]
) -> Iterator[Mistake]:
    """The axes multiply: a way to lose the content term and a way to lose the style term meet somewhere."""
    no_content = "content_layers holds []" if () in content_axis else "alpha holds 0" if 0 in alphas else ""
    no_style = "style_layers holds []" if () in style_axis else "beta holds 0" if 0 in betas else ""
    if no_content and no_style:
        message = f"{no_content} and {no_style}, so a configuration would have nothing to optimise"
        yield Mistake(("grid",), message)


def _pictures(
    side: str, pairs: str, given: Entry, axis: Sequence[Entry], inits: Sequence[str], colors: Sequence[str]
) -> Iterator[Mistake]:
    """Pictures of a side that are named twice, or not at all although something needs them."""
    if is_list_file(pairs):
        if given:
            yield Mistake((side,), f"the list file under 'pairs' names the {side} pictures already; keep one")
        return
    needs = [f"the {side} loss needs them"] if any(axis) else []
    needs += [f"grid.init {init!r} needs them" for init in inits if init == side]
    needs += [f"grid.color {color!r} needs them" for color in colors if color != "style"]
    if needs and not given:
        message = f"no {side} pictures, and {needs[0]}; give --{side}, or name them in the study file"
        yield Mistake((side,), message)


_CONTENT = ("network.arch", "grid.content_layers")
_STYLE = ("network.arch", "grid.style_layers")
_RULES: tuple[tuple[Callable[..., Iterable[Mistake]], tuple[str, ...]], ...] = (
    (partial(_pictures, "content"), ("pairs", "content", "grid.content_layers", "grid.init", "grid.color")),
    (partial(_pictures, "style"), ("pairs", "style", "grid.style_layers", "grid.init", "grid.color")),
    (_weights_fit_arch, ("network.arch", "network.weights")),
    (partial(_layers, "content_layers"), _CONTENT),
    (partial(_depth, "content_layers"), (*_CONTENT, "image.size")),
    (partial(_layers, "style_layers"), _STYLE),
    (partial(_depth, "style_layers"), (*_STYLE, "image.size", "grid.style_scale")),
    (_style_weights, (*_STYLE, "grid.style_layer_weights")),
    (_fits_format, ("image.size", "output.format")),
    (_something_to_optimise, ("grid.content_layers", "grid.alpha", "grid.style_layers", "grid.beta")),
)
