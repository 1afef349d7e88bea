"""Promise 5: a failed trial means exit 3 and a count; `_SUCCESS` is there only when every trial has ended."""

from __future__ import annotations

import signal
from pathlib import Path

from nst_batch.store.run_directory import RunDirectory
from tests import tiny, workers
from tests.driver import Driver


def test_failed_trials_are_counted_and_exit_with_three_each_time(tmp_path: Path, embedded_ray: str) -> None:
    tiny.collection(tmp_path, [*tiny.good(3), "until-1"])
    for _ in range(2):
        code, said = Driver(tmp_path, "--address", embedded_ray).end()
        assert code == 3
        assert "3 of 4 trials ok" in said
        assert "; 1 failed" in said
        tiny.assert_whole(tmp_path / "out")
    (tmp_path / "photos" / workers.HEALED).touch()
    code, said = Driver(tmp_path, "--address", embedded_ray, "--retry-failed").end()
    assert (code, "4 of 4 trials ok" in said) == (0, True)


def test_a_run_that_was_interrupted_has_not_succeeded(tmp_path: Path, embedded_ray: str) -> None:
    photos = tiny.collection(tmp_path, tiny.good(80), seconds=0.4)
    driver = Driver(tmp_path, "--address", embedded_ray)
    driver.wait_for(lambda: tiny.num_recorded(driver.out) >= 2)
    driver.send(signal.SIGTERM)
    assert driver.end()[0] == 143
    assert not RunDirectory(driver.out).is_complete()
    assert 2 <= tiny.num_recorded(driver.out) < 80
    (photos / workers.SECONDS).write_text("0")
    assert Driver(tmp_path, "--address", embedded_ray).end()[0] == 0
    tiny.assert_whole(driver.out)
    tiny.collection(tmp_path, tiny.good(3, first=80), seconds=0.4)  # an extension has not ended either
    driver = Driver(tmp_path, "--address", embedded_ray)
    driver.wait_for(lambda: RunDirectory(driver.out).num_trials == 83)
    assert not RunDirectory(driver.out).is_complete()
    assert driver.end()[0] == 0
    tiny.assert_whole(driver.out)
