"""The workers of a run as the driver sees them: actors, slots for their batches, and what they printed."""

from __future__ import annotations

import itertools
import os
import re
import socket
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import ray
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from nst_batch.cluster.connection import Cluster, draining_nodes
from nst_batch.cluster.options import WorkerOptions
from nst_batch.cluster.pace import PaceTeller, pace_of
from nst_batch.cluster.progress import Pace
from nst_batch.cluster.retries import Batch, Place
from nst_batch.errors import ClusterError, without_secrets
from nst_batch.records import Configuration, Result, Trial

PLACEMENT_SECONDS = 1800.0
"""How long to wait until a node takes the first worker: an autoscaler may have to find a machine."""
_LOOK_FOR_NODES_SECONDS = 2.0
_SOON_SECONDS = 60.0
_ASKED = 8
"""Workers of which the pace is that of all."""
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

        self._pace = PaceTeller()
        self._worker = Worker(self._options, self._pace.tell)
        self._worker.setup(configuration)

    def run(self, trials: Sequence[Trial]) -> list[Result]:
        """As `Worker.run`."""
        try:
            return self._worker.run(trials)
        finally:
            self._pace.fall_silent()


class Arrival(NamedTuple):
    """What an actor says first."""

    actor_id: str
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
        actor_id=ray.get_runtime_context().get_actor_id() or "",
        node_id=ray.get_runtime_context().get_node_id(),
        host=socket.gethostname(),
        pid=os.getpid(),
        printed_to=tuple(os.path.realpath(stream) for stream in streams if Path(stream).exists()),
        unseen=tuple(path for path in paths if not Path(path).exists()),
    )


class WorkerPool:
    """The workers on `cluster`; `start` starts one there."""

    def __init__(self, cluster: Cluster, start: Callable[[], WorkerSlot]) -> None:
        self.cluster, self._start = cluster, start
        self.slots: list[WorkerSlot] = []
        self.num_slots = 1
        """Workers that there is room for."""
        self._look_for_nodes_at = 0.0
        self._placed_at = time.monotonic()

    def fill(self, wants_worker: Callable[[int, Collection[Place]], bool]) -> None:
        """Keeps a worker for every slot that the cluster has and that a batch waits for; nodes may have joined.

        Args:
            wants_worker: Whether another one is of use, from the number of idle ones and the places of all.
        """
        now = time.monotonic()
        if now < self._look_for_nodes_at:
            return
        self._look_for_nodes_at = now + _LOOK_FOR_NODES_SECONDS
        self.leave(draining_nodes() | self.cluster.excluded.keys())
        self._check_placement(now)
        try:
            self.num_slots = self.cluster.num_workers()
        except ClusterError:
            if not any(slot.batches for slot in self.slots):
                raise
            return  # what still runs on nodes that are about to go may end; others may join meanwhile
        idle = sum(not slot.batches for slot in self.slots)
        while self.may_grow and wants_worker(idle, self.places()):
            self.slots.append(self._start())
            idle += 1

    @property
    def may_grow(self) -> bool:
        """Whether there is room for a worker that has not been started."""
        return len(self.slots) < self.num_slots

    def _check_placement(self, now: float) -> None:
        """Nothing pends for ever."""
        if not self.slots or any(slot.node_id for slot in self.slots):
            self._placed_at = now
        elif now - self._placed_at > PLACEMENT_SECONDS:
            raise ClusterError(
                f"after {PLACEMENT_SECONDS / 60:.0f} min no node has taken any of {self.cluster.describe()}: "
                f"others use them all, or the autoscaler cannot bring them; `ray status` on the head says which"
                f"{self.cluster.exclusions()}"
            )

    def wait(self, seconds: float) -> None:
        """Starts nothing for so long; then looks for nodes at once."""
        self._look_for_nodes_at = time.monotonic() + seconds

    def places(self) -> list[Place]:
        """Where batches can be run now, or soon: at workers that are on their node or have just been started."""
        recent = time.monotonic() - _SOON_SECONDS
        return [slot.place for slot in self.slots if not slot.leaving and (slot.arrival or slot.since > recent)]

    def load(self) -> tuple[int, float]:
        """The workers that are ready, and the seconds that all together have spent on batches that are not back."""
        now = time.monotonic()
        busy_seconds = sum(now - slot.since for slot in self.slots if slot.batches)
        return sum(not slot.starting for slot in self.slots), busy_seconds

    def pace(self) -> Pace:
        """What some of those that work have done of their trials so far."""
        working = (slot.arrival.actor_id for slot in self.slots if slot.batches and slot.arrival)
        return pace_of(itertools.islice(working, _ASKED))

    def leave(self, nodes: Collection[str]) -> None:
        """Releases idle workers on nodes that are about to go, or sick; the others there get no new batch."""
        for slot in list(self.slots):
            slot.leaving = slot.leaving or slot.node_id in nodes
            if slot.leaving and not slot.batches:
                self.end(slot)

    def release_all_but_a_spare(self) -> None:
        """Ends the idle workers; while others work one is kept, on another node if it can be, for a second try."""
        busy = {slot.node_id for slot in self.slots if slot.batches}
        idle = [slot for slot in self.slots if not slot.batches]
        idle.sort(key=lambda slot: (not slot.is_ready, slot.node_id in busy))
        for slot in idle[1:] if busy else idle:
            self.end(slot)

    def has_ready(self, *, besides: str) -> bool:
        """Whether a worker is ready on another node than this."""
        return any(slot.is_ready and slot.node_id != besides for slot in self.slots)

    def end(self, slot: WorkerSlot) -> None:
        """Ends a worker, which may be dead already, or alive and out of reach."""
        ray.kill(slot.actor)
        self.slots.remove(slot)

    def close(self) -> None:
        """Ends all workers."""
        for slot in list(self.slots):
            self.end(slot)


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
