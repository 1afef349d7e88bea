"""The loop that loses nothing: batches given to workers, results taken back, deaths survived.

Actors are never restarted and tasks never retried by Ray itself: the driver decides, because only it knows the
difference between a worker that died and a trial that kills workers (`retries` has the rules).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray
import ray.exceptions

from nst_batch.cluster.connection import Cluster, draining_nodes
from nst_batch.cluster.options import WorkerOptions
from nst_batch.cluster.progress import RunProgress
from nst_batch.cluster.retries import Backlog, Batch, CircuitBreaker, Deadlines, failure
from nst_batch.cluster.slots import WORKER_DEATHS, Arrival, WorkerActor, WorkerSlot, cause, death_reason
from nst_batch.errors import ClusterError, NstBatchError, WeightsError
from nst_batch.records import Configuration, Result, Trial

START_SECONDS = 600.0
"""A worker that takes longer to load its network is taken for hung."""
PLACEMENT_SECONDS = 1800.0
"""How long to wait until a node takes the first worker: an autoscaler may have to find a machine."""

_IN_FLIGHT = 2  # batches per worker: the next one is there when one is done, and no more can be lost
_TICK_SECONDS = 0.5
_LOOK_FOR_NODES_SECONDS = 2.0


class Dispatcher:
    """The bounded loop: at most two batches in flight per worker, everything else still on disk.

    Args:
        cluster: Where the workers run.
        worker_options: What each is started with.
        configuration: Any of the plan's; workers load its network while the first batch is on its way.
        batches: Read lazily.
        progress: Hears of workers and of batches that return.
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
        progress: RunProgress,
        on_results: Callable[[Sequence[Result]], None],
        on_tick: Callable[[], bool],
        worker_class: type = WorkerActor,
        inputs: Sequence[str] = (),
    ) -> None:
        self.cluster, self.worker_options, self.worker_class = cluster, worker_options, worker_class
        self.configuration, self.inputs, self.progress = configuration, inputs, progress
        self.on_results, self.on_tick = on_results, on_tick
        self._backlog = Backlog(batches)
        self._breaker = CircuitBreaker()
        self._deadlines = Deadlines(cluster.options.batch_seconds, uses_gpus=cluster.uses_gpus)
        self._slots: list[WorkerSlot] = []
        self._num_slots = 1
        self._look_for_nodes_at = 0.0
        self._placed_at = time.monotonic()

    def run(self) -> None:
        """Returns when every batch has ended, or when `on_tick` says so.

        Raises:
            ClusterError: Workers cannot be started, or die whatever they are given.
            NstBatchError: A worker found that the study itself cannot run (its weights, say).
        """
        try:
            while not self.on_tick():
                self._start_workers()
                self._assign()
                if not self._slots and not self._backlog.has():
                    return
                self._collect()
                self._tell_progress()
        finally:
            for slot in self._slots:
                ray.kill(slot.actor)

    def _tell_progress(self) -> None:
        now = time.monotonic()
        num_ready = sum(not slot.starting for slot in self._slots)
        self.progress.workers(num_ready, sum(now - slot.since for slot in self._slots if slot.batches))

    # Giving out

    def _start_workers(self) -> None:
        """Keeps a worker for every slot that the cluster has and that a batch waits for; nodes may have joined."""
        now = time.monotonic()
        if now < self._look_for_nodes_at:
            return
        self._look_for_nodes_at = now + _LOOK_FOR_NODES_SECONDS
        self._leave(draining_nodes())
        self._num_slots = self.cluster.num_workers()
        self._check_placement(now)
        idle = sum(not slot.batches for slot in self._slots)
        while len(self._slots) < self._num_slots and self._backlog.has(idle + 1):
            actor = self.cluster.start_worker(self.worker_options, self.worker_class)
            self._slots.append(WorkerSlot.start(actor, self.configuration, self.inputs))
            idle += 1

    def _check_placement(self, now: float) -> None:
        """Nothing pends for ever."""
        if not self._slots or any(slot.node_id for slot in self._slots):
            self._placed_at = now
        elif now - self._placed_at > PLACEMENT_SECONDS:
            raise ClusterError(
                f"after {PLACEMENT_SECONDS / 60:.0f} min no node has taken any of {self.cluster.describe()}: "
                f"others use them all, or the autoscaler cannot bring them; `ray status` on the head says which"
            )

    def _leave(self, nodes: frozenset[str]) -> None:
        """Releases idle workers on nodes that are about to go; the others get no new batch."""
        for slot in self._slots:
            slot.leaving = slot.leaving or slot.node_id in nodes
        self._release([slot for slot in self._slots if slot.leaving])

    def _assign(self) -> None:
        """Gives batches to ready workers, the emptiest first; releases workers that are not needed any more.

        The last batches, fewer than there are workers, are kept for those who are the first to be free.
        """
        for in_flight in range(_IN_FLIGHT):
            for slot in [slot for slot in self._slots if slot.is_ready and len(slot.batches) == in_flight]:
                if not self._backlog.has(len(self._slots) if in_flight else 1):
                    break
                slot.give(self._backlog.take())
        if not self._backlog.has():
            self._release(self._slots)

    def _release(self, slots: Sequence[WorkerSlot]) -> None:
        """Ends those workers that are idle."""
        for slot in [slot for slot in slots if not slot.batches]:
            ray.kill(slot.actor)
            self._slots.remove(slot)

    # Taking back

    def _collect(self) -> None:
        """Waits half a second at most for answers, and takes all that are there; ends workers that hang."""
        awaited = {slot.awaited: slot for slot in self._slots if slot.awaited is not None}
        if not awaited:
            time.sleep(_TICK_SECONDS)
            return
        answered = ray.wait(list(awaited), num_returns=1, timeout=_TICK_SECONDS)[0]
        if answered:
            answered = ray.wait(list(awaited), num_returns=len(awaited), timeout=0)[0]
        for reference in answered:
            self._take(awaited[reference], reference)
        for slot in [slot for slot in self._slots if time.monotonic() - slot.since > self._deadline(slot)]:
            self._worker_died(slot, f"hung: nothing came back within {self._deadline(slot):.0f} s")

    def _deadline(self, slot: WorkerSlot) -> float:
        """Seconds that what a worker does now may take: for ever while it waits for its place on a node."""
        if slot.starting:
            return START_SECONDS if len(slot.starting) == 1 else math.inf
        return self._deadlines.seconds(slot.running) if slot.running else math.inf

    def _take(self, slot: WorkerSlot, reference: Any) -> None:
        """Looks at one answer: a worker that is ready, results, an exception or a death."""
        try:
            answer = ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            self._raised(slot, reference, cause(error))
        except WORKER_DEATHS as error:
            self._worker_died(slot, death_reason(error), innocent=bool(getattr(error, "preempted", False)))
        else:
            if slot.starting:
                self._started(slot, answer)
            else:
                self._finished(slot, slot.batches.pop(reference), answer)
            slot.since = time.monotonic()

    def _started(self, slot: WorkerSlot, answer: object) -> None:
        """It has arrived on a node, or loaded its network."""
        slot.starting.popleft()
        if not isinstance(answer, Arrival):
            self._breaker.worker_started()
            return
        slot.node_id = answer.node_id
        if answer.unseen:
            raise ClusterError(
                f"{answer.unseen[0]} is here but cannot be seen on {answer.host}, where a worker runs; keep "
                f"pictures and weights where every node sees them at the same path, or name them by URL (s3://…)"
            )

    def _finished(self, slot: WorkerSlot, batch: Batch, results: Sequence[Result]) -> None:
        self._breaker.batch_finished()
        self._deadlines.learn(batch, time.monotonic() - slot.since)
        self.progress.batch_returned(results)
        returned = {result.trial.trial_index for result in results}
        missing = "its worker returned no result for it"
        forgotten = [trial for trial in batch.trials if trial.trial_index not in returned]
        self.on_results([*results, *(failure(trial, "no_result", missing) for trial in forgotten)])

    def _raised(self, slot: WorkerSlot, reference: Any, error: Exception) -> None:
        """An exception in a batch is that of its trials; in a set-up it is the worker's, or the whole study's."""
        if isinstance(error, WeightsError) or (slot.starting and isinstance(error, NstBatchError)):
            raise error
        message = str(error) or repr(error)
        if slot.starting:
            self._worker_died(slot, f"{type(error).__name__}: {message}")
        else:
            batch = slot.batches.pop(reference)
            slot.since = time.monotonic()
            self._settle(self._backlog.raised(batch, type(error).__name__, message))

    def _worker_died(self, slot: WorkerSlot, reason: str, *, innocent: bool = False) -> None:
        """Removes a dead worker and puts its batches back; only the one that was running can be to blame."""
        ray.kill(slot.actor)  # it may be alive after all, and out of reach
        self._slots.remove(slot)
        self.progress.worker_died()
        running, queued = slot.running, list(slot.batches.values())[1:]
        for batch in reversed(queued):
            self._backlog.put_back(batch)
        if running and innocent:
            self._backlog.put_back(running)
        elif running:
            self._settle(self._backlog.died(running, reason))
        delay = 0.0
        if slot.starting:
            delay = self._breaker.start_failed(reason, self._num_slots)
        else:
            self._breaker.died(reason, self._num_slots)
        self._look_for_nodes_at = time.monotonic() + delay

    def _settle(self, result: Result | None) -> None:
        if result is not None:
            self.on_results([result])
