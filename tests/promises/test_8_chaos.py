"""Promises 1 and 8: attempts before blame.

Everything is killed, again and again, one worker is sick, and readers look on; then one more run, and nothing is
missing.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import psutil
import pyarrow.dataset as ds
import pytest

from tests import tiny, workers
from tests.driver import WORKER, Driver, alive
from tests.promises.test_1_recorded_once import Reader

KILLS = int(os.environ.get("NST_BATCH_CHAOS_KILLS", "6"))
SEED = int(os.environ.get("NST_BATCH_CHAOS_SEED", "1"))
NUM_PICTURES = 20
ALPHAS = [round(0.1 * step, 1) for step in range(1, 2 * KILLS + 1)]
PACE_SECONDS = 0.04
"""So short that three kills hardly ever meet the same trial, which would rightly be taken for poison."""
LEAVE_SECONDS = 150
"""A worker of Ray that was just starting looks for its killed Ray for more than a minute."""

ENDS = ("driver", "driver", "raylet", "gcs_server", "SIGTERM", "SIGINT")


def kill(process: psutil.Process) -> bool:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return False
    return True


def round_of_kills(folder: Path, rng: random.Random, kills: Counter[str]) -> int:
    """Starts or resumes the run, kills some workers, and at last ends it; returns its exit status.

    Sometimes the end comes while it starts, before the first worker is there.
    """
    driver = Driver(folder, "--set", f"grid.alpha={ALPHAS}")
    end, early = rng.choice(ENDS), rng.random() < 0.3
    last = time.monotonic() + rng.uniform(0, 12)
    while early and time.monotonic() < last and driver.process.poll() is None:
        time.sleep(0.1)
    deaths = 0 if early else rng.randint(1, 4)
    while deaths and driver.process.poll() is None:
        time.sleep(rng.uniform(0.8, 2.0))
        running = [process for process in driver.session() if "ray::Unreliable" in " ".join(alive([process]))]
        if running and kill(rng.choice(running)):
            kills["worker"] += 1
            deaths -= 1
    time.sleep(rng.uniform(0, 1))
    if end in ("raylet", "gcs_server"):
        found = [process for process in driver.session() if alive([process]) == [end]]
        kills[end] += bool(found) and kill(found[0])
        if not found and driver.process.poll() is None:
            driver.send(signal.SIGKILL)
    elif driver.process.poll() is None:
        driver.send(signal.SIGKILL if end == "driver" else signal.Signals[end])
        kills[end] += 1
    code, said = driver.end()
    assert code in (0, 1, 130, 143, -signal.SIGTERM, -signal.SIGINT, -signal.SIGKILL), (end, code, said)
    # Python itself, before a line of ours has run, has no better answer to SIGINT; what a signal raises in a hook
    # after a fork it calls ignored, and goes on.
    if said.count("Traceback") > said.count("Exception ignored in"):
        assert said.rstrip().endswith("KeyboardInterrupt"), f"{end}: {said}"
    deadline = time.monotonic() + LEAVE_SECONDS
    while left := [name for name in alive(driver.session()) if "Agent" not in name]:
        assert time.monotonic() < deadline, f"{left} outlived {end} for {LEAVE_SECONDS} s"
        time.sleep(0.05)
    return code


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_nothing_is_lost_or_told_twice_whatever_is_killed(
    tmp_path: Path, embedded_ray: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    print(f"\nNST_BATCH_CHAOS_SEED={SEED}: what is killed, and when")  # noqa: T201
    rng = random.Random(SEED)
    photos = tiny.collection(tmp_path, tiny.good(NUM_PICTURES), seconds=PACE_SECONDS)
    out = tmp_path / "out"
    kills: Counter[str] = Counter()
    monkeypatch.setenv(WORKER, "Unreliable")
    with Reader(out) as reader:
        while sum(kills.values()) < KILLS:
            if round_of_kills(tmp_path, rng, kills) == 0:
                break
        (photos / workers.SECONDS).write_text("0")
        last = Driver(tmp_path, "--set", f"grid.alpha={ALPHAS}", "--address", embedded_ray)
        code, said = last.end(seconds=600)
    print(f"kills: {dict(kills)}; reads while it ran: {reader.reads}; trials: {NUM_PICTURES * len(ALPHAS)}")  # noqa: T201
    assert code == 0, said
    assert reader.wrong == ""
    assert kills, "the study ended before anything was killed; make it longer"
    tiny.assert_whole(out)
    assert len(tiny.rows(out)) == NUM_PICTURES * len(ALPHAS)
    tiny.run(tmp_path, changes={"grid": {"alpha": ALPHAS}}, out=tmp_path / "undisturbed")
    assert_same(out, tmp_path / "undisturbed")


def assert_same(disturbed: Path, whole: Path) -> None:
    """The same curves, layers and pictures, to the byte; each in order of the plan."""
    for table in ("curves", "layers"):
        found, expected = (ds.dataset(str(out / table)).to_table() for out in (disturbed, whole))
        assert found.sort_by("trial_index").equals(expected.sort_by("trial_index")), table
    for row in tiny.rows(disturbed):
        assert row["status"] == "ok"
        assert (disturbed / row["image_path"]).read_bytes() == (whole / row["image_path"]).read_bytes()
