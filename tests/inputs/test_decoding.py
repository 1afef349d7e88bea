from __future__ import annotations

import struct
import tracemalloc
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from nst_batch.errors import ImageError
from nst_batch.inputs import decoding, images, inspecting
from tests.pictures import file_of, gradient, levels, wide_gamut_profile

PNG = file_of(gradient(), "PNG")


def failure(data: bytes) -> ImageError:
    with pytest.raises(ImageError) as caught:
        decoding.decode(data, "holiday.jpg")
    assert caught.value.uri == "holiday.jpg"
    assert "holiday.jpg" in str(caught.value)
    return caught.value


# Files that are no pictures, or no longer


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        (b"", "empty", "empty"),
        (b"\n<!DOCTYPE html><html>404</html>", "not_an_image", "HTML"),
        (b"<HTML><body>", "not_an_image", "HTML"),
        (b'<?xml version="1.0"?><svg/>', "not_an_image", "SVG"),
        (b"%PDF-1.7", "not_an_image", "PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not_an_image", "PostScript"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a", "not_an_image", "git lfs pull"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "not_an_image", "HEIC"),
        (b"\0" * 1000, "not_an_image", "zeros"),
        (b"hello", "not_an_image", "hello"),
    ],
)
def test_a_file_of_another_kind_is_named(data: bytes, kind: str, words: str) -> None:
    error = failure(data)
    assert error.kind == kind
    assert words in error.message


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "PPM"])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.95])
def test_a_cut_file_is_truncated_wherever_it_is_cut(format_name: str, part: float) -> None:
    data = file_of(gradient(64, 48), format_name)
    assert failure(data[: int(len(data) * part)]).kind == "truncated"


def test_a_cut_progressive_jpeg_is_truncated() -> None:
    data = file_of(gradient(64, 48), "JPEG", progressive=True)
    assert failure(data[: len(data) // 2]).kind == "truncated"


@pytest.mark.parametrize("flip", ["pixels", "checksum"])
def test_a_png_with_a_wrong_checksum_is_corrupt(flip: str) -> None:
    start = PNG.index(b"IDAT")
    length = int.from_bytes(PNG[start - 4 : start], "big")
    damaged = bytearray(PNG)
    damaged[start + 4 + (length if flip == "checksum" else length // 2)] ^= 1
    error = failure(bytes(damaged))
    assert error.kind == "corrupt"
    assert "checksum" in error.message


def png_claiming(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return PNG[:12] + header + struct.pack(">I", zlib.crc32(header)) + PNG[33:]


def test_a_bomb_is_refused_by_its_header() -> None:
    tracemalloc.start()
    error = failure(png_claiming(30_000, 30_000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert error.kind == "too_large"
    assert "30000×30000" in error.message
    assert peak < 10e6


def test_the_pixel_cap_is_ours_and_not_pillows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert decoding.decode(PNG, "a.png").size == (24, 16)
    monkeypatch.setattr(decoding, "MAX_PIXELS", 24 * 16)
    assert decoding.decode(PNG, "a.png").size == (24, 16)
    monkeypatch.setattr(decoding, "MAX_PIXELS", 24 * 16 - 1)
    assert failure(PNG).kind == "too_large"


def test_a_large_jpeg_is_decoded_small_when_a_small_one_is_wanted() -> None:
    photo = gradient(1600, 1200)
    data = file_of(photo, "JPEG", quality=95)
    small, size = decoding.decode_sized(data, "a.jpg", target_edge=100)
    assert small.size == (400, 300)  # a quarter: an eighth would leave the shorter edge below 2 × 100
    assert size == (1600, 1200)
    whole = images.resize(decoding.decode(data, "a.jpg"), 100, "crop")
    assert abs(levels(images.resize(small, 100, "crop")) - levels(whole)).max() <= 3


@pytest.mark.parametrize(("width", "height"), [(2731, 4096), (4096, 2731), (1605, 1203)])
def test_a_jpeg_that_is_decoded_small_has_the_size_that_was_planned(width: int, height: int) -> None:
    """Drafts round edges up, 4096×2731 to 1024×683, and half of 683 is not a quarter of 2731 any more."""
    data = file_of(Image.new("RGB", (width, height)), "JPEG")
    image, shape = images.decode_resized(data, "a.jpg", 512, "keep")
    assert (shape, image.size) == ((width, height), images.fitted_size(width, height, 512, "keep"))


# Kinds of pixels


def test_sixteen_bit_greys_keep_their_range() -> None:
    values = np.linspace(0, 65_535, 64 * 4).astype(np.uint16).reshape(4, 64)
    expected = np.rint(values / 257)
    for format_name in ("PNG", "TIFF", "PPM"):
        found = levels(decoding.decode(file_of(Image.fromarray(values), format_name), "a"))
        assert (found == expected[..., None]).all(), format_name


def test_sixteen_bit_colours_keep_their_range() -> None:
    rows = b"".join(b"\0" + struct.pack(">3H", 0, 32_768, 65_535) for _ in range(4))
    header = b"IHDR" + struct.pack(">IIBBBBB", 1, 4, 16, 2, 0, 0, 0)
    chunks = [header, b"IDAT" + zlib.compress(rows), b"IEND"]
    data = PNG[:8] + b"".join(struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)
    assert levels(decoding.decode(data, "a.png")).reshape(-1, 3).tolist() == [[0, 128, 255]] * 4


def test_twelve_bits_in_a_tiff_reach_white() -> None:
    image = Image.fromarray(np.array([[0, 4095, 2048]], dtype=np.uint16))
    image.tag_v2 = {258: (12,)}  # type: ignore[attr-defined]
    assert levels(decoding._to_8_bit(image, "a.tif")).tolist() == [[0, 255, 128]]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([-5.0, 0.0, 5.0], [0, 128, 255]),
        ([0.0, 100.0, 255.0], [0, 100, 255]),
        ([7.0, 7.0, 7.0], [255, 255, 255]),
        ([-3e38, 0.0, 3e38], [0, 128, 255]),
    ],
)
def test_float_tiffs_are_scaled(values: list[float], expected: list[int]) -> None:
    data = file_of(Image.fromarray(np.array([values], dtype=np.float32)), "TIFF")
    assert levels(decoding.decode(data, "a.tif"))[0, :, 0].tolist() == expected


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_float_tiff_without_a_range_is_corrupt(value: float) -> None:
    data = file_of(Image.fromarray(np.array([[0, value]], dtype=np.float32)), "TIFF")
    error = failure(data)
    assert error.kind == "corrupt"
    assert "NaN" in error.message


def test_white_is_zero_is_inverted() -> None:
    values = np.array([[0, 65_535]], dtype=np.uint16)
    data = file_of(Image.fromarray(values), "TIFF", tiffinfo={262: 0})
    opened = decoding.decode(data, "a.tif")
    assert levels(opened)[0, :, 0].tolist() == [255, 0]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparency_is_laid_on_white(mode: str) -> None:
    image = Image.new("RGBA", (3, 1), (100, 100, 100, 255))
    image.putpixel((1, 0), (100, 100, 100, 0))
    image.putpixel((2, 0), (100, 100, 100, 51))
    stored = image.convert("P" if mode == "PA" else mode)
    if mode == "PA":
        stored.putalpha(image.getchannel("A"))
    assert stored.mode == mode
    data = file_of(stored, "TIFF" if mode == "PA" else "PNG")
    assert levels(decoding.decode(data, "a"))[0, :, 1].tolist() == [100, 255, 224]


def test_palettes_with_transparency_are_laid_on_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([200, 0, 0, 0, 0, 200])
    image.putpixel((1, 0), 1)
    for format_name in ("PNG", "GIF"):
        found = levels(decoding.decode(file_of(image, format_name, transparency=0), "a"))[0].tolist()
        assert found == [[255, 255, 255], [0, 0, 200]], format_name
        assert levels(decoding.decode(file_of(image, format_name), "a"))[0, 0].tolist() == [200, 0, 0]


def test_a_transparent_colour_is_laid_on_white() -> None:
    data = file_of(gradient(), "PNG", transparency=(0, 0, 90))
    assert levels(decoding.decode(data, "a.png"))[0, 0].tolist() == [255, 255, 255]


def test_one_bit_is_black_and_white() -> None:
    image = Image.new("1", (2, 1))
    image.putpixel((1, 0), 255)
    for format_name, options in (("PNG", {}), ("TIFF", {"compression": "group4"}), ("BMP", {})):
        found = levels(decoding.decode(file_of(image, format_name, **options), "a"))
        assert found.tolist() == [[[0, 0, 0], [255, 255, 255]]]


def test_cmyk_has_its_inks_the_right_way_round() -> None:
    for format_name in ("JPEG", "TIFF"):  # Pillow writes Adobe's inverted kind of JPEG
        cyan = decoding.decode(file_of(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), format_name), "a")
        assert abs(levels(cyan)[4, 4] - [0, 255, 255]).max() <= 3
        paper = decoding.decode(file_of(Image.new("CMYK", (8, 8), (0, 0, 0, 0)), format_name), "a")
        assert levels(paper).min() >= 252


def test_lab_becomes_rgb() -> None:
    found = levels(decoding.decode(file_of(gradient().convert("RGB"), "PNG"), "a"))
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    converted = ImageCms.profileToProfile(gradient(), srgb, lab, outputMode="LAB")
    assert converted is not None
    assert abs(levels(decoding.decode(file_of(converted, "TIFF"), "a")) - found).mean() < 3


# Colour profiles and orientation


@pytest.mark.parametrize("format_name", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_profiles_are_converted_to_srgb(format_name: str) -> None:
    options = {"lossless": True} if format_name == "WEBP" else {}
    data = file_of(
        Image.new("RGB", (16, 16), (255, 0, 0)), format_name, icc_profile=wide_gamut_profile(), **options
    )
    image = decoding.decode(data, "a")
    assert abs(levels(image)[8, 8] - [0, 255, 0]).max() <= 3
    assert image.info == {}  # a profile that stayed would be applied twice


def test_an_srgb_profile_changes_nothing() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    found = decoding.decode(file_of(gradient(), "PNG", icc_profile=profile), "a.png")
    assert abs(levels(found) - levels(gradient())).max() <= 1


@pytest.mark.parametrize("mode", ["RGB", "L", "LA", "CMYK"])
def test_a_profile_that_cannot_be_used_is_ignored(mode: str) -> None:
    format_name = "TIFF" if mode == "CMYK" else "PNG"
    image = gradient().convert(mode)
    plain = levels(decoding.decode(file_of(image, format_name), "a"))
    profiles = [b"not a profile", wide_gamut_profile()[:300]] + ([] if mode == "RGB" else [wide_gamut_profile()])
    for profile in profiles:
        assert (levels(decoding.decode(file_of(image, format_name, icc_profile=profile), "a")) == plain).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_name", ["PNG", "TIFF", "WEBP"])
def test_pictures_are_turned_upright(orientation: int, format_name: str, tmp_path: Path) -> None:
    upright = gradient()
    undo = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]  # Image.Transpose members
    stored = upright if undo is None else upright.transpose(Image.Transpose(undo))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True, "exact": True} if format_name == "WEBP" else {}
    file = tmp_path / "turned"
    file.write_bytes(file_of(stored, format_name, exif=exif, **options))
    assert (levels(decoding.decode(file.read_bytes(), "a")) == levels(upright)).all()
    found = inspecting.inspect(str(file))
    assert (found.width, found.height) == (24, 16)


def test_a_turned_jpeg_is_measured_upright_even_when_decoded_small() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = file_of(gradient(800, 600), "JPEG", exif=exif)
    small, size = decoding.decode_sized(data, "a.jpg", target_edge=10)
    assert size == (600, 800)
    assert small.size == (75, 100)


def test_damaged_exif_is_ignored() -> None:
    for exif in (b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0nonsense", b"\0"):
        assert decoding.decode(file_of(gradient(), "JPEG", exif=exif), "a.jpg").size == (24, 16)


@pytest.mark.parametrize("format_name", ["GIF", "PNG", "WEBP", "TIFF"])
def test_animations_give_their_first_frame(format_name: str) -> None:
    first, second = Image.new("RGB", (9, 9), "red"), Image.new("RGB", (9, 9), "blue")
    data = file_of(first, format_name, save_all=True, append_images=[second])
    red, _, blue = levels(decoding.decode(data, "a"))[4, 4]
    assert red > 240
    assert blue < 15


# Hostile files


def hostile_files(count: int) -> Iterator[bytes]:
    """Damaged headers, metadata and pixels of each format, always the same ones."""
    random = np.random.default_rng(20_160_627)
    exif = Image.Exif()
    exif[0x0112] = 6
    meta: dict[str, Any] = {"exif": exif, "icc_profile": wide_gamut_profile()}
    frames: dict[str, Any] = {"save_all": True, "append_images": [gradient().rotate(90)]}
    sixteen = Image.fromarray(levels(gradient().convert("L")).astype(np.uint16) * 257)
    files = [file_of(gradient(), name) for name in decoding.FORMATS if name in Image.SAVE]
    files += [file_of(gradient(), name, **meta) for name in ("PNG", "JPEG", "WEBP", "TIFF")]
    files += [file_of(gradient(), name, **frames) for name in ("PNG", "GIF", "MPO")]
    files += [file_of(gradient().convert("P"), "PNG", transparency=3), file_of(sixteen, "PNG")]
    files += [file_of(sixteen, "TIFF", compression="tiff_lzw"), file_of(gradient().convert("F"), "TIFF")]
    files += [file_of(gradient().convert("CMYK"), "JPEG"), file_of(gradient(), "TIFF", compression="jpeg")]
    for index in range(count):
        damaged = bytearray(files[index % len(files)])
        for _ in range(random.choice([1, 1, 2, 8])):
            at = int(random.integers(min(len(damaged), 400) if random.random() < 0.7 else len(damaged)))
            length = int(random.integers(1, 9))
            kind = random.integers(4)
            if kind == 0:
                damaged[at] ^= 1 << int(random.integers(8))
            elif kind == 1:
                damaged[at : at + length] = random.bytes(length)
            elif kind == 2:
                del damaged[at : at + 4 * length]
            else:
                damaged[at : at + length] = bytes([random.choice([0, 127, 255])]) * length
        yield bytes(damaged)


def test_damage_is_either_harmless_or_an_image_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MAX_PIXELS", 2_000_000)  # the cap has its own tests; this keeps memory small
    kinds = set()
    for data in hostile_files(1200):
        try:
            image = decoding.decode(data, "hostile")
        except ImageError as error:
            kinds.add(error.kind)
        else:
            assert image.mode == "RGB"
            assert image.info == {}
            kinds.add("harmless")
    assert kinds >= {"harmless", "not_an_image", "truncated", "corrupt", "too_large"}


def test_odd_metadata_is_no_warning() -> None:
    odd = file_of(gradient(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff")  # Pillow: "Corrupt EXIF data"
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert decoding.decode(odd, "odd.jpg").size == (24, 16)
    assert told == []
