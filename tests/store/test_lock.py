"""One writer per run directory: the kernel's lock on disks, a lease in object stores."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from nst_batch.errors import LockedError, RunDirectoryError
from nst_batch.store.files import Directory
from nst_batch.store.lock import RunLock, run_lock
from tests import tiny
from tests.object_store import bucket

__all__ = ["bucket"]

HOLD = """
import sys, time
from nst_batch.store.lock import run_lock
from nst_batch.store.files import Directory
with run_lock(Directory(sys.argv[1])):
    sys.stdout.write("held\\n")
    sys.stdout.flush()
    time.sleep(60)
"""


def test_a_second_writer_is_told_who_holds_it(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    with run_lock(directory) as lock:
        lock.check()
        content = json.loads((tmp_path / "lock").read_text())
        assert (content["pid"], set(content)) == (os.getpid(), {"host", "pid", "started_at"})
        with (
            pytest.raises(LockedError, match=f"host .*, pid {os.getpid()}, started 20.*choose another --out"),
            run_lock(directory),
        ):
            pass
    with run_lock(directory):
        pass


def test_the_lock_goes_with_its_process(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"held\n"
    with pytest.raises(LockedError, match=f"pid {child.pid}"), run_lock(Directory(tmp_path)):
        pass
    child.kill()
    child.wait()
    child.stdout.close()
    with run_lock(Directory(tmp_path)) as lock:
        lock.check()


def test_a_child_does_not_release_its_parents_lock(tmp_path: Path) -> None:
    with run_lock(Directory(tmp_path)) as lock:
        child = os.fork()
        if child == 0:
            lock.__exit__(None, None, None)
            os._exit(0)
        os.waitpid(child, 0)
        with pytest.raises(LockedError), run_lock(Directory(tmp_path)):
            pass
        lock.check()


def test_a_lock_file_that_was_removed_is_noticed(tmp_path: Path) -> None:
    with run_lock(Directory(tmp_path)) as lock:
        (tmp_path / "lock").unlink()
        with pytest.raises(LockedError, match="removed or replaced"):
            lock.check()


def test_a_place_that_cannot_be_locked_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirectoryError, match="cannot lock it"), run_lock(Directory(tmp_path / "file")):
        pass


# Leases, with seconds made short


def lease(directory: Directory, dead_seconds: float = 1.0) -> RunLock:
    return run_lock(directory, refresh_seconds=0.1, dead_seconds=dead_seconds)


@pytest.fixture(params=["memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Directory:
    if request.param == "s3":
        return Directory(f"{request.getfixturevalue('bucket')}/{tmp_path.name}")
    return Directory(f"memory://{tmp_path.name}")


def abandoned(store: Directory, number: int = 1) -> dict[str, Any]:
    content = {"host": "h", "pid": 1, "started_at": "s", "nonce": "n", "beat": 3}
    store.write(f"leases/{number:06d}", json.dumps(content).encode())
    return content


def test_a_lease_that_is_renewed_is_respected(store: Directory) -> None:
    with lease(store, 2.0) as lock:
        with pytest.raises(LockedError, match=f"pid {os.getpid()}"), lease(store, 2.0):
            pass
        time.sleep(2.5)
        lock.check()
    assert json.loads(store.read("leases/000001"))["released"]
    with lease(store):
        pass


def test_a_lease_that_nobody_renews_is_taken_over(store: Directory) -> None:
    abandoned(store)
    began = time.monotonic()
    with lease(store) as lock:
        assert time.monotonic() - began >= 0.9
        lock.check()


@pytest.mark.parametrize("ahead_seconds", [-3600, 3600])
def test_clocks_of_two_machines_are_not_compared(
    store: Directory, monkeypatch: pytest.MonkeyPatch, ahead_seconds: float
) -> None:
    """A holder that renews, if seldom, is respected by a machine whose clock is an hour off."""
    content = abandoned(store)
    stop, real = threading.Event(), time.time

    def renew() -> None:
        while not stop.wait(0.5):
            content["beat"] += 1
            store.write("leases/000001", json.dumps(content).encode())

    monkeypatch.setattr(time, "time", lambda: real() + ahead_seconds)
    holder = threading.Thread(target=renew)
    holder.start()
    with pytest.raises(LockedError, match="host h, pid 1"), lease(store, 10.0):
        pass
    stop.set()
    holder.join()


def test_a_holder_that_was_replaced_stops(store: Directory) -> None:
    with lease(store) as lock:
        content = abandoned(store, 2)
        with pytest.raises(LockedError, match="host h, pid 1"):
            lock.check()
        time.sleep(0.3)
    assert json.loads(store.read("leases/000002")) == content, "neither renewed nor removed by the one that lost it"


def test_a_starter_that_was_paused_before_it_made_its_lease_displaces_nobody(
    store: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has seen that nobody holds one; another starts meanwhile."""
    real, living = Directory.create, lease(store)

    def paused(self: Directory, path: str, data: bytes) -> None:
        monkeypatch.setattr(Directory, "create", real)
        living.__enter__()
        self.create(path, data)

    monkeypatch.setattr(Directory, "create", paused)
    with pytest.raises(LockedError, match=f"pid {os.getpid()}"), lease(store):
        pass
    time.sleep(0.3)
    living.check()
    living.__exit__()


def test_in_a_store_that_lets_two_make_the_same_lease_the_first_one_stops(store: Directory) -> None:
    with lease(store) as lock:
        content = abandoned(store)
        time.sleep(0.3)
        with pytest.raises(LockedError):
            lock.check()
    assert json.loads(store.read("leases/000001")) == content


def test_a_holder_that_cannot_renew_stops(store: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object) -> None:
        raise RunDirectoryError("unreachable")

    with lease(store) as lock:
        with monkeypatch.context() as patch:
            patch.setattr(Directory, "write", unreachable)
            time.sleep(1.3)
            with pytest.raises(LockedError, match="could not be renewed"):
                lock.check()
        tiny.wait_until(lambda: is_held(lock), seconds=60)


def is_held(lock: RunLock) -> bool:
    try:
        lock.check()
    except LockedError:
        return False
    return True


def test_of_two_that_start_at_once_at_most_one_goes_on(store: Directory) -> None:
    barrier, held, refused = threading.Barrier(4), [], []

    def start() -> None:
        barrier.wait()
        try:
            with lease(store, 10.0) as lock:
                time.sleep(1.0)  # until whoever saw no holder has written
                lock.check()
                held.append(1)
                time.sleep(0.5)
        except LockedError:
            refused.append(1)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(held), len(refused)) == (1, 3)


def test_a_store_that_is_gone_at_the_end_undoes_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    directory = Directory("memory://lease-at-the-end")

    def unreachable(*_: object, **__: object) -> None:
        raise OSError("the store is gone")

    with run_lock(directory):
        monkeypatch.setattr(type(directory.filesystem), "pipe_file", unreachable)
    assert "cannot release the lock" in caplog.text
