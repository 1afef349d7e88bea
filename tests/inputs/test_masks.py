"""Masks: what is a label, what is a weight, and how both come to the size of their picture."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from nst_batch.errors import ImageError
from nst_batch.inputs.masks import BLACK, WHITE, Mask, common_labels, hexadecimal, read_mask
from tests.pictures import file_of

RED, BLUE = (255, 0, 0), (0, 0, 255)


def halves(left: tuple[int, int, int], right: tuple[int, int, int], size: tuple[int, int] = (40, 20)) -> bytes:
    image = Image.new("RGB", size, left)
    ImageDraw.Draw(image).rectangle((size[0] // 2, 0, *size), fill=right)
    return file_of(image, "PNG")


def test_colours_are_labels_common_to_all_masks_of_a_trial() -> None:
    content = read_mask(halves(BLUE, WHITE), "c.png", (40, 20), 20, "stretch")
    style = read_mask(halves(RED, BLUE), "s.png", (40, 20), 20, "stretch")
    labels = common_labels([content, None, style])
    assert labels == {BLACK: 0, WHITE: 1, BLUE: 2, RED: 3}
    assert not content.is_soft
    plane = content.plane(labels)
    assert plane.dtype == np.uint8
    assert plane.shape == (20, 20)
    assert (plane[:, :10] == 2).all()
    assert (plane[:, 10:] == 1).all()
    assert hexadecimal(RED) == "#ff0000"


@pytest.mark.parametrize("size", [(40, 20), (10, 10), (400, 100)])
def test_a_mask_of_another_size_is_cropped_as_its_picture_is(size: tuple[int, int]) -> None:
    """Of a picture of 40×20 the middle 20×20 are kept: a quarter of the width goes on either side."""
    mask = read_mask(halves(RED, BLUE, size), "m.png", (40, 20), 16, "crop")
    plane = mask.plane(common_labels([mask]))
    assert plane.shape == (16, 16)
    assert (plane[:, :8] == 2).all()
    assert (plane[:, 8:] == 1).all()
    kept = read_mask(halves(RED, BLUE, size), "m.png", (40, 20), 16, "keep")
    assert kept.pixels.shape == (8, 16, 3)


def test_grey_levels_are_weights() -> None:
    levels = np.linspace(0, 255, 64).astype(np.uint8)[None].repeat(64, 0)
    mask = read_mask(file_of(Image.fromarray(levels), "PNG"), "m.png", (64, 64), 64, "crop")
    assert mask.is_soft
    assert mask.colors == (BLACK, WHITE)
    plane = mask.plane(common_labels([mask]))
    assert plane.dtype == np.float32
    np.testing.assert_allclose(plane[0], levels[0] / 255, atol=1 / 255)


def test_more_colours_than_regions_are_refused() -> None:
    rainbow = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3) * 5)
    with pytest.raises(ImageError, match=r"at most 8 colours, one for each region, .* as PNG") as caught:
        read_mask(file_of(rainbow, "PNG"), "m.png", (4, 4), 32, "crop")
    assert caught.value.kind == "bad_mask"
    several = [Mask(f"{level}.png", np.zeros((1, 1, 3), np.uint8), ((level, 0, 9),)) for level in range(8)]
    with pytest.raises(ImageError, match="at most 8 colours in the masks of a trial, black included, found 9"):
        common_labels(several)
