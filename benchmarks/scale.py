"""How the dispatching scales: simulated trials on 1 to 64 logical GPUs of one machine.

    python -m benchmarks.scale [--quick]

Everything is real but the trials: Ray, one process per logical GPU, the plan on disk, the committer, and results of
realistic size. `efficiency` is the time that workers slept over the time that they had, from the moment at which
the last of them had begun its first batch to the moment at which the last batch ended. All processes share this
machine's cores, so what many workers cost in commits is measured against few cores: a lower bound for a cluster.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import random
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import Any

import psutil
import ray

from benchmarks import report
from benchmarks.sleeper import Sleeper
from nst_batch.cluster.connection import Cluster
from nst_batch.cluster.dispatch import Dispatcher
from nst_batch.cluster.options import ClusterOptions, WorkerOptions
from nst_batch.cluster.pool import WorkerPool, WorkerSlot
from nst_batch.cluster.progress import Reporter, RunProgress
from nst_batch.records import Trial
from nst_batch.store.committer import Committer
from nst_batch.store.run_directory import RunDirectory
from tests import simulated

TRIALS_PER_BATCH = 4
_SAMPLE_SECONDS = 0.5


def main() -> None:
    """Measures and writes the figures."""
    quick = "--quick" in sys.argv
    figures: dict[str, Any] = {
        "overhead": measure(8, [0] * (200 if quick else 1500)),
        "efficiency": [measure(1, [500] * 20), measure(2, [500] * 40), measure(8, [500] * (80 if quick else 400))],
    }
    if not quick:
        figures["efficiency"] += [measure(32, [2000] * 320), measure(64, [2000] * 1280)]
        figures["heavy_tail"] = measure(16, heavy_tailed(400))
    report.write("scale", figures)


def heavy_tailed(count: int) -> list[int]:
    """Milliseconds: a Pareto distribution (exponent 1.5) from 0.3 s, cut at 8 s; the largest first."""
    rng = random.Random(0)
    return sorted((min(8000, int(300 * rng.paretovariate(1.5))) for _ in range(count)), reverse=True)


def measure(num_gpus: int, milliseconds: Sequence[int]) -> dict[str, Any]:
    """Runs batches of these lengths on so many logical GPUs."""
    ray.init(
        address="local", num_cpus=2, num_gpus=num_gpus, include_dashboard=False, log_to_driver=False,
        logging_level=logging.ERROR, object_store_memory=500_000_000,
    )  # fmt: skip
    spans: dict[str, list[tuple[float, float]]] = defaultdict(list)
    memory: list[int] = []
    sampled = 0.0

    begun = time.time()
    with (
        tempfile.TemporaryDirectory() as folder,
        Committer(RunDirectory(folder)) as committer,
        Cluster(ClusterOptions()) as cluster,
    ):
        committer.write_plan(simulated.STUDY, trials(milliseconds))
        actor = partial(cluster.start_worker, WorkerOptions(), Sleeper)
        dispatcher = Dispatcher(
            WorkerPool(cluster, lambda: WorkerSlot.start(actor(), simulated.CONFIGURATIONS[0], ())),
            batches(committer),
            RunProgress(Reporter(), committer.counts, committer.write_progress, 0.0),
            lambda *_: None,
        )
        for results in dispatcher.run():
            committer.commit(*results)
            for outcome in (result.outcome for result in results[:1]):
                assert outcome.started_at
                assert outcome.finished_at
                spans[str(outcome.node)].append((outcome.started_at.timestamp(), outcome.finished_at.timestamp()))
            if time.monotonic() - sampled > _SAMPLE_SECONDS:
                sampled = time.monotonic()
                memory.append(psutil.Process().memory_info().rss)
        committer.finish()
        assert committer.counts()["ok"] == TRIALS_PER_BATCH * len(milliseconds)
    ray.shutdown()
    return summary(num_gpus, milliseconds, spans, memory, begun)


def trials(milliseconds: Sequence[int]) -> Iterator[Trial]:
    """A plan of batches of these lengths; the height of a trial is what it takes."""
    for index in range(TRIALS_PER_BATCH * len(milliseconds)):
        batch = index // TRIALS_PER_BATCH
        yield dataclasses.replace(simulated.trial(index), batch=batch, height=milliseconds[batch])


def batches(committer: Committer) -> Iterator[list[Trial]]:
    """What is to be dispatched, read from the plan as it is needed."""
    for _, members in groupby(committer.run.iter_plan(), key=lambda trial: trial.batch):
        yield list(members)


def summary(
    num_gpus: int,
    milliseconds: Sequence[int],
    spans: dict[str, list[tuple[float, float]]],
    memory: Sequence[int],
    begun: float,
) -> dict[str, Any]:
    """Figures from when each worker was busy."""
    assert len(spans) == num_gpus
    all_busy = max(min(start for start, _ in mine) for mine in spans.values())
    first, end = min(mine[0][0] for mine in spans.values()), max(mine[-1][1] for mine in spans.values())
    busy = sum(max(0.0, stop - max(start, all_busy)) for mine in spans.values() for start, stop in mine)
    ideal = max(max(milliseconds), sum(milliseconds) / num_gpus) / 1000
    return {
        "logical_gpus": num_gpus,
        "batches": len(milliseconds),
        "trials": len(milliseconds) * TRIALS_PER_BATCH,
        "batch_seconds": [min(milliseconds) / 1000, max(milliseconds) / 1000],
        "efficiency": round(busy / (num_gpus * (end - all_busy)), 4) if any(milliseconds) else None,
        "seconds_until_first_batch": round(first - begun, 2),
        "seconds_until_all_busy": round(all_busy - begun, 2),
        "makespan_seconds": round(end - first, 2),
        "makespan_over_ideal": round((end - first) / ideal, 3) if ideal else None,
        "batches_per_second": round(len(milliseconds) / (end - first), 1),
        "driver_memory_mib_by_quarter": [mib(memory[len(memory) * part // 4 - 1]) for part in (1, 2, 3, 4)],
    }


def mib(value: float) -> int:
    """Bytes as mebibytes."""
    return math.ceil(value / 2**20)


if __name__ == "__main__":
    main()
