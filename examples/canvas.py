"""Drawing tools that the example pictures share.

Coordinates are those of the frame: x in [0, 4/3], y in [0, 1] downwards, so a length means the same in both
directions and a picture looks alike at every height. Pictures (HxWx3) and colours (3) are float32 in [0, 1].
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageFilter

Array = NDArray[np.floating[Any]]
Rng = np.random.Generator

ASPECT = 4 / 3


def grid(height: int) -> tuple[Array, Array]:
    """The frame's coordinates x and y at the pixel centres, each HxW."""
    y, x = np.mgrid[0:height, 0 : round(height * ASPECT)].astype(np.float32)
    return (x + np.float32(0.5)) / np.float32(height), (y + np.float32(0.5)) / np.float32(height)


def noise(height: int, cells: float, rng: Rng, octaves: int = 1) -> Array:
    """Smooth noise, HxW, about [-1, 1]: `cells` bumps down the frame, each octave half the last."""
    total = np.zeros((height, round(height * ASPECT)), np.float32)
    for octave in range(octaves):
        rows = max(2, round(cells * 2**octave))
        lattice = rng.uniform(-1, 1, (rows + 2, round(rows * ASPECT) + 2)).astype(np.float32)
        resized = Image.fromarray(lattice).resize((total.shape[1], height), Image.Resampling.BICUBIC)
        total += np.asarray(resized) / np.float32(2**octave)
    return total


def rgb(name: str) -> Array:
    """A colour such as `#1b2a6b`, as 3 values in [0, 1]."""
    return np.array(ImageColor.getrgb(name)[:3], np.float32) / np.float32(255)


def ramp(position: Array, names: Sequence[str]) -> Array:
    """Colours (…x3) at `position` in [0, 1] along evenly spaced colour stops."""
    stops = np.linspace(0, 1, len(names))
    table = np.stack([rgb(name) for name in names])
    return np.stack([np.interp(position, stops, table[:, channel]) for channel in range(3)], -1).astype(np.float32)


def smoothstep(low: float, high: float, value: Array) -> Array:
    """0 below `low`, 1 above `high`, smooth between."""
    t: Array = np.clip((value - low) / (high - low), 0, 1)
    return (t * t * (3 - 2 * t)).astype(np.float32)


def inside(distance: Array, height: int) -> Array:
    """Antialiased mask, HxW in [0, 1], of the region whose signed distance is negative."""
    return np.asarray(np.clip(0.5 - distance * height, 0, 1), np.float32)


def blend(picture: Array, colour: Array, mask: Array) -> Array:
    """`colour` (3 or HxWx3) laid over `picture` where `mask` (HxW) is 1."""
    return (picture + (colour - picture) * mask[..., None]).astype(np.float32)


def blur(field: Array, radius: float) -> Array:
    """Gaussian blur of an HxW field in [0, 1]; `radius` in pixels."""
    levels = Image.fromarray((np.clip(field, 0, 1) * 255).astype(np.uint8))
    return np.asarray(levels.filter(ImageFilter.GaussianBlur(radius)), np.float32) / np.float32(255)
