"""Promise 6: same machine, same software, same seed, the same bytes; whether a run was interrupted or not.

That a refactoring changes no loss history is seen by `python -m benchmarks.histories`.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from nst_batch.cluster.pool import WorkerActor
from nst_batch.errors import Interrupted
from nst_batch.store.run_directory import RunDirectory
from tests import tiny

NOT_OF_THE_RESULT = {"seconds", "peak_memory_bytes", "started_at", "finished_at", "attempt"}


def told(out: Path) -> dict[str, list[dict[str, Any]]]:
    """Everything that the tables hold of the results."""
    run = RunDirectory(out)
    tables = {name: run.table(name).to_pylist() for name in ("trials", "curves", "layers")}
    for row in tables["trials"]:
        for name in NOT_OF_THE_RESULT:
            del row[name]
    return tables


@pytest.mark.usefixtures("embedded_ray")
def test_a_resumed_run_gives_what_an_undisturbed_one_gives(tmp_path: Path) -> None:
    tiny.collection(tmp_path, tiny.good(6))
    network = {"arch": "vgg11", "weights": "random:0", "pooling": "average"}  # the smallest
    changes = {"grid": {"init": ["noise"]}, "network": network}
    tiny.run(tmp_path, WorkerActor, changes=changes, out=tmp_path / "one", cluster={"max_workers": 1})
    interrupt = tiny.After(1, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted):
        tiny.run(
            tmp_path,
            WorkerActor,
            changes=changes,
            out=tmp_path / "two",
            reporter=interrupt,
            cluster={"max_workers": 1},
        )
    assert 1 <= tiny.num_recorded(tmp_path / "two") < 6
    tiny.run(tmp_path, WorkerActor, changes=changes, out=tmp_path / "two")
    one, two = told(tmp_path / "one"), told(tmp_path / "two")
    assert [row["status"] for row in one["trials"]] == ["ok"] * 6
    assert one == two
    for row in one["trials"]:
        pictures = [(tmp_path / name / row["image_path"]).read_bytes() for name in ("one", "two")]
        assert pictures[0] == pictures[1]
