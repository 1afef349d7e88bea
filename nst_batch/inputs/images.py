"""Pictures brought to size, encoded, recoloured, and turned into arrays and back. No torch.

Arrays are 3xHxW float32, RGB, in [0, 1], gamma-encoded sRGB as in the files.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.TiffImagePlugin import PREDICTOR

from nst_batch.inputs.decoding import decode_sized
from nst_batch.vocabulary import Encoding, Fit

Pixels = npt.NDArray[np.float32]
"""3xHxW, RGB, in [0, 1]."""

_PNG_LEVEL = 4
"""Measured on a 512×512 photo: the size of level 6 in little more than half its time."""

_LUMINANCE = np.array([0.299, 0.587, 0.114])
"""Of R, G and B: the Y of YIQ."""

_COLOR_FLOOR = 1e-5
"""Variance that is added to both pictures' colours, (0.8 of 255 levels)²: what is less is noise, not colour."""


# Sizes


def fitted_size(width: int, height: int, size: int, fit: Fit) -> tuple[int, int]:
    """The (width, height) that `resize` gives to a picture of `width` × `height` pixels."""
    if fit != "keep":
        return size, size
    longer = max(width, height)
    # Rounded half up, in integers: the same on every machine.
    rows, columns = ((2 * edge * size + longer) // (2 * longer) for edge in (height, width))
    return max(columns, 1), max(rows, 1)


def resize(
    image: Image.Image,
    size: int,
    fit: Fit,
    *,
    like: tuple[int, int] | None = None,
    resampling: Image.Resampling = Image.Resampling.LANCZOS,
) -> Image.Image:
    """`image` at `size` pixels, antialiased (Lanczos), enlarged where it is smaller.

    Args:
        fit: crop: the centred square, then to size×size; stretch: to size×size; keep: the longer edge becomes
            `size` and the shorter keeps its proportion, 1 pixel at least.
        like: (width, height) that the image counts as being stretched to first; None: its own.
        resampling: Instead of Lanczos.
    """
    width, height = like or image.size
    x, y = image.width / width, image.height / height
    left = top = 0
    if fit == "crop":
        side = min(width, height)
        left, top, width, height = (width - side) // 2, (height - side) // 2, side, side
    return image.resize(
        fitted_size(width, height, size, fit),
        resampling,
        box=(left * x, top * y, (left + width) * x, (top + height) * y),
        reducing_gap=None if resampling == Image.Resampling.NEAREST else 3.0,
    )


# Arrays and files


def decode_resized(data: bytes, uri: str, size: int, fit: Fit) -> tuple[Image.Image, tuple[int, int]]:
    """The picture in a file as `resize` makes it of the whole one, and the (width, height) of the whole one.

    Raises:
        ImageError: See `decoding.decode`.
    """
    image, shape = decode_sized(data, uri, target_edge=size)
    return resize(image, size, fit, like=shape), shape


def to_array(image: Image.Image) -> Pixels:
    """3xHxW float32 in [0, 1], C-contiguous."""
    levels = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    pixels: Pixels = np.divide(levels, np.float32(255), order="C", dtype=np.float32)
    return pixels


def from_array(pixels: npt.NDArray[np.floating[Any]]) -> Image.Image:
    """An RGB picture from a 3xHxW array: values are clamped to [0, 1] and rounded to 255ths; NaN is black."""
    finite = np.nan_to_num(pixels.astype(np.float32), nan=0.0, posinf=1.0, neginf=0.0)
    levels = np.rint(finite.clip(0, 1) * 255).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(levels.transpose(1, 2, 0)))


def encode(image: Image.Image, format: Encoding = "png", quality: int = 95) -> bytes:
    """The file of a picture: equal pixels give equal bytes, and no metadata is written.

    Args:
        quality: 1 to 100, of JPEG and WebP; JPEG keeps the colours' full resolution.
    """
    plain = image.convert("RGB")
    plain.info = {}
    options: dict[Encoding, dict[str, Any]] = {
        "png": {"compress_level": _PNG_LEVEL},
        "jpeg": {"quality": quality, "subsampling": 0},
        "webp": {"quality": quality},
        "tiff": {"compression": "tiff_adobe_deflate", "tiffinfo": {PREDICTOR: 2}},
    }
    file = io.BytesIO()
    plain.save(file, format, **options[format])
    return file.getvalue()


# Colour preservation: Gatys, Bethge, Hertzmann, Shechtman, "Preserving color in neural artistic style transfer"
# (2016), arXiv:1606.05897


def transfer_luminance(result: Pixels, content: Pixels) -> Pixels:
    """The luminance of `result` with the colours of `content` (section 4.2 there: YIQ).

    In YIQ every colour channel is luminance plus chroma, so changing luminance adds the same to all three.

    Args:
        result: 3xHxW in [0, 1].
        content: 3xHxW in [0, 1], of the same size.
    """
    change = np.tensordot(_LUMINANCE, result.astype(np.float64) - content, axes=1)
    return (content + change).clip(0, 1).astype(np.float32)


def match_histogram(style: Pixels, content: Pixels) -> Pixels:
    """`style` with its colours moved linearly to the mean and covariance of `content`'s (section 4.1 there).

    Of the paper's two solutions this is the second, A = Σ_c^½ Σ_s^-½, which its authors prefer. Departure: both
    covariances get `_COLOR_FLOOR` on the diagonal, so that a constant picture has an inverse, and the noise of an
    almost grey one is not blown up into colour.

    Args:
        style: 3xHxW in [0, 1].
        content: 3xH'xW' in [0, 1].
    """
    style_colors, content_colors = (picture.reshape(3, -1).astype(np.float64) for picture in (style, content))
    style_mean, content_mean = style_colors.mean(axis=1, keepdims=True), content_colors.mean(axis=1, keepdims=True)
    transform = _covariance_power(content_colors, 0.5) @ _covariance_power(style_colors, -0.5)
    matched = transform @ (style_colors - style_mean) + content_mean
    clamped: Pixels = matched.clip(0, 1).astype(np.float32)
    return clamped.reshape(style.shape)


def _covariance_power(colors: npt.NDArray[np.float64], power: float) -> npt.NDArray[np.float64]:
    """(Σ + floor)^power of 3xN colours: symmetric, 3x3."""
    covariance = np.cov(colors, bias=True) + _COLOR_FLOOR * np.eye(3)
    values, vectors = np.linalg.eigh(covariance)
    power_of_values = np.diag(values.clip(_COLOR_FLOOR) ** power)
    return np.asarray(vectors @ power_of_values @ vectors.T)
