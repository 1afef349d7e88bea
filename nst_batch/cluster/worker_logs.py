"""What workers printed before they failed, fetched from their nodes before these go too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from nst_batch.cluster.slots import WorkerSlot

MAX_LOG_BYTES = 64 * 1024
"""Of each file that a worker printed to: its end."""
MAX_LOGS = 100
"""In one run."""


class WorkerLogs:
    """The logs that are on their way.

    Args:
        on_log: Takes a file name and the text.
    """

    def __init__(self, on_log: Callable[[str, str], None]) -> None:
        self._on_log = on_log
        self._awaited: dict[Any, tuple[str, str]] = {}
        self._num_fetched = 0

    def fetch(self, slot: WorkerSlot, reason: str) -> None:
        """Asks a worker's node for what it printed, as long as it is one of the first hundred that failed."""
        arrival = slot.arrival
        if arrival is None or not arrival.printed_to or self._num_fetched >= MAX_LOGS:
            return
        self._num_fetched += 1
        batch = slot.running
        trials = " ".join(trial.trial_id for trial in batch.trials) if batch else "none"
        title = f"worker {arrival.pid} on {arrival.host} failed: {reason}\ntrials: {trials}\n"
        where = NodeAffinitySchedulingStrategy(arrival.node_id, soft=False)
        read: Any = ray.remote(_ends)
        read = read.options(num_cpus=0, max_retries=0, scheduling_strategy=where)
        self._awaited[read.remote(arrival.printed_to)] = f"{arrival.host}-{arrival.pid}.log", title

    def collect(self, seconds: float = 0.0) -> None:
        """Passes on the logs that have come, after waiting for all at most so long."""
        if not self._awaited:
            return
        for reference in ray.wait(list(self._awaited), num_returns=len(self._awaited), timeout=seconds)[0]:
            name, title = self._awaited.pop(reference)
            try:
                text = ray.get(reference)
            except ray.exceptions.RayError as error:
                text = f"what it printed cannot be read: {type(error).__name__}"
            self._on_log(name, f"{title}\n{text}\n")


def _ends(paths: Sequence[str]) -> str:
    """Runs on the worker's node."""
    texts = []
    for path in map(Path, dict.fromkeys(paths)):
        try:
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - MAX_LOG_BYTES))
                texts.append(file.read().decode(errors="replace"))
        except OSError as error:
            texts.append(f"{path}: {error.strerror}")
    return "\n".join(texts)
