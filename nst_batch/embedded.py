"""The processes of a Ray that was started here: watched while a study runs, and gone when it has ended.

Ray itself takes a minute to notice that its core is gone, and then ends this process without a word of ours.
"""

from __future__ import annotations

import contextlib
import time
from types import TracebackType
from typing import Self

import psutil

from nst_batch.errors import ClusterError

_CORE = ("gcs_server", "raylet")
_LOOK_SECONDS = 5.0


class EmbeddedRay:
    """For a `with` block within which Ray is started and shut down; a Ray from before is none of its business."""

    def __enter__(self) -> Self:
        self._others = set(psutil.Process().children(recursive=True))
        self._core: tuple[psutil.Process, ...] = ()
        self._all: set[psutil.Process] = set()
        self._looked = float("-inf")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._look()
        for process in self._all:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def check(self) -> None:
        """Raises ClusterError if Ray's own processes have died."""
        if time.monotonic() - self._looked > _LOOK_SECONDS:
            self._look()
        for process in self._core:
            if not _lives(process):
                raise ClusterError(
                    f"Ray's own process {process.pid} ({_CORE[0]} or {_CORE[1]}) has died, killed perhaps because "
                    "memory ran out; what had finished is safe: run again to resume"
                )

    def _look(self) -> None:
        self._looked = time.monotonic()
        self._all.update(set(psutil.Process().children(recursive=True)) - self._others)
        if not self._core:
            self._core = tuple(process for process in self._all if _name(process) in _CORE)


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return ""


def _lives(process: psutil.Process) -> bool:
    try:
        return process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False
