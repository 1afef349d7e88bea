"""Masks: pictures whose colours say which part of another picture belongs to which region.

Equal colours of the masks of a trial belong together, and black is also what a picture without a mask is made of. A
grey mask with more than eight levels is soft: its levels are the weights of white, and black has the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from nst_batch.errors import ImageError
from nst_batch.inputs.decoding import decode
from nst_batch.inputs.images import resize
from nst_batch.vocabulary import MAX_REGIONS, Fit

Color = tuple[int, int, int]
"""Red, green, blue: 0 to 255 each."""
BLACK, WHITE = (0, 0, 0), (255, 255, 255)


@dataclass(frozen=True, eq=False, slots=True)
class Mask:
    """A mask at the working size of its picture."""

    uri: str
    pixels: npt.NDArray[np.uint8]
    """HxWx3; of a soft mask, HxW."""
    colors: tuple[Color, ...]
    """Of the whole file, before it was fitted to the picture."""

    @property
    def is_soft(self) -> bool:
        """Whether its pixels are weights."""
        return self.pixels.ndim == 2

    def plane(self, labels: dict[Color, int]) -> npt.NDArray[Any]:
        """HxW: labels in uint8, or the weights of white in float32."""
        if self.is_soft:
            return self.pixels.astype(np.float32) / 255
        found = np.zeros(self.pixels.shape[:2], dtype=np.uint8)
        for color in self.colors:
            found[(self.pixels == color).all(axis=2)] = labels[color]
        return found


def read_mask(data: bytes, uri: str, shape: tuple[int, int], size: int, fit: Fit) -> Mask:
    """The mask in `data`, fitted as its picture is: labels by nearest neighbour, weights antialiased.

    Args:
        shape: The picture's full (width, height); the mask is stretched to it.
        size, fit: As `images.resize` has them.

    Raises:
        ImageError: As `decode` says; `bad_mask` where it has more colours than there can be regions.
    """
    image = decode(data, uri)
    counted: Any = image.getcolors(MAX_REGIONS)  # None where there are more
    if counted is None and not _is_grey(image):
        message = (
            f"expected at most {MAX_REGIONS} colours, one for each region, or grey levels as weights, found more "
            f"colours; save the mask as PNG, drawn without smooth edges"
        )
        raise ImageError("bad_mask", uri, message)
    if counted is None:
        fitted = resize(image.convert("L"), size, fit, like=shape)
        return Mask(uri, np.asarray(fitted), (BLACK, WHITE))
    fitted = resize(image, size, fit, like=shape, resampling=Image.Resampling.NEAREST)
    return Mask(uri, np.asarray(fitted), tuple(sorted(color for _, color in counted)))


def common_labels(masks: Sequence[Mask | None]) -> dict[Color, int]:
    """The labels of a trial's regions by colour: black is 0, white 1 where it is used, the others follow.

    Raises:
        ImageError: `bad_mask` where the masks have too many colours together.
    """
    used = {color for mask in masks if mask for color in mask.colors} | {BLACK}
    ordered = sorted(used, key=lambda color: (color != BLACK, color != WHITE, color))
    if len(ordered) > MAX_REGIONS:
        uri = next(mask.uri for mask in masks if mask)
        message = (
            f"expected at most {MAX_REGIONS} colours in the masks of a trial, black included, found {len(ordered)}"
        )
        raise ImageError("bad_mask", uri, message)
    return {color: label for label, color in enumerate(ordered)}


def hexadecimal(color: Color) -> str:
    """`#rrggbb`."""
    return "#{:02x}{:02x}{:02x}".format(*color)


def _is_grey(image: Image.Image) -> bool:
    red, green, blue = (np.asarray(channel) for channel in image.split())
    return bool((red == green).all() and (green == blue).all())
