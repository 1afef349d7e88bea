from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor

from nst_batch.errors import RunDirectoryError
from nst_batch.records import Picture
from nst_batch.results import sheets
from nst_batch.results.overview import Overview
from nst_batch.store.run_directory import RunDirectory
from tests import small_run

FIVE = tuple(f"block{block}_conv1" for block in range(1, 6))


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    contents = small_run.inputs(tmp_path / "photos", ["a.png", "b.png"])
    style = small_run.inputs(tmp_path / "styles", ["s.png"])
    chosen = small_run.configurations({"alpha": 0.5}, {"alpha": 1.0}, {"alpha": 2.0})
    trials = list(small_run.plan(contents, [style], chosen))
    return small_run.write(tmp_path / "run", trials, failing=[1], pending=[5])


def reconstruction(tmp_path: Path, kind: str, layers: tuple[str, ...] = FIVE) -> RunDirectory:
    [picture] = small_run.inputs(tmp_path / "inputs", ["picture.png"])
    if kind == "content":
        chosen = small_run.configurations(*({"content_layers": (layer,), "style_layers": ()} for layer in layers))
        trials = list(small_run.plan([picture], [[]], chosen))
    else:
        sets = [layers[: end + 1] for end in range(len(layers))]
        chosen = small_run.configurations(*({"content_layers": (), "style_layers": each} for each in sets))
        trials = list(small_run.plan([None], [[picture]], chosen))
    return small_run.write(tmp_path / kind, trials)


def test_a_sheet_is_written_even_while_trials_are_pending(run: RunDirectory) -> None:
    assert sheets.write_sheets(run) == ["report/sheet.png"]
    with Image.open(Path(run.directory.root) / "report" / "sheet.png") as sheet:
        assert sheet.width > 5 * 256


def test_no_sheet_before_the_first_trial_has_ended(tmp_path: Path) -> None:
    style = small_run.inputs(tmp_path / "styles", ["s.png"])
    trials = list(small_run.plan(style, [style], small_run.configurations({})))
    assert sheets.write_sheets(small_run.write(tmp_path / "run", trials, pending=[0])) == []


def test_a_sheet_shows_no_more_than_it_may(tmp_path: Path) -> None:
    contents = small_run.inputs(tmp_path / "photos", [f"{number}.png" for number in range(sheets.MAX_PAIRS + 1)])
    chosen = small_run.configurations(*({"seed": seed} for seed in range(sheets.MAX_CONFIGURATIONS + 1)))
    trials = list(small_run.plan(contents, [contents[:1]], chosen))
    run = small_run.write(tmp_path / "run", trials, pending=range(2, len(trials)))
    overview = Overview(run, max_pairs=sheets.MAX_PAIRS, max_configurations=sheets.MAX_CONFIGURATIONS)
    assert (len(overview.pairs), len(overview.configurations)) == (sheets.MAX_PAIRS, sheets.MAX_CONFIGURATIONS)
    caption = sheets.caption(overview)
    assert "the first 24 of 25 pairs" in caption
    assert "40 of 41 configurations" in caption
    assert "not finished" in caption
    assert "RANDOM" in caption


def test_pairs_that_differ_in_their_masks_alone_are_named_by_these(tmp_path: Path) -> None:
    [a, b, style] = small_run.inputs(tmp_path / "photos", ["a.png", "b.png", "s.png"])
    face, sky = (
        small_run.masked(a, tmp_path / f"{name}.png", color) for name, color in (("face", "red"), ("sky", "blue"))
    )
    trials = list(small_run.plan([face, a, sky, b], [[style]], small_run.configurations({})))
    overview = Overview(small_run.write(tmp_path / "run", trials), max_pairs=9, max_configurations=9)
    assert overview.pair_labels == ["a (face)", "a (no mask)", "a (sky)", "b"]
    painted = small_run.masked(style, tmp_path / "strokes.png", "green")
    trials = list(small_run.plan([face, sky], [[painted]], small_run.configurations({})))
    overview = Overview(small_run.write(tmp_path / "painted", trials), max_pairs=9, max_configurations=9)
    assert overview.pair_labels == ["a × s (face)", "a × s (sky)"]
    some = small_run.write(
        tmp_path / "some", list(small_run.plan([face, b], [[style]], small_run.configurations({})))
    )
    assert Overview(some, max_pairs=9, max_configurations=9).pair_labels == ["a", "b"]


def test_masks_that_could_not_be_read_do_not_hide_the_pair_without_one(tmp_path: Path) -> None:
    [plain, style] = small_run.inputs(tmp_path / "photos", ["a.png", "s.png"])
    bad = [replace(plain, mask=Picture(uri=f"{name}.png", sha256=None)) for name in ("face", "sky")]
    trials = list(small_run.plan([plain, *bad], [[style]], small_run.configurations({})))
    overview = Overview(
        small_run.write(tmp_path / "run", trials, failing=[1, 2]), max_pairs=9, max_configurations=9
    )
    assert overview.pair_labels == ["a × s (no mask)", "a × s (face)", "a × s (sky)"]
    assert [trial["status"] for trial in overview.trials.values()] == ["ok", "failed", "failed"]


def left_of(sheet: Image.Image, picture: Image.Image) -> int:
    """Where a picture begins on a sheet of few tiles."""
    pixels, tile = np.asarray(sheet), np.asarray(picture.resize((256, 256), Image.Resampling.LANCZOS))
    for top, left in np.argwhere((pixels == tile[0, 0]).all(axis=-1)):
        if np.array_equal(pixels[top : top + 256, left : left + 256], tile):
            return int(left)
    raise AssertionError("it is not on the sheet")


@pytest.mark.parametrize("best", [0, 1])
def test_the_best_configuration_comes_first(tmp_path: Path, best: int) -> None:
    contents = small_run.inputs(tmp_path / "photos", ["a.png"])
    style = small_run.inputs(tmp_path / "styles", ["s.png"])
    trials = list(small_run.plan(contents, [style], small_run.configurations({"seed": 1}, {"seed": 2})))
    run = small_run.write(
        tmp_path / "run", trials, distances=lambda _, position: (0.2 if position == best else 0.4, 0.5)
    )
    sheet = sheets.draw_sheets(run)["sheet.png"]
    places = [left_of(sheet, small_run.drawing(1000 + index)) for index in range(2)]
    assert places[best] < places[1 - best]


def test_layers_and_alpha_make_a_matrix(tmp_path: Path) -> None:
    contents = small_run.inputs(tmp_path / "photos", ["a.png"])
    style = small_run.inputs(tmp_path / "styles", ["s.png"])
    layers = [("block1_conv1",), ("block2_conv1",), ("block4_conv1",)]
    chosen = [{"content_layers": layer, "alpha": alpha} for layer in layers for alpha in (0.5, 1.0)]
    run = small_run.write(
        tmp_path / "run", list(small_run.plan(contents, [style], small_run.configurations(*chosen)))
    )
    matrix = sheets.draw_sheets(run)["matrix.png"]
    assert matrix.width < 4 * 256  # two columns and the names of the layers
    assert matrix.height > 3 * 256


@pytest.mark.parametrize("kind", ["content", "style"])
def test_a_reconstruction_study_gets_its_own_figure(tmp_path: Path, kind: str) -> None:
    run = reconstruction(tmp_path, kind)
    assert sheets.reconstructs(run) == kind
    assert sheets.write_sheets(run) == ["report/sheet.png", "report/reconstruction.png"]


def test_the_figure_of_gatys_from_two_runs(tmp_path: Path) -> None:
    content, style = reconstruction(tmp_path, "content"), reconstruction(tmp_path, "style")
    figure = sheets.reconstruction_sheet(content, style)
    assert figure.width > 6 * 256
    assert figure.height > 2 * 256
    with pytest.raises(RunDirectoryError, match="expected a study of content reconstructions"):
        sheets.reconstruction_sheet(style, content)


def test_the_figure_needs_common_layers(tmp_path: Path) -> None:
    content = reconstruction(tmp_path, "content", ("block1_conv2",))
    style = reconstruction(tmp_path, "style", ("block2_conv1",))
    with pytest.raises(RunDirectoryError, match=r"block1_conv2 in .* and block2_conv1 in"):
        sheets.reconstruction_sheet(content, style)


def test_a_blend_and_vanished_or_changed_inputs_are_no_obstacle(tmp_path: Path) -> None:
    contents = small_run.inputs(tmp_path / "photos", ["a.png", "b.png"])
    styles = small_run.inputs(tmp_path / "styles", ["s.png", "t.png"])
    trials = list(small_run.plan(contents, [styles], small_run.configurations({})))
    run = small_run.write(tmp_path / "run", trials)
    Path(contents[0].uri).unlink()
    Path(contents[1].uri).write_bytes(b"another")
    Path(styles[0].uri).unlink()
    assert sheets.write_sheets(run) == ["report/sheet.png"]


@pytest.mark.parametrize("num_styles", [1, 2])
def test_masks_stand_in_the_corners_of_their_pictures(tmp_path: Path, num_styles: int) -> None:
    [content, *styles] = small_run.inputs(tmp_path, ["c.png", "s.png", "t.png"][: 1 + num_styles])
    colors = ("#00ff01", "#ff0001", "#0100ff")
    content, *styles = (
        small_run.masked(each, tmp_path / f"mask{number}.png", colors[number])
        for number, each in enumerate((content, *styles))
    )
    run = small_run.write(tmp_path / "run", list(small_run.plan([content], [styles], small_run.configurations({}))))
    pixels = np.asarray(sheets.draw_sheets(run)["sheet.png"])
    for color in colors[: 1 + num_styles]:
        where = np.argwhere((pixels == ImageColor.getrgb(color)).all(axis=-1))
        height, width = np.ptp(where, axis=0) + 1
        assert 20 < width < height < 100
    Path(tmp_path / "mask0.png").unlink()
    assert sheets.write_sheets(run) == ["report/sheet.png"]
