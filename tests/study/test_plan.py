"""From pictures to trials: pairs, batches, identities, and what cannot run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nst_batch.errors import StudyChangedError, StudyError
from nst_batch.inputs.finding import list_inputs
from nst_batch.records import Trial, trial_id
from nst_batch.store.committer import Committer
from nst_batch.store.run_directory import RunDirectory
from nst_batch.study.extension import extension, readable_again
from nst_batch.study.model import Study, study_from_dict
from nst_batch.study.plan import BAD_INPUT_BATCH, Plan, make_plan, packed
from tests.pictures import file_of

STYLE_LAYERS = [["block1_conv1", "block2_conv1"]]


def draw(path: Path, level: int, width: int = 64, height: int = 48, format_name: str = "PNG") -> str:
    """A picture that no other level has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(file_of(Image.new("RGB", (width, height), (level, 0, 255 - level)), format_name))
    return str(path)


@pytest.fixture
def contents(tmp_path: Path) -> list[str]:
    return [draw(tmp_path / f"content-{level}.png", level) for level in range(3)]


@pytest.fixture
def styles(tmp_path: Path) -> list[str]:
    return [draw(tmp_path / f"style-{level}.png", 100 + level) for level in range(3)]


def study(content: list[str], style: list[str], **changes: Any) -> Study:
    values: dict[str, Any] = {
        "name": "planned", "content": content, "style": style, "image": {"size": 64},
        "grid": {"content_layers": ["block2_conv2", "block3_conv3"], "style_layers": STYLE_LAYERS},
    }  # fmt: skip
    return study_from_dict(values | changes)


def plan(of: Study, batch_size: int = 4) -> Plan:
    listing = list_inputs(of.content, of.style, of.pairs)
    chosen = tuple(of.configurations(weights_sha256="ab" * 32, normalization="imagenet"))
    return make_plan(of, listing, configurations=chosen, batch_size=batch_size)


def names(of: Plan) -> list[tuple[str, ...]]:
    """Every pair by its pictures' names."""
    found = []
    for pair in of.pairs:
        pictures = [each for each in (pair.content, *pair.styles) if each]
        found.append(tuple(Path(each.picture.uri).stem for each in pictures))
    return found


# Pairs


def test_cross_is_every_content_with_every_style(contents: list[str], styles: list[str]) -> None:
    made = plan(study(contents[:2], styles[:2]))
    assert names(made) == [(f"content-{a}", f"style-{b}") for a in (0, 1) for b in (0, 1)]
    assert made.num_trials == 8 == len(list(made.trials()))


def test_zip_is_first_with_first(contents: list[str], styles: list[str]) -> None:
    made = plan(study(contents, styles, pairs="zip"))
    assert names(made) == [(f"content-{index}", f"style-{index}") for index in range(3)]


def test_zip_of_unequal_numbers_is_refused_with_both(contents: list[str], styles: list[str]) -> None:
    with pytest.raises(StudyError, match="found 3 and 2"):
        plan(study(contents, styles[:2], pairs="zip"))


def test_zip_keeps_a_picture_that_comes_twice_under_two_names(
    contents: list[str], styles: list[str], tmp_path: Path
) -> None:
    copy = draw(tmp_path / "copy.png", 0)
    made = plan(study([contents[0], copy], styles[:2], pairs="zip"))
    assert names(made) == [("content-0", "style-0"), ("copy", "style-1")]
    assert made.duplicates == ()


def test_blend_is_every_content_with_all_styles(contents: list[str], styles: list[str]) -> None:
    made = plan(study(contents[:2], styles, pairs="blend"))
    assert names(made) == [(f"content-{index}", "style-0", "style-1", "style-2") for index in range(2)]


def test_a_list_gives_its_own_pairs(contents: list[str], styles: list[str], tmp_path: Path) -> None:
    rows = [(contents[2], styles[0]), (contents[0], styles[1]), (contents[2], styles[0])]
    source = tmp_path / "pairs.csv"
    source.write_text("content,style\n" + "".join(f"{content},{style}\n" for content, style in rows))
    made = plan(study([], [], pairs=str(source)))
    assert names(made) == [("content-2", "style-0"), ("content-0", "style-1")]


def test_reconstructions_need_one_side_only(contents: list[str], styles: list[str]) -> None:
    grid = {"content_layers": ["block2_conv2"], "style_layers": [[]], "init": ["noise"]}
    assert names(plan(study(contents, [], grid=grid))) == [(f"content-{index}",) for index in range(3)]
    grid = {"content_layers": [[]], "style_layers": STYLE_LAYERS, "init": ["noise"]}
    assert names(plan(study([], styles, grid=grid))) == [(f"style-{index}",) for index in range(3)]


# Duplicates and identities


def test_a_second_name_for_the_same_content_is_left_out_and_told(
    contents: list[str], styles: list[str], tmp_path: Path
) -> None:
    copy = draw(tmp_path / "other" / "content-0.png", 0)
    made = plan(study([*contents, copy], styles[:1]))
    assert made.duplicates == ((copy, contents[0]),)
    assert len(made.pairs) == 3


def test_equal_base_names_with_other_contents_are_other_pictures(styles: list[str], tmp_path: Path) -> None:
    twins = [draw(tmp_path / folder / "photo.png", level) for level, folder in enumerate("ab")]
    assert len({trial.trial_id for trial in plan(study(twins, styles[:1])).trials()}) == 4


def test_identities_do_not_depend_on_names_or_order(contents: list[str], styles: list[str], tmp_path: Path) -> None:
    renamed = [draw(tmp_path / f"z{level}.png", level) for level in (2, 0, 1)]
    first, second = plan(study(contents, styles)), plan(study(renamed, styles[::-1]))
    assert {trial.trial_id for trial in first.trials()} == {trial.trial_id for trial in second.trials()}


def test_identities_depend_on_everything_that_changes_the_result(contents: list[str], styles: list[str]) -> None:
    layers = {"content_layers": ["block2_conv2"], "style_layers": STYLE_LAYERS}
    variants: list[dict[str, Any]] = [
        {}, {"image": {"size": 65}}, {"image": {"size": 64, "fit": "keep"}}, {"loss": "mean"},
        {"optimizer": {"steps": 7}}, {"network": {"pooling": "average"}}, {"grid": layers | {"seed": [1]}},
        {"grid": layers | {"alpha": [0.25]}}, {"grid": layers | {"style_scale": [0.5]}},
    ]  # fmt: skip
    made = [plan(study(contents[:1], styles[:1], **({"grid": layers} | changes))) for changes in variants]
    assert len({next(each.trials()).trial_id for each in made}) == len(variants)


def test_the_plans_identities_are_those_of_its_trials(contents: list[str], styles: list[str]) -> None:
    absent = Path(contents[0]).with_name('it\'s "gone" é.png')
    absent.symlink_to("nowhere")
    made = plan(study([*contents, str(absent)], styles))
    expected = [trial_id(trial.content, trial.styles, trial.configuration.identity()) for trial in made.trials()]
    assert [trial.trial_id for trial in made.trials()] == expected
    assert np.array_equal(made.trial_ids(), packed(expected))


# Bad inputs


def test_a_bad_picture_fails_its_trials_and_no_others(
    contents: list[str], styles: list[str], tmp_path: Path
) -> None:
    bad = tmp_path / "page.jpg"
    bad.write_bytes(b"<html>not found</html>")
    made = plan(study([*contents, str(bad)], styles[:2]))
    assert [each.picture.uri for each in made.bad] == [str(bad)]
    failing = [trial for trial in made.trials() if trial.error_type]
    assert len(failing) == 4 == made.num_trials - sum(made.sizes().values())
    assert {(trial.error_type, trial.batch, trial.width) for trial in failing} == {
        ("not_an_image", BAD_INPUT_BATCH, 0)
    }
    assert all("page.jpg" in (trial.error_message or "") for trial in failing)


def test_two_bad_pictures_with_the_same_bytes_are_both_told_and_planned_once(
    styles: list[str], tmp_path: Path
) -> None:
    bad = [tmp_path / "a.png", tmp_path / "b.png"]
    for file in bad:
        file.write_bytes(b"nothing to see")
    made = plan(study([str(file) for file in bad], styles[:1]))
    assert [each.picture.uri for each in made.bad] == [str(file) for file in bad]
    assert made.duplicates == ((str(bad[1]), str(bad[0])),)
    assert len({trial.trial_id for trial in made.trials()}) == made.num_trials == 2


def test_two_pictures_that_cannot_be_read_are_told_apart_by_their_names(styles: list[str], tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).symlink_to("nowhere")
    made = plan(study([str(tmp_path / name) for name in "ab"], styles[:1]))
    assert len({trial.trial_id for trial in made.trials()}) == made.num_trials == 4


def test_a_picture_too_small_for_the_deepest_layer_says_so(styles: list[str], tmp_path: Path) -> None:
    thread = draw(tmp_path / "thread.png", 9, 400, 4)
    made = plan(study([thread], styles[:1], image={"size": 64, "fit": "keep"}))
    found = next(made.trials())
    assert found.error_type == "too_small"
    assert "thread.png: 400×4 pixels become 64×1" in (found.error_message or "")
    assert not made.bad
    assert not made.sizes()


# Batches


def test_batches_are_full_and_of_one_size(styles: list[str], tmp_path: Path) -> None:
    shapes = [(64, 48), (48, 64), (64, 64)] * 3
    photos = [draw(tmp_path / f"{index}.png", index, *shape) for index, shape in enumerate(shapes)]
    made = plan(study(photos, styles[:1], image={"size": 64, "fit": "keep"}), batch_size=4)
    trials = list(made.trials())
    sizes: dict[int, set[tuple[int, int]]] = {}
    for trial in trials:
        sizes.setdefault(trial.batch, set()).add((trial.width, trial.height))
    assert all(len(each) == 1 for each in sizes.values())
    assert [trial.batch for trial in trials] == sorted(trial.batch for trial in trials)
    counts = Counter(trial.batch for trial in trials)
    assert sorted(counts.values()) == [2, 2, 2, 4, 4, 4]
    assert made.num_batches == len(counts) == max(counts) + 1
    assert made.sizes() == {(64, 48): 6, (48, 64): 6, (64, 64): 6}


def test_bad_trials_do_not_leave_holes_in_batches(contents: list[str], styles: list[str], tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.touch()
    made = plan(study(contents, [styles[0], str(bad), styles[1]]), batch_size=4)
    counts = Counter(trial.batch for trial in made.trials() if trial.batch != BAD_INPUT_BATCH)
    assert list(counts.values()) == [4, 4, 4]
    assert made.num_batches == 3


def test_the_plan_is_numbered_without_gaps_and_can_be_read_again(contents: list[str], styles: list[str]) -> None:
    made = plan(study(contents, styles))
    first, second = list(made.trials()), list(made.trials())
    assert [trial.trial_index for trial in first] == list(range(made.num_trials))
    assert first == second


def test_some_of_the_trials_are_batched_among_themselves(contents: list[str], styles: list[str]) -> None:
    made = plan(study(contents, styles), batch_size=4)
    chosen = np.arange(made.num_trials) % 3 == 0
    some = list(made.trials(chosen, first_batch=7))
    assert np.array_equal(packed(trial.trial_id for trial in some), made.trial_ids()[chosen])
    assert [trial.trial_index for trial in some] == list(range(6))
    assert [trial.batch for trial in some] == [7] * 4 + [8] * 2


# Extending a run directory (what becomes of it is tested in test_run)


def written(of: Plan, path: Path) -> RunDirectory:
    run = RunDirectory(path)
    with Committer(run) as committer:
        committer.write_plan({"name": of.study.name, "study": of.study.to_dict()}, of.trials())
    return run


def test_an_extension_is_what_is_new_numbered_on_and_in_full_batches(
    contents: list[str], styles: list[str], tmp_path: Path
) -> None:
    run = written(plan(study(contents[:2], styles[:1])), tmp_path / "run")
    larger = plan(study(contents, styles[:2]), batch_size=4)
    added = list(extend(run, larger))
    assert [trial.trial_index for trial in added] == list(range(4, 12))
    assert [trial.batch for trial in added] == [1] * 4 + [2] * 4
    known = {trial.trial_id for trial in run.iter_plan()}
    assert {trial.trial_id for trial in added} == {trial.trial_id for trial in larger.trials()} - known


def test_pictures_that_changed_are_named(contents: list[str], styles: list[str], tmp_path: Path) -> None:
    run = written(plan(study(contents, styles[:1])), tmp_path / "run")
    draw(Path(contents[1]), 77)
    draw(Path(styles[0]), 78)
    with pytest.raises(StudyChangedError) as caught:
        extend(run, plan(study(contents, styles[:1])))
    assert f"{contents[1]}: changed or gone" in str(caught.value)
    assert f"{styles[0]}: changed or gone" in str(caught.value)
    assert contents[0] not in str(caught.value)


def test_of_a_picture_that_cannot_be_read_now_the_reason_is_told(
    contents: list[str], styles: list[str], tmp_path: Path
) -> None:
    listed = tmp_path / "list.csv"
    listed.write_text("uri\n" + "\n".join(contents))
    run = written(plan(study([str(listed)], styles[:1])), tmp_path / "run")
    Path(contents[1]).unlink()
    with pytest.raises(StudyChangedError, match=f"{contents[1]}: no such file"):
        extend(run, plan(study([str(listed)], styles[:1])))


def extend(run: RunDirectory, larger: Plan) -> Iterator[Trial]:
    return extension(larger, run, run.study["study"], run.directory.url())


def test_a_picture_that_is_back_is_noticed_and_its_trials_keep_their_places(
    contents: list[str], styles: list[str], tmp_path: Path
) -> None:
    listed = tmp_path / "list.csv"
    listed.write_text("uri\n" + "\n".join(contents))
    the_study = study([str(listed)], styles[:1])
    good = [trial.trial_id for trial in plan(the_study).trials()]
    away = Path(contents[1]).rename(tmp_path / "away")
    run = written(plan(the_study), tmp_path / "run")
    listing = list_inputs(the_study.content, the_study.style, the_study.pairs)
    assert not readable_again(run, listing)
    away.rename(contents[1])
    assert readable_again(run, listing)
    again = list(extend(run, plan(the_study)))
    bad = {trial.trial_index for trial in run.iter_plan() if trial.error_type == "missing"}
    assert {trial.trial_index for trial in again} == bad
    assert len(bad) == 2
    kept = {trial.trial_id for trial in run.iter_plan() if trial.error_type is None}
    assert {trial.trial_id for trial in again} | kept == set(good)
