"""When a run will end, right within a fifth after the first tenth; and the log of a job, as programs read it."""

from __future__ import annotations

import heapq
import json
import os
import random
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from nst_batch.cli.progress import TerminalReporter, describe
from nst_batch.cluster.pool import WorkerActor
from nst_batch.cluster.progress import JsonLog, Pace, Progress, RemainingWork, Reporter, read_event, replay
from nst_batch.errors import Interrupted
from nst_batch.records import Result
from tests import simulated, tiny
from tests.driver import Driver


def ended(width: int, seconds: float | None, status: str = "ok") -> Result:
    """A trial of `width`×100 pixels that has ended."""
    trial = simulated.trial(0, width=width, height=100)
    result = simulated.result(trial)
    return replace(result, outcome=replace(result.outcome, seconds=seconds, status=status))  # type: ignore[arg-type]


def test_nothing_is_predicted_before_anything_is_known() -> None:
    left = RemainingWork(1_000_000)
    assert left.seconds(4) is None
    left.learn([ended(100, 2.0)])
    assert left.seconds(0) is None
    assert left.seconds(1) == pytest.approx(2.0 * 99)


def test_failures_are_work_that_is_gone_but_say_nothing_of_the_pace() -> None:
    left = RemainingWork(30_000)
    left.learn([ended(100, 4.0), ended(100, 0.001, "failed"), ended(0, None, "failed")])
    assert left.seconds(1) == pytest.approx(4.0)


def test_what_workers_are_at_is_not_counted_twice() -> None:
    left = RemainingWork(30_000)
    left.learn([ended(100, 4.0)])
    assert left.seconds(2, busy_seconds=3.0) == pytest.approx((8.0 - 3.0) / 2)
    assert left.seconds(2, busy_seconds=99.0) is None  # something hangs: nobody knows


def test_before_a_trial_has_ended_what_workers_tell_of_theirs_is_the_pace() -> None:
    left = RemainingWork(30_000)
    assert left.seconds(1, busy_seconds=7.0, pace=lambda: Pace(0.0, 0.0)) is None
    assert left.seconds(1, busy_seconds=7.0, pace=lambda: Pace(5_000.0, 6.0)) == pytest.approx(36.0 - 7.0)
    left.learn([ended(100, 4.0)])
    assert left.seconds(1, pace=lambda: pytest.fail("nobody need be asked")) == pytest.approx(8.0)


class EndsWhenItKnows(Reporter):
    """Ends this run as soon as it is told when it would end."""

    def __init__(self) -> None:
        self.told: list[Progress] = []

    def progress(self, progress: Progress) -> None:
        self.told.append(progress)
        if progress.eta_seconds is not None:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.usefixtures("embedded_ray")
def test_when_a_run_of_one_long_trial_will_end_is_told_while_it_runs(tmp_path: Path) -> None:
    tiny.collection(tmp_path, tiny.good(1))
    network = {"arch": "vgg11", "weights": "random:0", "pooling": "average"}
    optimizer = {"name": "adam", "steps": 50_000, "plateau": 0}
    reporter = EndsWhenItKnows()
    with pytest.raises(Interrupted):
        tiny.run(tmp_path, WorkerActor, changes={"network": network, "optimizer": optimizer}, reporter=reporter)
    eta_seconds = next(each.eta_seconds for each in reporter.told if each.eta_seconds is not None)
    assert 20 < eta_seconds < 20_000
    assert not tiny.num_recorded(tmp_path / "out")


@pytest.mark.parametrize("num_workers", [1, 3, 8])
@pytest.mark.parametrize("order", ["alike", "largest first", "shuffled"])
def test_right_within_a_fifth_after_the_first_tenth(num_workers: int, order: str) -> None:
    """A simulated run: time is proportional to pixels, give or take a quarter; asked whenever a trial ends."""
    rng = random.Random(5)
    widths = (
        [100] * 300 if order == "alike" else sorted((rng.choice([50, 100, 400]) for _ in range(300)), reverse=True)
    )
    if order == "shuffled":
        rng.shuffle(widths)
    durations = [width * rng.uniform(0.75, 1.25) for width in widths]
    starts, free = [], [(0.0, worker) for worker in range(num_workers)]
    for seconds in durations:
        now, worker = heapq.heappop(free)
        starts.append(now)
        heapq.heappush(free, (now + seconds, worker))
    end = max(free)[0]
    work, told = RemainingWork(sum(widths) * 100), []
    events = sorted(
        (start + seconds, index) for index, (start, seconds) in enumerate(zip(starts, durations, strict=True))
    )
    for now, index in events:
        work.learn([ended(widths[index], durations[index])])
        busy = sum(
            now - start for start, seconds in zip(starts, durations, strict=True) if start <= now < start + seconds
        )
        left = work.seconds(num_workers, busy)
        if end * 0.1 < now < end * 0.9 and left is not None:
            told.append((now + left) / end)
    assert told
    assert 0.8 < min(told) <= max(told) < 1.2


# The log of a job


def test_what_a_job_prints_becomes_notes_and_progress_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nst_batch.cli.progress.LINE_SECONDS", 0)
    progress = Progress(
        num_trials=9, ok=3, failed=1, diverged=0, pending=5, num_workers=2, worker_deaths=0,
        elapsed_seconds=8.0, eta_seconds=61.0,
    )  # fmt: skip
    log = JsonLog()
    log.note("two workers")
    log.progress(progress)
    log.progress(progress)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2  # what has not changed is not said again
    with TerminalReporter() as reporter:
        for line in (*lines, '{"event": "progress"}', '{"event": ', "", "Traceback (most recent call last):"):
            replay(line, reporter)
    said = capsys.readouterr().err.splitlines()
    assert said[:2] == ["two workers", "4/9 1 failed · 2 workers · 1 min 1 s left"]
    assert said[2:] == ['{"event": ', "Traceback (most recent call last):"]


def test_until_a_first_trial_has_ended_it_is_told_how_long_it_took_so_far() -> None:
    progress = Progress(
        num_trials=1, ok=0, failed=0, diverged=0, pending=1, num_workers=1, worker_deaths=0,
        elapsed_seconds=605.0, eta_seconds=None,
    )  # fmt: skip
    assert describe(progress) == "1 worker · 10 min 5 s so far"
    assert describe(replace(progress, ok=1, pending=0)) == "1 worker"


def test_a_log_is_json_also_where_workers_die(tmp_path: Path, embedded_ray: str) -> None:
    tiny.collection(tmp_path, [*tiny.good(2), "exit-1"])
    driver = Driver(tmp_path, "--address", embedded_ray, "--log-json")
    log, said = driver.process.communicate(timeout=120)
    assert driver.process.returncode == 3, said
    events = [json.loads(line) for line in log.splitlines()]
    assert sum(event["event"] == "trial" for event in events) == 3
    assert any("a worker is replaced: " in event.get("text", "") for event in events)


def test_a_job_prints_no_secret_of_a_url(capsys: pytest.CaptureFixture[str]) -> None:
    log = JsonLog()
    log.note('cannot read "https://me:hunter2@host/a.png?X-Amz-Signature=0f3"')
    failed = simulated.failure(simulated.trial(0), "s3://me:hunter2@bucket/a.png: forbidden")
    log.ended(failed)
    said = capsys.readouterr().out
    assert "hunter2" not in said
    assert "0f3" not in said
    events = [read_event(line) for line in said.splitlines()]
    assert [event["event"] for event in events if event] == ["note", "trial"]
