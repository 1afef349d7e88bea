"""A connection to Ray: what the cluster has, how many workers fit, and how one is started.

With `dispatch`, `metrics` and `jobs_client` the only modules that import Ray.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import ray

from nst_batch.errors import ClusterError
from nst_batch.worker import Worker, WorkerOptions


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterOptions:
    """Where to run, and how large a worker is."""

    address: str | None = None
    """None starts Ray here, embedded; `auto` or HOST:PORT joins a running cluster."""
    gpus_per_worker: float = 1.0
    cpus_per_worker: int | None = None
    """On machines without a GPU; None: all cores of the smallest node, four at most."""
    max_workers: int | None = None
    batch_seconds: float | None = None
    """A batch that runs longer is taken for hung; None: ten times the slowest so far, ten minutes at least."""


class Cluster:
    """A connection to Ray, for a `with` block."""

    def __init__(self, options: ClusterOptions) -> None:
        self.options = options

    def __enter__(self) -> Self:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        self._ours = not ray.is_initialized()
        inside_job = "RAY_JOB_ID" in os.environ or "RAY_ADDRESS" in os.environ
        address = self.options.address or (None if inside_job else "local")
        if self._ours:
            try:
                ray.init(
                    address=address,
                    include_dashboard=False if address == "local" else None,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
            except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
                raise ClusterError(f"Ray at {address or 'the job’s cluster'} cannot be reached: {error}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ours:
            ray.shutdown()

    @property
    def num_gpus(self) -> float:
        """GPUs of the whole cluster."""
        return sum(node.get("GPU", 0.0) for node in _nodes())

    @property
    def cpus_per_worker(self) -> int:
        """CPU cores that a worker reserves where there are no GPUs."""
        if self.options.cpus_per_worker:
            return self.options.cpus_per_worker
        return max(1, min(4, int(min(node.get("CPU", 1.0) for node in _nodes()))))

    def num_workers(self) -> int:
        """How many workers the cluster has room for at this moment."""
        if self.num_gpus:
            room = int(self.num_gpus / self.options.gpus_per_worker)
            if not room:
                raise ClusterError(
                    f"no node has the {self.options.gpus_per_worker} GPUs that a worker asks for; "
                    f"the cluster has {self.num_gpus:g}; lower --gpus-per-worker"
                )
        else:
            room = sum(int(node.get("CPU", 0)) // self.cpus_per_worker for node in _nodes())
            if not room:
                raise ClusterError(f"no node has the {self.cpus_per_worker} CPU cores that a worker asks for")
        return min(room, self.options.max_workers or room)

    def describe(self) -> str:
        """One line about what the run has to work with."""
        count = self.num_workers()
        kind = f"{self.options.gpus_per_worker:g} GPU" if self.num_gpus else f"{self.cpus_per_worker} CPU cores"
        note = "" if self.num_gpus else " (no GPU found)"
        return f"{count} worker{'s' if count > 1 else ''} with {kind} each{note}"

    def start_worker(self, options: WorkerOptions, worker_class: type = Worker) -> Any:
        """An actor that holds a worker; it may be pending for a while."""
        resources: dict[str, Any] = (
            {"num_gpus": self.options.gpus_per_worker, "num_cpus": 0}
            if self.num_gpus
            else {"num_cpus": self.cpus_per_worker}
        )
        actor: Any = ray.remote(worker_class).options(max_restarts=0, max_task_retries=0, **resources)
        return actor.remote(options)


def _nodes() -> list[dict[str, float]]:
    """What each living node offers."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node["Resources"] for node in nodes if node["Alive"]]
