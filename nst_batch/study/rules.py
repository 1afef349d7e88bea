"""What must hold in a study: the checks of single keys that need the field's knowledge, and the rules between keys.

A rule is a function of the values it names in `_RULES`; it runs only where all of these passed their own
checks, so that one mistake is reported once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from nst_batch import vocabulary as layers
from nst_batch.errors import LayerError
from nst_batch.study.checks import Problem, UnfitError, expected, list_of, number, text
from nst_batch.vocabulary import LIST_SUFFIXES, is_list_file, is_weights_file

Entry = tuple[str, ...]
PAIRINGS = ("cross", "zip", "blend")


# Single keys


def pairing(value: object) -> str:
    """cross, zip, blend, or a list file."""
    if isinstance(value, str) and (value in PAIRINGS or is_list_file(value)):
        return text(value)
    raise expected(f"cross, zip, blend or a list file ({', '.join(LIST_SUFFIXES)})", value)


def weights_name(value: object) -> str:
    """imagenet, imagenet_v1, random:SEED, or the path or URL of a state dict."""
    if isinstance(value, str) and (
        value in ("imagenet", "imagenet_v1") or re.fullmatch(r"random:[0-9]{1,18}", value) or is_weights_file(value)
    ):
        return text(value)
    raise expected("imagenet, imagenet_v1, random:SEED, or the path or URL of a state dict", value)


def short_text(value: object) -> str:
    """A name: a line of text of at most 200 characters."""
    found = text(value)
    if len(found) > 200:
        raise expected("at most 200 characters", value)
    return found


def layer_entry(value: object) -> Entry:
    """A layer or a list of layers, as spelled; the names are checked once the network is known."""
    return list_of(short_text)(value)


def weight_entry(value: object) -> tuple[float, ...]:
    """A list with one weight per style layer; an empty list means equal weights."""
    if not isinstance(value, list | tuple):
        raise expected("a list of weights, one per style layer, as in [[1, 1, 0.5]]", value)
    found = list_of(number(0))(value)
    if found and not any(found):
        raise UnfitError([Problem((), "expected at least one weight above 0, found only 0")])
    return found


# Between keys


def relations(values: Mapping[str, Any]) -> Iterator[Problem]:
    """Every broken rule, given the values that passed their own checks by dotted key."""
    for rule, needs in _RULES:
        if all(key in values for key in needs):
            yield from rule(*(values[key] for key in needs))


def canonical_layers(axis: Sequence[Entry], arch: str) -> tuple[Entry, ...]:
    """Entries by canonical names in network order.

    Raises:
        LayerError: A name is not a layer of `arch`.
    """
    return tuple(
        tuple(sorted((layers.canonical(name, arch) for name in entry), key=layers.block_and_index))
        for entry in axis
    )


def _names(key: str, arch: str, axis: Sequence[Entry]) -> Iterator[Problem]:
    for index, entry in enumerate(axis):
        seen: set[str] = set()
        for position, spelled in enumerate(entry):
            path = ("grid", key, index, position)
            try:
                name = layers.canonical(spelled, arch)
            except LayerError as error:
                yield Problem(path, str(error))
                continue
            if name in seen:
                yield Problem(path, f"{name} is listed twice")
            seen.add(name)


def _depth(
    key: str, arch: str, axis: Sequence[Entry], size: int, scales: Sequence[float] = (1.0,)
) -> Iterator[Problem]:
    """Layers that a square picture cannot reach; with `fit: keep` planning checks the shorter edge."""
    scale = min(scales)
    edge = max(1, round(size * scale))
    note = "" if scale == 1 else f" (the style picture is {scale:g} of size {size})"
    for index, entry in enumerate(axis):
        for position, spelled in enumerate(entry):
            try:
                name = layers.canonical(spelled, arch)
            except LayerError:
                continue  # reported by the rule for names
            try:
                layers.layer_shape(name, edge, edge)
            except LayerError as error:
                yield Problem(("grid", key, index, position), f"{error}{note}")


def _style_weights(arch: str, axis: Sequence[Entry], weights: Sequence[tuple[float, ...]]) -> Iterator[Problem]:
    if not any(weights):
        return
    for index, entry in enumerate(axis):
        for which, given in enumerate(weights):
            if given and len(given) != len(entry):
                yield Problem(
                    ("grid", "style_layer_weights", which),
                    f"expected {len(entry)} weights, as style_layers[{index}] has that many layers, "
                    f"found {len(given)}; every entry must fit every entry of style_layers",
                )
        try:
            (ordered,) = canonical_layers([entry], arch)
        except LayerError:
            continue  # reported by the rule for names
        if ordered != tuple(layers.canonical(name, arch) for name in entry):
            yield Problem(
                ("grid", "style_layers", index),
                f"with style_layer_weights the layers must be in network order: {', '.join(ordered)}",
            )


def _weights_fit_arch(arch: str, weights: str) -> Iterator[Problem]:
    if weights == "imagenet" and arch != "vgg16":
        yield Problem(("network", "weights"), f"'imagenet' exists for vgg16 only; for {arch} use 'imagenet_v1'")


def _something_to_optimise(
    content_axis: Sequence[Entry], alphas: Sequence[float], style_axis: Sequence[Entry], betas: Sequence[float]
) -> Iterator[Problem]:
    """The axes multiply: a way to lose the content term and a way to lose the style term meet somewhere."""
    no_content = "content_layers holds []" if () in content_axis else "alpha holds 0" if 0 in alphas else ""
    no_style = "style_layers holds []" if () in style_axis else "beta holds 0" if 0 in betas else ""
    if no_content and no_style:
        message = f"{no_content} and {no_style}, so a configuration would have nothing to optimise"
        yield Problem(("grid",), message)


def _pictures(
    side: str, pairs: str, given: Entry, axis: Sequence[Entry], inits: Sequence[str], colors: Sequence[str]
) -> Iterator[Problem]:
    if is_list_file(pairs):
        if given:
            yield Problem((side,), f"the list file under 'pairs' names the {side} pictures already; keep one")
        return
    if given:
        return
    transferred = [color for color in colors if color != "style"]
    if any(axis):
        reason = f"the {side} loss needs them"
    elif side in inits:
        reason = f"grid.init {side!r} needs them"
    elif transferred:
        reason = f"grid.color {transferred[0]!r} needs them"
    else:
        return
    yield Problem((side,), f"no {side} pictures, and {reason}; give --{side}, or name them in the study file")


_CONTENT = ("network.arch", "grid.content_layers")
_STYLE = ("network.arch", "grid.style_layers")
_RULES: tuple[tuple[Callable[..., Iterable[Problem]], tuple[str, ...]], ...] = (
    (partial(_pictures, "content"), ("pairs", "content", "grid.content_layers", "grid.init", "grid.color")),
    (partial(_pictures, "style"), ("pairs", "style", "grid.style_layers", "grid.init", "grid.color")),
    (_weights_fit_arch, ("network.arch", "network.weights")),
    (partial(_names, "content_layers"), _CONTENT),
    (partial(_depth, "content_layers"), (*_CONTENT, "image.size")),
    (partial(_names, "style_layers"), _STYLE),
    (partial(_depth, "style_layers"), (*_STYLE, "image.size", "grid.style_scale")),
    (_style_weights, (*_STYLE, "grid.style_layer_weights")),
    (_something_to_optimise, ("grid.content_layers", "grid.alpha", "grid.style_layers", "grid.beta")),
)
