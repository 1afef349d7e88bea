"""The loop that loses nothing: batches given to workers, results taken back, deaths survived.

Actors are never restarted and tasks never retried by Ray itself: the driver decides, because only it knows the
difference between a worker that died and a trial that kills workers.

- A batch that raises is the trials' failure: it is split, so that the healthy ones pass, and the one that still
  raises alone is recorded.
- A batch whose worker dies is put back. After three deaths it is split too, and a trial that kills its worker
  alone twice is recorded as failed. So a poison input cannot loop for ever.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
import ray.exceptions

from nst_batch.cluster import Cluster
from nst_batch.errors import ClusterError, NstBatchError
from nst_batch.records import Configuration, Outcome, Result, Trial
from nst_batch.worker import Worker, WorkerOptions

WORKER_DEATHS = (
    ray.exceptions.RayActorError,  # the process died: SIGKILL, a segfault, the system's out-of-memory killer
    ray.exceptions.NodeDiedError,  # the machine under it did
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.OutOfMemoryError,  # Ray's own memory monitor killed it
    ray.exceptions.ObjectLostError,  # it finished, but its result went down with a node
    ray.exceptions.TaskUnschedulableError,
    ray.exceptions.ActorUnschedulableError,
)

MAX_DEATHS_PER_BATCH = 3
MAX_DEATHS_ALONE = 2
_IN_FLIGHT = 2  # batches per worker: the next one is there when one is done, and no more can be lost
_TICK_SECONDS = 0.5
_LOOK_FOR_NODES_SECONDS = 2.0
_MIN_DEADLINE_SECONDS = 600.0
_DEADLINE_FACTOR = 10.0


@dataclass(slots=True)
class _Batch:
    """Trials that are dispatched together, and what has happened to them."""

    trials: Sequence[Trial]
    deaths: int = 0

    @property
    def deaths_allowed(self) -> int:
        return MAX_DEATHS_PER_BATCH if len(self.trials) > 1 else MAX_DEATHS_ALONE


@dataclass(slots=True)
class _Seat:
    """An actor and its batches in flight, the running one first."""

    actor: Any
    setup: Any
    """The reference of its start; None once it is ready."""
    batches: dict[Any, _Batch] = field(default_factory=dict)
    since: float = field(default_factory=time.monotonic)
    """When its running batch began, or its start."""


class Dispatcher:
    """The bounded loop: at most two batches in flight per worker, everything else still on disk.

    Args:
        cluster: Where the workers run.
        worker_options: What each is started with.
        configuration: Any of the plan's; workers load its network while the first batch is on its way.
        batches: Read lazily.
        on_result: Takes each result, once per trial.
        on_tick: Called at least every half second; True ends the run, abandoning what is in flight.
        worker_class: A stand-in with the same methods, for measurements of the loop itself.
    """

    def __init__(
        self,
        cluster: Cluster,
        worker_options: WorkerOptions,
        configuration: Configuration,
        batches: Iterator[Sequence[Trial]],
        *,
        on_result: Callable[[Result], None],
        on_tick: Callable[[], bool],
        worker_class: type = Worker,
    ) -> None:
        self.cluster, self.worker_options, self.worker_class = cluster, worker_options, worker_class
        self.configuration, self.on_result, self.on_tick = configuration, on_result, on_tick
        self.deaths = 0
        self._fresh, self._again = batches, deque[_Batch]()
        self._exhausted = False
        self._seats: list[_Seat] = []
        self._deaths_in_a_row = 0
        self._slowest = 0.0
        self._looked_for_nodes = 0.0

    @property
    def num_workers(self) -> int:
        """Workers that are ready."""
        return sum(seat.setup is None for seat in self._seats)

    def run(self) -> None:
        """Returns when every batch has ended, or when `on_tick` says so.

        Raises:
            ClusterError: Workers die as fast as they are started.
            NstBatchError: A worker found that the study itself cannot run (its weights, say).
        """
        try:
            while not self.on_tick():
                self._seat_workers()
                self._assign()
                if not self._seats and self._done():
                    return
                self._collect()
        finally:
            for seat in self._seats:
                ray.kill(seat.actor)

    # Giving out

    def _done(self) -> bool:
        return self._exhausted and not self._again

    def _seat_workers(self) -> None:
        """Keeps one worker for every place that the cluster has, also on nodes that joined a moment ago."""
        now = time.monotonic()
        if now - self._looked_for_nodes < _LOOK_FOR_NODES_SECONDS and self._seats:
            return
        self._looked_for_nodes = now
        for _ in range(self.cluster.num_workers() - len(self._seats)):
            if self._peek() is None:
                return
            actor = self.cluster.start_worker(self.worker_options, self.worker_class)
            self._seats.append(_Seat(actor, actor.setup.remote(self.configuration)))

    def _peek(self) -> _Batch | None:
        """The next batch, left in its place."""
        if not self._again and not self._exhausted:
            trials = next(self._fresh, None)
            if trials is None:
                self._exhausted = True
            else:
                self._again.append(_Batch(trials))
        return self._again[0] if self._again else None

    def _assign(self) -> None:
        """Fills every ready worker's places, the emptiest first, and lets go of those that are not needed."""
        for places in range(_IN_FLIGHT):
            for seat in [seat for seat in self._seats if seat.setup is None and len(seat.batches) == places]:
                batch = self._peek()
                if batch is None:
                    break
                self._again.popleft()
                if not seat.batches:
                    seat.since = time.monotonic()
                seat.batches[seat.actor.run.remote(batch.trials)] = batch
        if self._peek() is None:
            for seat in [seat for seat in self._seats if not seat.batches]:
                ray.kill(seat.actor)
                self._seats.remove(seat)

    # Taking back

    def _collect(self) -> None:
        waiting = [seat.setup for seat in self._seats if seat.setup is not None]
        waiting += [next(iter(seat.batches)) for seat in self._seats if seat.batches]
        done = ray.wait(waiting, num_returns=1, timeout=_TICK_SECONDS)[0] if waiting else []
        for seat in list(self._seats):
            if seat.setup in done:
                self._ready(seat)
            elif seat.batches and next(iter(seat.batches)) in done:
                self._finished(seat)
            elif seat.batches and seat.setup is None and time.monotonic() - seat.since > self._deadline:
                ray.kill(seat.actor)
                self._bury(seat, f"hung: no result within {self._deadline:.0f} s", charge=True)

    @property
    def _deadline(self) -> float:
        chosen = self.cluster.options.batch_seconds
        return chosen or max(_MIN_DEADLINE_SECONDS, _DEADLINE_FACTOR * self._slowest)

    def _ready(self, seat: _Seat) -> None:
        try:
            ray.get(seat.setup)
        except ray.exceptions.RayTaskError as error:
            raise _cause(error) from None
        except WORKER_DEATHS as error:
            self._bury(seat, str(error), charge=False)
        else:
            seat.setup = None

    def _finished(self, seat: _Seat) -> None:
        reference = next(iter(seat.batches))
        try:
            results: list[Result] = ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            self._raised(seat.batches.pop(reference), _cause(error))
        except WORKER_DEATHS as error:
            self._bury(seat, str(error), charge=not getattr(error, "preempted", False))
            return
        else:
            del seat.batches[reference]
            self._deaths_in_a_row = 0
            self._slowest = max(self._slowest, time.monotonic() - seat.since)
            for result in results:
                self.on_result(result)
        seat.since = time.monotonic()

    def _raised(self, batch: _Batch, error: Exception) -> None:
        """The trials' own failure: each is tried alone, and recorded if it was alone already."""
        if isinstance(error, NstBatchError):
            raise error
        if len(batch.trials) > 1:
            self._split(batch, len(batch.trials))
        else:
            self._record(batch.trials[0], type(error).__name__, str(error))

    def _bury(self, seat: _Seat, reason: str, *, charge: bool) -> None:
        """Removes a dead worker and puts its batches back; only the one that was running can be to blame."""
        self._seats.remove(seat)
        self.deaths += 1
        self._deaths_in_a_row += 1
        limit = max(6, 2 * self.cluster.num_workers()) + MAX_DEATHS_PER_BATCH
        batches = list(seat.batches.values())
        self._again.extendleft(reversed(batches[1:]))
        for batch in batches[:1]:
            batch.deaths += charge
            if batch.deaths < batch.deaths_allowed:
                self._again.appendleft(batch)
            elif len(batch.trials) > 1:
                self._split(batch, 2)
            else:
                self._deaths_in_a_row = 0
                self._record(batch.trials[0], "worker_died", f"its worker died {batch.deaths} times: {reason}")
        if self._deaths_in_a_row > limit:
            raise ClusterError(
                f"{self._deaths_in_a_row} workers died one after the other without finishing a batch, the last one "
                f"of: {reason}; see the logs of Ray, then run again to resume"
            )

    def _split(self, batch: _Batch, parts: int) -> None:
        """Puts a batch back in equal parts, to be tried next; a part of several gets one more chance."""
        size = -(-len(batch.trials) // parts)
        pieces = [batch.trials[start : start + size] for start in range(0, len(batch.trials), size)]
        deaths = max(0, MAX_DEATHS_PER_BATCH - 1)
        self._again.extendleft(_Batch(piece, deaths if len(piece) > 1 else 0) for piece in reversed(pieces))

    def _record(self, trial: Trial, error_type: str, message: str) -> None:
        outcome = Outcome(status="failed", error_type=error_type, error_message=message)
        self.on_result(Result(trial=trial, outcome=outcome))


def _cause(error: ray.exceptions.RayTaskError) -> Exception:
    cause = error.cause
    return cause if isinstance(cause, Exception) else RuntimeError(str(error))
