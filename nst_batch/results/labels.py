"""Short names for people: of configurations, by what distinguishes them; of layer sets; of pictures; of weights."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nst_batch.errors import without_secrets
from nst_batch.records import Configuration
from nst_batch.vocabulary import url_path

SCORES = ("transfer_score", "content_kept", "style_taken")
"""The columns that say how good a finished picture is."""
STRENGTH = "alpha"
"""The field that says how much the content weighs."""

_LAYER = re.compile(r"block(\d)_(\w+)")
_SUFFIX = re.compile(r"(?<=[^/])\.[^./]*$")
_LAYER_FIELDS = ["content_layers", "style_layers"]


def varying(configurations: Iterable[Configuration]) -> tuple[str, ...]:
    """The fields in which configurations differ: layers first, then weights, then the rest."""
    names, seen = (each.name for each in dataclasses.fields(Configuration)), list(configurations)
    return tuple(name for name in names if len({getattr(each, name) for each in seen}) > 1)


def configuration_label(configuration: Configuration, fields: Sequence[str]) -> str:
    """What distinguishes a configuration, as `block4_conv2 / block1-5_conv1 · alpha 0.5`.

    `fields` are those `varying`; when nothing varies, the layers are named.
    """
    layers = [name for name in _LAYER_FIELDS if name in fields] or ([] if fields else _LAYER_FIELDS)
    parts = [" / ".join(layer_set(getattr(configuration, name)) for name in layers)] if layers else []
    others = [name for name in fields if name not in _LAYER_FIELDS]
    parts += [f"{name.replace('_', ' ')} {value_text(name, getattr(configuration, name))}" for name in others]
    return " · ".join(parts)


def value_text(name: str, value: Any) -> str:
    """A configuration's value in few characters."""
    if name in _LAYER_FIELDS:
        return layer_set(value)
    if isinstance(value, list | tuple):
        return " ".join(value_text("", each) for each in value) or "equal"
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def layer_set(names: Sequence[str]) -> str:
    """Layers as one word where they run on: `block1-5_conv1` is the first convolution of each of five blocks."""
    found = [(int(match[1]), match[2]) for match in map(_LAYER.fullmatch, names) if match]
    if len(names) > 1 and found:
        first, kind = found[0]
        if found == [(first + offset, kind) for offset in range(len(names))]:
            return f"block{first}-{found[-1][0]}_{kind}"
    return " + ".join(names) or "none"


def short_names(uris: Iterable[str]) -> dict[str, str]:
    """File names without suffix and secrets; where two are equal, as much of the path as tells them apart."""
    depths = dict.fromkeys(uris, 1)
    while True:
        names = {uri: "/".join(without_secrets(uri).split("/")[-depth:]) for uri, depth in depths.items()}
        longer = [uri for uri in _clashing(names) if depths[uri] <= uri.count("/")]
        if not longer:
            break
        depths |= {uri: depths[uri] + 1 for uri in longer}
    bare = {uri: _SUFFIX.sub("", name) for uri, name in names.items()}
    return bare | {uri: names[uri] for uri in _clashing(bare)}


def _clashing(names: dict[str, str]) -> list[str]:
    count = Counter(names.values())
    return [uri for uri, name in names.items() if count[name] > 1]


def weights_text(configuration: Configuration) -> str:
    """The network and its weights, of a file its name alone; that weights are random is always said."""
    network, weights = f"{configuration.arch}, {configuration.pooling} pooling", configuration.weights
    if weights.startswith("random"):
        return f"{network}, RANDOM weights ({weights}: an untrained network)"
    return f"{network}, {url_path(weights).rpartition('/')[2]} weights"


def settings_text(configuration: Configuration) -> str:
    """How pictures are optimised."""
    return f"{configuration.size} pixels, {configuration.optimizer}, {configuration.steps} steps"


def scores_text(trial: Mapping[str, Any]) -> str:
    """A trial's scores as `0.22 = 0.45 kept × 0.49 taken`; empty where it has none."""
    score, kept, taken = (trial[name] for name in SCORES)
    return "" if score is None else f"{score:.2f} = {kept:.2f} kept × {taken:.2f} taken"
