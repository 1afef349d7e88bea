"""A study: what to compute. Typed, checked, and the one place where a default is written.

Every field's annotation carries its check (`checks`), so a study is checked alike whether it is read from a file,
from `study.json`, or written in Python. `reading` reads the YAML that people write.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from difflib import get_close_matches
from functools import cache
from typing import Annotated, Any, Literal, get_type_hints

from nst_batch.errors import StudyError
from nst_batch.records import Configuration
from nst_batch.study import rules
from nst_batch.study.checks import (
    Check,
    KeyPath,
    Problem,
    UnfitError,
    as_written,
    axis,
    choice,
    dotted,
    expected,
    integer,
    list_of,
    number,
    text,
)
from nst_batch.vocabulary import (
    Arch,
    Color,
    Fit,
    Init,
    Loss,
    Normalization,
    OptimizerName,
    Pooling,
    Precision,
    Pyramid,
)

ImageFormat = Literal["png", "jpeg", "webp"]
LayerSets = tuple[tuple[str, ...], ...]
WeightSets = tuple[tuple[float, ...], ...]

MAX_SEED = 2**63 - 1
"""The largest that the tables' 64-bit column holds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageOptions:
    """How pictures are brought to size."""

    size: Annotated[int, integer(16, 8192)] = 300
    """Pixels of the edge, or of the longer edge under `keep`."""
    fit: Annotated[Fit, choice(Fit)] = "crop"
    """crop: centred square; stretch: square; keep: the longer edge is `size`, the aspect kept."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Network:
    """The network whose features define content and style."""

    arch: Annotated[Arch, choice(Arch)] = "vgg16"
    weights: Annotated[str, rules.weights_name] = "imagenet"
    """imagenet (the original VGG weights, vgg16 only), imagenet_v1, random:SEED, a path or a URL."""
    pooling: Annotated[Pooling, choice(Pooling)] = "max"
    normalization: Annotated[Normalization, choice(Normalization)] = "auto"
    """What the network is fed; auto follows the weights."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """The axes of the study; they multiply, the first outermost."""

    content_layers: Annotated[LayerSets, axis(rules.layer_entry, when_empty=((),))] = (("block4_conv2",),)
    """Sets of layers for the content loss, canonical and in network order; `()` is no content loss."""
    style_layers: Annotated[LayerSets, axis(rules.layer_entry, when_empty=((),))] = (
        ("block1_conv1", "block2_conv1", "block3_conv1", "block4_conv1", "block5_conv1"),
    )
    """Sets of layers for the style loss, likewise. The defaults of both are those of Gatys et al. (2016)."""
    style_layer_weights: Annotated[WeightSets, axis(rules.weight_entry, when_empty=((),))] = ((),)
    """One weight per style layer; `()` weighs them equally."""
    alpha: Annotated[tuple[float, ...], axis(number(0))] = (0.5,)
    """Weight of the content loss."""
    beta: Annotated[tuple[float, ...], axis(number(0))] = (5.0,)
    """Weight of the style loss."""
    tv_weight: Annotated[tuple[float, ...], axis(number(0))] = (0.0,)
    """Weight of the total variation, which smooths."""
    style_scale: Annotated[tuple[float, ...], axis(number(0.1, 10))] = (1.0,)
    """Size of the style picture relative to `image.size`: the size of the strokes."""
    color: Annotated[tuple[Color, ...], axis(choice(Color))] = ("style",)
    """style: colours come from the style; luminance or histogram: the content's colours are kept."""
    init: Annotated[tuple[Init, ...], axis(choice(Init))] = ("content",)
    """The image that optimisation starts from."""
    seed: Annotated[tuple[int, ...], axis(integer(0, MAX_SEED))] = (0,)
    """Of the noise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Optimizer:
    """How each image is optimised."""

    name: Annotated[OptimizerName, choice(OptimizerName)] = "lbfgs"
    steps: Annotated[int, integer(1, 100_000)] = 300
    """Evaluations of the full-size objective, at most."""
    learning_rate: Annotated[float, number(above=0, high=1)] = 0.02
    """Adam's step in pixel values (0 to 1); unused by L-BFGS."""
    pyramid: Annotated[Pyramid, choice(Pyramid)] = "auto"
    """auto: coarse to fine where that pays; off: full size only."""
    plateau: Annotated[float, number(0, below=1)] = 0.0
    """Stop when the loss fell by less than this fraction over 20 steps; 0 never stops early."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Output:
    """How finished images are stored."""

    format: Annotated[ImageFormat, choice(ImageFormat)] = "png"
    quality: Annotated[int, integer(1, 100)] = 95
    """Of jpeg and webp; unused by png."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """What to compute: pictures, one network, a grid of configurations.

    Raises:
        StudyError: A value is wrong, or two contradict each other; lists every problem.
    """

    name: Annotated[str, rules.short_text]
    content: Annotated[tuple[str, ...], list_of(text)] = ()
    """Files, globs, directories, URLs, or list files with a `uri` column."""
    style: Annotated[tuple[str, ...], list_of(text)] = ()
    """Likewise."""
    pairs: Annotated[str, rules.pairing] = "cross"
    """cross: every content with every style; zip: first with first; blend: every content with all styles in
    equal parts; or a list file with `content` and `style` columns."""
    image: ImageOptions = field(default_factory=ImageOptions)
    network: Network = field(default_factory=Network)
    grid: Grid = field(default_factory=Grid)
    optimizer: Optimizer = field(default_factory=Optimizer)
    loss: Annotated[Loss, choice(Loss)] = "sum"
    """sum: the paper's sums; mean: per-element means."""
    precision: Annotated[Precision, choice(Precision)] = "auto"
    output: Output = field(default_factory=Output)

    def __post_init__(self) -> None:
        try:
            checked = _checked(asdict(self))
        except UnfitError as unfit:
            raise StudyError([str(problem) for problem in unfit.problems]) from None
        for key, value in checked.items():
            object.__setattr__(self, key, value)

    def to_dict(self) -> dict[str, Any]:
        """The study as JSON can hold it; `study_from_dict` reads it back."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain

    @property
    def num_configurations(self) -> int:
        """How many `configurations` yields."""
        return math.prod(len(getattr(self.grid, each.name)) for each in fields(Grid))

    def configurations(self, *, weights_sha256: str, normalization: Normalization) -> Iterator[Configuration]:
        """The grid multiplied: no two are equal, `content_layers` varies slowest and `seed` fastest.

        Args:
            weights_sha256: Of the resolved weights.
            normalization: As resolved with the weights, never `auto`.
        """
        names = [each.name for each in fields(Grid)]
        for point in itertools.product(*(getattr(self.grid, name) for name in names)):
            yield Configuration(
                size=self.image.size,
                fit=self.image.fit,
                arch=self.network.arch,
                weights=self.network.weights,
                weights_sha256=weights_sha256,
                pooling=self.network.pooling,
                normalization=normalization,
                loss=self.loss,
                optimizer=self.optimizer.name,
                steps=self.optimizer.steps,
                learning_rate=self.optimizer.learning_rate,
                pyramid=self.optimizer.pyramid,
                plateau=self.optimizer.plateau,
                precision=self.precision,
                **dict(zip(names, point, strict=True)),
            )


def study_from_dict(values: object) -> Study:
    """A study from what `Study.to_dict` made, or from a plain dictionary laid out like a study file.

    Raises:
        StudyError: `grid.alpha[1]: expected …, found …`, one line per problem.
    """
    try:
        return read_study(values)
    except UnfitError as unfit:
        raise StudyError([str(problem) for problem in unfit.problems]) from None


def read_study(values: object) -> Study:
    """As `study_from_dict`, for a caller who knows where each value was written.

    Raises:
        UnfitError: Every problem with its path.
    """
    return Study(**_checked(values))


def _checked(values: object) -> dict[str, Any]:
    """The arguments of `Study`: checked, layers canonical, no value twice on an axis."""
    good: dict[str, Any] = {}
    problems = [*_read(Study, values, (), good)]
    problems += rules.relations(good)
    if problems:
        raise UnfitError([Problem(as_written(path, values), message) for path, message in problems])
    for key in ("grid.content_layers", "grid.style_layers"):
        good[key] = rules.canonical_layers(good[key], good["network.arch"])
    for each in fields(Grid):
        good[f"grid.{each.name}"] = tuple(dict.fromkeys(good[f"grid.{each.name}"]))
    return _arguments(Study, (), good)


def _read(kind: type, values: object, path: KeyPath, good: dict[str, Any]) -> Iterator[Problem]:
    """Checks every key of `kind` below `path`: yields the problems and adds what passed to `good`."""
    names = [each.name for each in fields(kind)]
    if not isinstance(values, dict):
        yield from expected(f"keys such as {', '.join(names[:3])}", values).under(*path)
        return
    yield from (Problem((*path, str(key)), _unknown(str(key), names)) for key in values if key not in names)
    sections, checks = _sections(kind), _checks(kind)
    for each in fields(kind):
        place, given = (*path, each.name), values.get(each.name)
        if each.name in sections:
            yield from _read(sections[each.name], {} if given is None else given, place, good)
        elif each.name in values:
            try:
                good[dotted(place)] = checks[each.name](given)
            except UnfitError as unfit:
                yield from unfit.under(*place)
        elif each.default is MISSING:
            yield Problem(place, "expected text, found no such key")
        else:
            good[dotted(place)] = each.default


@cache
def _sections(kind: type) -> dict[str, type]:
    """The fields of `kind` that hold keys of their own."""
    return {
        name: hint for name, hint in get_type_hints(kind).items() if isinstance(hint, type) and is_dataclass(hint)
    }


@cache
def _checks(kind: type) -> dict[str, Check[Any]]:
    """The checks of the other fields, from their annotations."""
    hints = get_type_hints(kind, include_extras=True)
    return {name: hint.__metadata__[0] for name, hint in hints.items() if name not in _sections(kind)}


def _unknown(key: str, names: list[str]) -> str:
    """The message for an unknown key: the near one, or where it belongs, or all that there are."""
    places = {name: name for name in _checks(Study)}
    for section, kind in _sections(Study).items():
        places |= {name: f"{section}.{name}" for name in _checks(kind)}
    near = get_close_matches(key.lower(), names, n=1)
    meant = near or ([places[key]] if key in places else [])
    return f"unknown key; did you mean {meant[0]!r}?" if meant else f"unknown key; the keys are {', '.join(names)}"


def _arguments(kind: type, path: KeyPath, good: dict[str, Any]) -> dict[str, Any]:
    """Rebuilds the arguments of `kind` from checked values by dotted key."""
    arguments = {name: good[dotted((*path, name))] for name in _checks(kind)}
    for name, section in _sections(kind).items():
        arguments[name] = section(**_arguments(section, (*path, name), good))
    return arguments


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, tuple) else value
