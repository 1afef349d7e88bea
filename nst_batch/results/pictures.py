"""The pictures of a run: those that it made, and its inputs as the network saw them."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image, ImageOps

from nst_batch.errors import ImageError
from nst_batch.inputs.decoding import decode
from nst_batch.inputs.fetching import read_bytes
from nst_batch.inputs.images import decode_resized, resize
from nst_batch.records import Picture
from nst_batch.store.run_directory import IMAGE_PATH, RunDirectory
from nst_batch.vocabulary import Fit


@dataclass(frozen=True, slots=True)
class Tile:
    """A picture to be shown small, or the reason why there is none."""

    image: Image.Image | None
    text: str = ""
    """What is said of the picture; the reason, if there is none."""
    mask: Image.Image | None = None
    """Of the picture's regions."""


def fitted(image: Image.Image, edge: int, resampling: Image.Resampling = Image.Resampling.LANCZOS) -> Image.Image:
    """A picture whose longer edge has `edge` pixels."""
    scale = edge / max(image.size)
    size = max(round(image.width * scale), 1), max(round(image.height * scale), 1)
    return image.convert("RGB").resize(size, resampling)


def with_mask(image: Image.Image, mask: Image.Image | None) -> Image.Image:
    """A picture with its mask, framed, in the lower right corner."""
    if mask is None:
        return image
    edge = min(image.width // 2, max(image.size) // 3)
    inset = ImageOps.expand(fitted(mask, edge, Image.Resampling.NEAREST), 2, "white")
    shown = image.convert("RGB")
    shown.paste(inset, (shown.width - inset.width - edge // 12, shown.height - inset.height - edge // 12))
    return shown


def tile_edge(num_tiles: int) -> int:
    """Pixels of a tile's edge where there are so many."""
    return next(edge for limit, edge in ((60, 256), (200, 192), (480, 128), (num_tiles, 96)) if num_tiles <= limit)


def finished_picture(run: RunDirectory, image_path: str) -> Image.Image:
    """The picture of a trial; ImageError as `picture_bytes`, or where it is damaged."""
    return decode(picture_bytes(run, image_path), run.directory.url(image_path))


def picture_bytes(run: RunDirectory, image_path: str) -> bytes:
    """The file of a trial's picture.

    Raises:
        ImageError: It is missing, or `image_path` is not among the run's images or a link to elsewhere.
    """
    if not IMAGE_PATH.fullmatch(image_path):
        raise ImageError("unreadable", repr(image_path), "expected a path below images/, named by a trial_id")
    if run.directory.leads_outside(image_path):
        reason = "a link that leads out of the run directory; put the file itself there"
        raise ImageError("unreadable", run.directory.url(image_path), reason)
    data = run.directory.find(image_path)
    if data is None:
        raise ImageError("missing", run.directory.url(image_path), "no such file")
    return data


def input_tile(picture: Picture, fit: Fit, edge: int, *, fetch: bool = False) -> Tile:
    """An input and its mask as the network saw them, but of `edge` pixels.

    Args:
        fetch: Whether it may be fetched if it is named by a URL. A plan may come from anybody: whoever only looks
            at a run asks no other machine for anything.
    """
    image: Image.Image | None = None
    try:
        image, shape = decode_resized(_input_bytes(picture, fetch), picture.uri, edge, fit)
        if picture.mask is None:
            return Tile(image)
        mask = decode(_input_bytes(picture.mask, fetch), picture.mask.uri)
    except ImageError as error:
        return Tile(image, str(error))
    nearest = Image.Resampling.NEAREST
    return Tile(image, mask=resize(mask, edge, fit, like=shape, resampling=nearest))


def _input_bytes(picture: Picture, fetch: bool) -> bytes:
    if picture.sha256 is None:
        raise ImageError("unreadable", picture.uri, "it could not be read when the study was planned")
    if "://" in picture.uri and not fetch:
        raise ImageError("unreadable", picture.uri, "it is not fetched without --fetch")
    return read_bytes(picture.uri, expected_sha256=picture.sha256)
