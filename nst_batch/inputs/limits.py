"""What this process may use of its machine, as a container counts it, and a share of it for decoded pictures."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")
BYTES_PER_PIXEL = 16
"""While a picture is decoded: measured 12.3 on 196-megapixel PNGs, whose pixels are held three or four times."""
_HIERARCHIES = {
    "memory.max": ("memory.current", "inactive_file"),
    "memory.limit_in_bytes": ("memory.usage_in_bytes", "total_inactive_file"),
}


def available_bytes() -> int:
    """What this process can take before the machine, or a container around it, has none left.

    Pages of files that the kernel gives back when asked count as free.
    """
    return max(0, min([int(psutil.virtual_memory().available), *(limit - used for limit, used in _limits())]))


def total_bytes() -> int:
    """The memory of the machine, or the least limit of a container around this process."""
    return min([int(psutil.virtual_memory().total), *(limit for limit, _ in _limits())])


def num_cores() -> int:
    """The processor cores for this process: those it is bound to, within the quota of a container."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min([bound, *_core_quotas()])))


def _core_quotas() -> Iterator[float]:
    """Of every control group (version 1 or 2) around this process that has a quota, in cores."""
    for group in _groups("cpu"):
        for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
            try:
                quota, period = " ".join((group / name).read_text() for name in names).split()
                if int(quota) > 0:  # -1: none
                    yield int(quota) / int(period)
            except (OSError, ValueError):  # no such file, or "max"
                continue


def _limits() -> Iterator[tuple[int, int]]:
    """(limit, used) of every control group (version 1 or 2) around this process that has a limit."""
    for group in _groups("memory"):
        for name, (usage, reclaimable) in _HIERARCHIES.items():
            try:
                limit, used = int((group / name).read_text()), int((group / usage).read_text())
                statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            except (OSError, ValueError):  # no such file, or "max"
                continue
            yield limit, used - int(statistics.get(reclaimable, 0))


def _groups(controller: str) -> Iterator[Path]:
    """The folders of this process's control groups, innermost first; in a container the root is its own group."""
    try:
        lines = OWN_CGROUPS.read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers or controller in controllers.split(","):
            root = CGROUPS / controllers
            inner = root / path.lstrip("/")
            yield from (folder for folder in (inner, *inner.parents) if folder.is_relative_to(root))


class MemoryBudget:
    """Lets work be done at once as long as a share of the memory that there is holds it; one piece always may."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._budget_bytes = self._held_bytes = 0
        self._changed = threading.Condition()

    @contextmanager
    def holding(self, num_bytes: int) -> Iterator[None]:
        """Waits until there is room for so much, and keeps it while the body runs."""
        with self._changed:
            self._changed.wait_for(
                lambda: not self._held_bytes or self._held_bytes + num_bytes <= self._budget_bytes
            )
            if not self._held_bytes:
                self._budget_bytes = int(available_bytes() * self._share)
            self._held_bytes += num_bytes
        try:
            yield
        finally:
            with self._changed:
                self._held_bytes -= num_bytes
                self._changed.notify_all()


READING = MemoryBudget(0.25)
"""Of this process, for files that wait to be decoded."""
DECODING = MemoryBudget(0.5)
"""Of this process, for pictures while they are decoded."""
