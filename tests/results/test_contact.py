from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from nst_batch.errors import ImageError, RunDirectoryError
from nst_batch.results import contact
from nst_batch.results.labels import configuration_label, layer_set, short_names, varying, weights_text
from nst_batch.results.overview import Overview
from nst_batch.results.pictures import finished_picture
from nst_batch.store.run_directory import RunDirectory
from nst_batch.vocabulary import conv_layers
from tests import simulated, small_run

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
    assert contact.write_sheets(run) == ["report/sheet.png"]
    with Image.open(Path(run.directory.root) / "report" / "sheet.png") as sheet:
        assert sheet.width > 5 * 256


def test_no_sheet_before_the_first_trial_has_ended(tmp_path: Path) -> None:
    style = small_run.inputs(tmp_path / "styles", ["s.png"])
    trials = list(small_run.plan(style, [style], small_run.configurations({})))
    assert contact.write_sheets(small_run.write(tmp_path / "run", trials, pending=[0])) == []


def test_a_sheet_shows_no_more_than_it_may(tmp_path: Path) -> None:
    contents = small_run.inputs(tmp_path / "photos", [f"{number}.png" for number in range(contact.MAX_PAIRS + 1)])
    chosen = small_run.configurations(*({"seed": seed} for seed in range(contact.MAX_CONFIGURATIONS + 1)))
    trials = list(small_run.plan(contents, [contents[:1]], chosen))
    run = small_run.write(tmp_path / "run", trials, pending=range(2, len(trials)))
    overview = Overview(run, max_pairs=contact.MAX_PAIRS, max_configurations=contact.MAX_CONFIGURATIONS)
    assert (len(overview.pairs), len(overview.configurations)) == (contact.MAX_PAIRS, contact.MAX_CONFIGURATIONS)
    caption = contact._caption(overview)
    assert "the first 24 of 25 pairs" in caption
    assert "40 of 41 configurations" in caption
    assert "not finished" in caption
    assert "RANDOM" in caption


@pytest.mark.parametrize("kind", ["content", "style"])
def test_a_reconstruction_study_gets_its_own_figure(tmp_path: Path, kind: str) -> None:
    run = reconstruction(tmp_path, kind)
    assert contact.reconstructs(run) == kind
    assert contact.write_sheets(run) == ["report/sheet.png", "report/reconstruction.png"]


def test_the_figure_of_gatys_from_two_runs(tmp_path: Path) -> None:
    content, style = reconstruction(tmp_path, "content"), reconstruction(tmp_path, "style")
    figure = contact.reconstruction_sheet(content, style)
    assert figure.width > 6 * 256
    assert figure.height > 2 * 256
    with pytest.raises(RunDirectoryError, match="expected a study of content reconstructions"):
        contact.reconstruction_sheet(style, content)


def test_the_figure_needs_common_layers(tmp_path: Path) -> None:
    content = reconstruction(tmp_path, "content", ("block1_conv2",))
    style = reconstruction(tmp_path, "style", ("block2_conv1",))
    with pytest.raises(RunDirectoryError, match=r"block1_conv2 in .* and block2_conv1 in"):
        contact.reconstruction_sheet(content, style)


def test_a_blend_and_vanished_or_changed_inputs_are_no_obstacle(tmp_path: Path) -> None:
    contents = small_run.inputs(tmp_path / "photos", ["a.png", "b.png"])
    styles = small_run.inputs(tmp_path / "styles", ["s.png", "t.png"])
    trials = list(small_run.plan(contents, [styles], small_run.configurations({})))
    run = small_run.write(tmp_path / "run", trials)
    Path(contents[0].uri).unlink()
    Path(contents[1].uri).write_bytes(b"another")
    Path(styles[0].uri).unlink()
    assert contact.write_sheets(run) == ["report/sheet.png"]


@pytest.mark.parametrize("path", ["../secret.png", "images/../../secret.png", "/etc/passwd", "report/index.html"])
def test_pictures_come_from_the_run_alone(run: RunDirectory, path: str) -> None:
    with pytest.raises(ImageError, match="expected a path below images/"):
        finished_picture(run, path)


def test_labels_say_what_distinguishes() -> None:
    chosen = small_run.configurations(
        {"content_layers": ("block4_conv2",), "alpha": 0.5}, {"content_layers": ("block5_conv1",), "alpha": 1.0}
    )
    fields = varying(chosen)
    assert fields == ("content_layers", "alpha")
    assert [configuration_label(each, fields) for each in chosen] == [
        "block4_conv2 · alpha 0.5",
        "block5_conv1 · alpha 1",
    ]
    assert configuration_label(chosen[0], ()) == "block4_conv2 / block1-2_conv1"


def test_layer_sets_are_short_where_they_run_on() -> None:
    assert layer_set(FIVE) == "block1-5_conv1"
    assert layer_set(FIVE[:1]) == "block1_conv1"
    assert layer_set(()) == "none"
    assert layer_set(("block1_conv1", "block3_conv1")) == "block1_conv1 + block3_conv1"
    assert layer_set(conv_layers("vgg16")[:2]) == "block1_conv1 + block1_conv2"


def test_pictures_are_named_by_what_tells_them_apart() -> None:
    assert short_names(["x/a/photo.jpg", "x/b/photo.jpg", "c.png"]) == {
        "x/a/photo.jpg": "a/photo",
        "x/b/photo.jpg": "b/photo",
        "c.png": "c",
    }
    assert short_names(["a.jpg", "a.png"]) == {"a.jpg": "a.jpg", "a.png": "a.png"}


def test_random_weights_are_named_as_such() -> None:
    assert "RANDOM" in weights_text(simulated.configuration())
    assert "RANDOM" not in weights_text(simulated.configuration(weights="imagenet"))
