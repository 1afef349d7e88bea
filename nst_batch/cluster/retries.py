"""The batches that wait, and what becomes of one whose worker died or which raised. Knows no Ray.

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
from nst_batch.records import Outcome, Result, Trial

MAX_DEATHS = 3
"""Workers that may die while they run one batch."""


@dataclass(slots=True, eq=False)
class Batch:
    """Trials that are dispatched together."""

    trials: Sequence[Trial]
    deaths: int = 0
    """Workers that died while they ran it, or all of the batch that it is a part of."""


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
