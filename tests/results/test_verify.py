"""verify finds what was done to a run directory, and nothing in a sound one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from nst_batch.cli.program import app
from nst_batch.errors import RunDirectoryError
from nst_batch.records import Trial
from nst_batch.results.verify import verify
from nst_batch.store import tables
from nst_batch.store.committer import Committer
from nst_batch.store.run_directory import RunDirectory
from tests import simulated


def result(trial: Trial) -> Any:
    """A result that is sound: totals are sums, and a row's distances are its layers' means."""
    made = simulated.result(trial)
    configuration, curve = trial.configuration, made.curve
    assert curve is not None
    values = tuple(float(trial.trial_index * 4 + step) for step in range(3))
    total = tuple((configuration.alpha + configuration.beta) * value for value in values)
    curve = type(curve)(step=(0, 1, 2), content=values, style=values, tv=(0.0,) * 3, total=total)
    mean = sum(layer.content_distance or 0.0 for layer in made.layers) / len(made.layers)
    outcome = replace(
        made.outcome, initial=curve.at(0), final=curve.at(2), content_distance=mean, style_distance=None
    )
    return replace(made, curve=curve, outcome=outcome)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 40 trials, one of which failed."""
    path = tmp_path_factory.mktemp("sound") / "run"
    run = RunDirectory(path)
    with Committer(run) as committer:
        committer.write_plan(simulated.STUDY, simulated.trials(40))
        for trial in run.iter_plan():
            committer.commit(simulated.failure(trial) if trial.trial_index == 7 else result(trial))
        committer.finish()
    return path


@pytest.fixture
def copy(sound: Path, tmp_path: Path) -> Path:
    shutil.copytree(sound, tmp_path / "run")
    return tmp_path / "run"


def problems(path: Path) -> str:
    return "\n".join(verify(RunDirectory(path)).problems)


def rewritten(path: Path, change: Callable[[list[dict[str, Any]]], object]) -> None:
    """Changes the rows of a published file and writes them as the program does."""
    rows = pq.read_table(path).to_pylist()
    change(rows)
    name = path.parent.name
    path.write_bytes(tables.parquet_bytes(pa.Table.from_pylist(rows, tables.SCHEMAS[name]), name))


def test_a_sound_run_has_no_problems(sound: Path) -> None:
    found = verify(RunDirectory(sound))
    assert found.problems == []
    assert (found.num_trials, found.num_rows, found.num_images) == (40, 40, 39)
    ended = CliRunner().invoke(app, ["verify", str(sound)])
    assert (ended.exit_code, ended.stdout) == (0, "")
    assert "40 published rows of 40 trials, 39 pictures: all sound" in ended.stderr


def test_a_run_in_progress_has_no_problems(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    with Committer(run) as committer:
        committer.write_plan(simulated.STUDY, simulated.trials(40))
        for trial in simulated.trials(20):
            committer.commit(result(trial))
    assert verify(run).problems == []
    assert "the run has not ended" in CliRunner().invoke(app, ["verify", str(tmp_path / "run")]).stderr


def test_an_interrupted_extension_has_no_problems(copy: Path) -> None:
    with Committer(RunDirectory(copy)) as committer:
        committer.write_plan(simulated.STUDY, simulated.trials(60, start=40))
        assert verify(RunDirectory(copy)).problems == []
        for trial in simulated.trials(47, start=40):
            committer.commit(result(trial))
    assert verify(RunDirectory(copy)).problems == []
    # Killed between the files of the part that is being filled: `trials`, which decides, was about to follow.
    before = (copy / "trials" / "part-00002.parquet").read_bytes()
    with Committer(RunDirectory(copy)) as committer:
        committer.commit(result(simulated.trial(47)))
    (copy / "trials" / "part-00002.parquet").write_bytes(before)
    assert verify(RunDirectory(copy)).problems == []


def test_a_row_missing_from_within_a_part_of_an_unfinished_run(tmp_path: Path) -> None:
    with Committer(RunDirectory(tmp_path)) as committer:
        committer.write_plan(simulated.STUDY, simulated.trials(40))
        for trial in simulated.trials(20):
            committer.commit(result(trial))
    rewritten(tmp_path / "trials" / "part-00000.parquet", lambda rows: rows.pop(3))
    assert "its trials are not those of the plan" in problems(tmp_path)


def test_pictures_that_are_gone_or_changed(copy: Path) -> None:
    first, second = (path for path in sorted((copy / "images").rglob("*.png"))[:2])
    first.unlink()
    second.write_bytes(b"something else")
    found = problems(copy)
    assert f"{first.relative_to(copy)}: missing" in found
    assert f"{second.relative_to(copy)}: its content is not what was written" in found
    ended = CliRunner().invoke(app, ["verify", str(copy)])
    assert ended.exit_code == 1
    assert len(ended.stdout.splitlines()) == 2
    assert CliRunner().invoke(app, ["verify", str(copy), "--no-images"]).exit_code == 0
    assert len(json.loads(CliRunner().invoke(app, ["verify", str(copy), "--json"]).stdout)["problems"]) == 2


def test_a_picture_outside_of_the_run(copy: Path) -> None:
    def point_elsewhere(rows: list[dict[str, Any]]) -> None:
        rows[0]["image_path"] = "../../etc/passwd"

    rewritten(copy / "trials" / "part-00000.parquet", point_elsewhere)
    assert "image_path '../../etc/passwd' is not the place of its picture" in problems(copy)


@pytest.mark.parametrize(
    ("table", "column", "value", "told"),
    [
        ("trials", "trial_id", "f" * 32, "trial_id is ffff"),
        ("trials", "content_sha256", "0" * 64, "content_sha256 is 0000"),
        ("trials", "final_total_loss", 1.0, "final total loss is 1, its terms make"),
        ("trials", "initial_total_loss", 1.0, "initial total loss is 1, its terms make"),
        ("trials", "alpha", 7.0, "alpha is 7.0, planned was"),
        ("trials", "alpha", None, "alpha is None, planned was"),
        ("trials", "study", "another", "study is another, planned was simulated"),
        ("trials", "style_uri", "other.jpg", "style_uri is other.jpg, planned was photos/style.jpg"),
        ("trials", "style_sha256", "0" * 64, "style_sha256 is 0000"),
        ("trials", "width", 301, "width is 301, planned was 300"),
        ("trials", "seed", 7, "seed is 7, planned was 0"),
        ("trials", "weights", "imagenet", "weights is imagenet, planned was random:0"),
        ("trials", "style_layers", ["block5_conv1"], "style_layers is ['block5_conv1'], planned was"),
        ("trials", "content_layers", [], "content_layers is [], planned was ['block4_conv2']"),
        ("trials", "optimizer", "adam", "optimizer is adam, planned was lbfgs"),
        ("trials", "size", 512, "size is 512, planned was 300"),
        ("trials", "steps", 1, "steps is 1, planned was 300"),
        ("trials", "status", "fine", "unknown status 'fine'"),
        ("trials", "error_type", "RuntimeError", "status ok with error_type RuntimeError"),
        ("trials", "content_distance", float("nan"), "a number that is not finite"),
        ("trials", "content_distance", 0.1234, "its layers' mean is"),
        ("trials", "transfer_score", 0.9, "transfer_score is 0.9, its layers make None"),
        ("trials", "score_reason", None, "score_reason is None, its layers make no style picture"),
        ("curves", "total", [1.0, 2.0, 3.0], "totals that are not the sum of their terms"),
        ("curves", "step", [0, 2, 1], "its lists do not belong together"),
        ("curves", "total", [], "its lists do not belong together"),
        ("curves", "total", [1.0, None, 3.0], "its lists do not belong together"),
        ("layers", "layer", "block9_conv9", "not every convolution once and in order"),
        ("trials", "trial_id", None, "trial_id is None, planned was"),
        ("trials", "initial_tv_loss", None, "without a picture or a loss"),
        ("curves", "trial_id", None, "expected the curves of each trial that ran, once"),
        ("layers", "trial_id", None, "expected the layers of each trial that ran, once"),
    ],
)
def test_a_value_that_was_changed(copy: Path, table: str, column: str, value: object, told: str) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        rows[3][column] = value

    rewritten(copy / table / "part-00001.parquet", change)
    assert told in problems(copy)


@pytest.mark.parametrize("table", ["trials", "curves", "layers"])
def test_rows_that_are_missing_or_there_twice(copy: Path, table: str) -> None:
    path = copy / table / "part-00001.parquet"
    rewritten(path, lambda rows: rows.append(rows[0]))
    assert problems(copy)
    rewritten(path, lambda rows: (rows.pop(), rows.pop(0)))
    assert problems(copy)


def test_files_that_do_not_belong_there(copy: Path) -> None:
    (copy / "trials" / "notes.txt").write_text("mine")
    shutil.copyfile(copy / "curves" / "part-00000.parquet", copy / "curves" / "part-00099.parquet")
    (copy / "layers" / "part-00001.parquet").write_bytes(b"PAR1 but not for long")
    found = problems(copy)
    assert "trials/notes.txt: does not belong there" in found
    assert "curves/part-00099.parquet: beyond the end of the plan" in found
    assert "part-00001.parquet: cannot be read" in found


@pytest.mark.parametrize("column", ["node", "trial_id", "image_path"])
def test_other_columns_than_this_version_writes(copy: Path, column: str) -> None:
    path = copy / "trials" / "part-00000.parquet"
    pq.write_table(pq.read_table(path).drop_columns([column]), path)
    assert "trials/part-00000.parquet: its columns are not those of trials" in problems(copy)


def test_a_part_that_is_missing_although_the_run_has_ended(copy: Path) -> None:
    (copy / "trials" / "part-00002.parquet").unlink()
    assert "trials/part-00002.parquet: missing, although _SUCCESS exists" in problems(copy)


def test_a_plan_or_a_configuration_that_was_changed(copy: Path) -> None:
    path = copy / "study.json"
    study = json.loads(path.read_text())
    next(iter(study["configurations"].values()))["alpha"] = 9.0
    path.write_text(json.dumps(study))
    assert "was changed: it is" in problems(copy)
    rows = pq.read_table(copy / "plan" / "part-00000.parquet").to_pylist()
    rows[5]["content_sha256"] = "1" * 64
    data = tables.parquet_bytes(pa.Table.from_pylist(rows, tables.PLAN), "plan")
    (copy / "plan" / "part-00000.parquet").write_bytes(data)
    assert "plan: trial 5: its trial_id is not that of its pictures and configuration" in problems(copy)
    rows[5]["trial_id"] = "no id"
    data = tables.parquet_bytes(pa.Table.from_pylist(rows, tables.PLAN), "plan")
    (copy / "plan" / "part-00000.parquet").write_bytes(data)
    assert "plan: trial 5: its trial_id is not that of its pictures and configuration" in problems(copy)


def test_something_that_is_no_run_directory(tmp_path: Path) -> None:
    ended = CliRunner().invoke(app, ["verify", str(tmp_path)])
    assert "not a run directory" in str(ended.exception)


def test_a_run_of_another_algorithm_is_left_to_its_own_version(copy: Path) -> None:
    study = json.loads((copy / "study.json").read_text())
    (copy / "study.json").write_text(json.dumps(study | {"algorithm": 5}))
    with pytest.raises(RunDirectoryError, match=r"planned for algorithm 5, .*; use nst-batch 0$"):
        verify(RunDirectory(copy))
