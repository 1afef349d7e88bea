"""A worker as the driver sees it: the actor that Ray runs, a slot for its batches, and what it printed."""

from __future__ import annotations

import itertools
import os
import re
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import ray
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from nst_batch.cluster.options import WorkerOptions
from nst_batch.cluster.retries import Batch, Place
from nst_batch.errors import without_secrets
from nst_batch.records import Configuration, Result, Trial

MAX_LOG_BYTES = 64 * 1024
"""Of each file that a worker printed to: its end."""
MAX_LOGS = 100
"""In one run."""

_REASON_LENGTH, _REASON_BEGIN = 500, 150
_NOISE = re.compile(r"\x1b\[[0-9;]*m|\^{2,}")


class WorkerActor:
    """`worker.Worker`, imported in the actor's own process: the driver never loads torch."""

    def __init__(self, options: WorkerOptions) -> None:
        self._options = options

    def setup(self, configuration: Configuration) -> None:
        """As `Worker.setup`. Not before it loads torch: of an actor that fails earlier nobody knows the node."""
        from nst_batch.cluster.worker import Worker

        self._worker = Worker(self._options)
        self._worker.setup(configuration)

    def run(self, trials: Sequence[Trial]) -> list[Result]:
        """As `Worker.run`."""
        return self._worker.run(trials)


class Arrival(NamedTuple):
    """What an actor says first."""

    node_id: str
    host: str
    pid: int
    printed_to: tuple[str, ...]
    """The files on its node that hold what it prints."""
    unseen: tuple[str, ...]
    """The files that it should see and does not."""


@dataclass(slots=True, eq=False)
class WorkerSlot:
    """An actor and its batches in flight, the running one first."""

    actor: Any
    starting: deque[Any]
    """References to its arrival and its set-up; empty once it is ready."""
    batches: dict[Any, Batch] = field(default_factory=dict)
    since: float = field(default_factory=time.monotonic)
    """When what it does now began."""
    arrival: Arrival | None = None
    """Where it is; None until it is there."""
    leaving: bool = False
    """Whether its node is about to go."""
    number: int = field(default_factory=itertools.count().__next__)

    @classmethod
    def start(cls, actor: Any, configuration: Configuration, inputs: Sequence[str]) -> WorkerSlot:
        """The slot of a new actor, which loads the network for `configuration` and looks for the files `inputs`."""
        arrival = actor.__ray_call__.remote(_arrive, tuple(inputs))
        return cls(actor, deque((arrival, actor.setup.remote(configuration))))

    @property
    def node_id(self) -> str:
        """Of the node that it is on; empty until it is there."""
        return self.arrival.node_id if self.arrival else ""

    @property
    def place(self) -> Place:
        """Where its batches run."""
        return Place(self.node_id, self.number)

    @property
    def is_ready(self) -> bool:
        """Whether it may be given a batch."""
        return not (self.starting or self.leaving)

    @property
    def awaited(self) -> Any:
        """The reference that it will answer next; None while it is idle."""
        return self.starting[0] if self.starting else next(iter(self.batches), None)

    @property
    def running(self) -> Batch | None:
        """The batch that it works on."""
        return next(iter(self.batches.values()), None)

    def give(self, batch: Batch) -> None:
        """Sends it a batch, to run now or after the one that it runs."""
        if not self.batches:
            self.since = time.monotonic()
        self.batches[self.actor.run.remote(batch.trials)] = batch


def _arrive(_: object, paths: Sequence[str]) -> Arrival:
    """Runs in the actor."""
    streams = [f"/proc/self/fd/{number}" for number in (1, 2)]
    return Arrival(
        node_id=ray.get_runtime_context().get_node_id(),
        host=socket.gethostname(),
        pid=os.getpid(),
        printed_to=tuple(os.path.realpath(stream) for stream in streams if Path(stream).exists()),
        unseen=tuple(path for path in paths if not Path(path).exists()),
    )


def death_reason(error: Exception) -> str:
    """What Ray says of a death on one line: from where it says why, without colours, cut in the middle."""
    told = " ".join(_NOISE.sub(" ", without_secrets(str(error))).split())
    why = told.partition("The actor is dead because ")[2] or told
    return why if len(why) <= _REASON_LENGTH else f"{why[:_REASON_BEGIN]} … {why[_REASON_BEGIN - _REASON_LENGTH :]}"


class WorkerLogs:
    """What workers printed before they failed, fetched from their nodes before these go too."""

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
        trials = " ".join(trial.trial_id for trial in slot.running.trials) if slot.running else "none"
        title = f"worker {arrival.pid} on {arrival.host} failed: {reason}\ntrials: {trials}\n"
        where = NodeAffinitySchedulingStrategy(arrival.node_id, soft=False)
        read: Any = ray.remote(_ends)
        options = read.options(num_cpus=0, max_retries=0, scheduling_strategy=where)
        self._awaited[options.remote(arrival.printed_to)] = f"{arrival.host}-{arrival.pid}.log", title

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
                if (begin := path.stat().st_size - MAX_LOG_BYTES) > 0:
                    file.seek(begin)
                    file.readline()  # the rest of a line may be that of a URL, where no secret is known as one
                texts.append(file.read().decode(errors="replace"))
        except OSError as error:
            texts.append(f"{path}: {error.strerror}")
    return "\n".join(texts)
