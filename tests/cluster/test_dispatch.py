"""Workers that die, hang, raise or never start, on a real Ray: the good trials pass, the bad ones are bounded."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
import ray

from nst_batch.cluster import dispatch, pool, retries
from nst_batch.cluster.progress import Reporter
from nst_batch.errors import ClusterError
from nst_batch.records import Result
from nst_batch.results.query import trial_row
from nst_batch.store.run_directory import RunDirectory
from tests import tiny, workers

pytestmark = pytest.mark.usefixtures("embedded_ray")


def failed_rows(folder: Path) -> list[dict[str, Any]]:
    return [row for row in tiny.rows(folder / "out") if row["status"] == "failed"]


def test_a_study_without_accidents_computes_every_trial_once(tmp_path: Path) -> None:
    photos = tiny.collection(tmp_path, tiny.good(20))
    progress = tiny.run(tmp_path, batch_size=3)
    assert (progress.ok, progress.failed, progress.pending, progress.worker_deaths) == (20, 0, 0, 0)
    assert set(workers.calls(photos).values()) == {1}
    assert len(workers.calls(photos)) == 20
    tiny.assert_whole(tmp_path / "out")


def test_a_trial_that_always_kills_its_worker_is_found_among_forty_good_ones(tmp_path: Path) -> None:
    photos = tiny.collection(tmp_path, [*tiny.good(40), "kill-1"])
    progress = tiny.run(tmp_path, batch_size=8)
    assert (progress.ok, progress.failed, progress.pending) == (40, 1, 0)
    [row] = failed_rows(tmp_path)
    assert Path(row["content_uri"]).stem == "kill-1"
    assert row["error_type"] == "worker_died"
    assert "its worker died 3 times" in row["error_message"]
    [shown] = trial_row(RunDirectory(tmp_path / "out"), row["trial_id"]).to_pylist()
    assert "about to kill at https://***@host/?token=***" in shown["worker_logs"]  # what it printed before it died
    assert workers.calls(photos)[row["trial_id"]] <= 3 + 3 + 1  # whole, in halves of 8, 4 and 2, alone
    assert progress.worker_deaths <= 7
    tiny.assert_whole(tmp_path / "out")


def test_every_way_to_die_is_survived_and_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "MAX_LOGS", 4)
    photos = tiny.collection(tmp_path, [*tiny.good(3), "segfault-1", "abort-1", "exit-1"])
    progress = tiny.run(tmp_path, batch_size=1)
    assert (progress.ok, progress.failed, progress.worker_deaths) == (3, 3, 9)
    for row in failed_rows(tmp_path):
        assert workers.calls(photos)[row["trial_id"]] == row["attempt"] == 3
    assert len(list((tmp_path / "out" / "logs").iterdir())) == 4


def test_an_exception_is_that_of_the_one_trial_that_raised(tmp_path: Path) -> None:
    tiny.collection(tmp_path, [*tiny.good(10), "raise-1"])
    progress = tiny.run(tmp_path, batch_size=4)
    assert (progress.ok, progress.failed, progress.worker_deaths) == (10, 1, 0)
    assert sum(workers.calls(tmp_path / "photos").values()) <= 11 + 4 + 2 * 4  # whole twice, alone twice
    [row] = failed_rows(tmp_path)
    assert (row["error_type"], row["error_message"]) == ("RuntimeError", "this trial is cursed")
    assert row["finished_at"] is not None


def test_a_trial_that_hangs_is_ended_at_its_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "MIN_DEADLINE_SECONDS", 1.0)
    monkeypatch.setattr(retries, "_SLOWEST_CPU", 0.0)
    tiny.collection(tmp_path, [*tiny.good(6), "hang-1"])
    progress = tiny.run(tmp_path, batch_size=2)
    assert (progress.ok, progress.failed) == (6, 1)
    [row] = failed_rows(tmp_path)
    assert "hung: nothing came back within 1 s" in row["error_message"]


def test_workers_that_die_without_fault_of_their_trials_cost_no_trial(tmp_path: Path) -> None:
    photos = tiny.collection(tmp_path, tiny.good(16))
    progress = tiny.run(tmp_path, workers.DiesAfterTwo, batch_size=2)
    assert (progress.ok, progress.failed) == (16, 0)
    assert progress.worker_deaths >= 2
    calls = workers.calls(photos)  # what waited behind a death is put back; at most the batch after it had begun
    assert max(calls.values()) <= 2
    assert sum(calls.values()) <= 16 + 2 * progress.worker_deaths


@pytest.mark.parametrize(
    ("worker_class", "reason"),
    [
        (workers.Unstartable, "no driver for this device"),
        (workers.DiesInSetup, "worker process has died"),
        (workers.HangsInSetup, "hung: nothing came back within 1 s"),
    ],
)
def test_workers_that_cannot_start_end_the_run(
    tmp_path: Path, worker_class: type, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "START_SECONDS", 1.0)
    monkeypatch.setattr(retries, "_MAX_START_DELAY_SECONDS", 1.0)
    tiny.collection(tmp_path, tiny.good(4))
    with pytest.raises(ClusterError, match="workers in a row could not start") as caught:
        tiny.run(tmp_path, worker_class, cluster={"max_workers": 1})
    assert reason in str(caught.value)
    assert caught.value.exit_code == 1
    assert not (tmp_path / "out" / "_SUCCESS").exists()
    assert tiny.run(tmp_path, cluster={"max_workers": 1}).ok == 4


def test_workers_that_die_whatever_they_are_given_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "MAX_FRUITLESS", 4)
    tiny.collection(tmp_path, [f"kill-{number}" for number in range(9)])
    told: list[str] = []
    reporter = Reporter()
    monkeypatch.setattr(reporter, "note", told.append)
    with pytest.raises(ClusterError, match="4 failures in a row on every worker that tried"):
        tiny.run(tmp_path, cluster={"max_workers": 1}, reporter=reporter)
    [death] = [text for text in told if "replaced" in text]  # soon, and once
    assert "a worker is replaced: " in death
    assert "worker process has died" in death
    recorded = RunDirectory(tmp_path / "out").counts()
    assert (recorded["failed"], recorded["pending"]) == (0, 9)  # it may be the machine's fault


def test_a_trial_that_is_all_there_is_fails_all_the_same(tmp_path: Path) -> None:
    tiny.collection(tmp_path, ["exit-1"])
    progress = tiny.run(tmp_path)
    assert (progress.failed, progress.pending, progress.worker_deaths) == (1, 0, 3)


def test_a_result_that_is_missing_is_noticed(tmp_path: Path) -> None:
    tiny.collection(tmp_path, tiny.good(4))
    with pytest.raises(ClusterError, match="only 2 of 4 trials have a result"):
        tiny.run(tmp_path, workers.Forgetful, batch_size=2)
    assert not (tmp_path / "out" / "_SUCCESS").exists()


class Neighbour:
    """An actor that is no worker of ours."""

    def pid(self) -> int:
        return os.getpid()


class Meanwhile(Reporter):
    """Starts a neighbour when the first trial has ended."""

    neighbour: Any = None

    def ended(self, result: Result) -> None:  # noqa: ARG002
        if self.neighbour is None:
            self.neighbour = ray.remote(Neighbour).remote()
            ray.get(self.neighbour.pid.remote())


def test_a_ray_that_was_there_before_keeps_its_other_actors(tmp_path: Path) -> None:
    tiny.collection(tmp_path, tiny.good(4))
    meanwhile = Meanwhile()
    assert tiny.run(tmp_path, reporter=meanwhile).ok == 4
    time.sleep(1)  # a kill would have been noticed by now
    assert ray.get(meanwhile.neighbour.pid.remote()) > 0
    ray.kill(meanwhile.neighbour)


def test_no_more_workers_are_started_than_there_are_batches(tmp_path: Path) -> None:
    tiny.collection(tmp_path, tiny.good(1))
    progress = tiny.run(tmp_path, cluster={"max_workers": 4})
    assert progress.ok == 1
