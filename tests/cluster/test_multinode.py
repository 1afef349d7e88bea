"""A study on three GPU nodes: one is killed, one joins, one is drained; and inputs that workers cannot see."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import driver, multinode, tiny, workers


@pytest.mark.slow
def test_nodes_die_join_and_drain_and_every_row_is_there_once(tmp_path: Path) -> None:
    names = [f"good-{number:03d}" for number in range(multinode.NUM_TRIALS)]
    photos = tiny.collection(tmp_path, names, seconds=multinode.SECONDS)
    told = driver.told("tests.multinode", tmp_path)
    progress = told["progress"]
    assert (progress["ok"], progress["failed"], progress["pending"]) == (progress["num_trials"], 0, 0)
    tiny.assert_whole(tmp_path / "out")
    assert progress["worker_deaths"] >= 1
    assert told["most_workers"] == 3
    assert all(told["rows_by_node"].get(told[name], 0) > 0 for name in ("killed", "added", "drained", "kept")), told
    assert told["rows_by_node"][told["added"]] >= 10  # the new node worked
    assert told["seconds_to_use"] < 30
    assert told["late_by_node"].get(told["drained"], 0) == 0  # no new batch for a node that is about to go
    assert told["late_by_node"][told["kept"]] > 0
    repeated = [count for count in workers.calls(photos).values() if count > 1]
    assert len(repeated) <= 2  # what the killed worker had in flight, at most


@pytest.mark.slow
def test_a_trial_on_the_last_node_ends_and_a_smaller_node_does_not_change_what_workers_take(tmp_path: Path) -> None:
    tiny.collection(tmp_path, tiny.good(60), seconds=0.3)
    told = driver.told("tests.last_node", tmp_path)
    assert (told["ok"], told["pending"], told["worker_deaths"]) == (60, 0, 0)
    tiny.assert_whole(tmp_path / "out")
    assert told["most_workers"] == 1  # of two cores, as at the beginning
    assert told["num_nodes"] == 2


# Where a worker cannot see what the driver sees


class Elsewhere(workers.SimulatedWorker):
    """Never gets to see a trial."""


@pytest.mark.usefixtures("embedded_ray")
def test_an_input_that_workers_cannot_see_is_one_error_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker's view is simulated: on one machine every process sees the same files."""
    from nst_batch import run
    from nst_batch.cluster.options import ClusterOptions
    from nst_batch.errors import ClusterError

    photos = tiny.collection(tmp_path, ["good-0", "good-1"])
    monkeypatch.setattr(run, "_local_inputs", lambda _: [str(photos / "good-0.png"), "/only/here.png"])
    options = run.RunOptions(
        out=str(tmp_path / "out"), cluster=ClusterOptions(cpus_per_worker=1), worker_class=Elsewhere
    )
    with pytest.raises(ClusterError, match=r"/only/here\.png is here but cannot be seen on .*same path"):
        run.run_study(tiny.study(tmp_path), options)
    assert not (tmp_path / "out" / "trials").exists()
    assert not workers.calls(photos)
