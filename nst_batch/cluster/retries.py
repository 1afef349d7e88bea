"""The rules about failures: batches that wait, workers that fail, sick nodes, deadlines. Knows no Ray.

- A batch that raises goes to a second worker, on another node where there is one. If that raises too, each of its
  trials is tried alone by the same rule; a trial that was alone is recorded as failed.
- A trial whose worker reports what may be the machine's fault (`MAYBE_THE_NODES`) is tried alone by a second worker
  likewise.
- A batch whose worker dies is put back. After two deaths it runs alone on its node, since two batches may not have
  fitted together. After three it is halved, as only one of its trials may be to blame; a part that kills its
  worker again is halved at once. A trial that is alone when its third worker dies is recorded.
- All these failures count only once something else has succeeded, or nothing else is left to do.
- A node on which batches fail that others then finish, or on which no worker comes up, gets no more work.

So every failure has a bound, and a poison input cannot loop for ever: a batch of n trials with one that always
kills costs at most 3 + log2(n) + 1 workers, with one that always raises 4.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

import nst_batch
from nst_batch.errors import TRANSIENT_KINDS, ClusterError
from nst_batch.records import Outcome, Result, Trial

MAX_DEATHS = 3
"""Workers that may die while they run one batch."""
MAX_RAISES = 2
"""Workers that must raise, or report what may be their own fault, before a batch is to blame."""
MAX_FAILED_STARTS = 4
"""Workers that may fail to start one after the other, and one more for each further slot."""
MAX_FRUITLESS = 20
"""Failures one after the other for each slot, while no trial succeeds; then the run ends."""
MAX_NODE_FAILURES = 3
"""On a node, of workers that start or of batches that then succeed elsewhere, while no batch succeeds there."""
MAYBE_THE_NODES = TRANSIENT_KINDS | {"out_of_memory"}
"""The `error_type`s of a trial that a worker reports when its node has lost a mount, its network or its GPU."""

MIN_DEADLINE_SECONDS = 600.0
"""Of a batch, and of a pause within it, however small the pictures."""

_SLOWEST_CPU, _SLOWEST_GPU = 2e-4, 2e-6
"""Seconds per pixel and step: twenty times what two old cores need, and a hundredth of that."""
_ONCE_STEPS = 20
"""What targets, coarse stages, distances and encoding take, in steps, and more: large pictures have few steps."""
_MAX_START_DELAY_SECONDS = 30.0


class Place(NamedTuple):
    """Where a batch is run."""

    node: str
    """The node's id; empty as long as the worker has not come up."""
    worker: int
    """A number that no other worker of this run has."""


@dataclass(slots=True, eq=False)
class Batch:
    """Trials that are dispatched together, and the workers that failed on them."""

    trials: Sequence[Trial]
    deaths: int = 0
    """Of workers that ran it, or all of the batch that it is a part of."""
    raises: int = 0
    failed_at: list[Place] = field(default_factory=list)

    @property
    def runs_alone(self) -> bool:
        """Whether nothing else may run on its node at the same time."""
        return self.deaths >= MAX_DEATHS - 1

    def may_run_at(self, place: Place, places: Collection[Place], *, more: bool) -> bool:
        """Whether a worker may have it: of all that there are, other nodes' first, then other workers, then any.

        Where `more` are to be started, it waits for them rather than for who has failed already.
        """
        nodes = {each.node for each in self.failed_at}
        untried = [each for each in places if each.node not in nodes]
        untried = untried or [each for each in places if each not in self.failed_at]
        return place in untried or not (untried or more)


class Backlog:
    """Batches in the order in which they are to be run: what is put back, then `fresh` ones, read lazily."""

    def __init__(self, fresh: Iterator[Sequence[Trial]]) -> None:
        self._fresh = fresh
        self._waiting = deque[Batch]()

    def has(self, count: int = 1) -> bool:
        """Whether at least so many batches wait."""
        while len(self._waiting) < count:
            trials = next(self._fresh, None)
            if trials is None:
                return False
            self._waiting.append(Batch(trials))
        return True

    def wants_worker(self, num_idle: int, places: Collection[Place]) -> bool:
        """Whether another worker is of use: idle ones have enough to do, or a batch has failed at all there are."""
        return self.has(num_idle + 1) or any(
            batch.failed_at and not any(batch.may_run_at(place, places, more=True) for place in places)
            for batch in self._waiting
        )

    def take(self, place: Place, places: Collection[Place], *, more: bool = False) -> Batch | None:
        """The next batch for a worker.

        None if all that wait are to be tried at others of `places`, or at one of `more` that are to be started; or
        if so many are that this worker had better wait for their judgement: a sick one would fail the whole backlog
        before the others have shown it.
        """
        refused = 0
        for position, batch in enumerate(self._waiting):
            if not batch.may_run_at(place, places, more=more):
                refused += 1
            elif batch.failed_at or refused < MAX_NODE_FAILURES:
                del self._waiting[position]
                return batch
        if refused < MAX_NODE_FAILURES and self.has(len(self._waiting) + 1):
            return self._waiting.pop()
        return None

    def put_back(self, batch: Batch) -> None:
        """To be taken next: its worker ended through no fault of the batch."""
        self._waiting.appendleft(batch)

    def died(self, batch: Batch, place: Place, reason: str) -> Result | None:
        """Puts back a batch whose worker died running it, whole or in halves; or the result that ends it."""
        batch.deaths += 1
        if self._again(batch, place, whole=batch.deaths < MAX_DEATHS, parts=2):
            return None
        message = f"its worker died {batch.deaths} times: {reason}"
        return failure(batch.trials[0], "worker_died", message, attempts=batch.deaths)

    def raised(self, batch: Batch, place: Place, error_type: str, message: str) -> Result | None:
        """Puts back a batch that raised, whole or its trials each alone; or the result that ends it."""
        batch.raises += 1
        if self._again(batch, place, whole=batch.raises < MAX_RAISES, parts=len(batch.trials)):
            return None
        return failure(batch.trials[0], error_type, message, attempts=batch.raises)

    def doubted(self, batch: Batch, place: Place, results: Sequence[Result]) -> list[Result]:
        """Puts back, each alone, the failed trials that another worker is to try; returns the other results."""
        certain = []
        for result in results:
            again = Batch([result.trial], raises=batch.raises + 1, failed_at=[*batch.failed_at, place])
            if may_be_the_nodes(result) and again.raises < MAX_RAISES:
                self.put_back(again)
            else:
                certain.append(result)
        return certain

    def _again(self, batch: Batch, place: Place, *, whole: bool, parts: int) -> bool:
        """Puts back a batch that failed, whole or in equal parts; False if it is a single trial whose end this is.

        After a death, a part of several gets one more chance, a trial alone two.
        """
        batch.failed_at.append(place)
        num_trials = len(batch.trials)
        if whole:
            self.put_back(batch)
            return True
        size = -(-num_trials // parts)
        starts = range(0, num_trials, size) if num_trials > 1 else ()
        pieces = [Batch(batch.trials[start : start + size]) for start in starts]
        if batch.deaths:
            for piece in pieces:
                piece.deaths = MAX_DEATHS - (1 if len(piece.trials) > 1 else 2)
        self._waiting.extendleft(reversed(pieces))
        return bool(pieces)


class NodeHealth:
    """Which nodes are sick: workers or batches fail there while others work, and no batch succeeds."""

    def __init__(self) -> None:
        self._failures = Counter[str]()

    def succeeded(self, batch: Batch, node: str) -> list[str]:
        """A batch has succeeded on a node; returns the nodes that are sick, as far as that shows it."""
        del self._failures[node]
        blamed = {place.node for place in batch.failed_at} - {node}
        self._failures.update(blamed)
        return [each for each in blamed if self._failures[each] >= MAX_NODE_FAILURES]

    def start_failed(self, node: str) -> bool:
        """A worker has not come to be ready on a node; returns whether it is sick, if others work elsewhere."""
        self._failures[node] += 1
        return self._failures[node] >= MAX_NODE_FAILURES


class CircuitBreaker:
    """Ends a run with a ClusterError if its workers cannot start, or fail one after the other."""

    def __init__(self) -> None:
        self._failed_starts = 0
        self._fruitless = set[object]()

    def worker_started(self) -> None:
        """A worker is ready."""
        self._failed_starts = 0

    def succeeded(self) -> None:
        """A trial has."""
        self._failed_starts = 0
        self._fruitless.clear()

    def start_failed(self, reason: str, num_slots: int) -> float:
        """A worker has not come to be ready; returns the seconds to wait before the next one is started."""
        self._failed_starts += 1
        if self._failed_starts >= MAX_FAILED_STARTS + num_slots - 1:
            raise _given_up(f"{self._failed_starts} workers in a row could not start", reason)
        return min(2.0**self._failed_starts, _MAX_START_DELAY_SECONDS) if self._failed_starts > 1 else 0.0

    def failed(self, reason: str, num_slots: int, key: object = None) -> None:
        """A worker died, raised or could not read its picture; failures with equal keys count once."""
        self._fruitless.add(key or object())
        if len(self._fruitless) >= MAX_FRUITLESS * num_slots:
            raise _given_up(f"{len(self._fruitless)} failures in a row on every worker that tried", reason)


def deadline_seconds(trials: Sequence[Trial], *, on_gpu: bool) -> float:
    """How long a batch may run before its worker is taken for hung: its steps, and what is done once per trial."""
    return _allowed_seconds(trials, [trial.configuration.steps + _ONCE_STEPS for trial in trials], on_gpu)


def pause_seconds(trials: Sequence[Trial], *, on_gpu: bool) -> float:
    """How long trials that are computed together may show no progress: as what is done once, or some 20 steps."""
    return _allowed_seconds(trials, [_ONCE_STEPS] * len(trials), on_gpu)


def _allowed_seconds(trials: Sequence[Trial], steps: Sequence[int], on_gpu: bool) -> float:
    work = sum(trial.width * trial.height * count for trial, count in zip(trials, steps, strict=True))
    return max(MIN_DEADLINE_SECONDS, work * (_SLOWEST_GPU if on_gpu else _SLOWEST_CPU))


def failure(trial: Trial, error_type: str | None, message: str | None, attempts: int = 1) -> Result:
    """The result of a trial that no worker could finish."""
    now = datetime.now(UTC)
    outcome = Outcome(
        status="failed",
        error_type=error_type,
        error_message=message,
        attempt=attempts,
        code_version=nst_batch.__version__,
        started_at=now,
        finished_at=now,
    )
    return Result(trial=trial, outcome=outcome)


def may_be_the_nodes(result: Result) -> bool:
    """Whether a trial may have failed through its node's fault."""
    return result.outcome.status == "failed" and result.outcome.error_type in MAYBE_THE_NODES


def _given_up(what: str, reason: str) -> ClusterError:
    return ClusterError(f"{what}; the last one: {reason}; put that right, then run again to resume")
