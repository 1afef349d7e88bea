"""What a run tells Ray's metrics: Prometheus scrapes them from every Ray cluster, and its dashboard draws them.

nst_batch_trials_total{status}       trials that ended
nst_batch_worker_deaths_total        workers that died
nst_batch_pending_trials             trials that have not ended: the depth of the queue
nst_batch_workers                    workers that are ready
nst_batch_batch_size                 trials per batch, a histogram
nst_batch_seconds_per_step           of one trial, a histogram
nst_batch_gpu_memory_bytes{node}     peak of the last batch
"""

from __future__ import annotations

from collections.abc import Sequence

from ray.util.metrics import Counter, Gauge, Histogram

from nst_batch.records import Result

_SECONDS_PER_STEP: list[float] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0]
_BATCH_SIZES: list[float] = [1, 2, 4, 8, 16, 32, 64]


class Monitor:
    """The metrics of one run; Ray must be there when it is made."""

    def __init__(self) -> None:
        self._trials = Counter("nst_batch_trials_total", "Trials that ended.", ("status",))
        self._deaths = Counter("nst_batch_worker_deaths_total", "Workers that died.")
        self._pending = Gauge("nst_batch_pending_trials", "Trials that have not ended.")
        self._workers = Gauge("nst_batch_workers", "Workers that are ready.")
        self._batch_size = Histogram("nst_batch_batch_size", "Trials per batch.", _BATCH_SIZES)
        self._pace = Histogram("nst_batch_seconds_per_step", "Of one trial.", _SECONDS_PER_STEP)
        self._memory = Gauge("nst_batch_gpu_memory_bytes", "Peak of the last batch.", ("node",))

    def batch(self, results: Sequence[Result]) -> None:
        """A batch came back from a worker."""
        if results:
            self._batch_size.observe(len(results))
        for outcome in (result.outcome for result in results):
            if outcome.seconds and outcome.steps_done:
                self._pace.observe(outcome.seconds / outcome.steps_done)
            if outcome.node and outcome.device != "cpu" and outcome.peak_memory_bytes:
                self._memory.set(outcome.peak_memory_bytes, {"node": outcome.node})

    def recorded(self, results: Sequence[Result]) -> None:
        """Results were recorded, those of trials that never reached a worker too."""
        for result in results:
            self._trials.inc(1, {"status": result.outcome.status})

    def worker_died(self) -> None:
        """A worker is gone."""
        self._deaths.inc()

    def progress(self, pending: int, num_workers: int) -> None:
        """Where the run stands."""
        self._pending.set(pending)
        self._workers.set(num_workers)
