"""Where a run may be written: nothing that the program did not write is ever changed or removed."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd  # type: ignore[import-untyped]
import pytest

from nst_batch.errors import RunDirectoryError
from nst_batch.records import ALGORITHM
from nst_batch.store.committer import Committer
from nst_batch.store.files import Directory
from nst_batch.store.lock import check_writable
from nst_batch.store.run_directory import RunDirectory
from tests import simulated


def planned(path: Path) -> RunDirectory:
    run = RunDirectory(path)
    with Committer(run) as committer:
        committer.write_plan(simulated.STUDY, simulated.trials(20))
    return run


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


FOREIGN: dict[str, bytes | pd.DataFrame] = {
    "thesis.docx": b"precious",
    "plan/part-00007.parquet": pd.DataFrame({"x": [1]}),
    "plan/part-00000.parquet": b"not even Parquet",
    "plan/notes.txt": b"precious",
    "lock": b"the combination is 1234",
    "staging/tmp-notes": b"precious",
    "staging/segment-old": b"precious",
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_folder_with_something_else_is_refused_and_left_alone(tmp_path: Path, name: str) -> None:
    path, content = tmp_path / name, FOREIGN[name]
    path.parent.mkdir(exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        content.to_parquet(path)
    before = contents(tmp_path)
    with (
        pytest.raises(
            RunDirectoryError, match=rf"found {Path(name).parts[0]} and no study\.json; choose another --out"
        ),
        Committer(RunDirectory(tmp_path)),
    ):
        pass
    assert contents(tmp_path) == before


def test_what_a_user_put_into_a_run_directory_stays(tmp_path: Path) -> None:
    run = planned(tmp_path)
    for name in ("plan/part-00009.parquet", "plan/zz.txt", "staging/tmp-notes", "trials.txt", "images/mine.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"precious")
    mine = {name: data for name, data in contents(tmp_path).items() if data == b"precious"}
    assert len(mine) == 5
    with Committer(run) as committer:
        committer.write_plan(simulated.STUDY, simulated.trials(40, start=20))
        for trial in run.iter_plan():
            committer.commit(simulated.result(trial))
        assert committer.finish()
    assert mine.items() <= contents(tmp_path).items()


def test_what_a_killed_run_left_before_it_had_a_plan_is_taken_over(tmp_path: Path) -> None:
    planned(tmp_path)
    (tmp_path / "study.json").unlink()
    Directory(tmp_path).stage("study.json", b"half a study")
    (tmp_path / ".DS_Store").write_bytes(b"")
    planned(tmp_path)
    assert [path.name for path in (tmp_path / "staging").iterdir()] == []


def test_an_empty_lock_is_a_run_that_was_killed_at_once_only_where_nothing_else_is(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    check_writable(RunDirectory(tmp_path))
    (tmp_path / "plan").mkdir()
    (tmp_path / "plan" / "part-00000.parquet").write_bytes(b"precious")
    with pytest.raises(RunDirectoryError, match=r"found lock, plan and no study\.json; choose another --out"):
        check_writable(RunDirectory(tmp_path))


@pytest.mark.parametrize("num_ended", [20, 3])
def test_results_whose_study_is_gone_are_refused_and_left_alone(tmp_path: Path, num_ended: int) -> None:
    run = planned(tmp_path)
    with Committer(run) as committer:
        for trial in islice(run.iter_plan(), num_ended):
            committer.commit(simulated.result(trial))
    (tmp_path / "study.json").unlink()
    before = contents(tmp_path)
    with (
        pytest.raises(RunDirectoryError, match=r"no study\.json; choose another --out"),
        Committer(RunDirectory(tmp_path)),
    ):
        pass
    assert contents(tmp_path) == before


def test_a_run_of_another_algorithm_is_refused_with_both_versions(tmp_path: Path) -> None:
    run = planned(tmp_path)
    study = json.loads(run.directory.read("study.json"))
    run.directory.write("study.json", json.dumps(study | {"algorithm": ALGORITHM - 1}).encode())
    before = contents(tmp_path)
    versions = f"planned for algorithm {ALGORITHM - 1}, this nst-batch computes by algorithm {ALGORITHM}"
    with (
        pytest.raises(RunDirectoryError, match=f"{versions}.*choose another --out"),
        Committer(RunDirectory(tmp_path)),
    ):
        pass
    assert contents(tmp_path) == before
    assert RunDirectory(tmp_path).counts()["pending"] == 20, "it can still be read"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 99}, "found 99; upgrade nst-batch"),
        ({"format_version": 1}, "found 1; run the study into another --out"),
        ({"format": "another program's"}, "not written by nst-batch"),
    ],
)
def test_another_format_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    run = planned(tmp_path)
    study = json.loads(run.directory.read("study.json"))
    run.directory.write("study.json", json.dumps(study | change).encode())
    with pytest.raises(RunDirectoryError, match=message):
        check_writable(RunDirectory(tmp_path))


def test_a_damaged_study_is_refused(tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text("{")
    with pytest.raises(RunDirectoryError, match="damaged"):
        check_writable(RunDirectory(tmp_path))
    with pytest.raises(RunDirectoryError, match=r"no study\.json"):
        _ = RunDirectory(tmp_path / "nothing").study


def test_a_lock_that_is_a_link_is_not_written_through(tmp_path: Path) -> None:
    planned(tmp_path / "run")
    notes = tmp_path / "notes"
    notes.write_text("precious")
    (tmp_path / "run" / "lock").unlink()
    (tmp_path / "run" / "lock").symlink_to(notes)
    with pytest.raises(RunDirectoryError, match="symbolic links"), Committer(RunDirectory(tmp_path / "run")):
        pass
    assert notes.read_text() == "precious"


@pytest.mark.parametrize("url", ["file://runs/w7", "file://", "local://runs/w7"])
def test_a_file_url_without_an_absolute_path_is_refused(url: str) -> None:
    with pytest.raises(RunDirectoryError, match=r"expected [a-z]*:///PATH"):
        RunDirectory(url)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("simplecache::file://{folder}/run", "chains of URLs with '::' are not followed"),
        ("zip://a::file://{folder}/x.zip", "chains of URLs with '::' are not followed"),
        ("file::local://{folder}/run", "chains of URLs with '::' are not followed"),
        ("ftp://127.0.0.1:9/run", "expected one of http, https, .*, found the protocol 'ftp'"),
        ("zip://{folder}/x.zip", "expected one of http, https, .*, found the protocol 'zip'"),
    ],
)
def test_other_protocols_and_chains_are_refused_and_make_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with (
        pytest.raises(RunDirectoryError, match=f"cannot open this URL: {message}"),
        Committer(RunDirectory(url.format(folder=tmp_path))),
    ):
        pass
    assert list(tmp_path.iterdir()) == []
