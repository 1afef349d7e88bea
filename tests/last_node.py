"""A study on one node; a smaller one joins, the first is drained, another comes before its last trial has ended.

Run as a process of its own, because it starts a whole cluster: `python -m tests.last_node FOLDER` prints as JSON
what happened.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nst_batch.cluster.options import ClusterOptions
from nst_batch.cluster.progress import Progress, Reporter
from nst_batch.run import RunOptions, run_study
from tests import multinode, tiny, workers

_ACT_SECONDS = 4.0
"""Between two acts: the driver looks for nodes every two."""


class Changes(Reporter):
    """Lets a small node join, drains the first one, and lets another join."""

    def __init__(self, cluster: Any, first: Any, pace: Path) -> None:
        self._cluster, self._first, self._pace = cluster, first, pace
        self._acts = [self._join_small, self._drain, self._join]
        self._next = 0.0
        self.most_workers = 0

    def progress(self, progress: Progress) -> None:
        """Acts, if it is time; here, as Ray starts nodes in the main thread only."""
        self.most_workers = max(self.most_workers, progress.num_workers)
        if progress.ok >= 3 and self._acts and time.monotonic() >= self._next:
            self._acts.pop(0)()
            self._next = time.monotonic() + _ACT_SECONDS

    def _join_small(self) -> None:
        self._cluster.add_node(num_cpus=1, num_gpus=0, object_store_memory=multinode.OBJECT_STORE_BYTES)
        self._pace.write_text("12")  # so that a trial runs, and another waits behind it, when the node is drained

    def _drain(self) -> None:
        multinode.drain(self._cluster.address, self._first.node_id)

    def _join(self) -> None:
        self._cluster.add_node(num_cpus=2, num_gpus=0, object_store_memory=multinode.OBJECT_STORE_BYTES)
        self._pace.write_text("0")


def main(folder: Path) -> dict[str, Any]:
    """Runs the study."""
    with multinode.nodes(1, num_cpus=2, num_gpus=0) as (cluster, added):
        changes = Changes(cluster, added[0], folder / "photos" / workers.SECONDS)
        options = RunOptions(
            out=str(folder / "out"),
            cluster=ClusterOptions(address=cluster.address),
            worker_class=multinode.NodeWorker,
            batch_size=1,
        )
        progress = run_study(tiny.study(folder), options, changes)
    rows = Counter(row["node"] for row in tiny.rows(folder / "out"))
    return asdict(progress) | {"most_workers": changes.most_workers, "num_nodes": len(rows)}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]))) + "\n")
