"""A directory on a disk, in memory and in an S3 that runs here."""

from __future__ import annotations

import errno
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from nst_batch.errors import LockedError, RunDirectoryError
from nst_batch.store.committer import Committer
from nst_batch.store.files import Directory
from nst_batch.store.lock import run_lock
from nst_batch.store.run_directory import RunDirectory
from tests import simulated, tiny
from tests.object_store import bucket

__all__ = ["bucket"]


@pytest.fixture(params=["path", "file", "local", "memory", "s3"])
def directory(request: pytest.FixtureRequest, tmp_path: Path) -> Directory:
    if request.param == "s3":
        return Directory(f"{request.getfixturevalue('bucket')}/{tmp_path.name}")
    roots = {
        "path": f"{tmp_path}/été 1",
        "local": f"local://{tmp_path}/a",
        "file": f"file://{tmp_path}/a%20b",
        "memory": f"memory://{tmp_path.name}",
    }
    return Directory(roots[request.param])


def test_files_are_written_read_listed_and_removed(directory: Directory) -> None:
    assert directory.names() == []
    assert directory.list("trials") == []
    assert directory.find("trials/a") is None
    assert not directory.exists("trials/a")
    directory.write("trials/b", b"2")
    directory.write("trials/a", b"1")
    directory.write("trials/a", b"one")
    directory.write("trials/deep/c", b"")
    directory.write("study.json", b"{}")
    assert directory.list("trials") == ["trials/a", "trials/b", "trials/deep/c"]
    assert set(directory.names()) - {"staging"} == {"study.json", "trials"}
    assert directory.list("staging") == []
    assert directory.read("trials/a") == directory.find("trials/a") == b"one"
    assert directory.open_input("trials/a").read() == b"one"
    assert directory.exists("trials/a")
    directory.remove("trials/a")
    directory.remove("trials/a")
    assert directory.list("trials") == ["trials/b", "trials/deep/c"]
    with pytest.raises(RunDirectoryError, match="trials/a: cannot read it"):
        directory.read("trials/a")


def test_a_local_file_is_never_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = Directory(tmp_path)
    directory.write("table/file", b"old")

    def full(_: int) -> None:
        assert [path.name for path in (tmp_path / "table").iterdir()] == ["file"]
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RunDirectoryError, match=r"table/file: cannot write it: No space left.*free space"):
        directory.write("table/file", b"new")
    assert directory.read("table/file") == b"old"
    assert directory.list("staging") == []


@pytest.mark.parametrize(
    ("number", "advice"),
    [(errno.EROFS, "--out"), (errno.EACCES, "permissions"), (errno.EIO, "run again to resume")],
)
def test_messages_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, advice: str) -> None:
    def failing(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("pathlib.Path.mkdir", failing)
    with pytest.raises(RunDirectoryError, match=f"{tmp_path}/a/b: cannot write it: .*{advice}"):
        Directory(tmp_path).write("a/b", b"")


def test_leftovers_of_a_killed_writer_are_removed_and_nothing_else(directory: Directory) -> None:
    staged = directory.stage("trials/part", b"half a table")
    for name in ("staging/segment-a.arrow", "staging/tmp-mine", "staging/tmp-1-2.txt"):
        directory.write(name, b"")
    Directory(directory.root).remove_staged()
    assert directory.list("staging") == ["staging/segment-a.arrow", "staging/tmp-1-2.txt", "staging/tmp-mine"]
    with pytest.raises(LockedError, match="trials/part: not written: another process has taken"):
        directory.move(staged, "trials/part")
    assert not directory.exists("trials/part")


def test_new_folders_survive_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry of every new folder is synced in its parent, before anything in it is reported as written."""
    synced, real = set(), os.fsync

    def recording(descriptor: int) -> None:
        synced.add(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        real(descriptor)

    monkeypatch.setattr("os.fsync", recording)
    Directory(tmp_path / "runs" / "first").write("images/ab/picture", b"")
    folders = {"", "/runs", "/runs/first", "/runs/first/images", "/runs/first/images/ab", "/runs/first/staging"}
    assert {f"{tmp_path}{folder}" for folder in folders - {"/runs/first/staging"}} <= synced


def test_a_folder_that_cannot_be_listed_is_not_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.scandir

    def failing(path: str) -> Any:
        if str(path).endswith("trials"):
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        return real(path)

    run = RunDirectory(tmp_path)
    with Committer(run) as committer:
        committer.write_plan(simulated.STUDY, simulated.trials(16))
        for trial in run.iter_plan():
            committer.commit(simulated.result(trial))
        committer.finish()
    with monkeypatch.context() as patch:
        patch.setattr("os.scandir", failing)
        with pytest.raises(RunDirectoryError, match=r"trials: cannot list it: Input/output error"), Committer(run):
            pass
        with pytest.raises(RunDirectoryError, match="trials: cannot list it"):
            run.counts()
    assert run.is_complete()


def test_unknown_kinds_of_url_are_refused() -> None:
    with pytest.raises(RunDirectoryError, match="cannot open this URL"):
        Directory("carrier-pigeon://coop/run")


def test_a_clouds_own_error_neither_ends_the_lease_nor_passes_unexplained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aiohttp = pytest.importorskip("aiohttp")
    assert not issubclass(aiohttp.ClientPayloadError, OSError)
    directory = Directory(f"memory://{tmp_path.name}")

    def failing(*_: object, **__: object) -> None:
        raise aiohttp.ClientPayloadError("503")

    with run_lock(directory, refresh_seconds=0.1, dead_seconds=20) as lock:
        with monkeypatch.context() as patch:
            patch.setattr(type(directory.filesystem), "pipe_file", failing)
            with pytest.raises(RunDirectoryError, match="cannot write it: 503; see that it can be reached"):
                directory.write("a", b"")
            time.sleep(0.5)
        renewed = directory.read("leases/000001")
        tiny.wait_until(lambda: directory.read("leases/000001") != renewed, seconds=60)  # it goes on
        lock.check()


def test_a_bucket_that_does_not_exist_is_explained(bucket: str) -> None:
    with pytest.raises(RunDirectoryError, match="does not exist"):
        Directory(bucket + "-missing/run").write("a", b"")


def test_a_study_runs_in_an_object_store(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plan, commit, extend and read on S3, one writer at a time."""
    monkeypatch.setattr(
        "nst_batch.store.committer.run_lock", lambda at: run_lock(at, refresh_seconds=0.3, dead_seconds=10)
    )
    run = RunDirectory(f"{bucket}/whole/run")
    with Committer(run) as committer:
        committer.write_plan(simulated.STUDY, simulated.trials(20))
        for trial in run.iter_plan():
            committer.commit(simulated.result(trial))
        assert committer.finish()
        with (
            pytest.raises(LockedError, match="another process is writing"),
            Committer(RunDirectory(run.directory.root)),
        ):
            pass
    again = RunDirectory(run.directory.root)
    with Committer(again) as committer:
        committer.write_plan(simulated.STUDY, simulated.trials(24, start=20))
        for trial in again.iter_plan(skip=committer.ended):
            committer.commit(simulated.result(trial))
        committer.flush()
    assert again.table("trials")["trial_index"].to_pylist() == list(range(24))
    assert again.directory.list("staging") == []
    assert json.loads(again.directory.read("leases/000002"))["released"]
    assert again.parts() == ["part-00000.parquet", "part-00001.parquet"]
