"""Promise 2: run again = resume; only what is missing is computed, and failed trials where that is asked for."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests import tiny, workers
from tests.driver import Driver


@pytest.mark.usefixtures("embedded_ray")
def test_a_complete_study_computes_nothing_again_and_needs_no_ray(tmp_path: Path) -> None:
    photos = tiny.collection(tmp_path, tiny.good(5))
    assert tiny.run(tmp_path).ok == 5
    progress = tiny.run(tmp_path, workers.Unstartable, cluster={"address": "http://no/address/of/a/cluster"})
    assert (progress.ok, progress.pending, progress.num_workers) == (5, 0, 0)
    assert sum(workers.calls(photos).values()) == 5


def test_a_resume_computes_what_is_missing_and_nothing_else(tmp_path: Path, embedded_ray: str) -> None:
    photos = tiny.collection(tmp_path, tiny.good(40), seconds=0.4)
    driver = Driver(tmp_path, "--address", embedded_ray)
    driver.wait_for(lambda: tiny.num_recorded(driver.out) >= 8)
    driver.send(signal.SIGKILL)
    driver.end()
    recorded, begun = tiny.num_recorded(driver.out), sum(workers.calls(photos).values())
    (photos / workers.SECONDS).write_text("0")
    progress = tiny.run(tmp_path)
    assert (progress.ok, progress.pending) == (40, 0)
    computed_now = sum(workers.calls(photos).values()) - begun
    assert 0 <= computed_now - (40 - recorded) <= 1  # one may have been begun by a worker that outlived its driver
    assert set(workers.calls(photos)) == {row["trial_id"] for row in tiny.rows(tmp_path / "out")}
    tiny.assert_whole(tmp_path / "out")


@pytest.mark.usefixtures("embedded_ray")
def test_retry_failed_computes_the_failed_ones_alone(tmp_path: Path) -> None:
    photos = tiny.collection(tmp_path, [*tiny.good(6), "until-1"])
    assert tiny.run(tmp_path, batch_size=2).failed == 1
    before = workers.calls(photos)
    assert tiny.run(tmp_path).failed == 1  # without being asked, nothing is tried again
    assert workers.calls(photos) == before
    (photos / workers.HEALED).touch()
    progress = tiny.run(tmp_path, retry_failed=True)
    assert (progress.ok, progress.failed) == (7, 0)
    [(_, again)] = (workers.calls(photos) - before).items()
    assert again == 1
    [row] = [row for row in tiny.rows(tmp_path / "out") if "until" in row["content_uri"]]
    assert (row["status"], row["attempt"]) == ("ok", 3)  # two workers had raised
    tiny.assert_whole(tmp_path / "out")
