"""The Python face: `open_run` and what a `Run` answers."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

import nst_batch
from nst_batch.errors import QueryError, RunDirectoryError
from nst_batch.store.run_directory import RunDirectory
from nst_batch.study.model import Study
from tests import small_run


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    folder = tmp_path_factory.mktemp("api")
    contents = small_run.inputs(folder / "photos", ["a.png", "b.png"])
    chosen = small_run.configurations({"alpha": 1.0}, {"alpha": 2.0})
    trials = list(small_run.plan(contents, [contents[:1]], chosen))
    return small_run.write(folder / "run", trials, failing=[3])


@pytest.fixture
def run(directory: RunDirectory) -> nst_batch.Run:
    return nst_batch.open_run(directory.directory.root)


def test_the_public_names() -> None:
    assert nst_batch.__all__ == ["Run", "__version__", "open_run", "run_study"]
    assert set(nst_batch.__all__) <= set(dir(nst_batch))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = nst_batch.nothing


def test_tables_are_arrow_tables(run: nst_batch.Run) -> None:
    assert run.trials().num_rows == 4
    assert run.curves().num_rows == 3
    assert run.layers(["layer"]).num_rows == 3 * 13
    assert run.counts() == {"ok": 3, "failed": 1, "diverged": 0, "pending": 0}
    assert run.study["name"] == "simulated"


def test_pictures(run: nst_batch.Run) -> None:
    ids = run.trials(["trial_id"])["trial_id"].to_pylist()
    assert run.image(ids[0]).size == (small_run.EDGE, small_run.EDGE)
    with pytest.raises(QueryError, match="failed, so it has no picture: bad luck"):
        run.image(ids[3])
    with pytest.raises(QueryError, match="no such trial has ended"):
        run.image("none")


def test_questions(run: nst_batch.Run) -> None:
    assert run.query("SELECT max(alpha) AS most FROM trials").to_pylist() == [{"most": 2.0}]
    assert run.rank("content").num_rows == 2
    assert Path(run.report()).exists()
    assert run.show(where="status = 'failed'")["trial_index"].to_pylist() == [3]
    assert run.verify(images=False).num_rows == 4


def test_exports_and_sheets(run: nst_batch.Run, tmp_path: Path) -> None:
    assert [path.name for path in run.export("csv", tmp_path / "tables")] == ["trials.csv", "layers.csv"]
    assert all(Path(sheet).exists() for sheet in run.sheets())
    assert run.is_complete


def test_what_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="not a run directory"):
        nst_batch.open_run(tmp_path / "none")


def test_a_study_object_cannot_be_overridden() -> None:
    study = Study(name="x", content=("a.png",), style=("b.png",))
    assert dataclasses.is_dataclass(study)
    with pytest.raises(ValueError, match="expected a study file or preset to override"):
        nst_batch.run_study(study, "out", size=64)


@pytest.mark.slow
def test_a_study_runs_from_python(tmp_path: Path) -> None:
    contents = small_run.inputs(tmp_path / "photos", ["a.png"])
    run = nst_batch.run_study(
        "demo",
        tmp_path / "run",
        content=[contents[0].uri],
        style=[contents[0].uri],
        size=32,
        steps=2,
        overrides=["grid.content_layers=[block1_conv1, block2_conv1]", "network.arch=vgg11"],
    )
    assert run.counts()["ok"] == 2
    assert run.image(run.trials(["trial_id"])["trial_id"][0].as_py()).size == (32, 32)
