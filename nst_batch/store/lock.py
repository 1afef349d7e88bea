"""One writer per run directory.

On a local disk the lock is the kernel's (`flock` on the file `lock`): it goes when its process dies, however that
happens. In an object store it is a lease: an object that its holder rewrites every few seconds, and that counts as
dead once nobody has seen it change for long enough. Clocks of different machines are never compared.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import secrets
import socket
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, Self

from nst_batch.errors import LockedError, RunDirectoryError
from nst_batch.store.files import Directory

NAME = "lock"
REFRESH_SECONDS, DEAD_SECONDS = 10.0, 45.0

_log = logging.getLogger(__name__)


class RunLock(Protocol):
    """The right to write to a run directory, held for the length of a `with` block."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...

    def check(self) -> None:
        """Raises LockedError unless the lock is still held: called before anything is published."""


def run_lock(
    directory: Directory, *, refresh_seconds: float = REFRESH_SECONDS, dead_seconds: float = DEAD_SECONDS
) -> RunLock:
    """The lock of a directory. Whoever enters it removes what earlier writers staged, which fences them off.

    Entering it raises LockedError if another process holds it.

    Args:
        directory: Where the lock is.
        refresh_seconds: How often a lease in an object store is renewed.
        dead_seconds: How long a lease must go without renewal before another process takes it over.
    """
    return FileLock(directory) if directory.is_local else Lease(directory, refresh_seconds, dead_seconds)


class FileLock:
    """`flock` on the local file `lock`.

    The lock belongs to the open file, which a forked child shares: only the process that took it releases it, and
    the descriptor is closed on exec.
    """

    def __init__(self, directory: Directory) -> None:
        self._directory, self._path, self._pid = directory, Path(directory.root, NAME), os.getpid()

    def __enter__(self) -> Self:
        with self._directory.explained("lock", NAME):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            with self._directory.explained("lock", NAME):
                self._acquire()
            self._directory.remove_staged()
        except BaseException:
            os.close(self._descriptor)
            raise
        return self

    def _acquire(self) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LockedError(_held(self._directory, _parsed(self._path.read_bytes()))) from error
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, json.dumps(_myself()).encode(), 0)
        self.check()

    def check(self) -> None:
        with self._directory.explained("look at", NAME):
            mine = os.fstat(self._descriptor)
            theirs = self._path.stat() if self._path.exists() else None
        if theirs is None or not os.path.samestat(mine, theirs):
            raise LockedError(f"{self._path}: removed or replaced while the lock was held; run again to resume")

    def __exit__(self, *_: object) -> None:
        if os.getpid() == self._pid:
            os.ftruncate(self._descriptor, 0)
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        os.close(self._descriptor)


class Lease:
    """The object `lock`, rewritten by a daemon thread for as long as it is held, emptied when it is given up.

    It is written as everything else is: staged, looked at, moved. So a holder that was paused and has been replaced
    cannot renew or give up what is another's.
    """

    def __init__(self, directory: Directory, refresh_seconds: float, dead_seconds: float) -> None:
        self._directory, self._refresh, self._dead = directory, refresh_seconds, dead_seconds
        self._content = _myself() | {"nonce": secrets.token_hex(8), "beat": 0}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="nst-batch lease", daemon=True)

    def __enter__(self) -> Self:
        """Waits for a dead holder's lease to run out, then writes, lets a rival's write settle, and reads back."""
        self._wait_for_holder()
        self._renew(first=True)
        self._directory.remove_staged()
        time.sleep(self._refresh / 5)
        self._check_holder()
        self._thread.start()
        return self

    def _wait_for_holder(self) -> None:
        """Returns once nobody holds the lease; raises LockedError as soon as its holder shows life."""
        seen = self._read()
        deadline = time.monotonic() + self._dead
        if seen is not None:
            url = self._directory.url()
            _log.info("%s: its last writer may have died; waiting up to %.0f s to see", url, self._dead)
        while seen is not None and time.monotonic() < deadline:
            time.sleep(min(self._refresh / 5, 2))
            if (now := self._read()) is None:
                return
            if now != seen:
                raise LockedError(_held(self._directory, now))

    def _keep(self) -> None:
        """Renews the lease until it is given up or lost; a failure is tried again, until `check` gives up."""
        while not self._stopping.wait(self._refresh):
            try:
                self._renew()
            except LockedError:
                return
            except RunDirectoryError as error:
                _log.warning("cannot renew the lock: %s", error)

    def check(self) -> None:
        if time.monotonic() - self._renewed > self._dead:
            url = self._directory.url()
            raise LockedError(f"{url}: the lock could not be renewed in time; run again to resume")
        self._check_holder()

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        with suppress(LockedError):
            self._write(b"")

    def _check_holder(self) -> None:
        holder = self._read() or {}
        if holder.get("nonce") != self._content["nonce"]:
            raise LockedError(_held(self._directory, holder))

    def _renew(self, *, first: bool = False) -> None:
        began = time.monotonic()
        self._content["beat"] += 1
        self._write(json.dumps(self._content).encode(), first=first)
        self._renewed = began

    def _write(self, data: bytes, *, first: bool = False) -> None:
        staged = self._directory.stage(NAME, data)
        try:
            if not first:
                self._check_holder()
            self._directory.move(staged, NAME)
        except LockedError:
            self._directory.remove(staged)
            raise

    def _read(self) -> dict[str, Any] | None:
        """The holder; None if there is none."""
        data = self._directory.find(NAME)
        return _parsed(data) if data else None


def _myself() -> dict[str, Any]:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"host": socket.gethostname(), "pid": os.getpid(), "started_at": now}


def _parsed(data: bytes) -> dict[str, Any]:
    """The holder that `data` names; empty if it is damaged or was just being written."""
    try:
        holder = json.loads(data)
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) else {}


def is_holder(data: bytes) -> bool:
    """Whether a file `lock` with this content was written here: it names a holder, or is empty."""
    return not data or {"host", "pid"} <= _parsed(data).keys()


def _held(directory: Directory, holder: dict[str, Any]) -> str:
    host, pid, started = (holder.get(key, "unknown") for key in ("host", "pid", "started_at"))
    return (
        f"{directory.url()}: another process is writing to it: host {host}, pid {pid}, started {started}; "
        "wait for it or stop it, or choose another --out"
    )
