"""A run whose process, Ray, disk or store goes away: what is computed, and what is said."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray

from nst_batch.cluster.progress import Reporter
from nst_batch.errors import RunDirectoryError
from nst_batch.records import PROCESS_BYTES
from nst_batch.run import _local_inputs, _worker_bytes
from nst_batch.store import committer
from nst_batch.store.committer import Committer
from nst_batch.store.lock import run_lock
from nst_batch.store.run_directory import RunDirectory
from tests import simulated, small_run, tiny, workers
from tests.driver import Driver, alive
from tests.object_store import Store, store

__all__ = ["store"]


# One writer


def test_a_second_process_is_refused_and_goes_on_when_the_first_was_killed(
    tmp_path: Path, embedded_ray: str
) -> None:
    photos = tiny.collection(tmp_path, tiny.good(30), seconds=3.0)
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
    code, said = second.end()
    assert (code, "30 of 30 trials ok" in said) == (0, True), said
    tiny.assert_whole(tmp_path / "out")


# Files that every worker must see


def test_workers_are_asked_for_pictures_masks_and_weights(tmp_path: Path) -> None:
    content, style, mask = small_run.inputs(tmp_path, ["content.png", "style.png", "mask.png"])
    [chosen] = small_run.configurations({"weights": style.uri})
    trials = small_run.plan([replace(content, mask=mask)], [[style]], [chosen])
    with Committer(RunDirectory(tmp_path / "run")) as writing:
        writing.write_plan(simulated.STUDY, trials)
        assert _local_inputs(writing) == [content.uri, style.uri, mask.uri, style.uri]


# Memory


def test_a_worker_needs_what_the_largest_configuration_takes() -> None:
    def needed(*changes: dict[str, Any]) -> int:
        return _worker_bytes(small_run.configurations(*changes), None)

    shallow, deep = {"style_layers": ("block1_conv1",)}, {"style_layers": ("block1_conv1", "block5_conv1")}
    few, many = {"steps": 1}, {"steps": 300}
    for less, more in ((shallow, deep), (few, many), ({"size": 64}, {"size": 1024})):
        assert PROCESS_BYTES < needed(less) < needed(more)
    for less, more in ((shallow, deep), (few, many)):
        assert needed(less, more) == needed(more, less) == needed(more)


@pytest.mark.usefixtures("embedded_ray")
def test_as_many_workers_compute_as_memory_holds(tmp_path: Path) -> None:
    tiny.collection(tmp_path, tiny.good(4))
    node_bytes = ray.cluster_resources()["memory"]  # type: ignore[no-untyped-call]
    for size in (256, 16_384):
        notes = Notes()
        changes = {"image": {"size": size}}
        assert tiny.run(tmp_path, changes=changes, out=tmp_path / f"{size}", reporter=notes).ok == 4
        [configuration] = RunDirectory(tmp_path / f"{size}").configurations.values()
        fitting = int(node_bytes // _worker_bytes([configuration], None))
        count = max(1, min(2, fitting))
        assert notes.texts[0].startswith(f"{count} worker{'s' if count > 1 else ''} with 1 CPU core")


class Notes(Reporter):
    """Keeps what is to be seen once."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)


# Ray's own end


@pytest.mark.usefixtures("embedded_ray")
@pytest.mark.parametrize("victim", ["raylet", "gcs_server"])
def test_the_death_of_ray_itself_is_a_clear_end_and_loses_nothing(tmp_path: Path, victim: str) -> None:
    photos = tiny.collection(tmp_path, tiny.good(80), seconds=0.4)
    driver = Driver(tmp_path)
    driver.wait_for(lambda: tiny.num_recorded(driver.out) >= 2)
    family = driver.family()
    next(process for process in family if process.name() == victim).kill()
    code, said = driver.end()
    assert code == 1
    assert "Ray's own process" in said
    assert "run again to resume" in said
    assert tiny.num_recorded(driver.out) >= 2
    assert alive(driver.session()) == []
    (photos / workers.SECONDS).write_text("0")
    assert tiny.run(tmp_path).ok == 80
    tiny.assert_whole(tmp_path / "out")


def test_ray_ends_when_its_driver_was_killed(tmp_path: Path) -> None:
    photos = tiny.collection(tmp_path, tiny.good(30), seconds=0.3)
    driver = Driver(tmp_path)
    driver.wait_for(lambda: any((photos / workers.CALLS).iterdir()))
    family = [each for each in driver.family() if "Agent" not in each.name()]  # these take a minute
    driver.send(signal.SIGKILL)
    driver.end()
    tiny.wait_until(lambda: not alive(family), seconds=90)


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
    tiny.collection(tmp_path, tiny.good(30))
    filler = small_disk / "filler"

    def fill() -> None:
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while file.write(b"\0" * 4096):
                pass

    with pytest.raises(RunDirectoryError, match="No space left on device; free space there, then run again"):
        tiny.run(tmp_path, out=small_disk / "out", reporter=tiny.After(10, fill))
    filler.unlink()
    assert tiny.run(tmp_path, out=small_disk / "out").ok == 30
    tiny.assert_whole(small_disk / "out")


def freeze(folder: Path, how: str) -> None:
    """`+i`: nothing can be written there, not even by root; `-i`: as before."""
    done = subprocess.run(["chattr", how, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"directories cannot be made immutable here: {done.stderr.strip()}")


@pytest.mark.usefixtures("embedded_ray")
def test_a_directory_that_becomes_read_only_ends_the_run_clearly(tmp_path: Path) -> None:
    tiny.collection(tmp_path, tiny.good(20))
    staging = tmp_path / "out" / "staging"
    try:
        with pytest.raises(RunDirectoryError, match="not permitted; choose another --out"):
            tiny.run(tmp_path, reporter=tiny.After(8, lambda: freeze(staging, "+i")))
        with pytest.raises(RunDirectoryError, match="not permitted"):
            tiny.run(tmp_path)
    finally:
        freeze(staging, "-i")
    assert tiny.run(tmp_path).ok == 20
    tiny.assert_whole(tmp_path / "out")


@pytest.mark.usefixtures("embedded_ray")
def test_a_directory_that_vanishes_ends_the_run_clearly(tmp_path: Path) -> None:
    tiny.collection(tmp_path, tiny.good(20), seconds=0.05)
    out = tmp_path / "out"
    with pytest.raises(RunDirectoryError):
        tiny.run(tmp_path, reporter=tiny.After(8, lambda: out.rename(tmp_path / "elsewhere")))
    shutil.rmtree(out, ignore_errors=True)
    (tmp_path / "elsewhere").rename(out)
    assert tiny.run(tmp_path).ok == 20
    tiny.assert_whole(out)


@pytest.mark.usefixtures("embedded_ray")
def test_a_store_that_goes_away_ends_the_run_clearly(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = partial(run_lock, refresh_seconds=1.0, dead_seconds=4.5)  # the first run's lease cannot be given up
    monkeypatch.setattr(committer, "run_lock", quick)
    tiny.collection(tmp_path, tiny.good(20), seconds=0.05)
    out = f"{store.url}/out"
    with pytest.raises(RunDirectoryError, match=r"[Cc]onnect.*run again to resume"):
        tiny.run(tmp_path, out=out, reporter=tiny.After(8, store.stop))
    store.start()
    assert tiny.run(tmp_path, out=out).ok == 20
    assert RunDirectory(out).is_complete()
