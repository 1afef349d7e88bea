"""A study: what to compute. Typed, frozen, checked, and the one place where a default is written.

pydantic checks types, bounds and unknown keys from the annotations; `rules` holds what must agree between keys.
A study is checked alike whether it is read from a file, from `study.json`, or written in Python.
"""

from __future__ import annotations

import itertools
import math
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    AllowInfNan,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    Strict,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.dataclasses import dataclass as checked_dataclass
from pydantic_core import ArgsKwargs, CoreSchema, core_schema, to_jsonable_python

from nst_batch.records import Configuration
from nst_batch.study import rules
from nst_batch.study.mistakes import (
    KeyPath,
    Mistake,
    MistakesError,
    as_written,
    dotted,
    expected,
    found_by_pydantic,
    told,
)
from nst_batch.vocabulary import (
    LIST_SUFFIXES,
    Arch,
    Color,
    Encoding,
    Fit,
    Init,
    Loss,
    Normalization,
    OptimizerName,
    Pooling,
    Precision,
    Pyramid,
    is_list_file,
    is_weights_file,
    layer_names,
)

MAX_SEED = 2**63 - 1
"""The largest that the tables' 64-bit column holds."""
PAIRINGS = ("cross", "zip", "blend")

T = TypeVar("T")
_STRICT = ConfigDict(extra="forbid", revalidate_instances="always", use_attribute_docstrings=True)


# Types of values


@dataclass(frozen=True)
class Listed:
    """Marks a tuple that may also be written as the single value that it would hold.

    Args:
        when_empty: What an empty list stands for.
    """

    when_empty: tuple[Any, ...] = ()

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._listed, handler(source))

    def __get_pydantic_json_schema__(self, core: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        listed = handler(core["schema"])
        return {"anyOf": [listed["items"], listed]}

    def _listed(self, value: object) -> object:
        return value or self.when_empty if isinstance(value, list | tuple) else (value,)


def _line_of_text(value: str) -> str:
    if not value.strip():
        raise expected("text", value)
    if any(unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} for character in value):
        raise expected("one line of text without control characters", value)
    return value


def _short(value: str) -> str:
    if len(value) > 200:
        raise expected("at most 200 characters", value)
    return value


def _pairing(value: object) -> object:
    if isinstance(value, str) and (value in PAIRINGS or is_list_file(value)):
        return value
    raise expected(f"cross, zip, blend or a list file ({', '.join(LIST_SUFFIXES)})", value)


def _weights_name(value: object) -> object:
    named = isinstance(value, str) and (value in ("imagenet", "imagenet_v1") or is_weights_file(value))
    if named or (isinstance(value, str) and re.fullmatch(r"random:[0-9]{1,18}", value)):
        return value
    raise expected("imagenet, imagenet_v1, random:SEED, or the path or URL of a state dict", value)


def _list_of_weights(value: object) -> object:
    if isinstance(value, list | tuple):
        return value
    raise expected("a list of weights, one per style layer, as in [[1, 1, 0.5]]", value)


def _not_all_zero(value: tuple[float, ...]) -> tuple[float, ...]:
    if value and not any(value):
        raise told("expected at least one weight above 0, found only 0")
    return value


Text = Annotated[str, AfterValidator(_line_of_text)]
Name = Annotated[Text, AfterValidator(_short)]
Integer = Annotated[int, Strict()]
Number = Annotated[float, Strict(), AllowInfNan(False)]
ONE_ZERO = AfterValidator(lambda value: value + 0.0)
"""-0.0 becomes 0.0, so that equal values have one spelling."""
NotNegative = Annotated[Number, Field(ge=0), ONE_ZERO]
Names = Annotated[tuple[Text, ...], Listed()]
Axis = Annotated[tuple[T, ...], Field(min_length=1), Listed()]
"""The values of the grid along one key."""
Layer = Annotated[Name, Field(examples=list(layer_names("vgg16")))]
LayerSets = Annotated[tuple[Annotated[tuple[Layer, ...], Listed()], ...], Listed(when_empty=((),))]
WeightSet = Annotated[
    tuple[NotNegative, ...], BeforeValidator(_list_of_weights, list[NotNegative]), AfterValidator(_not_all_zero)
]
PoolingName = Annotated[
    Pooling, BeforeValidator(lambda value: "average" if value == "avg" else value, Literal[Pooling, "avg"])
]


def _section(kind: type[T]) -> Any:
    """A field that holds keys of its own; without any of them it is as the defaults say."""
    return field(default_factory=kind)


def _no_keys(value: object) -> object:
    return {} if value is None else value


# The keys


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageOptions:
    """How pictures are brought to size."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    size: Annotated[Integer, Field(ge=16, le=8192)] = 300
    """Pixels of the edge, or of the longer edge under `keep`."""
    fit: Fit = "crop"
    """crop: centred square; stretch: square; keep: the longer edge is `size`, the aspect kept."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Network:
    """The network whose features define content and style."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    arch: Arch = "vgg16"
    weights: Annotated[Text, BeforeValidator(_weights_name, str)] = "imagenet"
    """imagenet (the original VGG weights, vgg16 only), imagenet_v1, random:SEED, a path or a URL."""
    pooling: PoolingName = "max"
    """average (or avg): smoother pictures, as in the paper."""
    normalization: Normalization = "auto"
    """What the network is fed; auto follows the weights."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """The axes of the study; they multiply, the first outermost."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    content_layers: LayerSets = (("block4_conv2",),)
    """Sets of layers for the content loss; [] is no content loss."""
    style_layers: LayerSets = (("block1_conv1", "block2_conv1", "block3_conv1", "block4_conv1", "block5_conv1"),)
    """Sets of layers for the style loss, likewise. The defaults of both are those of Gatys et al. (2016)."""
    style_layer_weights: Annotated[tuple[WeightSet, ...], Listed(when_empty=((),))] = ((),)
    """One weight per style layer; [] weighs them equally."""
    alpha: Axis[NotNegative] = (0.5,)
    """Weight of the content loss."""
    beta: Axis[NotNegative] = (5.0,)
    """Weight of the style loss."""
    tv_weight: Axis[NotNegative] = (0.0,)
    """Weight of the total variation, which smooths."""
    style_scale: Axis[Annotated[Number, Field(ge=0.1, le=10)]] = (1.0,)
    """Size of the style picture relative to `image.size`: the size of the strokes."""
    color: Axis[Color] = ("style",)
    """style: colours come from the style; luminance or histogram: the content's colours are kept."""
    init: Axis[Init] = ("content",)
    """The image that optimisation starts from."""
    seed: Axis[Annotated[Integer, Field(ge=0, le=MAX_SEED)]] = (0,)
    """Of the noise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Optimizer:
    """How each image is optimised."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    name: OptimizerName = "lbfgs"
    steps: Annotated[Integer, Field(ge=1, le=100_000)] = 300
    """Evaluations of the full-size objective, at most."""
    learning_rate: Annotated[Number, Field(gt=0, le=1)] = 0.02
    """Adam's step in pixel values (0 to 1); unused by L-BFGS."""
    pyramid: Pyramid = "auto"
    """auto: coarse to fine where that pays; off: full size only."""
    plateau: Annotated[Number, Field(ge=0, lt=1), ONE_ZERO] = 0.0
    """Stop when the loss fell by less than this fraction over 20 steps; 0 never stops early."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Output:
    """How finished images are stored."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    format: Encoding = "png"
    quality: Annotated[Integer, Field(ge=1, le=100)] = 95
    """Of jpeg and webp; unused by png."""


_SECTIONS = (ImageOptions, Network, Grid, Optimizer, Output)


@checked_dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
class Study:
    """What to compute: pictures, one network, a grid of configurations.

    Raises:
        StudyError: A value is wrong, or two contradict each other; lists every mistake.
    """

    name: Name
    """In every table and report."""
    content: Names = ()
    """Files, globs, directories, URLs, or list files with a `uri` column."""
    style: Names = ()
    """Likewise."""
    pairs: Annotated[Text, BeforeValidator(_pairing, str)] = "cross"
    """cross: every content with every style; zip: first with first; blend: every content with all styles in
    equal parts; or a list file with `content` and `style` columns."""
    image: Annotated[ImageOptions, BeforeValidator(_no_keys)] = _section(ImageOptions)
    network: Annotated[Network, BeforeValidator(_no_keys)] = _section(Network)
    grid: Annotated[Grid, BeforeValidator(_no_keys)] = _section(Grid)
    optimizer: Annotated[Optimizer, BeforeValidator(_no_keys)] = _section(Optimizer)
    loss: Loss = "sum"
    """sum: the paper's sums; mean: per-element means."""
    precision: Precision = "auto"
    """Of the arithmetic; auto: float32 on a CPU, tf32 on a GPU."""
    output: Annotated[Output, BeforeValidator(_no_keys)] = _section(Output)

    @model_validator(mode="wrap")
    @classmethod
    def _checked(cls, given: Any, check: ModelWrapValidatorHandler[Self]) -> Self:
        """Every mistake at once: of single keys, and between those keys that have none themselves."""
        values = _plain(given.kwargs or {} if isinstance(given, ArgsKwargs) else given)
        wrong: set[KeyPath] = set()
        mistakes: list[Mistake] = []
        try:
            study = check(given)
        except ValidationError as error:
            mistakes = found_by_pydantic(error, json_schema())
            wrong = {tuple(step for step in each.path if isinstance(step, str))[:2] for each in mistakes}
            try:
                study = check(_without(values, wrong))  # defaults stand for what is wrong
            except ValidationError:
                raise _told(mistakes, values) from None
        mistakes += rules.broken({dotted(path): value for path, value in _by_key(study) if path not in wrong})
        if mistakes:
            raise _told(mistakes, values)
        object.__setattr__(study, "grid", _canonical(study.grid, study.network.arch))
        return study

    def to_dict(self) -> dict[str, Any]:
        """The study as JSON can hold it; `study_from_dict` reads it back."""
        plain: dict[str, Any] = to_jsonable_python(self)
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
        StudyError: `grid.alpha[1]: expected …, found …`, one line per mistake; a `MistakesError`.
    """
    return _adapter().validate_python(values)


@cache
def json_schema() -> dict[str, Any]:
    """The JSON Schema of a study file, for editors that complete and check one."""
    found = _adapter().json_schema()
    found.pop("required", None)  # a file need not say its name
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | found


@cache
def _adapter() -> TypeAdapter[Study]:
    return TypeAdapter(Study)


def _told(mistakes: Sequence[Mistake], values: object) -> MistakesError:
    return MistakesError([Mistake(as_written(each.path, values), each.message) for each in mistakes])


def _plain(values: Any) -> Any:
    """Sections written in Python as the keys that they hold."""
    if isinstance(values, dict):
        return {key: asdict(each) if isinstance(each, _SECTIONS) else each for key, each in values.items()}
    return values


def _without(values: Any, paths: set[KeyPath]) -> dict[str, Any]:
    """`values` without the keys at `paths`, of one step or two."""
    if () in paths:
        return {}
    kept = {key: each for key, each in values.items() if (key,) not in paths}
    for section, key in (path for path in paths if len(path) == 2):
        if isinstance(kept.get(section), dict):
            kept[section] = {name: each for name, each in kept[section].items() if name != key}
        else:
            kept.pop(section, None)
    return kept


def _by_key(study: Study) -> Iterator[tuple[KeyPath, Any]]:
    """Every value with its key."""
    for each in fields(study):
        value = getattr(study, each.name)
        if isinstance(value, _SECTIONS):
            yield from (((each.name, inner.name), getattr(value, inner.name)) for inner in fields(value))
        else:
            yield (each.name,), value


def _canonical(grid: Grid, arch: str) -> Grid:
    """Layers by canonical names in network order, no value twice on an axis."""
    axes = {each.name: getattr(grid, each.name) for each in fields(Grid)}
    for key in ("content_layers", "style_layers"):
        axes[key] = rules.canonical_layers(axes[key], arch)
    return Grid(**{key: tuple(dict.fromkeys(values)) for key, values in axes.items()})
