"""Small pictures and files that several tests use."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image, ImageCms


def gradient(width: int = 24, height: int = 16) -> Image.Image:
    """RGB: red grows to the right, green downwards, blue is constant; no two rotations of it are equal."""
    red, green = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([red, green, np.full_like(red, 90)], axis=-1).round().astype(np.uint8))


def file_of(image: Image.Image, format_name: str, **options: Any) -> bytes:
    """`image` as a file in one of Pillow's formats."""
    file = io.BytesIO()
    image.save(file, format_name, **options)
    return file.getvalue()


def levels(image: Image.Image) -> np.ndarray[Any, np.dtype[np.int64]]:
    """HxWx3 (or HxW) levels as signed integers, to be subtracted."""
    return np.asarray(image).astype(np.int64)


def wide_gamut_profile() -> bytes:
    """sRGB with its red and green colorants swapped: nothing could be more wrongly ignored."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, green = profile.index(b"rXYZ"), profile.index(b"gXYZ")
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(profile)
