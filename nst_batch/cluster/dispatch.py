"""The loop that loses nothing: batches given to workers, results taken back, deaths survived.

Actors are never restarted and tasks never retried by Ray itself: the driver decides, because only it knows the
difference between a worker that died and a trial that kills workers (`backlog` has the rules).
"""

from __future__ import annotations

import math
import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
import ray.exceptions

from nst_batch.cluster.actor import WorkerActor
from nst_batch.cluster.connection import Arrival, Cluster, arrival, draining_nodes
from nst_batch.cluster.monitoring import Monitor
from nst_batch.cluster.retries import Backlog, Batch, failure
from nst_batch.errors import ClusterError, NstBatchError, WeightsError
from nst_batch.records import Configuration, Result, Trial, WorkerOptions

WORKER_DEATHS = (
    ray.exceptions.RayActorError,  # the process died: SIGKILL, a segfault, the system's out-of-memory killer
    ray.exceptions.NodeDiedError,  # the machine under it did
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.OutOfMemoryError,  # Ray's own memory monitor killed it
    ray.exceptions.ObjectLostError,  # it finished, but its result went down with a node
    ray.exceptions.ObjectStoreFullError,  # it finished, but its node has no room for the result
    ray.exceptions.OutOfDiskError,
    ray.exceptions.RaySystemError,  # it finished, but its result cannot be read
    ray.exceptions.RuntimeEnvSetupError,  # it never began: its environment cannot be made
    ray.exceptions.TaskUnschedulableError,
    ray.exceptions.ActorUnschedulableError,
)

MAX_FAILED_STARTS = 4
"""Workers that may fail to start one after the other, and one more for each further place."""
MAX_FRUITLESS_DEATHS = 50
"""Workers that may die one after the other for each place, while no batch ends."""
START_SECONDS = 600.0
"""A worker that takes longer to load its network is taken for hung."""

PLACE_SECONDS = 1800.0
"""How long to wait for the first place on a node: an autoscaler may have to find a machine."""

_IN_FLIGHT = 2  # batches per worker: the next one is there when one is done, and no more can be lost
_TICK_SECONDS = 0.5
_LOOK_FOR_NODES_SECONDS = 2.0
_MOST_PATIENCE_SECONDS = 30.0
_MIN_DEADLINE_SECONDS = 600.0
_DEADLINE_FACTOR = 10.0
_SLOWEST_CPU, _SLOWEST_GPU = 2e-4, 2e-6
"""Seconds per pixel and step before anything has been measured: twenty times what two old cores need."""
_REASON_LENGTH, _REASON_BEGIN = 500, 150
_NOISE = re.compile(r"\x1b\[[0-9;]*m|\^{2,}")


@dataclass(slots=True, eq=False)
class _Seat:
    """An actor and its batches in flight, the running one first."""

    actor: Any
    starting: deque[Any]
    """References to its arrival and its set-up; empty once it is ready."""
    batches: dict[Any, Batch] = field(default_factory=dict)
    since: float = field(default_factory=time.monotonic)
    """When what it does now began."""
    node_id: str = ""
    """Where it is; known once it has arrived."""
    leaving: bool = False
    """Whether its node is about to go."""

    @property
    def is_ready(self) -> bool:
        """Whether it may be given a batch."""
        return not (self.starting or self.leaving)

    @property
    def awaited(self) -> Any:
        """The reference that it will answer next; None while it is idle."""
        return self.starting[0] if self.starting else next(iter(self.batches), None)


class Dispatcher:
    """The bounded loop: at most two batches in flight per worker, everything else still on disk.

    Args:
        cluster: Where the workers run.
        worker_options: What each is started with.
        configuration: Any of the plan's; workers load its network while the first batch is on its way.
        batches: Read lazily.
        on_results: Takes the results of a batch, or of a part of one; each trial's once.
        on_tick: Called at least every half second; True ends the run, abandoning what is in flight.
        worker_class: A stand-in with the same methods, for measurements of the loop itself.
        inputs: A few local files that the driver sees, to find out at once whether workers see them too.
    """

    def __init__(
        self,
        cluster: Cluster,
        worker_options: WorkerOptions,
        configuration: Configuration,
        batches: Iterator[Sequence[Trial]],
        *,
        on_results: Callable[[Sequence[Result]], None],
        on_tick: Callable[[], bool],
        worker_class: type = WorkerActor,
        inputs: Sequence[str] = (),
    ) -> None:
        self.cluster, self.worker_options, self.worker_class = cluster, worker_options, worker_class
        self.configuration, self.on_results, self.on_tick = configuration, on_results, on_tick
        self.inputs, self.deaths = inputs, 0
        self.monitor = Monitor()
        self._backlog = Backlog(batches)
        self._seats: list[_Seat] = []
        self._places = 1
        self._failed_starts = self._fruitless_deaths = 0
        self._slowest: float | None = None
        self._look_for_nodes_at = 0.0
        self._placed_at = time.monotonic()

    @property
    def num_workers(self) -> int:
        """Workers that are ready."""
        return sum(not seat.starting for seat in self._seats)

    @property
    def busy_seconds(self) -> float:
        """What workers have spent, all together, on batches that are not back."""
        now = time.monotonic()
        return sum(now - seat.since for seat in self._seats if seat.batches)

    def run(self) -> None:
        """Returns when every batch has ended, or when `on_tick` says so.

        Raises:
            ClusterError: Workers cannot be started, or die whatever they are given.
            NstBatchError: A worker found that the study itself cannot run (its weights, say).
        """
        try:
            while not self.on_tick():
                self._seat_workers()
                self._assign()
                if not self._seats and not self._backlog.has():
                    return
                self._collect()
        finally:
            for seat in self._seats:
                ray.kill(seat.actor)

    # Giving out

    def _seat_workers(self) -> None:
        """Keeps a worker for every place that the cluster has and that a batch waits for; nodes may have joined."""
        now = time.monotonic()
        if now < self._look_for_nodes_at:
            return
        self._look_for_nodes_at = now + _LOOK_FOR_NODES_SECONDS
        self._leave(draining_nodes())
        self._places = self.cluster.num_workers()
        self._check_places(now)
        idle = sum(not seat.batches for seat in self._seats)
        while len(self._seats) < self._places and self._backlog.has(idle + 1):
            actor = self.cluster.start_worker(self.worker_options, self.worker_class)
            starting = (arrival(actor, self.inputs), actor.setup.remote(self.configuration))
            self._seats.append(_Seat(actor, deque(starting)))
            idle += 1

    def _check_places(self, now: float) -> None:
        """Nothing pends for ever."""
        if not self._seats or any(seat.node_id for seat in self._seats):
            self._placed_at = now
        elif now - self._placed_at > PLACE_SECONDS:
            raise ClusterError(
                f"after {PLACE_SECONDS / 60:.0f} min no node has taken any of {self.cluster.describe()}: "
                f"others use them all, or the autoscaler cannot bring them; `ray status` on the head says which"
            )

    def _leave(self, draining: frozenset[str]) -> None:
        """Lets go of idle workers on nodes that are about to go; the others get no new batch."""
        for seat in [seat for seat in self._seats if seat.node_id in draining]:
            seat.leaving = True
            if not seat.batches:
                ray.kill(seat.actor)
                self._seats.remove(seat)

    def _assign(self) -> None:
        """Fills the places of ready workers, the emptiest first; lets go of workers that are not needed any more.

        The last batches, fewer than there are workers, are kept for those who are the first to be free.
        """
        for places in range(_IN_FLIGHT):
            for seat in [seat for seat in self._seats if seat.is_ready and len(seat.batches) == places]:
                if not self._backlog.has(len(self._seats) if places else 1):
                    break
                batch = self._backlog.take()
                if not seat.batches:
                    seat.since = time.monotonic()
                seat.batches[seat.actor.run.remote(batch.trials)] = batch
        if not self._backlog.has():
            for seat in [seat for seat in self._seats if not seat.batches]:
                ray.kill(seat.actor)
                self._seats.remove(seat)

    # Taking back

    def _collect(self) -> None:
        awaited = {seat.awaited: seat for seat in self._seats if seat.awaited is not None}
        if not awaited:
            time.sleep(_TICK_SECONDS)
            return
        done = ray.wait(list(awaited), num_returns=1, timeout=_TICK_SECONDS)[0]
        if done:
            done = ray.wait(list(awaited), num_returns=len(awaited), timeout=0)[0]
        for reference in done:
            self._take(awaited[reference], reference)
        for seat in [seat for seat in self._seats if time.monotonic() - seat.since > self._patience(seat)]:
            self._bury(seat, f"hung: nothing came back within {self._patience(seat):.0f} s")

    def _take(self, seat: _Seat, reference: Any) -> None:
        """Looks at one answer: a worker that is ready, results, an exception or a death."""
        try:
            answer = ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            self._raised(seat, reference, _cause(error))
        except WORKER_DEATHS as error:
            self._bury(seat, _reason(error), innocent=bool(getattr(error, "preempted", False)))
        else:
            if seat.starting:
                seat.starting.popleft()
                if isinstance(answer, Arrival):
                    self._arrived(seat, answer)
                self._failed_starts *= bool(seat.starting)
            else:
                self._finished(seat, seat.batches.pop(reference), answer)
            seat.since = time.monotonic()

    def _arrived(self, seat: _Seat, answer: Arrival) -> None:
        seat.node_id = answer.node_id
        if answer.unseen:
            raise ClusterError(
                f"{answer.unseen[0]} is here but cannot be seen on {answer.host}, where a worker runs; keep "
                f"pictures and weights where every node sees them at the same path, or name them by URL (s3://…)"
            )

    def _finished(self, seat: _Seat, batch: Batch, results: Sequence[Result]) -> None:
        self._failed_starts = self._fruitless_deaths = 0
        self.monitor.batch(results)
        self._slowest = max(self._slowest or 0.0, (time.monotonic() - seat.since) / _work(batch))
        returned = {result.trial.trial_index for result in results}
        forgotten = [trial for trial in batch.trials if trial.trial_index not in returned]
        missing = "its worker returned no result for it"
        self.on_results([*results, *(failure(trial, "no_result", missing) for trial in forgotten)])

    def _raised(self, seat: _Seat, reference: Any, error: Exception) -> None:
        """An exception in a batch is that of its trials; in a set-up it is the worker's, or the whole study's."""
        if isinstance(error, WeightsError) or (seat.starting and isinstance(error, NstBatchError)):
            raise error
        told = str(error) or repr(error)
        if seat.starting:
            self._bury(seat, f"{type(error).__name__}: {told}")
        else:
            batch = seat.batches.pop(reference)
            seat.since = time.monotonic()
            self._settle(self._backlog.raised(batch, type(error).__name__, told))

    def _bury(self, seat: _Seat, reason: str, *, innocent: bool = False) -> None:
        """Removes a dead worker and puts its batches back; only the one that was running can be to blame."""
        ray.kill(seat.actor)  # it may be alive after all, and out of reach
        self._seats.remove(seat)
        self.deaths += 1
        self.monitor.worker_died()
        running, queued = next(iter(seat.batches.values()), None), list(seat.batches.values())[1:]
        for batch in reversed(queued):
            self._backlog.put_back(batch)
        if running and innocent:
            self._backlog.put_back(running)
        elif running:
            self._settle(self._backlog.died(running, reason))
        if seat.starting:
            self._failed_starts += 1
            patience = min(2.0**self._failed_starts, _MOST_PATIENCE_SECONDS)
            self._look_for_nodes_at = time.monotonic() + (patience if self._failed_starts > 1 else 0.0)
        else:
            self._fruitless_deaths += 1
            self._look_for_nodes_at = 0.0
        self._break_circuit(reason)

    def _settle(self, result: Result | None) -> None:
        if result is not None:
            self.on_results([result])

    def _break_circuit(self, reason: str) -> None:
        if self._failed_starts >= MAX_FAILED_STARTS + self._places - 1:
            what = f"{self._failed_starts} workers in a row could not start"
        elif self._fruitless_deaths >= MAX_FRUITLESS_DEATHS * self._places:
            what = f"{self._fruitless_deaths} workers in a row died before they had finished anything"
        else:
            return
        raise ClusterError(f"{what}; the last one: {reason}; put that right, then run again to resume")

    def _patience(self, seat: _Seat) -> float:
        """Seconds that what a worker does now may take: for ever while it waits for its place on a node."""
        if seat.starting:
            return START_SECONDS if len(seat.starting) == 1 else math.inf
        if not seat.batches:
            return math.inf
        chosen = self.cluster.options.batch_seconds
        work = _work(next(iter(seat.batches.values())))
        if self._slowest is not None:
            expected = _DEADLINE_FACTOR * self._slowest * work
        else:
            expected = work * (_SLOWEST_GPU if self.cluster.uses_gpus else _SLOWEST_CPU)
        return chosen or max(_MIN_DEADLINE_SECONDS, expected)


def _work(batch: Batch) -> int:
    """Pixels times steps."""
    return sum(max(1, trial.width * trial.height * trial.configuration.steps) for trial in batch.trials)


def _cause(error: ray.exceptions.RayTaskError) -> Exception:
    cause = error.cause
    return cause if isinstance(cause, Exception) else RuntimeError(str(error))


def _reason(error: Exception) -> str:
    """What Ray says of a death on one line: from where it says why, without colours, cut in the middle."""
    words = " ".join(_NOISE.sub(" ", str(error)).split())
    _, _, why = words.partition("The actor is dead because ")
    told = why or words
    if len(told) > _REASON_LENGTH:
        told = f"{told[:_REASON_BEGIN]} … {told[_REASON_BEGIN - _REASON_LENGTH :]}"
    return told
