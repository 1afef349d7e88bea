"""How many workers a cluster has room for, and what is said when it has none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import ray

from nst_batch.cluster.connection import Cluster
from nst_batch.cluster.options import ClusterOptions, WorkerOptions
from nst_batch.errors import ClusterError
from nst_batch.run import RunOptions, run_study
from tests import tiny, workers


@pytest.mark.usefixtures("embedded_ray")
def test_workers_are_counted_by_memory_and_ray_starts_no_more() -> None:
    [node] = [each for each in ray.nodes() if each["Alive"]]  # type: ignore[no-untyped-call]
    with Cluster(ClusterOptions(cpus_per_worker=1), "cpu") as cluster:
        assert cluster.num_workers() == 4  # by its cores
        cluster.worker_bytes = int(node["Resources"]["memory"] * 0.4)
        assert cluster.num_workers() == 2
        actors = [cluster.start_worker(WorkerOptions(), workers.SimulatedWorker) for _ in range(3)]
        ready = [actor.__ray_call__.remote(lambda _: os.getpid()) for actor in actors]
        started, pending = ray.wait(ready, num_returns=2, timeout=120)
        assert len(started) == 2
        assert ray.wait(pending, timeout=1) == ([], pending)
        for actor in actors:
            ray.kill(actor)
        cluster.worker_bytes = int(node["Resources"]["memory"] * 4)
        assert cluster.num_workers() == 1  # less than is needed, but nothing else is there


@pytest.mark.usefixtures("embedded_ray")
@pytest.mark.parametrize(
    ("device", "options", "message"),
    [
        ("cuda", {}, r"no node has the 1 GPU that a worker asks for; GPUs by node: 0; .*--device cpu"),
        ("cpu", {"cpus_per_worker": 64}, r"no node has the 64 CPU cores .*CPUs by node: 4; .*--cpus-per-worker"),
    ],
)
def test_what_no_node_has_is_said_at_once(
    tmp_path: Path, device: str, options: dict[str, int], message: str
) -> None:
    tiny.collection(tmp_path, ["good-0"])
    chosen = RunOptions(out=str(tmp_path / "out"), cluster=ClusterOptions(**options), device=device)  # type: ignore[arg-type]
    with pytest.raises(ClusterError, match=message):
        run_study(tiny.study(tmp_path), chosen)


def test_an_address_that_ray_cannot_join_is_refused(tmp_path: Path) -> None:
    tiny.collection(tmp_path, ["good-0"])
    for address in ("ray://127.0.0.1:10001", "http://127.0.0.1:8265"):
        options = RunOptions(out=str(tmp_path / "out"), cluster=ClusterOptions(address=address))
        with pytest.raises(ClusterError, match="expected auto or HOST:PORT"):
            run_study(tiny.study(tmp_path), options)


@pytest.mark.usefixtures("embedded_ray")
def test_where_every_node_is_sick_the_error_says_so() -> None:
    with Cluster(ClusterOptions(cpus_per_worker=1), "cpu") as cluster:
        [node] = [each for each in ray.nodes() if each["Alive"]]  # type: ignore[no-untyped-call]
        cluster.excluded[node["NodeID"]] = "host7 (the last failure there: no such file)"
        with pytest.raises(ClusterError, match=r"no node is left .*no more work is given to host7 .*no such file"):
            cluster.num_workers()
