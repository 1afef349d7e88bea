"""The rules about failures: batches that wait, workers that die, deadlines, when a run gives up. Knows no Ray.

- A batch that raises is the trials' own failure: each is tried alone, and the one that raises again is recorded.
- A batch whose worker dies is put back. After three deaths it is halved, as only one of its trials may be to
  blame; a part that kills its worker again is halved at once. A trial that is alone when its third worker dies is
  recorded.

So every failure has a bound, and a poison input cannot loop for ever: a batch of n trials with one that always
kills costs at most 3 + log2(n) + 1 workers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import nst_batch
from nst_batch.errors import ClusterError
from nst_batch.records import Outcome, Result, Trial

MAX_DEATHS = 3
"""Workers that may die while they run one batch."""
MAX_FAILED_STARTS = 4
"""Workers that may fail to start one after the other, and one more for each further slot."""
MAX_FRUITLESS_DEATHS = 50
"""Workers that may die one after the other for each slot, while no batch ends."""

_MIN_DEADLINE_SECONDS = 600.0
_DEADLINE_FACTOR = 10.0
_SLOWEST_CPU, _SLOWEST_GPU = 2e-4, 2e-6
"""Seconds per pixel and step before anything has been measured: twenty times what two old cores need."""
_MAX_START_DELAY_SECONDS = 30.0


@dataclass(slots=True, eq=False)
class Batch:
    """Trials that are dispatched together."""

    trials: Sequence[Trial]
    deaths: int = 0
    """Workers that died while they ran it, or all of the batch that it is a part of."""

    @property
    def work(self) -> int:
        """Pixels times steps."""
        return sum(max(1, trial.width * trial.height * trial.configuration.steps) for trial in self.trials)


class Backlog:
    """Batches in the order in which they are to be run; those that are put back come first.

    Args:
        fresh: Read lazily, as far as is looked ahead.
    """

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

    def take(self) -> Batch:
        """The next batch; `has` must have said that there is one."""
        return self._waiting.popleft()

    def put_back(self, batch: Batch) -> None:
        """To be taken next: its worker ended through no fault of the batch."""
        self._waiting.appendleft(batch)

    def died(self, batch: Batch, reason: str) -> Result | None:
        """Puts back a batch whose worker died running it, whole or in halves; or the result that ends it."""
        batch.deaths += 1
        if batch.deaths < MAX_DEATHS:
            self.put_back(batch)
        elif len(batch.trials) > 1:
            self._split(batch, 2)
        else:
            message = f"its worker died {batch.deaths} times: {reason}"
            return failure(batch.trials[0], "worker_died", message, attempts=batch.deaths)
        return None

    def raised(self, batch: Batch, error_type: str, message: str) -> Result | None:
        """Puts back the trials of a batch that raised, each alone; or the result of one that was alone."""
        if len(batch.trials) > 1:
            self._split(batch, len(batch.trials))
            return None
        return failure(batch.trials[0], error_type, message)

    def _split(self, batch: Batch, parts: int) -> None:
        """Puts a batch back in equal parts. A part of several gets one more chance, a trial alone two."""
        size = -(-len(batch.trials) // parts)
        starts = range(0, len(batch.trials), size)
        pieces = [Batch(batch.trials[start : start + size]) for start in starts]
        if batch.deaths:
            for piece in pieces:
                piece.deaths = MAX_DEATHS - (1 if len(piece.trials) > 1 else 2)
        self._waiting.extendleft(reversed(pieces))


class CircuitBreaker:
    """Ends a run whose workers cannot start, or die one after the other."""

    def __init__(self) -> None:
        self._failed_starts = self._fruitless_deaths = 0

    def worker_started(self) -> None:
        """A worker is ready."""
        self._failed_starts = 0

    def batch_finished(self) -> None:
        """A batch has results."""
        self._failed_starts = self._fruitless_deaths = 0

    def start_failed(self, reason: str, num_slots: int) -> float:
        """A worker has not come to be ready; returns the seconds to wait before the next one is started.

        Raises:
            ClusterError: Too many have not, one after the other.
        """
        self._failed_starts += 1
        if self._failed_starts >= MAX_FAILED_STARTS + num_slots - 1:
            raise _given_up(f"{self._failed_starts} workers in a row could not start", reason)
        return min(2.0**self._failed_starts, _MAX_START_DELAY_SECONDS) if self._failed_starts > 1 else 0.0

    def died(self, reason: str, num_slots: int) -> None:
        """A worker that had been ready died.

        Raises:
            ClusterError: Too many have, one after the other, while no batch finished.
        """
        self._fruitless_deaths += 1
        if self._fruitless_deaths >= MAX_FRUITLESS_DEATHS * num_slots:
            what = f"{self._fruitless_deaths} workers in a row died before they had finished anything"
            raise _given_up(what, reason)


class Deadlines:
    """How long a batch may run before its worker is taken for hung; learned from the batches that have finished.

    Args:
        chosen_seconds: For every batch, if the user has chosen it.
        uses_gpus: Whether workers run on GPUs.
    """

    def __init__(self, chosen_seconds: float | None, *, uses_gpus: bool) -> None:
        self._chosen_seconds = chosen_seconds
        self._seconds_per_work = (_SLOWEST_GPU if uses_gpus else _SLOWEST_CPU) / _DEADLINE_FACTOR
        self._measured = False

    def learn(self, batch: Batch, seconds: float) -> None:
        """A batch has taken so long."""
        slowest = self._seconds_per_work if self._measured else 0.0
        self._seconds_per_work = max(slowest, seconds / batch.work)
        self._measured = True

    def seconds(self, batch: Batch) -> float:
        """For a batch; ten times the slowest so far, ten minutes at least."""
        expected = _DEADLINE_FACTOR * self._seconds_per_work * batch.work
        return self._chosen_seconds or max(_MIN_DEADLINE_SECONDS, expected)


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


def _given_up(what: str, reason: str) -> ClusterError:
    return ClusterError(f"{what}; the last one: {reason}; put that right, then run again to resume")
