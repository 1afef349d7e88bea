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
from nst_batch.store.lock import RunLock

HOLD = """
import sys, time
from nst_batch.store.lock import RunLock
from nst_batch.store.files import Directory
with RunLock(Directory(sys.argv[1])):
    sys.stdout.write("held\\n")
    sys.stdout.flush()
    time.sleep(60)
"""


def test_a_second_writer_is_told_who_holds_it(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    with RunLock(directory) as lock:
        lock.check()
        content = json.loads((tmp_path / "lock").read_text())
        assert (content["pid"], set(content)) == (os.getpid(), {"host", "pid", "started_at"})
        with (
            pytest.raises(LockedError, match=f"host .*, pid {os.getpid()}, started 20.*choose another --out"),
            RunLock(directory),
        ):
            pass
    with RunLock(directory):
        pass
    with pytest.raises(LockedError, match="not held"):
        lock.check()


def test_the_lock_goes_with_its_process(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"held\n"
    with pytest.raises(LockedError, match=f"pid {child.pid}"), RunLock(Directory(tmp_path)):
        pass
    child.kill()
    child.wait()
    child.stdout.close()
    with RunLock(Directory(tmp_path)) as lock:
        lock.check()


def test_a_child_does_not_release_its_parents_lock(tmp_path: Path) -> None:
    with RunLock(Directory(tmp_path)) as lock:
        child = os.fork()
        if child == 0:
            lock.__exit__(None, None, None)
            os._exit(0)
        os.waitpid(child, 0)
        with pytest.raises(LockedError), RunLock(Directory(tmp_path)):
            pass
        lock.check()


def test_a_lock_file_that_was_removed_is_noticed(tmp_path: Path) -> None:
    with RunLock(Directory(tmp_path)) as lock:
        (tmp_path / "lock").unlink()
        with pytest.raises(LockedError, match="removed or replaced"):
            lock.check()


def test_a_place_that_cannot_be_locked_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirectoryError, match="cannot lock it"), RunLock(Directory(tmp_path / "file")):
        pass


# Leases, with seconds made short


def lease(directory: Directory) -> RunLock:
    return RunLock(directory, refresh_seconds=0.1, dead_seconds=1.0)


@pytest.fixture
def store(tmp_path: Path) -> Directory:
    return Directory(f"memory://{tmp_path.name}")


def abandoned(store: Directory, refreshed_at: float) -> dict[str, Any]:
    content = {"host": "h", "pid": 1, "started_at": "s", "nonce": "n", "beat": 3, "refreshed_at": refreshed_at}
    store.write("lock", json.dumps(content).encode())
    return content


def test_a_lease_that_is_renewed_is_respected(store: Directory) -> None:
    with lease(store) as lock:
        with pytest.raises(LockedError, match=f"pid {os.getpid()}"), lease(store):
            pass
        time.sleep(1.5)
        lock.check()
    assert store.find("lock") is None


@pytest.mark.parametrize(("age_seconds", "least"), [(0, 0.9), (3600, 0.1), (-3600, 0.9)])
def test_a_lease_that_nobody_renews_is_taken_over(store: Directory, age_seconds: float, least: float) -> None:
    abandoned(store, time.time() - age_seconds)
    began = time.monotonic()
    with lease(store) as lock:
        assert time.monotonic() - began >= least
        lock.check()


def test_a_holder_whose_clock_is_slow_is_not_robbed(store: Directory) -> None:
    content = abandoned(store, 0)
    stop = threading.Event()

    def renew() -> None:
        while not stop.wait(0.1):
            content["beat"] += 1
            store.write("lock", json.dumps(content).encode())

    holder = threading.Thread(target=renew)
    holder.start()
    with pytest.raises(LockedError, match="host h, pid 1"), lease(store):
        pass
    stop.set()
    holder.join()


def test_a_holder_that_was_replaced_stops(store: Directory) -> None:
    with lease(store) as lock:
        abandoned(store, time.time())
        with pytest.raises(LockedError, match="host h, pid 1"):
            lock.check()
        time.sleep(0.3)
    assert json.loads(store.read("lock"))["nonce"] == "n", "neither renewed nor removed by the one that lost it"


def test_a_holder_that_cannot_renew_stops(store: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object) -> None:
        raise RunDirectoryError("unreachable")

    with lease(store) as lock:
        with monkeypatch.context() as patch:
            patch.setattr(Directory, "write", unreachable)
            time.sleep(1.3)
            with pytest.raises(LockedError, match="could not be renewed"):
                lock.check()
        time.sleep(0.3)
        lock.check()


def test_of_two_that_start_at_once_at_most_one_goes_on(store: Directory) -> None:
    barrier, held, refused = threading.Barrier(4), [], []

    def start() -> None:
        barrier.wait()
        try:
            with lease(store) as lock:
                time.sleep(0.2)
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
