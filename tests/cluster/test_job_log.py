"""The log of a job, as programs read it and as a person sees it."""

from __future__ import annotations

from pathlib import Path

import pytest

from nst_batch.cli.progress import TerminalReporter
from nst_batch.cluster import pool
from nst_batch.cluster import progress as job_log
from nst_batch.cluster.progress import Progress
from tests import simulated


def test_what_a_job_prints_becomes_notes_and_progress_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nst_batch.cli.progress.LINE_SECONDS", 0)
    progress = Progress(
        num_trials=9, ok=3, failed=1, diverged=0, pending=5, num_workers=2, worker_deaths=0,
        elapsed_seconds=8.0, eta_seconds=61.0,
    )  # fmt: skip
    log = job_log.JsonLog()
    log.note("two workers")
    log.progress(progress)
    log.progress(progress)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2  # what has not changed is not said again
    with TerminalReporter() as reporter:
        for line in (*lines, '{"event": "progress"}', '{"event": ', "", "Traceback (most recent call last):"):
            job_log.replay(line, reporter)
    said = capsys.readouterr().err.splitlines()
    assert said[:2] == ["two workers", "4/9 1 failed · 2 workers · 1 min 1 s left"]
    assert said[2:] == ['{"event": ', "Traceback (most recent call last):"]


def test_a_job_prints_no_secret_of_a_url(capsys: pytest.CaptureFixture[str]) -> None:
    log = job_log.JsonLog()
    log.note('cannot read "https://me:hunter2@host/a.png?X-Amz-Signature=0f3"')
    failed = simulated.failure(simulated.trial(0), "s3://me:hunter2@bucket/a.png: forbidden")
    log.ended(failed)
    said = capsys.readouterr().out
    assert "hunter2" not in said
    assert "0f3" not in said
    events = [job_log.read_event(line) for line in said.splitlines()]
    assert [event["event"] for event in events if event] == ["note", "trial"]


def test_a_log_that_is_cut_begins_with_a_whole_line(tmp_path: Path) -> None:
    """The end of a URL does not look like one, and its secret would be kept."""
    half = b"ter2@host/a.png\n"
    rest = b"x" * (pool.MAX_LOG_BYTES - len(half) - 1) + b"\n"
    (tmp_path / "worker.out").write_bytes(b"http://me:hun" + half + rest)
    assert pool._ends([str(tmp_path / "worker.out")]) == rest.decode()
