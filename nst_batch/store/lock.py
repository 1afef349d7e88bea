"""Who may write to a run directory: one process, into an empty directory or one that this version goes on with.

On a local disk the lock is the kernel's (`flock` on the file `lock`): it goes when its process dies, however that
happens. In an object store it is a lease: an object that its holder rewrites every few seconds, and that counts as
dead once it has not changed for long enough. Clocks of different machines are never compared.

The lock is made before any other and stays, and so tells a run that was killed before it had a plan from somebody's
folder. Nothing that the program did not write is ever changed or removed.
"""

from __future__ import annotations

import fcntl
import json
import logging
import math
import os
import re
import secrets
import socket
import threading
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from nst_batch.errors import LockedError, RunDirectoryError, without_secrets
from nst_batch.records import ALGORITHM
from nst_batch.store.files import Directory
from nst_batch.store.run_directory import STUDY, RunDirectory

NAME = "lock"
REFRESH_SECONDS, DEAD_SECONDS = 10.0, 45.0

_LEASES = "leases"
_LEASE = re.compile(rf"{_LEASES}/\d{{6,}}")
_SHOWN = 3
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW  # what a link leads to is not ours to write
_log = logging.getLogger(__name__)


def check_writable(run: RunDirectory) -> None:
    """Says what is wrong before anything is touched.

    Raises:
        RunDirectoryError: It holds something else than a run, or a run whose results must not be mixed with ours.
    """
    url = run.directory.url()
    if not run.exists():
        names = [name for name in run.directory.names() if not name.startswith(".")]
        if names and (not _is_ours(run.directory, names) or run.parts() or run.segment_paths()):
            shown = f"{', '.join(names[:_SHOWN])}{' …' if len(names) > _SHOWN else ''}"
            raise RunDirectoryError(
                f"{url}: expected an empty directory or one made by nst-batch, found {shown} and no {STUDY}; "
                "choose another --out"
            )
    elif (found := run.study.get("algorithm")) != ALGORITHM:
        raise RunDirectoryError(
            f"{url}: its trials were planned for algorithm {found}, this nst-batch computes by algorithm "
            f"{ALGORITHM}, and their results must not be mixed; choose another --out, or go on with nst-batch "
            f"{run.study.get('code_version', 'of that time')}"
        )


def _is_ours(directory: Directory, names: list[str]) -> bool:
    """Whether a run was begun there that has no study yet: it made the lock first."""
    lock, (_, lease) = directory.find(NAME) if NAME in names else None, _last_lease(directory)
    return {"host", "pid"} <= (_parsed(lock) | lease).keys() or (names == [NAME] and not lock)


def run_lock(
    directory: Directory, *, refresh_seconds: float = REFRESH_SECONDS, dead_seconds: float = DEAD_SECONDS
) -> RunLock:
    """The lock of a directory, held for the length of a `with` block.

    Whoever enters it removes what earlier writers staged, which fences them off. Entering it raises LockedError if
    another process holds it; so does its `check`, called before anything is published, once it is held no more.

    Args:
        directory: Where the lock is.
        refresh_seconds: How often a lease in an object store is renewed.
        dead_seconds: How long a lease must go without renewal before another process takes it over.
    """
    return FileLock(directory) if directory.is_local else Lease(directory, refresh_seconds, dead_seconds)


class FileLock:
    """`flock` on the local file `lock`: the kernel's, until the last process closes the file."""

    def __init__(self, directory: Directory) -> None:
        self._directory, self._path = directory, Path(directory.root, NAME)

    def __enter__(self) -> Self:
        with ExitStack() as stack, self._directory.explained("lock", NAME):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self._path, _FLAGS, 0o644)
            stack.callback(os.close, self._descriptor)
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise _held(self._directory, _parsed(self._path.read_bytes())) from error
            content = json.dumps(_myself()).encode()
            os.pwrite(self._descriptor, content, 0)  # never empty once it was written
            os.ftruncate(self._descriptor, len(content))
            self.check()
            self._directory.remove_staged()
            self._open = stack.pop_all()
        return self

    def check(self) -> None:
        """Raises LockedError if another file is there by now."""
        with self._directory.explained("look at", NAME):
            theirs = self._path.stat() if self._path.exists() else None
            if theirs is None or not os.path.samestat(os.fstat(self._descriptor), theirs):
                raise LockedError(f"{self._path}: removed or replaced while the lock was held; run again to resume")

    def __exit__(self, *_: object) -> None:
        self._open.close()


class Lease:
    """One of the objects `leases/000001`, `leases/000002` …, rewritten by a daemon thread as long as it is held.

    Whoever creates the next one holds the directory: of several who try, the store lets one. Nobody else writes it
    and none is removed, so a holder that was paused and has been replaced finds a next one, however much later.
    """

    def __init__(self, directory: Directory, refresh_seconds: float, dead_seconds: float) -> None:
        self._directory, self._refresh, self._dead = directory, refresh_seconds, dead_seconds
        self._content = _myself() | {"nonce": secrets.token_hex(8), "beat": 0}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="nst-batch lease", daemon=True)

    def __enter__(self) -> Self:
        self._number = self._free_number()
        self._renewed = time.monotonic()
        self._directory.create(_lease(self._number), json.dumps(self._content).encode())
        self._check_own()
        self._directory.remove_staged()
        self._thread.start()
        return self

    def _free_number(self) -> int:
        """Of the next lease, once nobody holds the last; raises LockedError as soon as its holder shows life."""
        number, seen = _last_lease(self._directory)
        deadline = time.monotonic() + self._dead
        if _is_held(seen):
            url = without_secrets(self._directory.url())
            _log.info("%s: its last writer may have died; waiting up to %.0f s to see", url, self._dead)
        while _is_held(seen) and time.monotonic() < deadline:
            time.sleep(min(self._refresh / 5, 2))
            number, now = _last_lease(self._directory)
            if _is_held(now) and now != seen:
                raise _held(self._directory, now)
            seen = now
        return number + 1

    def _keep(self) -> None:
        """Renews the lease until it is given up or lost; a failure is tried again, until `check` gives up."""
        while not self._stopping.wait(self._refresh):
            began = time.monotonic()
            try:
                self._rewrite(beat=self._content["beat"] + 1)
            except LockedError:
                self._renewed = -math.inf
                return
            except RunDirectoryError as error:
                _log.warning("cannot renew the lock: %s", error)
            else:
                self._renewed = began

    def check(self) -> None:
        """Raises LockedError if it is another's, or may be by now."""
        if (holder := self._directory.find(_lease(self._number + 1))) is not None:
            raise _held(self._directory, _parsed(holder))
        if time.monotonic() - self._renewed > self._dead:
            url = self._directory.url()
            raise LockedError(f"{url}: the lock could not be renewed in time; run again to resume")

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        try:
            self._rewrite(released=True)
        except LockedError:
            return
        except RunDirectoryError as error:  # what was to be written is
            _log.warning("cannot release the lock, which the next writer will wait for: %s", error)

    def _rewrite(self, **changes: Any) -> None:
        self._check_own()
        self._content |= changes
        self._directory.write(_lease(self._number), json.dumps(self._content).encode())

    def _check_own(self) -> None:
        """Raises LockedError if another created the same one: first, or in a store that lets several."""
        found = _parsed(self._directory.find(_lease(self._number)))
        if found.get("nonce") != self._content["nonce"]:
            raise _held(self._directory, found)


RunLock = FileLock | Lease


def _lease(number: int) -> str:
    return f"{_LEASES}/{number:06d}"


def _is_held(holder: dict[str, Any]) -> bool:
    return bool(holder) and not holder.get("released")


def _last_lease(directory: Directory) -> tuple[int, dict[str, Any]]:
    """Its number, 0 if there is none, and its holder."""
    last = max((path for path in directory.list(_LEASES) if _LEASE.fullmatch(path)), default=_lease(0))
    return int(last.removeprefix(f"{_LEASES}/")), _parsed(directory.find(last))


def _myself() -> dict[str, Any]:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"host": socket.gethostname(), "pid": os.getpid(), "started_at": now}


def _parsed(data: bytes | None) -> dict[str, Any]:
    """The holder that `data` names; empty if it is damaged or was just being written."""
    try:
        holder = json.loads(data or b"")
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) else {}


def _held(directory: Directory, holder: dict[str, Any]) -> LockedError:
    host, pid, started = (holder.get(key, "unknown") for key in ("host", "pid", "started_at"))
    return LockedError(
        f"{directory.url()}: another process is writing to it: host {host}, pid {pid}, started {started}; "
        "wait for it or stop it, or choose another --out"
    )
