"""The processes of a Ray that was started here: watched while a study runs, and gone when it has ended.

Ray itself takes a minute to notice that its core is gone, blocks the main thread for so long, and then ends this
process without a word of ours. So a thread watches.
"""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
import ray

from nst_batch.errors import ClusterError

END_SECONDS = 20.0
"""From the death of Ray's core to the end of this process, however busy its main thread is with Ray."""

_CORE = ("gcs_server", "raylet")
_WATCH_SECONDS = 0.5
_LOOKS_WHILE_STARTING, _LOOKS_APART = 60, 10
"""Processes are looked for at each of the first times that the known ones are watched, then every so many."""


class EmbeddedRay:
    """For a `with` block within which Ray is started and shut down.

    A Ray that this process has started before is left alone, and so is every other child of the caller.
    """

    def __enter__(self) -> Self:
        self._others = set(psutil.Process().children())
        self._all: set[psutil.Process] = set()
        self._ended = ""
        self._leaving = threading.Event()
        self._ours = not any(_name(process) in _CORE for process in self._others)
        if self._ours:
            threading.Thread(target=self._watch, name="nst-batch ray", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leaving.set()
        if not self._ours:
            return
        for process in self._core():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()  # it starts nothing more that would go unseen
        self._look()
        for process in self._all:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def check(self) -> None:
        """Raises ClusterError if Ray's own processes have died."""
        if self._ended:
            raise ClusterError(self._ended)

    def _watch(self) -> None:
        """In its own thread. Ending the process is safe: what is not on disk yet is computed again."""
        looks, core = 0, dict[psutil.Process, str]()
        while not self._leaving.wait(_WATCH_SECONDS):
            looks += 1
            if looks < _LOOKS_WHILE_STARTING or looks % _LOOKS_APART == 0:
                self._look()
                core |= {process: _name(process) for process in self._core()}
            dead = [name for process, name in core.items() if not _lives(process)]
            if dead:
                self._ended = (
                    f"Ray's own process {dead[0]} has died, killed perhaps because memory ran out; what had "
                    "finished is safe: run again to resume"
                )
                if not self._leaving.wait(END_SECONDS):
                    os.write(2, f"{self._ended}\n".encode())
                    os._exit(ClusterError.exit_code)
                return

    def _core(self) -> list[psutil.Process]:
        return [process for process in self._all if _name(process) in _CORE]

    def _look(self) -> None:
        """Finds the processes that Ray has started since, and all that these have started."""
        for process in set(psutil.Process().children()) - self._others:
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if process in self._all or _runs_ray(process):
                    self._all |= {process, *process.children(recursive=True)}


def _runs_ray(process: psutil.Process) -> bool:
    """Whether it runs a program of the Ray that is installed here."""
    folder = str(Path(ray.__file__).parent)
    return any(word.startswith(folder) for word in process.cmdline())


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
