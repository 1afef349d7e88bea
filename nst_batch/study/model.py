"""A study: what to compute. Typed, frozen, checked, and the one place where a default is written.

pydantic checks types, bounds and unknown keys from the annotations; `rules` holds what must agree between keys.
A study is checked alike whether it is read from a file, from `study.json`, or written in Python.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from typing import Annotated, Any, Self

from pydantic import ConfigDict, Field, ModelWrapValidatorHandler, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass as checked_dataclass
from pydantic_core import ArgsKwargs, to_jsonable_python

from nst_batch import vocabulary
from nst_batch.records import Configuration, storable
from nst_batch.study import rules, values
from nst_batch.study.mistakes import KeyPath, Mistake, MistakesError, as_written, dotted, found_by_pydantic

MAX_SEED = 2**63 - 1
"""The largest that the tables' 64-bit column holds."""
_STRICT = ConfigDict(extra="forbid", revalidate_instances="always", use_attribute_docstrings=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageOptions:
    """How pictures are brought to size."""

    size: Annotated[values.Integer, Field(ge=16, le=values.MAX_SIZE)] = 300
    """Pixels of the edge, or of the longer edge under `keep`."""
    fit: vocabulary.Fit = "crop"
    """crop: centred square; stretch: square; keep: the longer edge is `size`, the aspect kept."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Network:
    """The network whose features define content and style."""

    arch: vocabulary.Arch = "vgg16"
    weights: values.WeightsName = "imagenet"
    """imagenet (the original VGG weights, vgg16 only), imagenet_v1, random:SEED, a path or a URL."""
    pooling: values.PoolingName = "max"
    """average (or avg): smoother pictures, as in the paper."""
    normalization: vocabulary.Normalization = "auto"
    """What the network is fed; auto follows the weights."""
    tile: values.Tile = "auto"
    """Rows of an image that are computed together; auto: all of them, or as many as the memory holds."""

    @property
    def rows(self) -> int | None:
        """`tile` as a worker takes it: 0 is off, None auto."""
        return self.tile if isinstance(self.tile, int) else {"auto": None, "off": 0}[self.tile]


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """The axes of the study; they multiply, the first outermost."""

    content_layers: values.LayerSets = (("block4_conv2",),)
    """Sets of layers for the content loss; [] is no content loss."""
    style_layers: values.LayerSets = (
        ("block1_conv1", "block2_conv1", "block3_conv1", "block4_conv1", "block5_conv1"),
    )
    """Sets of layers for the style loss, likewise. The defaults of both are those of Gatys et al. (2016)."""
    style_layer_weights: values.WeightSets = ((),)
    """One weight per style layer; [] weighs them equally."""
    alpha: values.Axis[values.NotNegative] = (0.5,)
    """Weight of the content loss. With `loss: sum` that grows with the image: at twice the size, a quarter of alpha
    gives the same look."""
    beta: values.Axis[values.NotNegative] = (5.0,)
    """Weight of the style loss."""
    tv_weight: values.Axis[values.NotNegative] = (0.0,)
    """Weight of the total variation, which smooths."""
    style_scale: values.Axis[Annotated[values.Number, Field(ge=0.1, le=10)]] = (1.0,)
    """Size of the style picture relative to `image.size`: the size of the strokes."""
    color: values.Axis[vocabulary.Color] = ("style",)
    """style: colours come from the style; luminance or histogram: the content's colours are kept."""
    init: values.Axis[vocabulary.Init] = ("content",)
    """The image that optimisation starts from."""
    seed: values.Axis[Annotated[values.Integer, Field(ge=0, le=MAX_SEED)]] = (0,)
    """Of the noise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Optimizer:
    """How each image is optimised."""

    name: vocabulary.OptimizerName = "lbfgs"
    steps: Annotated[values.Integer, Field(ge=1, le=100_000)] = 300
    """Evaluations of the full-size objective, at most."""
    learning_rate: Annotated[values.Number, Field(gt=0, le=1)] = 0.02
    """Adam's step in pixel values (0 to 1); unused by L-BFGS."""
    pyramid: vocabulary.Pyramid = "auto"
    """auto: images of more than 1024 pixels along an edge start from what was found at half their size."""
    plateau: Annotated[values.Number, Field(ge=0, lt=1), values.ONE_ZERO] = 0.01
    """End a trial when its loss, extrapolated, would fall by less than this fraction in all steps that are left;
    0 never ends one early."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Output:
    """How finished images are stored."""

    format: vocabulary.Encoding = "png"
    quality: Annotated[values.Integer, Field(ge=1, le=100)] = 95
    """Of jpeg and webp; png and tiff lose nothing."""


_SECTIONS = (ImageOptions, Network, Grid, Optimizer, Output)


@checked_dataclass(frozen=True, kw_only=True, slots=True, config=_STRICT)
class Study:
    """What to compute: pictures, one network, a grid of configurations.

    Raises:
        StudyError: A value is wrong, or two contradict each other; lists every mistake.
    """

    name: values.Name
    """In every table and report."""
    content: values.Names = ()
    """Files, globs, directories, URLs, or list files with a `uri` column."""
    style: values.Names = ()
    """Likewise."""
    pairs: values.Pairing = "cross"
    """cross: every content with every style; zip: first with first; blend: every content with all styles in
    equal parts; or a list file with `content` and `style` columns, and perhaps `content_mask` and `style_mask`."""
    content_masks: values.Place = ""
    """Masks of content pictures, by their names. Equal colours belong together; what no style has is kept."""
    style_masks: values.Place = ""
    """Likewise, of style pictures."""
    image: ImageOptions = field(default_factory=ImageOptions)
    network: Network = field(default_factory=Network)
    grid: Grid = field(default_factory=Grid)
    optimizer: Optimizer = field(default_factory=Optimizer)
    loss: vocabulary.Loss = "sum"
    """sum: the paper's sums; mean: per-element means."""
    precision: vocabulary.Precision = "auto"
    """Of the arithmetic; auto: tf32 on a GPU; on a CPU bfloat16 where that is faster, else float32. Equal bytes on
    different machines need float32."""
    output: Output = field(default_factory=Output)

    @model_validator(mode="wrap")
    @classmethod
    def _checked(cls, given: Any, check: ModelWrapValidatorHandler[Self]) -> Self:
        """Every mistake at once: of single keys, and between those keys that have none themselves."""
        given = _plain(given.kwargs or {} if isinstance(given, ArgsKwargs) else given)
        wrong: set[KeyPath] = set()
        mistakes: list[Mistake] = []
        study: Self | None = None
        try:
            study = check(given)
        except ValidationError as error:
            mistakes = found_by_pydantic(error, json_schema())
            wrong = {tuple(step for step in each.path if isinstance(step, str))[:2] for each in mistakes}
            with suppress(ValidationError):  # no keys at all, or no name
                study = check(_without(given, wrong))
        if study:
            mistakes += rules.broken({dotted(path): each for path, each in _by_key(study) if path not in wrong})
        if mistakes or not study:
            raise MistakesError([Mistake(as_written(each.path, given), each.message) for each in mistakes])
        object.__setattr__(study, "grid", _canonical(study.grid, study.network.arch))
        return study

    def to_dict(self) -> dict[str, Any]:
        """The study as JSON can hold it; `study_from_dict` reads it back."""
        return dict(to_jsonable_python(self))

    def shown(self) -> dict[str, Any]:
        """As `to_dict`, without the secrets of URLs: what a run directory and a message may hold."""
        return dict(storable(self.to_dict()))

    @property
    def inputs(self) -> tuple[Sequence[str], Sequence[str], str, str, str]:
        """What `inputs.finding.list_inputs` is given."""
        return self.content, self.style, self.pairs, self.content_masks, self.style_masks

    @property
    def num_configurations(self) -> int:
        """How many `configurations` yields."""
        return math.prod(len(getattr(self.grid, each.name)) for each in fields(Grid))

    def configurations(
        self, *, weights_sha256: str, normalization: vocabulary.Normalization
    ) -> Iterator[Configuration]:
        """The grid multiplied: no two are equal, `content_layers` varies slowest and `seed` fastest.

        Args:
            weights_sha256: Of the resolved weights.
            normalization: As resolved with the weights, never `auto`.
        """
        fixed = asdict(self.image) | asdict(self.network) | asdict(self.optimizer)
        del fixed["tile"]  # how it is computed, not what
        fixed |= {"optimizer": fixed.pop("name"), "loss": self.loss, "precision": self.precision}
        fixed |= {"weights_sha256": weights_sha256, "normalization": normalization}
        names = [each.name for each in fields(Grid)]
        for point in itertools.product(*(getattr(self.grid, name) for name in names)):
            yield Configuration(**fixed, **dict(zip(names, point, strict=True)))


def study_from_dict(given: object) -> Study:
    """A study from what `Study.to_dict` made, or from a plain dictionary laid out like a study file.

    Raises:
        StudyError: `grid.alpha[1]: expected …, found …`, one line per mistake; a `MistakesError`.
    """
    return _adapter().validate_python(given)


@cache
def json_schema() -> dict[str, Any]:
    """The JSON Schema of a study file, for editors that complete and check one."""
    found = _adapter().json_schema()
    found.pop("required", None)  # a file need not say its name
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | found


@cache
def _adapter() -> TypeAdapter[Study]:
    return TypeAdapter(Study)


def _plain(given: Any) -> Any:
    """Sections written in Python as the keys that they hold; a section that holds nothing is left out."""
    if not isinstance(given, dict):
        return given
    sections = {each.name for each in fields(Study) if each.default_factory in _SECTIONS}
    return {
        key: asdict(each) if isinstance(each, _SECTIONS) else each
        for key, each in given.items()
        if each is not None or key not in sections
    }


def _without(given: Any, wrong: set[KeyPath]) -> Any:
    """`given` with defaults for those of the keys `wrong`, of one step or two."""
    if () in wrong:
        return given
    kept = {key: dict(each) if isinstance(each, dict) else each for key, each in given.items()}
    for *section, key in wrong:
        (kept[section[0]] if section else kept).pop(key, None)
    return kept


def _by_key(study: Study) -> Iterator[tuple[KeyPath, Any]]:
    """Every value with its key."""
    for key, value in asdict(study).items():
        if isinstance(value, dict):
            yield from (((key, inner), each) for inner, each in value.items())
        else:
            yield (key,), value


def _canonical(grid: Grid, arch: str) -> Grid:
    """Layers by canonical names in network order, no value twice on an axis."""
    axes = {each.name: getattr(grid, each.name) for each in fields(Grid)}
    for key in ("content_layers", "style_layers"):
        axes[key] = rules.canonical_layers(axes[key], arch)
    return Grid(**{key: tuple(dict.fromkeys(axis)) for key, axis in axes.items()})
