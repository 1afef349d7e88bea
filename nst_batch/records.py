"""What a trial is, and what is recorded of it: plain frozen records, passed between every other module.

The columns of the tables are the fields of these records (`store` derives its Arrow schemas from them), so a
column is added here and nowhere else.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any

from nst_batch.errors import without_secrets
from nst_batch.scores import LayerDistance, RegionScores
from nst_batch.vocabulary import (
    LBFGS_HISTORY,
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
    Status,
)

ALGORITHM = 7
"""Version of what a trial computes. Part of every trial_id: raise it when results change on purpose."""


GPU_BATCH = 16
"""Trials per batch on GPUs, at most; a worker whose memory holds fewer works through it in parts."""
CPU_BATCH = 1
"""On a CPU: convolutions of a single image fill the cores."""
PROCESS_BYTES = 1_300_000_000
"""Of a worker before it computes anything: Python, torch, Ray and a VGG, its kernels transformed too."""
MAX_CPUS_PER_WORKER = 4
"""Cores that a worker takes where there are no GPUs: with more, convolutions of one image gain little."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Configuration:
    """Everything that determines a trial's result apart from its pictures: one point of the study's grid."""

    size: int
    """Pixels; what it measures depends on `fit`."""
    fit: Fit
    """crop: centred square; stretch: square; keep: the longer edge is `size`, the aspect kept."""
    arch: Arch
    weights: str
    """As the study names them: imagenet, imagenet_v1, random:SEED, a path or a URL."""
    weights_sha256: str
    """Of the file; for random weights, of the recipe that makes them."""
    pooling: Pooling
    normalization: Normalization
    """What the network is fed; never `auto` once weights are resolved."""
    loss: Loss
    """sum: the paper's sums; mean: per-element means."""
    content_layers: tuple[str, ...]
    style_layers: tuple[str, ...]
    style_layer_weights: tuple[float, ...]
    """One weight per style layer; empty means equal weights."""
    alpha: float
    beta: float
    tv_weight: float
    style_scale: float
    """The style picture's size relative to `size`."""
    color: Color
    """style: colours come from the style; luminance or histogram: the content's colours are kept."""
    init: Init
    seed: int
    optimizer: OptimizerName
    steps: int
    """Evaluations of the full-size objective, at most."""
    learning_rate: float
    """Adam's step in pixel values (0 to 1); unused by L-BFGS."""
    pyramid: Pyramid
    """auto: images of more than 1024 pixels along an edge start from what was found at half their size."""
    plateau: float
    """End when the loss, extrapolated, would fall by less than this fraction in all steps left; 0: never early."""
    precision: Precision
    """auto: the fastest that keeps the final loss, see `Outcome.precision_used`."""

    @property
    def layers(self) -> tuple[str, ...]:
        """That the losses look at."""
        return tuple(dict.fromkeys((*self.content_layers, *self.style_layers)))

    @property
    def num_pairs(self) -> int:
        """That L-BFGS keeps at most."""
        return min(LBFGS_HISTORY, self.steps) if self.optimizer == "lbfgs" else 0

    def identity(self) -> str:
        """12 hexadecimal digits that are equal for equal results; the label of the weights does not count."""
        counted = {key: value for key, value in asdict(self).items() if key != "weights"}
        return hashlib.sha256(canonical_json(counted).encode()).hexdigest()[:12]


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """An input picture: where it is and what was in it when the plan was made."""

    uri: str
    sha256: str | None
    """Of the file's bytes; None when it could not be read."""
    mask: Picture | None = None
    """The picture of its regions."""

    @property
    def identity(self) -> str:
        """Equal for equal content: the hash of the file, with a mask of both files; of an unread one its name."""
        own = self.sha256 or f"unread:{without_secrets(self.uri)}"
        return hashlib.sha256(f"{own} {self.mask.identity}".encode()).hexdigest() if self.mask else own

    @property
    def was_read(self) -> bool:
        """Whether it and its mask could be read when the plan was made."""
        return self.sha256 is not None and (self.mask is None or self.mask.was_read)


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One pair under one configuration: the unit of record."""

    trial_id: str
    trial_index: int
    """Position in the plan, from 0 without gaps; extensions continue it."""
    batch: int
    """Trials with equal `batch` are optimised together."""
    content: Picture | None
    """None where no configuration uses one (a style reconstruction)."""
    styles: tuple[Picture, ...]
    """One style, or several that are blended in equal parts; none for a content reconstruction."""
    width: int
    height: int
    """Pixels of the result; 0 when an input is bad."""
    configuration: Configuration
    error_type: str | None = None
    error_message: str | None = None
    """Why this trial cannot run; found while planning."""

    @property
    def files(self) -> tuple[Picture, ...]:
        """Its pictures, then their masks."""
        pictures = [each for each in (self.content, *self.styles) if each]
        return (*pictures, *(each.mask for each in pictures if each.mask))


@dataclass(frozen=True, kw_only=True, slots=True)
class Losses:
    """The terms of the objective at one step: content and style unweighted, total as optimised."""

    content: float
    style: float
    tv: float
    total: float


TERMS = tuple(field.name for field in fields(Losses))
"""The terms of the objective, the total last."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """A loss history, one entry per recorded step; step 0 is the initial image."""

    step: tuple[int, ...]
    content: tuple[float, ...]
    style: tuple[float, ...]
    tv: tuple[float, ...]
    total: tuple[float, ...]

    def at(self, index: int) -> Losses:
        """The losses of the entry at `index`."""
        return Losses(**{term: getattr(self, term)[index] for term in TERMS})


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a trial ended. Losses are None unless the trial ran."""

    status: Status
    error_type: str | None = None
    error_message: str | None = None
    attempt: int = 1
    steps_done: int | None = None
    stop_reason: str | None = None
    """steps, plateau, converged, stalled or diverged."""
    precision_used: str | None = None
    """What `precision` came to on the worker's device: float32, tf32 or bfloat16. Final losses are float32 ones."""
    initial: Losses | None = None
    final: Losses | None = None
    best_step: int | None = None
    """The step whose image was kept; `final` are its losses."""
    content_distance: float | None = None
    style_distance: float | None = None
    """Means of the layer distances over the network's convolutions."""
    content_kept: float | None = None
    style_taken: float | None = None
    transfer_score: float | None = None
    score_reason: str | None = None
    """See `Scores`."""
    image_path: str | None = None
    """Relative to the run directory."""
    image_sha256: str | None = None
    seconds: float | None = None
    """This trial's share of its batch's time."""
    tile: int | None = None
    """Rows of the strips that the image was worked through in; 0: it was held whole."""
    num_pairs: int | None = None
    """That L-BFGS could keep."""
    pair_precision: str | None = None
    """In which it kept them: float32 or bfloat16."""
    peak_memory_bytes: int | None = None
    device: str | None = None
    node: str | None = None
    code_version: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What a worker returns for a trial: the small row, and the encoded picture for the one committer."""

    trial: Trial
    outcome: Outcome
    curve: Curve | None = None
    layers: tuple[LayerDistance, ...] = ()
    regions: tuple[RegionScores, ...] = ()
    image: bytes | None = None


def trial_id(content: Picture | None, styles: tuple[Picture, ...], configuration_identity: str) -> str:
    """32 hexadecimal digits from image contents, configuration, weights and algorithm.

    Names and positions do not count, with one exception: a picture that could not be read has only its name.
    """
    pictures = [picture and picture.identity for picture in (content, *styles)]
    text = canonical_json([ALGORITHM, configuration_identity, *pictures])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def canonical_json(value: Any) -> str:
    """One spelling for equal values: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def storable(value: Any) -> Any:
    """`value` as tables and JSON can hold it: None for NaN and infinity, no secret of a URL, only valid UTF-8."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return valid_unicode(without_secrets(value))
    if isinstance(value, list | tuple):
        return [storable(item) for item in value]
    if isinstance(value, dict):
        return {key: storable(item) for key, item in value.items()}
    return value


def valid_unicode(text: str) -> str:
    r"""`text` with what UTF-8 cannot hold spelled out, such as `\udcff` for a stray byte in a file's name."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
