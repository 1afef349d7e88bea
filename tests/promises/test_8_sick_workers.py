"""Promise 8: a worker's failure is never a trial's: attempts before blame, the sick replaced or excluded."""

from __future__ import annotations

from pathlib import Path

import pytest

from nst_batch.cluster import retries
from nst_batch.errors import ClusterError
from nst_batch.store.run_directory import RunDirectory
from tests import driver, sick_node, tiny, workers


@pytest.mark.usefixtures("embedded_ray")
def test_a_worker_that_always_raises_costs_no_trial(tmp_path: Path) -> None:
    photos = tiny.collection(tmp_path, tiny.good(40))
    progress = tiny.run(tmp_path, workers.RaisesAlways, batch_size=1)
    assert (progress.ok, progress.failed) == (40, 0)
    assert (photos / workers.SICK).exists()
    tiny.assert_whole(tmp_path / "out")


@pytest.mark.usefixtures("embedded_ray")
def test_a_worker_that_raised_is_replaced(tmp_path: Path) -> None:
    """It is the only one there is, and a process that raised once raises whatever it is given."""
    photos = tiny.collection(tmp_path, tiny.good(4))
    progress = tiny.run(tmp_path, workers.RaisesAlways, batch_size=1, cluster={"max_workers": 1})
    assert (progress.ok, progress.failed, progress.worker_deaths) == (4, 0, 0)
    assert not workers.runs(int((photos / workers.SICK).read_text()))


@pytest.mark.slow
def test_a_sick_worker_that_is_alone_until_another_is_ready_costs_no_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own word would count twice: it fails at once, and the others are slow to come up."""
    photos = tiny.collection(tmp_path, tiny.good(40))
    monkeypatch.setenv(driver.WORKER, "LeavesTheSickAlone")
    monkeypatch.setenv(workers.PHOTOS, str(photos))
    code, said = driver.Driver(tmp_path).end()
    assert (code, "failed" in said) == (0, False), said
    assert len(list(photos.glob(f"{workers.SICK}-*"))) == 4
    tiny.assert_whole(tmp_path / "out")


@pytest.mark.usefixtures("embedded_ray")
def test_two_trials_that_do_not_fit_together_are_not_blamed(tmp_path: Path) -> None:
    tiny.collection(tmp_path, [f"crowd-{number}" for number in range(6)])
    progress = tiny.run(tmp_path, batch_size=1)
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
        tiny.run(tmp_path, batch_size=1)
    recorded = RunDirectory(tmp_path / "out").counts()
    assert (recorded["failed"], recorded["pending"]) == (0, 20)


@pytest.mark.usefixtures("embedded_ray")
def test_pictures_that_vanish_from_under_every_worker_are_not_recorded_as_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is unplugged: nothing is to blame but the disk, and the trials stay pending."""
    monkeypatch.setattr(retries, "MAX_FRUITLESS", 3)
    photos = tiny.collection(tmp_path, tiny.good(20))
    with pytest.raises(ClusterError, match=r"6 failures in a row .*no such file"):
        tiny.run(tmp_path, workers.LosesItsMount, batch_size=1)
    recorded = RunDirectory(tmp_path / "out").counts()
    assert (recorded["failed"], recorded["pending"]) == (0, 20 - recorded["ok"])
    assert (photos / workers.SICK).exists()


@pytest.mark.slow
def test_a_node_that_lost_its_mount_gets_no_more_work_and_is_named(tmp_path: Path) -> None:
    photos = tiny.collection(tmp_path, tiny.good(60), seconds=0.1)
    told = driver.told("tests.sick_node", tmp_path, "LosesItsMount")
    assert (told["ok"], told["failed"]) == (60, 0)
    tiny.assert_whole(tmp_path / "out")
    [note] = [note for note in told["notes"] if "gets no more work" in note]
    assert "no such file" in note
    assert sum(workers.calls(photos).values()) <= 60 + sick_node.MOST_WASTED


@pytest.mark.slow
def test_a_node_where_no_worker_comes_up_gets_no_more_work_and_keeps_no_batch_waiting(tmp_path: Path) -> None:
    """Without an end of its starts, what failed once on the good node would wait for it for ever."""
    tiny.collection(tmp_path, [*tiny.good(40), "raise-1"], seconds=0.1)
    told = driver.told("tests.sick_node", tmp_path, "CannotStart")
    assert (told["ok"], told["failed"]) == (40, 1)
    tiny.assert_whole(tmp_path / "out")
    [note] = [note for note in told["notes"] if "gets no more work" in note]
    assert "3 workers could not start there" in note
    assert "weights.pth: no such file" in note
