"""From planned trials to the problems that they pose: pictures read, checked against the plan, and resized."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from typing import NamedTuple

import torch

from nst_batch.errors import ImageError
from nst_batch.inputs import images
from nst_batch.records import Picture as Input
from nst_batch.records import Trial
from nst_batch.transfer import Picture, Problem
from nst_batch.vocabulary import Fit

_KEPT = 64  # decoded pictures, at their working size


class _Wanted(NamedTuple):
    """An input at its working size."""

    uri: str
    sha256: str | None
    size: int
    fit: Fit

    @property
    def key(self) -> str:
        """Equal keys mean equal pixels."""
        return f"{self.sha256 or self.uri}/{self.size}/{self.fit}"


class Inputs:
    """The pictures of a batch, read and decoded side by side; the last ones are kept for the next batch.

    Args:
        pool: Who reads and decodes.
    """

    def __init__(self, pool: Executor) -> None:
        self._pool = pool
        self._kept: OrderedDict[str, Picture] = OrderedDict()

    def problems(self, trials: Sequence[Trial]) -> list[Problem | ImageError]:
        """What each trial poses, or what is wrong with one of its pictures."""
        wanted = dict.fromkeys(each for trial in trials for each in (*_contents(trial), *_styles(trial)))
        missing = [each for each in wanted if each.key not in self._kept]
        found: dict[_Wanted, Picture | ImageError] = {
            each: self._kept[each.key] for each in wanted if each.key in self._kept
        }
        found |= zip(missing, self._pool.map(_decoded, missing), strict=True)
        for each, picture in found.items():
            if isinstance(picture, Picture):
                self._kept[each.key] = picture
                self._kept.move_to_end(each.key)
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return [_posed(trial, found) for trial in trials]


def _contents(trial: Trial) -> list[_Wanted]:
    """The content picture, if there is one."""
    return [_wanted(trial, trial.content, 1.0)] if trial.content else []


def _styles(trial: Trial) -> list[_Wanted]:
    return [_wanted(trial, style, trial.configuration.style_scale) for style in trial.styles]


def _wanted(trial: Trial, picture: Input, scale: float) -> _Wanted:
    size = max(1, round(trial.configuration.size * scale))
    return _Wanted(picture.uri, picture.sha256, size, trial.configuration.fit)


def _decoded(wanted: _Wanted) -> Picture | ImageError:
    try:
        data = images.read_bytes(wanted.uri, expected_sha256=wanted.sha256)
        image = images.decode(data, wanted.uri, target_edge=wanted.size)
    except ImageError as error:
        return error
    pixels = images.to_array(images.resize(image, wanted.size, wanted.fit))
    return Picture(key=wanted.key, pixels=torch.from_numpy(pixels))


def _posed(trial: Trial, found: Mapping[_Wanted, Picture | ImageError]) -> Problem | ImageError:
    pictures: list[Picture] = []
    for wanted in (*_contents(trial), *_styles(trial)):
        picture = found[wanted]
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


def _recolored(style: Picture, content: Picture) -> Picture:
    """The style in the content's colours: histogram matching before the transfer."""
    pixels = images.match_histogram(style.pixels.numpy(), content.pixels.numpy())
    return Picture(key=f"{style.key}@{content.key}", pixels=torch.from_numpy(pixels))
