"""A study on two nodes of which one is sick.

Run as a process of its own, because it starts a whole cluster: `python -m tests.sick_node FOLDER WORKER` prints as
JSON how it went with this class of `tests.workers`.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nst_batch.cluster.options import ClusterOptions
from nst_batch.cluster.progress import Reporter
from nst_batch.run import RunOptions, run_study
from tests import multinode, tiny, workers

MOST_WASTED = 16
"""Batches that the sick node may have begun: those after which it is excluded, and what was in flight then."""


class Notes(Reporter):
    """Keeps what is noted."""

    def __init__(self) -> None:
        self.notes = list[str]()

    def note(self, text: str) -> None:
        """Keeps it."""
        self.notes.append(text)


def main(folder: Path, worker: str) -> dict[str, Any]:
    """Runs the study."""
    heard = Notes()
    os.environ[workers.PHOTOS] = str(folder / "photos")
    with multinode.nodes(2, num_cpus=1, num_gpus=0) as (cluster, added):
        (folder / "photos" / workers.SICK).write_text(added[0].node_id)
        options = RunOptions(
            out=str(folder / "out"),
            cluster=ClusterOptions(address=cluster.address, cpus_per_worker=1),
            worker_class=getattr(workers, worker),
            batch_size=1,
        )
        progress = run_study(tiny.study(folder), options, heard)
    return asdict(progress) | {"notes": heard.notes}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]), sys.argv[2])) + "\n")
