from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from nst_batch.inputs import decoding, fetching, images, inspecting
from nst_batch.inputs.images import Pixels
from nst_batch.vocabulary import Encoding, Fit
from tests.pictures import file_of, gradient, levels, wide_gamut_profile

PNG = file_of(gradient(), "PNG")
FITS: tuple[Fit, ...] = ("crop", "stretch", "keep")
sides = st.integers(1, 60)


# Inspecting


def test_inspection_returns_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "good.png").write_bytes(PNG)
    (tmp_path / "cut.png").write_bytes(PNG[:-60])
    good = inspecting.inspect(str(tmp_path / "good.png"))
    assert (good.width, good.height, good.error_type, good.error_message) == (24, 16, None, None)
    assert good.picture.sha256 == fetching.sha256(PNG)
    cut = inspecting.inspect(str(tmp_path / "cut.png"))
    assert (cut.width, cut.height, cut.error_type) == (0, 0, "truncated")
    assert cut.picture.sha256 == fetching.sha256(PNG[:-60])
    assert cut.error_message
    assert "cut.png" in cut.error_message
    absent = inspecting.inspect(str(tmp_path / "absent.png"))
    assert (absent.picture.sha256, absent.error_type) == (None, "missing")


# Sizes


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1)])
@pytest.mark.parametrize("fit", FITS)
def test_extreme_proportions(size: tuple[int, int], fit: Fit) -> None:
    image = decoding.decode(file_of(Image.new("RGB", size, (9, 8, 7)), "PNG"), "a.png")
    assert image.size == size
    resized = images.resize(image, 64, fit)
    assert resized.size == images.fitted_size(*size, 64, fit)
    assert set(levels(resized).reshape(-1, 3).mean(axis=0)) == {9, 8, 7}  # a constant picture stays constant


@given(width=sides, height=sides, size=sides, fit=st.sampled_from(FITS))
def test_resize_gives_the_fitted_size(width: int, height: int, size: int, fit: Fit) -> None:
    expected = images.fitted_size(width, height, size, fit)
    assert images.resize(Image.new("RGB", (width, height)), size, fit).size == expected
    if fit == "keep":
        assert max(expected) == size
        assert abs(expected[0] * height - expected[1] * width) <= max(width, height)
    else:
        assert expected == (size, size)


@given(width=st.integers(1, 10**6), height=st.integers(1, 10**6), size=st.integers(1, 10**5))
def test_keep_treats_both_directions_alike(width: int, height: int, size: int) -> None:
    assert images.fitted_size(width, height, size, "keep") == images.fitted_size(height, width, size, "keep")[::-1]


def test_crop_takes_the_centred_square() -> None:
    image = Image.new("RGB", (30, 10), "red")
    image.paste((0, 0, 255), (10, 0, 20, 10))
    assert (levels(images.resize(image, 10, "crop")) == [0, 0, 255]).all()


def test_shrinking_is_antialiased() -> None:
    board = np.indices((256, 256)).sum(axis=0) % 2 * 255
    image = Image.fromarray(board.astype(np.uint8)).convert("RGB")
    assert abs(levels(images.resize(image, 32, "stretch")) - 127.5).max() < 3


# Arrays and files


@given(arrays(np.uint8, st.tuples(sides, sides, st.just(3))))
@settings(max_examples=50)
def test_png_and_arrays_round_trip_exactly(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
    image = Image.fromarray(pixels)
    array = images.to_array(image)
    assert array.dtype == np.float32
    assert array.shape == (3, *pixels.shape[:2])
    assert array.flags.c_contiguous
    assert (array.min() >= 0) & (array.max() <= 1)
    data = images.encode(images.from_array(array))
    assert (np.asarray(decoding.decode(data, "a.png")) == pixels).all()


def test_arrays_are_clamped_and_rounded() -> None:
    row = np.array([-1.0, 0.4 / 255, 0.6 / 255, 1.0, 2.0, np.inf, -np.inf, np.nan], dtype=np.float32)
    image = images.from_array(np.broadcast_to(row, (3, 1, 8)))
    assert levels(image)[0, :, 2].tolist() == [0, 0, 1, 255, 255, 255, 0, 0]


@pytest.mark.parametrize("encoding", ["png", "jpeg", "webp", "tiff"])
def test_files_depend_on_nothing_but_pixels(encoding: Encoding) -> None:
    image = gradient(64, 48)
    image.info = {
        "icc_profile": wide_gamut_profile(),
        "dpi": (300, 300),
        "transparency": (0, 0, 0),
        "comment": b"a",
    }
    data = images.encode(image, encoding)
    assert data == images.encode(gradient(64, 48), encoding)
    lost = abs(levels(decoding.decode(data, "a")) - levels(image)).mean()
    assert lost == 0 if encoding in ("png", "tiff") else lost < 4
    assert image.info["dpi"] == (300, 300)  # the caller's picture is left alone


# Colour


def random_pixels(seed: int, shape: tuple[int, int] = (20, 30)) -> Pixels:
    random = np.random.default_rng(seed)
    mixing = 0.1 * np.eye(3) + 0.02 * random.normal(size=(3, 3))
    colors = 0.5 + np.tensordot(mixing, random.normal(size=(3, *shape)), axes=1)
    pixels: Pixels = colors.clip(0, 1).astype(np.float32)
    return pixels


def test_luminance_comes_from_the_result_and_chroma_from_the_content() -> None:
    to_yiq = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
    result, content = random_pixels(1), random_pixels(2)
    found = np.tensordot(to_yiq, images.transfer_luminance(result, content), axes=1)
    assert np.allclose(found[0], np.tensordot(to_yiq, result, axes=1)[0], atol=1e-5)
    assert np.allclose(found[1:], np.tensordot(to_yiq, content, axes=1)[1:], atol=1e-5)
    assert np.allclose(images.transfer_luminance(content, content), content, atol=1e-6)


def test_matched_colours_have_the_contents_mean_and_covariance() -> None:
    style, content = random_pixels(3, (40, 40)), random_pixels(4, (25, 60))
    matched = images.match_histogram(style, content)
    assert matched.shape == style.shape
    assert matched.dtype == np.float32
    found, wanted = matched.reshape(3, -1).astype(float), content.reshape(3, -1).astype(float)
    assert np.allclose(found.mean(axis=1), wanted.mean(axis=1), atol=1e-3)
    assert np.allclose(np.cov(found), np.cov(wanted), atol=2e-4)


def test_a_picture_matched_to_itself_stays() -> None:
    content = random_pixels(5)
    assert np.allclose(images.match_histogram(content, content), content, atol=1e-5)


def test_constant_pictures_can_be_matched() -> None:
    grey, content = np.full((3, 8, 8), 0.25, dtype=np.float32), random_pixels(6)
    assert np.allclose(images.match_histogram(grey, content), content.mean(axis=(1, 2))[:, None, None], atol=1e-4)
    flat = images.match_histogram(content, grey)
    assert abs(flat - 0.25).max() < 0.05
