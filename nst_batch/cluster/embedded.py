"""The processes of a Ray that was started here: watched while a study runs, and gone when it has ended.

Ray itself takes a minute to notice that its core is gone, blocks the main thread for so long, and then ends this
process without a word of ours. So a thread watches.
"""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from typing import Self

import psutil
import ray

from nst_batch.errors import ClusterError

END_SECONDS = 20.0
"""From the death of Ray's core to the end of this process, however busy its main thread is with Ray."""

_CORE = ("gcs_server", "raylet")
_WATCH_SECONDS = 1.0


class EmbeddedRay:
    """For a `with` block within which Ray is started or joined; the end of the block is its end.

    A Ray that this process was connected to before is left alone, and so is every other child of the caller.
    """

    def __enter__(self) -> Self:
        self._others = set(psutil.Process().children())
        self._found = dict[psutil.Process, str]()
        """The processes that Ray has started since, and all that these have started, with their names."""
        self._ended = ""
        self._leaving = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="nst-batch ray", daemon=True)
        self._ours = not ray.is_initialized()
        if self._ours:
            self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self._ours:
            return
        if not self._ended:  # else it goes on: a dead Ray may take long to shut down
            self._leaving.set()
            self._watcher.join()
            self._look()
        if ray.is_initialized():
            ray.shutdown()
        self._leaving.set()
        for process in self._found:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def check(self) -> None:
        """Raises ClusterError if Ray's own processes have died."""
        if self._ended:
            raise ClusterError(self._ended)

    def _watch(self) -> None:
        """In its own thread. Ending the process is safe: what is not on disk yet is computed again."""
        while not self._leaving.wait(_WATCH_SECONDS):
            self._look()
            dead = [name for process, name in self._found.items() if name in _CORE and not _lives(process)]
            if dead:
                self._ended = (
                    f"Ray's own process {dead[0]} has died, killed perhaps because memory ran out; what had "
                    "finished is safe: run again to resume"
                )
                if not self._leaving.wait(END_SECONDS):
                    os.write(2, f"{self._ended}\n".encode())
                    os._exit(ClusterError.exit_code)
                return

    def _look(self) -> None:
        for child in set(psutil.Process().children()) - self._others:
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if child in self._found or _runs_ray(child):
                    family = {child, *child.children(recursive=True)} - self._found.keys()
                    self._found |= {process: process.name() for process in family}


def _runs_ray(process: psutil.Process) -> bool:
    """Whether it runs a program of the Ray that is installed here."""
    folder = str(Path(ray.__file__).parent)
    return any(word.startswith(folder) for word in process.cmdline())


def _lives(process: psutil.Process) -> bool:
    try:
        return process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False
