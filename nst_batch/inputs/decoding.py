"""Any picture file → an upright 8-bit sRGB picture, or one `ImageError` that says why not.

As many pictures are decoded at once as the memory that there is holds (`limits.DECODING`).

Pillow is called below `Image.open`, by format, for three reasons: only formats that hold photographs are tried
(its EPS reader would start Ghostscript); the pixel cap is ours, checked on the header before anything is
allocated; and what Pillow raises can be told apart: a file of another kind, a cut file, a damaged one.
"""

from __future__ import annotations

import io
import math
import re
import struct
import warnings
import zlib
from contextlib import suppress

import numpy as np
from PIL import Image, ImageCms, ImageFile

from nst_batch.errors import ImageError
from nst_batch.inputs import limits

MAX_PIXELS = 200_000_000
"""Larger pictures are refused: 200 megapixels are 800 MB in memory. Pillow's TIFF and WebP readers stop at 179."""

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "AVIF", "JPEG2000", "BMP", "PPM")
"""What is read, by Pillow's names; animations give their first frame."""

PILLOW_ERRORS = (
    *(OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, AssertionError),
    *(EOFError, MemoryError, RuntimeError, struct.error, zlib.error),
)
"""What Pillow's readers raise on damaged or hostile files, found by fuzzing and in their source."""

_LOOKALIKES = (
    ((b"<!doctype html", b"<html"), "it looks like an HTML page, perhaps a server's error page"),
    ((b"<?xml", b"<svg"), "it looks like XML or SVG; export it as PNG"),
    ((b"%pdf", b"%!ps"), "it looks like PDF or PostScript; export it as PNG"),
    ((b"version https://git-lfs",), "it is a Git LFS pointer; fetch the file itself with `git lfs pull`"),
    ((b"8bps",), "it looks like a Photoshop document; export it as PNG"),
    ((b"{", b"["), "it looks like JSON"),
)

_TO_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_FIRST_SIDEWAYS = 5
_BLOCK_BYTES = 256 << 20
"""Of a large picture's memory: Pillow's own 16 MiB stay with the C library's arena of each thread when freed, and
four pictures that were decoded one after the other held the memory of three (measured)."""
_EXIF_ORIENTATION = 0x0112
_TIFF_BITS_PER_SAMPLE, _TIFF_PHOTOMETRIC = 258, 262
_MAX_16_BIT = 65_535
_CUT = re.compile(r"truncated|unexpected end|premature|end of file", re.IGNORECASE)


def decode(data: bytes, uri: str) -> Image.Image:
    """The picture in `data`, fully decoded: RGB, 8 bits, sRGB, upright, without metadata.

    Transparency is laid on white. 16-bit greys keep their range; floats outside [0, 1] are stretched from their
    minimum to their maximum. A profile that cannot be used is ignored.

    Args:
        uri: The picture's name, for messages.

    Raises:
        ImageError: `empty`, `not_an_image`, `truncated`, `corrupt`, `too_large` or `unreadable`.
    """
    return decode_sized(data, uri)[0]


def decode_sized(data: bytes, uri: str, *, target_edge: int | None = None) -> tuple[Image.Image, tuple[int, int]]:
    """`decode`, with the upright picture's full (width, height), whatever `target_edge` did to its size.

    Args:
        target_edge: A JPEG is decoded at 1/2, 1/4 or 1/8 of its size as long as both edges stay at least twice
            this many pixels; it bounds memory where the picture is about to be resized anyway.
    """
    if not data:
        raise ImageError("empty", uri, "the file is empty (0 bytes)")
    format_name = _format_of(data, uri)
    Image.core.set_block_size(_BLOCK_BYTES)  # type: ignore[attr-defined]
    warnings.filterwarnings(
        "ignore", module=r"PIL\.|nst_batch\.inputs"
    )  # about odd metadata; a filter is kept once
    try:
        opened = _open(data, uri, format_name)
        full_size = opened.size
        if target_edge is not None:
            opened.draft("", (2 * target_edge, 2 * target_edge))  # does nothing to formats other than JPEG
        drafted = opened.size != full_size
        with limits.DECODING.holding(limits.BYTES_PER_PIXEL * math.prod(opened.size)):
            opened.load()
            orientation = _orientation(opened)
            image = _to_srgb(opened, uri)
            if orientation in _TO_UPRIGHT:
                image = image.transpose(_TO_UPRIGHT[orientation])
    except Image.DecompressionBombError as error:
        raise ImageError("too_large", uri, f"{format_name} file that unpacks to too many pixels") from error
    except PILLOW_ERRORS as error:
        raise _explained(error, data, uri, format_name) from error
    image.info = {}
    if not drafted:
        return image, image.size
    return image, full_size[::-1] if orientation >= _FIRST_SIDEWAYS else full_size


# Which format, and is it one at all


def _format_of(data: bytes, uri: str) -> str:
    """Pillow's name of the format that the first bytes announce."""
    Image.init()
    for name in FORMATS:
        accept = Image.OPEN[name][1] if name in Image.OPEN else None
        if accept is not None and accept(data[:16]) is True:
            return name
    head = data[:512].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    known = f"nst-batch reads {', '.join(FORMATS)}"
    for prefixes, reason in _LOOKALIKES:
        if head.startswith(prefixes):
            raise ImageError("not_an_image", uri, f"not a picture: {reason} ({known})")
    if data[4:8] == b"ftyp":
        raise ImageError("not_an_image", uri, f"it looks like HEIC or a video; export it as JPEG or PNG ({known})")
    found = "only zeros" if not data.strip(b"\0") else f"a file that starts with {data[:8]!r}"
    raise ImageError("not_an_image", uri, f"not a picture: found {found} ({known})")


def _open(data: bytes, uri: str, format_name: str) -> ImageFile.ImageFile:
    """The file with its header read and its size within bounds; a PNG's checksums have been checked."""
    factory = Image.OPEN[format_name][0]
    opened = factory(io.BytesIO(data), "")
    width, height = opened.size
    if width * height > MAX_PIXELS:
        raise ImageError(
            "too_large", uri, f"{width}×{height} pixels; at most {MAX_PIXELS // 10**6} megapixels are decoded"
        )
    if format_name == "PNG":
        factory(io.BytesIO(data), "").verify()  # decoding does not look at the checksums of the pixel data
    return opened


def _explained(error: Exception, data: bytes, uri: str, format_name: str) -> ImageError:
    """What a reader's exception means for the person who has the file."""
    reason = str(error) or type(error).__name__
    if isinstance(error, MemoryError):
        message = f"{format_name} file that does not fit into the memory that is free when decoded"
        return ImageError("unreadable", uri, message)
    cut_riff = format_name == "WEBP" and len(data) < int.from_bytes(data[4:8], "little") + 8
    ran_out = any(isinstance(each, EOFError | struct.error) for each in (error, error.__cause__))
    if cut_riff or ran_out or _CUT.search(reason):
        message = f"{format_name} file that ends too early, after {len(data)} bytes: {reason}"
        return ImageError("truncated", uri, message)
    if "pixel mode" in reason:
        message = f"{format_name} file whose kind of pixels cannot be read ({reason}); save it as PNG"
        return ImageError("unreadable", uri, message)
    return ImageError("corrupt", uri, f"damaged {format_name} file: {reason}")


# Metadata


def _orientation(opened: ImageFile.ImageFile) -> int:
    """EXIF's orientation, 1 (upright) to 8; 1 where there is none or it is damaged."""
    try:
        found = opened.getexif().get(_EXIF_ORIENTATION, 1)
    except PILLOW_ERRORS:
        return 1
    return found if isinstance(found, int) else 1


# Pixels


def _to_srgb(image: Image.Image, uri: str) -> Image.Image:
    """RGB, 8 bits, from any of Pillow's modes: profile applied, transparency laid on white."""
    profile = image.info.get("icc_profile")
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _to_8_bit(image, uri)
    alpha = None
    if image.has_transparency_data:
        grey = image.mode in ("L", "LA", "La")
        image = image.convert("LA" if grey else "RGBA")
        alpha = image.getchannel("A")
        image = image.convert("L" if grey else "RGB")
    elif image.mode in ("1", "P", "RGBX", "YCbCr", "HSV"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    if image.mode == "LAB":
        image = _to_srgb_from(image, ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")))
    elif isinstance(profile, bytes) and profile:
        # A damaged profile, or one for other kinds of pixels, is no reason to refuse a picture.
        with suppress(ImageCms.PyCMSError, OSError, TypeError, ValueError):
            image = _to_srgb_from(image, ImageCms.ImageCmsProfile(io.BytesIO(profile)))
    image = image.convert("RGB")
    if alpha is not None:
        background = Image.new("RGB", image.size, "white")
        background.paste(image, mask=alpha)
        image = background
    return image


def _to_srgb_from(image: Image.Image, profile: ImageCms.ImageCmsProfile) -> Image.Image:
    """`image`, whose pixels `profile` describes, as RGB in sRGB."""
    converted = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert converted is not None, "only an in-place conversion returns None"
    return converted


def _to_8_bit(image: Image.Image, uri: str) -> Image.Image:
    """A 16- or 32-bit grey picture as mode L, its range kept; see `_grey_range`."""
    values = np.asarray(image)
    tags = getattr(image, "tag_v2", {})
    if image.mode == "F" and not np.isfinite(values).all():
        raise ImageError("corrupt", uri, "the floating-point pixels contain NaN or infinity")
    low, high = _grey_range(image.mode, float(values.min()), float(values.max()), tags.get(_TIFF_BITS_PER_SAMPLE))
    working = np.float32 if high - low <= _MAX_16_BIT else np.float64
    scaled = np.subtract(values, low, dtype=working)
    scaled *= 255 / (high - low)
    np.clip(np.rint(scaled, out=scaled), 0, 255, out=scaled)
    if tags.get(_TIFF_PHOTOMETRIC) == 0:  # white is zero; Pillow inverts 8 bits and fewer only
        np.subtract(255, scaled, out=scaled)
    return Image.fromarray(scaled.astype(np.uint8))


def _grey_range(mode: str, lowest: float, highest: float, bits: tuple[int, ...] | None) -> tuple[float, float]:
    """The values that become black and white: the format's own range where it is known, else the picture's."""
    if mode.startswith("I;16"):
        return 0.0, float(2 ** (bits[0] if bits else 16) - 1)
    full = 1.0 if mode == "F" else float(_MAX_16_BIT)
    if (lowest >= 0 and highest <= full) or lowest == highest:
        return 0.0, full
    return lowest, highest
