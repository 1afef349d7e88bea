"""The pictures of a batch, read, checked against the plan, decoded and resized; the problem that each trial is."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import torch

from nst_batch.errors import ImageError
from nst_batch.inputs import fetching, images
from nst_batch.inputs.masks import Color, Mask, common_labels, hexadecimal, read_mask
from nst_batch.records import Picture, Trial
from nst_batch.transfer import Problem, Regions, TargetImage, regions_mistake
from nst_batch.vocabulary import Fit, scaled_size

_KEPT = 64  # decoded pictures, at their working size
_KEPT_BYTES = 256 << 20


class Fitted(NamedTuple):
    """A picture and its mask at their working size."""

    image: TargetImage
    mask: Mask | None
    mask_key: str = ""
    """Equal keys mean equal masks."""


class Posed(NamedTuple):
    """A trial that can be computed."""

    trial: Trial
    problem: Problem
    colors: tuple[str, ...]
    """Of its regions, by label."""


class PictureReader:
    """Reads the pictures of batches side by side; the last ones are kept for the next batch, if they are small."""

    def __init__(self, pool: Executor) -> None:
        self._pool = pool
        self._read = lru_cache(_KEPT)(_read)

    def problems(self, trials: Sequence[Trial]) -> list[Posed | ImageError]:
        """The problem that each trial is, or what is wrong with one of its pictures."""
        wanted = dict.fromkeys(picture for trial in trials for picture in _wanted(trial))
        found = dict(zip(wanted, self._pool.map(self._tried, wanted), strict=True))
        largest = max((each.image.pixels.nbytes for each in found.values() if isinstance(each, Fitted)), default=0)
        if self._read.cache_info().currsize * largest > _KEPT_BYTES:
            self._read.cache_clear()
        return [_problem(trial, [found[picture] for picture in _wanted(trial)]) for trial in trials]

    def _tried(self, wanted: _Wanted) -> Fitted | ImageError:
        try:
            return self._read(*wanted)
        except ImageError as error:  # is not kept: the picture is read again when it is next wanted
            return error


_Wanted = tuple[Picture, int, Fit]
"""A picture, and the size and fit that it is wanted at."""


def _wanted(trial: Trial) -> list[_Wanted]:
    """The content picture, if there is one, then the styles."""
    chosen = trial.configuration
    style_size = scaled_size(chosen.size, chosen.style_scale)
    styles: list[_Wanted] = [(style, style_size, chosen.fit) for style in trial.styles]
    return [(trial.content, chosen.size, chosen.fit), *styles] if trial.content else styles


def _read(picture: Picture, size: int, fit: Fit) -> Fitted:
    data = fetching.read_bytes(picture.uri, expected_sha256=picture.sha256)
    image, shape = images.decode_resized(data, picture.uri, size, fit)
    pixels = torch.from_numpy(images.to_array(image))
    target = TargetImage(key=f"{picture.sha256 or picture.uri}/{size}/{fit}", pixels=pixels)
    if (mask := picture.mask) is None:
        return Fitted(target, None)
    data = fetching.read_bytes(mask.uri, expected_sha256=mask.sha256)
    return Fitted(target, read_mask(data, mask.uri, shape, size, fit), f"{mask.sha256}/{target.key}")


def _problem(trial: Trial, found: Sequence[Fitted | ImageError]) -> Posed | ImageError:
    fitted: list[Fitted] = []
    for each in found:
        if isinstance(each, ImageError):
            return each
        fitted.append(each)
    try:
        pictures, colors = _with_regions(trial, fitted)
    except ImageError as error:
        return error
    chosen = trial.configuration
    content = pictures.pop(0) if trial.content else None
    if chosen.color == "histogram" and content:
        pictures = [_recolored(style, content) for style in pictures]
    return Posed(trial, Problem.under(chosen, trial.height, trial.width, content, pictures), colors)


def _with_regions(trial: Trial, fitted: Sequence[Fitted]) -> tuple[list[TargetImage], tuple[str, ...]]:
    """The pictures with the regions that their masks make, and their colours; or the ImageError `bad_mask`."""
    masked = [each.mask for each in fitted if each.mask]
    if not masked:
        return [each.image for each in fitted], ()
    labels = common_labels(masked)
    pictures = [_regioned(each, labels) for each in fitted]
    content, *styles = (
        [each.regions for each in pictures] if trial.content else [None, *(p.regions for p in pictures)]
    )
    colors, chosen = tuple(map(hexadecimal, labels)), trial.configuration
    if reason := regions_mistake(content, styles, chosen.style_layers, chosen.arch, colors):
        raise ImageError("bad_mask", " + ".join(dict.fromkeys(mask.uri for mask in masked)), reason)
    return pictures, colors


def _regioned(fitted: Fitted, labels: dict[Color, int]) -> TargetImage:
    mask = fitted.mask
    if mask is None:
        return fitted.image
    plane = torch.from_numpy(mask.plane(labels))
    own = tuple(sorted(labels[color] for color in mask.colors))
    key = f"{fitted.mask_key}/{'soft' if mask.is_soft else own}"
    return replace(fitted.image, regions=Regions(key=key, plane=plane, labels=own))


def _recolored(style: TargetImage, content: TargetImage) -> TargetImage:
    """The style in the content's colours: histogram matching before the transfer."""
    pixels = images.match_histogram(style.pixels.numpy(), content.pixels.numpy())
    return replace(style, key=f"{style.key}@{content.key}", pixels=torch.from_numpy(pixels))
