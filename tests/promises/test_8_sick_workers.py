"""Promise 8: a worker's failure is never a trial's: attempts before blame, the sick replaced or excluded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nst_batch.cluster import retries
from nst_batch.cluster.options import ClusterOptions
from nst_batch.cluster.progress import Progress
from nst_batch.errors import ClusterError
from nst_batch.run import RunOptions, run_study
from nst_batch.store.run_directory import RunDirectory
from tests import sick_node, tiny, workers


def run(folder: Path, worker_class: type = workers.SimulatedWorker, **options: Any) -> Progress:
    """Runs the collection in `folder` on two workers of one core each."""
    cluster = ClusterOptions(cpus_per_worker=1, max_workers=2)
    chosen = RunOptions(out=str(folder / "out"), cluster=cluster, worker_class=worker_class, **options)
    return run_study(tiny.study(folder), chosen)


@pytest.mark.usefixtures("embedded_ray")
def test_a_worker_that_always_raises_costs_no_trial(tmp_path: Path) -> None:
    photos = tiny.collection(tmp_path, [f"good-{number:02d}" for number in range(40)])
    progress = run(tmp_path, workers.RaisesAlways, batch_size=1)
    assert (progress.ok, progress.failed) == (40, 0)
    assert (photos / workers.SICK).exists()
    tiny.assert_whole(tmp_path / "out")


@pytest.mark.usefixtures("embedded_ray")
def test_two_trials_that_do_not_fit_together_are_not_blamed(tmp_path: Path) -> None:
    tiny.collection(tmp_path, [f"crowd-{number}" for number in range(6)])
    progress = run(tmp_path, batch_size=1)
    assert (progress.ok, progress.failed) == (6, 0)
    assert progress.worker_deaths
    tiny.assert_whole(tmp_path / "out")


@pytest.mark.usefixtures("embedded_ray")
def test_workers_that_all_raise_end_the_run_with_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "MAX_FRUITLESS", 3)
    tiny.collection(tmp_path, [f"raise-{number}" for number in range(20)])
    with pytest.raises(ClusterError, match=r"6 failures in a row .*: RuntimeError: this trial is cursed; put that"):
        run(tmp_path, batch_size=1)


@pytest.mark.usefixtures("embedded_ray")
def test_pictures_that_vanish_from_under_every_worker_are_not_recorded_as_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is unplugged: nothing is to blame but the disk, and the trials stay pending."""
    monkeypatch.setattr(retries, "MAX_FRUITLESS", 3)
    photos = tiny.collection(tmp_path, [f"good-{number:02d}" for number in range(20)])
    with pytest.raises(ClusterError, match=r"6 failures in a row .*no such file"):
        run(tmp_path, workers.LosesItsMount, batch_size=1)
    recorded = RunDirectory(tmp_path / "out").counts()
    assert (recorded["failed"], recorded["pending"]) == (0, 20 - recorded["ok"])
    assert (photos / workers.SICK).exists()


@pytest.mark.slow
def test_a_node_that_lost_its_mount_gets_no_more_work_and_is_named(tmp_path: Path) -> None:
    photos = tiny.collection(tmp_path, [f"good-{number:03d}" for number in range(60)], seconds=0.1)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-m", "tests.sick_node", str(tmp_path)],
        env=environment | {"RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=300, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert (told["ok"], told["failed"]) == (60, 0)
    tiny.assert_whole(tmp_path / "out")
    [note] = [note for note in told["notes"] if "gets no more work" in note]
    assert "no such file" in note
    assert sum(workers.calls(photos).values()) <= 60 + sick_node.MOST_WASTED
