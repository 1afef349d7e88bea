"""Promise 4: one bad input never stops a study.

A folder with every kind of bad picture, through `nst-batch run`: each a row that says why, the rest done.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nst_batch.cluster.options import WorkerOptions
from nst_batch.cluster.worker import Worker
from nst_batch.inputs import fetching, images
from nst_batch.records import Picture, valid_unicode
from nst_batch.results.verify import verify
from nst_batch.store.run_directory import RunDirectory
from tests import simulated, tiny, workers
from tests.driver import ROOT
from tests.pictures import file_of, gradient, levels, wide_gamut_profile

SIZE = 32
WIDE = gradient(64, 48)
GOOD = {f"good-{number}.png": tiny.picture(number) for number in range(4)}

# Two configurations that start at their optimum: a content loss alone, from the content. What comes out is what was
# decoded, so it can be compared with a reference.
STUDY = """
name: bad-input
content: [{folder}/photos]
image: {{size: 32, fit: crop}}
network: {{weights: 'random:0', pooling: average}}
grid: {{content_layers: [block1_conv1, block2_conv1], style_layers: [[]], beta: [0.0], init: [content]}}
optimizer: {{steps: 2}}
"""


def sixteen_bit(image: Image.Image) -> bytes:
    return file_of(Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257), "PNG")


def float_tiff(image: Image.Image) -> bytes:
    return file_of(Image.fromarray(np.asarray(image.convert("L")).astype(np.float32) / 255), "TIFF")


def rotated(image: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned right by 90°
    return file_of(image.transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif)


def half_transparent(image: Image.Image, mode: str) -> tuple[bytes, Image.Image]:
    """A picture at half opacity, and what it is on white."""
    base = image.convert("L" if mode == "LA" else "RGB")
    clear = base.copy()
    clear.putalpha(Image.new("L", image.size, 128))
    white = Image.new("RGB", image.size, "white")
    return file_of(clear, "PNG"), Image.blend(white, base.convert("RGB"), 128 / 255)


def swapped(image: Image.Image) -> Image.Image:
    red, green, blue = image.split()
    return Image.merge("RGB", (green, red, blue))


def first_of_two(image: Image.Image) -> bytes:
    other = Image.new("RGB", image.size, "red")
    return file_of(image, "PNG", save_all=True, append_images=[other])


@functools.cache
def converted() -> dict[str, tuple[bytes, Image.Image]]:
    """Files that must be converted, each with what it shows."""
    grey, palette = WIDE.convert("L"), WIDE.quantize(16)
    dot, blue = Image.new("RGB", (1, 1), (9, 99, 199)), Image.new("RGB", (1, 4000), (5, 55, 155))
    cmyk = Image.new("CMYK", (64, 48), (255, 0, 255, 0))
    return {
        "sixteen-bit.png": (sixteen_bit(WIDE), grey),
        "float.tiff": (float_tiff(WIDE), grey),
        "palette.png": (file_of(palette, "PNG"), palette),
        "grey-alpha.png": half_transparent(WIDE, "LA"),
        "alpha.png": half_transparent(WIDE, "RGBA"),
        "cmyk.jpg": (file_of(cmyk, "JPEG", quality=100), Image.new("RGB", (64, 48), (0, 255, 0))),
        "wide-gamut.png": (file_of(swapped(WIDE), "PNG", icc_profile=wide_gamut_profile()), WIDE),
        "rotated.png": (rotated(WIDE.resize((60, 44))), WIDE.resize((60, 44))),
        "animated.png": (first_of_two(WIDE.resize((56, 40))), WIDE.resize((56, 40))),
        "megapixels-120.png": (file_of(Image.new("1", (12_000, 10_000), 1), "PNG"), Image.new("1", (64, 48), 1)),
        "one-pixel.png": (file_of(dot, "PNG"), dot),
        "thin.png": (file_of(blue, "PNG"), blue.crop((0, 0, 1, 1))),
        "constant.png": (file_of(Image.new("RGB", (64, 48), "teal"), "PNG"), Image.new("RGB", (64, 48), "teal")),
        "a/same-name.png": (file_of(WIDE.resize((40, 40)), "PNG"), WIDE.resize((40, 40))),
        "b/same-name.png": (file_of(WIDE.resize((48, 48)), "PNG"), WIDE.resize((48, 48))),
    }  # fmt: skip


def bad() -> dict[bytes, tuple[bytes, str, str]]:
    """Files that cannot be used, each with the error type and a word of the reason."""
    jpeg, png = file_of(gradient(64, 48), "JPEG"), bytearray(file_of(gradient(64, 48), "PNG"))
    png[png.index(b"IDAT") + 40] ^= 1
    return {
        b"empty.jpg": (b"", "empty", "0 bytes"),
        b"page.jpg": (b"<!DOCTYPE html><html>404</html>", "not_an_image", "HTML"),
        b"truncated.jpg": (jpeg[: len(jpeg) * 2 // 3], "truncated", "ends too early"),
        b"checksum.png": (bytes(png), "corrupt", "checksum"),
        b"bomb.ppm": (b"P6 60000 60000 255\n", "too_large", "60000"),
        b"damaged.tiff": (file_of(WIDE, "TIFF")[:60], "corrupt", "damaged TIFF"),
        b"unreadable-\xff.png": (file_of(WIDE.resize((30, 30)), "PNG"), "unreadable", "not valid Unicode"),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad-input")
    photos = folder / "photos"
    for name, data in GOOD.items():
        (photos / name).parent.mkdir(exist_ok=True)
        (photos / name).write_bytes(data)
    for name, (data, _) in converted().items():
        (photos / name).parent.mkdir(exist_ok=True)
        (photos / name).write_bytes(data)
    for raw, (data, _, _) in bad().items():
        (photos / os.fsdecode(raw)).write_bytes(data)
    (folder / "study.yaml").write_text(STUDY.format(folder=folder))
    return folder


@pytest.fixture(scope="module")
def ended(folder: Path, embedded_ray: str) -> subprocess.CompletedProcess[str]:
    arguments = ["run", str(folder / "study.yaml"), "--out", str(folder / "out"), "--address", embedded_ray]
    return subprocess.run(
        [sys.executable, "-m", "nst_batch", *arguments, "--cpus-per-worker", "1", "--max-workers", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        errors="surrogateescape",
    )


@pytest.fixture(scope="module")
def rows(folder: Path, ended: subprocess.CompletedProcess[str]) -> dict[str, list[dict[str, Any]]]:
    """The rows of each picture, by its path below `photos`."""
    assert "Traceback" not in ended.stderr, ended.stderr
    found: dict[str, list[dict[str, Any]]] = {}
    for row in tiny.rows(folder / "out"):
        found.setdefault(row["content_uri"].removeprefix(f"{folder}/photos/"), []).append(row)
    return found


def test_the_run_ends_with_three_and_counts_the_failures(ended: subprocess.CompletedProcess[str]) -> None:
    assert ended.returncode == 3, ended.stderr
    num_good = len(GOOD) + len(converted())
    total = 2 * (num_good + len(bad()))
    assert f"{2 * num_good} of {total} trials ok" in ended.stderr
    assert f"; {2 * len(bad())} failed" in ended.stderr
    assert "see why: nst-batch query" in ended.stderr


def test_each_bad_picture_has_one_failed_row_per_configuration(rows: dict[str, list[dict[str, Any]]]) -> None:
    for raw, (_, error_type, words) in bad().items():
        name = valid_unicode(os.fsdecode(raw))
        own = rows[name]
        assert [row["status"] for row in own] == ["failed", "failed"]
        assert len({row["configuration"] for row in own}) == 2
        for row in own:
            assert row["error_type"] == error_type, name
            assert name in row["error_message"]
            assert words in row["error_message"]


def test_each_good_picture_is_finished(rows: dict[str, list[dict[str, Any]]]) -> None:
    for name in (*GOOD, *converted()):
        assert [row["status"] for row in rows[name]] == ["ok", "ok"], rows[name]
    assert len(rows) == len(GOOD) + len(converted()) + len(bad())


@pytest.mark.parametrize("name", converted())
def test_what_is_converted_matches_its_reference(
    folder: Path, rows: dict[str, list[dict[str, Any]]], name: str
) -> None:
    shown = images.resize(converted()[name][1].convert("RGB"), SIZE, "crop")
    for row in rows[name]:
        with Image.open(folder / "out" / row["image_path"]) as finished:
            difference = np.abs(levels(finished) - levels(shown))
        assert difference.max() <= 3, name


def test_the_run_is_sound_and_complete(folder: Path, rows: dict[str, list[dict[str, Any]]]) -> None:
    assert rows
    tiny.assert_whole(folder / "out")
    assert verify(RunDirectory(folder / "out")).problems == []


def test_a_worker_that_finds_other_contents_than_were_planned_says_so(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(tiny.picture(1))
    planned = Picture(uri=str(path), sha256=fetching.sha256(tiny.picture(2)))
    trial = replace(simulated.trial(0), content=planned, styles=())
    [result] = Worker(WorkerOptions(device="cpu")).run([trial])
    assert result.outcome.status == "failed"
    assert result.outcome.error_type == "changed"
    assert "photo.png" in (result.outcome.error_message or "")


@pytest.mark.usefixtures("embedded_ray")
def test_a_picture_that_changes_after_planning_is_a_failed_row_that_says_so(tmp_path: Path) -> None:
    photos = tiny.collection(tmp_path, tiny.good(4))

    def change() -> None:
        path = photos / "good-03.png"
        path.write_bytes(tiny.picture(9999))

    (photos / workers.SECONDS).write_text("0.3")
    progress = tiny.run(tmp_path, reporter=tiny.After(1, change), batch_size=1)
    assert (progress.ok, progress.failed) == (3, 1)
    [row] = [row for row in tiny.rows(tmp_path / "out") if row["status"] == "failed"]
    assert row["error_type"] == "changed"
    assert "good-03.png" in row["error_message"]
