"""The pictures of a batch, read, checked against the plan, decoded and resized; the problem that each trial is."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from functools import lru_cache
from typing import NamedTuple

import torch

from nst_batch.errors import ImageError
from nst_batch.inputs import decoding, fetching, images
from nst_batch.records import Trial
from nst_batch.transfer import Problem, TargetImage
from nst_batch.vocabulary import Fit, scaled_size

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
        self._read = lru_cache(_KEPT)(_read)

    def problems(self, trials: Sequence[Trial]) -> list[Problem | ImageError]:
        """The problem that each trial is, or what is wrong with one of its pictures."""
        wanted = dict.fromkeys(source for trial in trials for source in _sources(trial))
        found = dict(zip(wanted, self._pool.map(self._tried, wanted), strict=True))
        return [_problem(trial, [found[source] for source in _sources(trial)]) for trial in trials]

    def _tried(self, source: Source) -> TargetImage | ImageError:
        try:
            return self._read(source)
        except ImageError as error:  # is not kept: the picture is read again when it is next wanted
            return error


def _sources(trial: Trial) -> list[Source]:
    """The content picture, if there is one, then the styles."""
    chosen = trial.configuration
    wanted = [(trial.content, chosen.size)] if trial.content else []
    wanted += [(style, scaled_size(chosen.size, chosen.style_scale)) for style in trial.styles]
    return [Source(picture.uri, picture.sha256, size, chosen.fit) for picture, size in wanted]


def _read(source: Source) -> TargetImage:
    data = fetching.read_bytes(source.uri, expected_sha256=source.sha256)
    image = decoding.decode(data, source.uri, target_edge=source.size)
    pixels = images.to_array(images.resize(image, source.size, source.fit))
    return TargetImage(key=source.key, pixels=torch.from_numpy(pixels))


def _problem(trial: Trial, found: Sequence[TargetImage | ImageError]) -> Problem | ImageError:
    pictures: list[TargetImage] = []
    for picture in found:
        if isinstance(picture, ImageError):
            return picture
        pictures.append(picture)
    chosen = trial.configuration
    content = pictures.pop(0) if trial.content else None
    if chosen.color == "histogram" and content:
        pictures = [_recolored(style, content) for style in pictures]
    return Problem.under(chosen, trial.height, trial.width, content, pictures)


def _recolored(style: TargetImage, content: TargetImage) -> TargetImage:
    """The style in the content's colours: histogram matching before the transfer."""
    pixels = images.match_histogram(style.pixels.numpy(), content.pixels.numpy())
    return TargetImage(key=f"{style.key}@{content.key}", pixels=torch.from_numpy(pixels))
