"""The worker as an actor: torch is loaded where it runs, not where it is started from."""

from __future__ import annotations

from collections.abc import Sequence

from nst_batch.records import Configuration, Result, Trial, WorkerOptions


class WorkerActor:
    """`worker.Worker`, imported when it is needed; the driver that starts it stays small and quick."""

    def __init__(self, options: WorkerOptions) -> None:
        from nst_batch.cluster.worker import Worker

        self._worker = Worker(options)

    def setup(self, configuration: Configuration) -> str:
        """As `Worker.setup`."""
        return self._worker.setup(configuration)

    def run(self, trials: Sequence[Trial]) -> list[Result]:
        """As `Worker.run`."""
        return self._worker.run(trials)
