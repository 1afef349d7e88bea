"""The pictures of a batch, read, checked against the plan, decoded and resized; the problem that each trial is."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from typing import NamedTuple

import torch

from nst_batch.errors import ImageError
from nst_batch.inputs import images
from nst_batch.records import Trial
from nst_batch.transfer import Problem, TargetImage
from nst_batch.vocabulary import Fit

_KEPT = 64  # decoded pictures, at their working size


class Source(NamedTuple):
    """A picture to be read, and the size it is wanted at."""

    uri: str
    sha256: str | None
    size: int
    fit: Fit

    @property
    def key(self) -> str:
        """Equal keys mean equal pixels."""
        return f"{self.sha256 or self.uri}/{self.size}/{self.fit}"


class PictureReader:
    """Reads the pictures of batches side by side; the last ones are kept for the next batch.

    Args:
        pool: Who reads and decodes.
    """

    def __init__(self, pool: Executor) -> None:
        self._pool = pool
        self._kept: OrderedDict[str, TargetImage] = OrderedDict()

    def problems(self, trials: Sequence[Trial]) -> list[Problem | ImageError]:
        """The problem that each trial is, or what is wrong with one of its pictures."""
        wanted = dict.fromkeys(source for trial in trials for source in _sources(trial))
        missing = [source for source in wanted if source.key not in self._kept]
        found: dict[Source, TargetImage | ImageError] = {
            source: self._kept[source.key] for source in wanted if source.key in self._kept
        }
        found |= zip(missing, self._pool.map(_read, missing), strict=True)
        for source, picture in found.items():
            if isinstance(picture, TargetImage):
                self._kept[source.key] = picture
                self._kept.move_to_end(source.key)
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return [_problem(trial, found) for trial in trials]


def _sources(trial: Trial) -> list[Source]:
    """The content picture, if there is one, then the styles."""
    chosen = trial.configuration
    style_size = max(1, round(chosen.size * chosen.style_scale))
    contents = [(trial.content, chosen.size)] if trial.content else []
    wanted = [*contents, *((style, style_size) for style in trial.styles)]
    return [Source(picture.uri, picture.sha256, size, chosen.fit) for picture, size in wanted]


def _read(source: Source) -> TargetImage | ImageError:
    try:
        data = images.read_bytes(source.uri, expected_sha256=source.sha256)
        image = images.decode(data, source.uri, target_edge=source.size)
    except ImageError as error:
        return error
    pixels = images.to_array(images.resize(image, source.size, source.fit))
    return TargetImage(key=source.key, pixels=torch.from_numpy(pixels))


def _problem(trial: Trial, found: Mapping[Source, TargetImage | ImageError]) -> Problem | ImageError:
    pictures: list[TargetImage] = []
    for source in _sources(trial):
        picture = found[source]
        if isinstance(picture, ImageError):
            return picture
        pictures.append(picture)
    chosen = trial.configuration
    content = pictures.pop(0) if trial.content else None
    if chosen.color == "histogram" and content:
        pictures = [_recolored(style, content) for style in pictures]
    return Problem(
        height=trial.height,
        width=trial.width,
        content=content,
        styles=tuple(pictures),
        content_layers=chosen.content_layers,
        style_layers=chosen.style_layers,
        style_layer_weights=chosen.style_layer_weights,
        alpha=chosen.alpha,
        beta=chosen.beta,
        tv_weight=chosen.tv_weight,
        init=chosen.init,
        seed=chosen.seed,
    )


def _recolored(style: TargetImage, content: TargetImage) -> TargetImage:
    """The style in the content's colours: histogram matching before the transfer."""
    pixels = images.match_histogram(style.pixels.numpy(), content.pixels.numpy())
    return TargetImage(key=f"{style.key}@{content.key}", pixels=torch.from_numpy(pixels))
