"""A run that is repeated, extended, refused, killed or short of its disk: what is computed, and what is said."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from nst_batch.cluster.options import ClusterOptions
from nst_batch.cluster.progress import Progress, Silent
from nst_batch.errors import RunDirectoryError, StudyChangedError
from nst_batch.records import Result
from nst_batch.run import RunOptions, run_study
from nst_batch.store import committer
from nst_batch.store.lock import run_lock
from nst_batch.store.run_directory import RunDirectory
from tests import tiny, workers
from tests.driver import Driver, alive
from tests.object_store import Store, store

__all__ = ["store"]


def run(
    folder: Path,
    worker_class: type = workers.SimulatedWorker,
    *,
    study: dict[str, Any] | None = None,
    out: str | Path | None = None,
    reporter: Silent | None = None,
    **options: Any,
) -> Progress:
    """Runs the collection in `folder`."""
    chosen = RunOptions(
        out=str(out or folder / "out"),
        cluster=ClusterOptions(cpus_per_worker=1, max_workers=2),
        worker_class=worker_class,
        **options,
    )
    return run_study(tiny.study(folder, **(study or {})), chosen, reporter)


def good(count: int, first: int = 0) -> list[str]:
    return [f"good-{number:02d}" for number in range(first, first + count)]


class After(Silent):
    """Does something when so many trials have ended."""

    def __init__(self, count: int, action: Callable[[], object]) -> None:
        self._left, self._action = count, action

    def ended(self, result: Result) -> None:  # noqa: ARG002
        self._left -= 1
        if self._left == 0:
            self._action()


# Resume, retry, extend


@pytest.mark.usefixtures("embedded_ray")
def test_a_complete_study_computes_nothing_again(tmp_path: Path) -> None:
    photos = tiny.collection(tmp_path, good(5))
    assert run(tmp_path).ok == 5
    progress = run(tmp_path, workers.Unstartable)
    assert (progress.ok, progress.pending) == (5, 0)
    assert sum(workers.calls(photos).values()) == 5


def test_a_resume_computes_what_is_missing_and_nothing_else(tmp_path: Path, embedded_ray: str) -> None:
    photos = tiny.collection(tmp_path, good(40), seconds=0.4)
    driver = Driver(tmp_path, "--address", embedded_ray)
    driver.wait_for(lambda: tiny.num_recorded(driver.out) >= 8)
    driver.send(signal.SIGKILL)
    driver.end()
    recorded, begun = tiny.num_recorded(driver.out), sum(workers.calls(photos).values())
    (photos / workers.SECONDS).write_text("0")
    progress = run(tmp_path)
    assert (progress.ok, progress.pending) == (40, 0)
    computed_now = sum(workers.calls(photos).values()) - begun
    assert 0 <= computed_now - (40 - recorded) <= 1  # one may have been begun by a worker that outlived its driver
    assert set(workers.calls(photos)) == {row["trial_id"] for row in tiny.rows(tmp_path / "out")}
    tiny.assert_whole(tmp_path / "out")


@pytest.mark.usefixtures("embedded_ray")
def test_retry_failed_computes_the_failed_ones_alone(tmp_path: Path) -> None:
    photos = tiny.collection(tmp_path, [*good(6), "until-1"])
    assert run(tmp_path, batch_size=2).failed == 1
    before = workers.calls(photos)
    assert run(tmp_path).failed == 1  # without being asked, nothing is tried again
    assert workers.calls(photos) == before
    (photos / workers.HEALED).touch()
    progress = run(tmp_path, retry_failed=True)
    assert (progress.ok, progress.failed) == (7, 0)
    [(_, again)] = (workers.calls(photos) - before).items()
    assert again == 1
    [row] = [row for row in tiny.rows(tmp_path / "out") if "until" in row["content_uri"]]
    assert (row["status"], row["attempt"]) == ("ok", 2)
    tiny.assert_whole(tmp_path / "out")


@pytest.mark.usefixtures("embedded_ray")
def test_a_study_is_extended_by_pictures_and_by_values_of_an_axis(tmp_path: Path) -> None:
    photos = tiny.collection(tmp_path, good(4))
    run(tmp_path)
    first = {row["trial_id"]: row["trial_index"] for row in tiny.rows(tmp_path / "out")}
    tiny.collection(tmp_path, good(3, first=4))
    grid = {"alpha": [0.5, 1.0]}
    progress = run(tmp_path, study={"grid": grid})
    assert (progress.num_trials, progress.ok) == (14, 14)
    assert sum(workers.calls(photos).values()) == 14
    after = {row["trial_id"]: row["trial_index"] for row in tiny.rows(tmp_path / "out")}
    assert after | first == after
    tiny.assert_whole(tmp_path / "out")


@pytest.mark.usefixtures("embedded_ray")
@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ({"optimizer": {"steps": 3}}, "optimizer.steps: 2 → 3"),
        ({"name": "another"}, "name: tiny → another"),
        ({"grid": {"alpha": [1.0]}}, "grid.alpha: [0.5] → [1.0]"),
    ],
)
def test_any_other_change_is_refused_with_the_difference(
    tmp_path: Path, change: dict[str, Any], shown: str
) -> None:
    photos = tiny.collection(tmp_path, good(2))
    run(tmp_path)
    with pytest.raises(StudyChangedError) as caught:
        run(tmp_path, study=change)
    assert shown in str(caught.value)
    assert caught.value.exit_code == 2
    assert sum(workers.calls(photos).values()) == 2
    assert run(tmp_path).ok == 2


@pytest.mark.usefixtures("embedded_ray")
def test_pictures_that_are_gone_or_other_than_they_were_are_refused(tmp_path: Path) -> None:
    photos = tiny.collection(tmp_path, good(3))
    run(tmp_path)
    (photos / "good-01.png").write_bytes(tiny.picture(9999))
    with pytest.raises(StudyChangedError, match="of which 1 are not in the study as it is now"):
        run(tmp_path)
    (photos / "good-01.png").unlink()
    with pytest.raises(StudyChangedError, match=r"good-01\.png: changed or gone"):
        run(tmp_path)


@pytest.mark.usefixtures("embedded_ray")
def test_a_picture_that_changes_after_planning_is_a_failed_row_that_says_so(tmp_path: Path) -> None:
    photos = tiny.collection(tmp_path, good(4))

    def change() -> None:
        path = photos / "good-03.png"
        path.write_bytes(tiny.picture(9999))

    (photos / workers.SECONDS).write_text("0.3")
    progress = run(tmp_path, reporter=After(1, change), batch_size=1)
    assert (progress.ok, progress.failed) == (3, 1)
    [row] = [row for row in tiny.rows(tmp_path / "out") if row["status"] == "failed"]
    assert row["error_type"] == "changed"
    assert "good-03.png" in row["error_message"]


# One writer


def test_a_second_process_is_refused_and_goes_on_when_the_first_was_killed(
    tmp_path: Path, embedded_ray: str
) -> None:
    photos = tiny.collection(tmp_path, good(30), seconds=3.0)
    first = Driver(tmp_path, "--address", embedded_ray)
    first.wait_for(lambda: any((photos / workers.CALLS).iterdir()))
    code, said = Driver(tmp_path, "--address", embedded_ray).end()
    assert code == 1
    holder = f"host {os.uname().nodename}, pid {first.process.pid}, started 20"
    assert f"another process is writing to it: {holder}" in said
    first.send(signal.SIGKILL)
    first.end()
    (photos / workers.SECONDS).write_text("0")
    second = Driver(tmp_path, "--address", embedded_ray)
    code, said = second.end(seconds=60)
    assert (code, "30 of 30 trials ok" in said) == (0, True), said
    tiny.assert_whole(tmp_path / "out")


# Ray's own end


@pytest.mark.usefixtures("embedded_ray")
@pytest.mark.parametrize("victim", ["raylet", "gcs_server"])
def test_the_death_of_ray_itself_is_a_clear_end_and_loses_nothing(tmp_path: Path, victim: str) -> None:
    photos = tiny.collection(tmp_path, good(30), seconds=0.3)
    driver = Driver(tmp_path)
    driver.wait_for(lambda: len(list((photos / workers.CALLS).iterdir())) >= 6)
    family = driver.family()
    next(process for process in family if process.name() == victim).kill()
    code, said = driver.end(seconds=45)
    assert code == 1
    assert "Ray's own process" in said
    assert "run again to resume" in said
    assert tiny.num_recorded(driver.out) >= 2
    assert alive(driver.session()) == []
    (photos / workers.SECONDS).write_text("0")
    assert run(tmp_path).ok == 30
    tiny.assert_whole(tmp_path / "out")


def test_ray_ends_when_its_driver_was_killed(tmp_path: Path) -> None:
    photos = tiny.collection(tmp_path, good(30), seconds=0.3)
    driver = Driver(tmp_path)
    driver.wait_for(lambda: any((photos / workers.CALLS).iterdir()))
    family = [each for each in driver.family() if "Agent" not in each.name()]  # these take a minute
    driver.send(signal.SIGKILL)
    driver.end()
    tiny.wait_until(lambda: not alive(family), seconds=30)


# Disks and directories that go bad while a study runs


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    mount = tmp_path / "disk"
    mount.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mount)], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {made.stderr.strip()}")
    yield mount
    subprocess.run(["umount", "--lazy", str(mount)], check=True)


@pytest.mark.usefixtures("embedded_ray")
def test_a_full_disk_ends_the_run_clearly_and_a_resume_finishes_it(tmp_path: Path, small_disk: Path) -> None:
    tiny.collection(tmp_path, good(30))
    filler = small_disk / "filler"

    def fill() -> None:
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while file.write(b"\0" * 4096):
                pass

    with pytest.raises(RunDirectoryError, match="No space left on device; free space there, then run again"):
        run(tmp_path, out=small_disk / "out", reporter=After(10, fill))
    filler.unlink()
    assert run(tmp_path, out=small_disk / "out").ok == 30
    tiny.assert_whole(small_disk / "out")


def freeze(folder: Path, how: str) -> None:
    """`+i`: nothing can be written there, not even by root; `-i`: as before."""
    done = subprocess.run(["chattr", how, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"directories cannot be made immutable here: {done.stderr.strip()}")


@pytest.mark.usefixtures("embedded_ray")
def test_a_directory_that_becomes_read_only_ends_the_run_clearly(tmp_path: Path) -> None:
    tiny.collection(tmp_path, good(20))
    staging = tmp_path / "out" / "staging"
    try:
        with pytest.raises(RunDirectoryError, match="not permitted; choose another --out"):
            run(tmp_path, reporter=After(8, lambda: freeze(staging, "+i")))
        with pytest.raises(RunDirectoryError, match="not permitted"):
            run(tmp_path)
    finally:
        freeze(staging, "-i")
    assert run(tmp_path).ok == 20
    tiny.assert_whole(tmp_path / "out")


@pytest.mark.usefixtures("embedded_ray")
def test_a_directory_that_vanishes_ends_the_run_clearly(tmp_path: Path) -> None:
    tiny.collection(tmp_path, good(20), seconds=0.05)
    out = tmp_path / "out"
    with pytest.raises(RunDirectoryError):
        run(tmp_path, reporter=After(8, lambda: out.rename(tmp_path / "elsewhere")))
    shutil.rmtree(out, ignore_errors=True)
    (tmp_path / "elsewhere").rename(out)
    assert run(tmp_path).ok == 20
    tiny.assert_whole(out)


@pytest.mark.usefixtures("embedded_ray")
def test_a_store_that_goes_away_ends_the_run_clearly(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = partial(run_lock, refresh_seconds=1.0, dead_seconds=4.5)  # the first run's lease cannot be given up
    monkeypatch.setattr(committer, "run_lock", quick)
    tiny.collection(tmp_path, good(20), seconds=0.05)
    out = f"{store.url}/out"
    with pytest.raises(RunDirectoryError, match=r"[Cc]onnect.*run again to resume"):
        run(tmp_path, out=out, reporter=After(8, store.stop))
    store.start()
    assert run(tmp_path, out=out).ok == 20
    assert RunDirectory(out).is_complete()
