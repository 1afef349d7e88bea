"""A study on a cluster of several nodes of which one is killed, one joins and one is drained while it runs.

Run as a process of its own, because it starts a whole cluster: `python -m tests.multinode FOLDER` prints as JSON
which node did what.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from nst_batch.cluster.options import ClusterOptions, WorkerOptions
from nst_batch.cluster.progress import Progress, Reporter
from nst_batch.records import Result, Trial
from nst_batch.run import RunOptions, run_study
from tests import tiny, workers

NUM_TRIALS = 400
SECONDS = 0.2
OBJECT_STORE_BYTES = 80_000_000


class NodeWorker(workers.SimulatedWorker):
    """Says in its results which node it is on."""

    def __init__(self, options: WorkerOptions) -> None:
        import ray

        super().__init__(options)
        self._node: str = ray.get_runtime_context().get_node_id()

    def run(self, trials: Sequence[Trial]) -> list[Result]:
        results = super().run(trials)
        return [replace(result, outcome=replace(result.outcome, node=self._node)) for result in results]


class Disturber(Reporter):
    """A reporter that kills a node and adds one when all three work, and drains one later."""

    def __init__(self, cluster: Any, nodes: Sequence[Any]) -> None:
        self.cluster, self.nodes = cluster, nodes
        self.added, self.killed, self.drained = "", nodes[0].node_id, nodes[1].node_id
        self.seconds_to_use = self.drained_at = 0.0
        self.rows: Counter[str] = Counter()
        self.late: Counter[str] = Counter()
        self.acts = [self._kill_and_add, self._drain]
        self.progresses: list[Progress] = []

    def progress(self, progress: Progress) -> None:
        """Keeps it."""
        self.progresses.append(progress)

    def ended(self, result: Result) -> None:
        """Counts, and strikes at the right moment."""
        node = result.outcome.node or ""
        self.rows[node] += 1
        all_work = all(self.rows[each.node_id] >= 5 for each in self.nodes)
        if (len(self.acts) == 2 and all_work) or (len(self.acts) == 1 and self.rows[self.added] >= 10):
            self.acts.pop(0)()  # here: Ray starts nodes in the main thread only
        if node == self.added and not self.seconds_to_use:
            self.seconds_to_use = time.monotonic() - self._added_at
        if self.drained_at and time.monotonic() - self.drained_at > 5:
            self.late[node] += 1

    def _kill_and_add(self) -> None:
        self.cluster.remove_node(self.nodes[0], allow_graceful=False)
        node = self.cluster.add_node(num_cpus=1, num_gpus=1, object_store_memory=OBJECT_STORE_BYTES)
        self._added_at, self.added = time.monotonic(), node.node_id

    def _drain(self) -> None:
        drain(self.cluster.address, self.drained)
        self.drained_at = time.monotonic()


def drain(address: str, node_id: str) -> None:
    """Says that a node is about to go."""
    ray = str(Path(sys.executable).with_name("ray"))
    command = [ray, "drain-node", f"--address={address}", f"--node-id={node_id}"]
    command += ["--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=test"]
    subprocess.run([*command, "--deadline-remaining-seconds=3600"], check=True, capture_output=True)


@contextmanager
def nodes(num_nodes: int, **each: Any) -> Iterator[tuple[Any, list[Any]]]:
    """A cluster with these nodes besides a head that runs no worker."""
    import ray
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "num_gpus": 0, "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    added = [cluster.add_node(object_store_memory=OBJECT_STORE_BYTES, **each) for _ in range(num_nodes)]
    ray.init(address=cluster.address, log_to_driver=False)
    try:
        yield cluster, added
    finally:
        ray.shutdown()
        cluster.shutdown()  # type: ignore[no-untyped-call]


def main(folder: Path) -> dict[str, Any]:
    """Runs the study; what happened where."""
    with nodes(3, num_cpus=1, num_gpus=1) as (cluster, added):
        disturber = Disturber(cluster, added)
        options = RunOptions(
            out=str(folder / "out"),
            cluster=ClusterOptions(address=cluster.address),
            worker_class=NodeWorker,
            batch_size=1,
        )
        progress = run_study(tiny.study(folder), options, disturber)
    return {
        "progress": asdict(progress),
        "rows_by_node": Counter(row["node"] for row in tiny.rows(folder / "out")),
        "late_by_node": disturber.late,
        "most_workers": max(each.num_workers for each in disturber.progresses),
        "seconds_to_use": disturber.seconds_to_use,
        "killed": disturber.killed,
        "added": disturber.added,
        "drained": disturber.drained,
        "kept": added[2].node_id,
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))  # noqa: T201
