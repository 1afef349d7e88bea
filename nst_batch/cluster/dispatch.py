"""The loop that loses nothing: batches given to workers, results taken back, deaths survived.

Actors are never restarted and tasks never retried by Ray itself: the driver decides, because only it knows the
difference between a worker that died and a trial that kills workers (`retries` has the rules).
"""

from __future__ import annotations

import math
import textwrap
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import ray
import ray.exceptions

from nst_batch.cluster.connection import hostname
from nst_batch.cluster.pool import Arrival, WorkerLogs, WorkerPool, WorkerSlot, death_reason
from nst_batch.cluster.progress import RunProgress
from nst_batch.cluster.retries import (
    MAX_NODE_FAILURES,
    Backlog,
    Batch,
    CircuitBreaker,
    NodeHealth,
    deadline_seconds,
    may_be_the_nodes,
)
from nst_batch.errors import ClusterError, NstBatchError, WeightsError, without_secrets
from nst_batch.records import Result, Trial

START_SECONDS = 600.0
"""A worker that takes longer to load its network is taken for hung."""

_IN_FLIGHT = 2  # batches per worker: the next one is there when one is done, and no more can be lost
_TICK_SECONDS = 0.5
_LOG_SECONDS = 2.0


class Dispatcher:
    """The bounded loop: at most two batches in flight per worker, everything else still on disk.

    Args:
        pool: Its workers; they end with the run.
        batches: Read lazily.
        progress: Hears of workers.
        on_log: Takes a file name and what a worker printed before it failed.
    """

    def __init__(
        self,
        pool: WorkerPool,
        batches: Iterator[Sequence[Trial]],
        progress: RunProgress,
        on_log: Callable[[str, str], None],
    ) -> None:
        self._pool, self.progress = pool, progress
        self._backlog = Backlog(batches)
        self._breaker = CircuitBreaker()
        self._health = NodeHealth()
        self._logs = WorkerLogs(on_log)
        self._alone: dict[str, tuple[WorkerSlot, Batch]] = {}
        """Batches that run alone, or are about to, and where, by node."""
        self._uncertain: list[Result] = []
        """Failures that may be the machine's; told once anything has succeeded since, or nothing else is left."""
        self._failures: dict[str, str] = {}
        """The last failure on each node."""
        self._proven = False
        """Whether a trial has been computed: then the study can be."""
        self._ended = list[Sequence[Result]]()
        """What is to be told."""

    def run(self) -> Generator[Sequence[Result], None, None]:
        """The results of a batch, or of a part of one, as they come, each trial's once; ends when all have.

        At least every half second there is an answer, if an empty one. Closing it abandons what is in flight.

        Raises:
            ClusterError: Workers cannot be started, or die whatever they are given.
            NstBatchError: A worker found that the study itself cannot run (its weights, say).
        """
        try:
            while self._step():
                yield from self._told()
            self._settle(*self._uncertain)
            yield from self._told()
            self._logs.collect(_LOG_SECONDS)
        except NstBatchError:
            yield from self._told()
            self._logs.collect(_LOG_SECONDS)
            raise
        finally:
            self._pool.close()

    def _step(self) -> bool:
        """Gives out what can be given, and waits for an answer; False if nothing is left to be done."""
        self._pool.fill(self._backlog.wants_worker)
        self._assign()
        if not (self._pool.slots or self._alone or self._backlog.has()):
            return False
        self._collect()
        self._logs.collect()
        self.progress.workers(*self._pool.load(), self._pool.pace)
        return True

    def _told(self) -> list[Sequence[Result]]:
        """What is to be told, and at least an empty answer."""
        told, self._ended = [*self._ended, ()], []
        return told

    # Giving out

    def _assign(self) -> None:
        """Gives batches to ready workers, the emptiest first; releases workers that are not needed any more.

        The last batches, fewer than there are workers, are kept for those who are the first to be free.
        """
        places = self._pool.places()
        for in_flight in range(_IN_FLIGHT):
            for slot in [slot for slot in self._pool.slots if slot.is_ready and len(slot.batches) == in_flight]:
                if not self._backlog.has(len(self._pool.slots) if in_flight else 1):
                    break
                if slot.node_id in self._alone:
                    continue
                batch = self._backlog.take(slot.place, places, more=self._pool.may_grow)
                if batch and batch.runs_alone:
                    self._alone[slot.node_id] = slot, batch
                elif batch:
                    slot.give(batch)
        self._run_alone()
        if not self._backlog.has():
            self._pool.release_all_but_a_spare()

    def _run_alone(self) -> None:
        """Starts the batches that are to run alone as soon as nothing else runs on their node."""
        for node, (slot, batch) in list(self._alone.items()):
            if slot not in self._pool.slots or (slot.leaving and not slot.batches):
                del self._alone[node]
                self._backlog.put_back(batch)
            elif not any(each.batches for each in self._pool.slots if each.node_id == node):
                slot.give(batch)

    # Taking back

    def _collect(self) -> None:
        """Waits half a second at most for answers, and takes all that are there; ends workers that hang."""
        awaited = {slot.awaited: slot for slot in self._pool.slots if slot.awaited is not None}
        if not awaited:
            time.sleep(_TICK_SECONDS)
            return
        answered = ray.wait(list(awaited), num_returns=1, timeout=_TICK_SECONDS)[0]
        if answered:
            answered = ray.wait(list(awaited), num_returns=len(awaited), timeout=0)[0]
        for reference in answered:
            if awaited[reference] in self._pool.slots:  # not ended by what another one answered
                self._take(awaited[reference], reference)
        for slot in [slot for slot in self._pool.slots if time.monotonic() - slot.since > self._deadline(slot)]:
            self._worker_died(slot, f"hung: nothing came back within {self._deadline(slot):.0f} s")

    def _deadline(self, slot: WorkerSlot) -> float:
        """Seconds that what a worker does now may take: for ever while it is idle, or waits for a node."""
        if slot.starting and slot.arrival:
            return START_SECONDS
        on_gpu = self._pool.cluster.uses_gpus
        return deadline_seconds(slot.running.trials, on_gpu=on_gpu) if slot.running else math.inf

    def _take(self, slot: WorkerSlot, reference: Any) -> None:
        """Looks at one answer: a worker that is ready, results, an exception or a death."""
        try:
            answer = ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            self._raised(slot, error.cause if isinstance(error.cause, Exception) else RuntimeError(str(error)))
        except ray.exceptions.RayError as error:
            # Everything else is the worker's: its process, its node or Ray's memory monitor ended it, its result
            # went down with a node, found no room there or cannot be read, or it was never begun.
            self._worker_died(slot, death_reason(error), innocent=bool(getattr(error, "preempted", False)))
        else:
            if slot.starting:
                self._started(slot, answer)
            else:
                self._finished(slot, self._popped(slot), answer)
            slot.since = time.monotonic()

    def _popped(self, slot: WorkerSlot) -> Batch:
        """The batch that a worker was running, which has ended."""
        batch = slot.batches.pop(next(iter(slot.batches)))
        if (slot, batch) == self._alone.get(slot.node_id):
            del self._alone[slot.node_id]
        return batch

    def _started(self, slot: WorkerSlot, answer: object) -> None:
        """It has arrived on a node, or loaded its network."""
        slot.starting.popleft()
        if not isinstance(answer, Arrival):
            self._breaker.worker_started()
            return
        slot.arrival = answer
        if answer.unseen:
            reason = (
                f"{answer.unseen[0]} is here but cannot be seen on {answer.host}, where a worker runs; keep "
                f"pictures and weights where every node sees them at the same path, or name them by URL (s3://…)"
            )
            self._unable(slot, ClusterError(reason))

    def _unable(self, slot: WorkerSlot, error: NstBatchError) -> None:
        """A worker that starts lacks what the study needs: an error of the run, unless others have had it."""
        if not self._proven:
            raise error
        self._worker_died(slot, str(error))

    def _finished(self, slot: WorkerSlot, batch: Batch, results: Sequence[Result]) -> None:
        """Records what is certain. What may be the node's fault waits for another node, or for a first success."""
        if doubtful := list(filter(may_be_the_nodes, results)):
            self._failures[slot.node_id] = str(doubtful[-1].outcome.error_message)
        certain = self._backlog.doubted(batch, slot.place, results)
        uncertain = list(filter(may_be_the_nodes, certain))
        self._doubt(*uncertain)
        self._settle(*(result for result in certain if not may_be_the_nodes(result)))
        if any(result.outcome.status != "failed" for result in results):
            self._proven = True
            self._breaker.succeeded()
            for node in self._health.succeeded(batch, slot.node_id):
                self._leave_sick(node, "batches failed there and then succeeded elsewhere")
            self._settle(*self._uncertain)
            self._uncertain.clear()
        for reason in (str(result.outcome.error_message) for result in uncertain):
            self._breaker.failed(reason, self._pool.num_slots, key=reason)

    def _raised(self, slot: WorkerSlot, error: Exception) -> None:
        """A worker raised: while it starts, its own fault or the study's, else the batch's; it is replaced."""
        error_type, message = type(error).__name__, without_secrets(str(error) or repr(error))
        if slot.starting and isinstance(error, NstBatchError):
            self._unable(slot, error)
        elif slot.starting:
            self._worker_died(slot, f"{error_type}: {message}")
        elif isinstance(error, WeightsError):
            raise error
        else:
            if batch := self._end_worker(slot, f"{error_type}: {message}"):
                self._doubt(self._backlog.raised(batch, slot.place, error_type, message))
            self._breaker.failed(f"{error_type}: {message}", self._pool.num_slots)

    def _worker_died(self, slot: WorkerSlot, reason: str, *, innocent: bool = False) -> None:
        """Replaces a dead worker; only the batch that it was running can be to blame."""
        self.progress.worker_died()
        batch = self._end_worker(slot, reason)
        if batch and innocent:
            self._backlog.put_back(batch)
        elif batch:
            self._doubt(self._backlog.died(batch, slot.place, reason))
        node = slot.node_id
        if not slot.starting:
            self._breaker.failed(reason, self._pool.num_slots)
        elif node and self._health.start_failed(node) and self._pool.has_ready(besides=node):
            self._leave_sick(node, "workers could not start there")
        else:
            self._pool.wait(self._breaker.start_failed(reason, self._pool.num_slots))

    def _end_worker(self, slot: WorkerSlot, reason: str) -> Batch | None:
        """Ends a worker that failed, puts back what it had queued, and returns the batch that it was running."""
        self._pool.end(slot)
        self._pool.wait(0.0)
        if not self._failures:  # of many, the first is what a person needs to know soon
            told = textwrap.shorten(reason, 100, placeholder=" …")
            self.progress.reporter.note(f"a worker is replaced: {told}; what it printed goes to the run's logs/")
        self._failures[slot.node_id] = reason
        self._logs.fetch(slot, reason)
        running = self._popped(slot) if slot.batches else None
        for queued in reversed(slot.batches.values()):
            self._backlog.put_back(queued)
        return running

    def _leave_sick(self, node: str, what: str) -> None:
        """A node that is sick gets no more work, and a person is told."""
        excluded = self._pool.cluster.excluded
        if node not in excluded:
            failure = f"the last failure there: {self._failures[node]}"
            excluded[node] = f"{hostname(node)} ({failure})"
            note = f"node {hostname(node)} gets no more work: {MAX_NODE_FAILURES} {what}; {failure}"
            self.progress.reporter.note(note)
            self._pool.leave([node])

    def _doubt(self, *results: Result | None) -> None:
        """Keeps failures until it shows that workers can succeed at all."""
        self._uncertain += [result for result in results if result is not None]

    def _settle(self, *results: Result) -> None:
        """Tells of trials whose fate is decided."""
        self._ended.append(results)
