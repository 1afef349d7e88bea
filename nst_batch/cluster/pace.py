"""When a run will end.

Counting trials misleads: the largest come first, several end at once, and workers come and go. So what is measured
is the worker's time that a unit of work takes (a pixel of the result), and what is predicted is the rest of the
work shared by the workers that there are.
"""

from __future__ import annotations

from collections.abc import Sequence

from nst_batch.records import Result


class Pace:
    """Learns from results how fast a run is.

    Args:
        work: Of all trials that are to be run, in pixels.
    """

    def __init__(self, work: float) -> None:
        self._left = work
        self._done = self._worker_seconds = 0.0

    def learn(self, results: Sequence[Result]) -> None:
        """Takes account of trials that have ended."""
        for result in results:
            work = result.trial.width * result.trial.height
            self._left -= work
            if result.outcome.seconds is not None and result.outcome.status != "failed":
                self._done += work
                self._worker_seconds += result.outcome.seconds

    def seconds_left(self, num_workers: int, busy_seconds: float = 0.0) -> float | None:
        """How long the rest will take `num_workers`; None until that can be known, and when it is overdue.

        Args:
            num_workers: Those that are ready.
            busy_seconds: What they have spent, all together, on batches that are not back.
        """
        if not self._done or not num_workers:
            return None
        rest = self._left * self._worker_seconds / self._done - busy_seconds
        return rest / num_workers if rest >= 0 else None
