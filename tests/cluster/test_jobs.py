"""A study as a job on a real head on loopback, through the command line, with token authentication on."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from nst_batch.cli.console import TerminalReporter
from nst_batch.cluster import progress as reporting
from nst_batch.store.run_directory import RunDirectory
from tests import tiny
from tests.ray_head import Head, ray_head

_SECONDS = 400


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with ray_head() as started:
        yield started


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A study file: two pictures, one that is no picture, two configurations."""
    photos = tiny.collection(tmp_path, ["good-0", "good-1"])
    (photos / "bad.png").write_bytes(b"<html>")
    return write_study(tmp_path, alpha=[0.5, 1.0])


def write_study(folder: Path, *, steps: int = 2, **grid: Any) -> Path:
    values = tiny.study(folder, optimizer={"steps": steps}).to_dict()
    values["grid"] |= grid
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def command(head: Head, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "nst_batch", *arguments, "--address", head.dashboard]


def nst_batch(head: Head, *arguments: str, token: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = head.environment | ({"RAY_AUTH_TOKEN": token} if token else {})
    return subprocess.run(
        command(head, *arguments), env=environment, capture_output=True, text=True, timeout=_SECONDS, check=False
    )


@pytest.mark.slow
def test_a_study_is_submitted_followed_and_asked_about(head: Head, study: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = nst_batch(head, "submit", str(study), "--out", str(out))
    assert done.returncode == 3, done.stderr  # one picture is bad, and the exit code of the job is ours
    assert "4 of 6 trials ok" in done.stderr
    assert "bad.png" in done.stderr
    assert "Traceback" not in done.stderr
    tiny.assert_whole(out)
    assert sorted(row["status"] for row in tiny.rows(out)) == ["failed"] * 2 + ["ok"] * 4
    [job] = set(re.findall(r"nst-tiny-[0-9a-f]{8}", done.stderr))

    told = nst_batch(head, "status", job, "--format", "json")
    assert told.returncode == 0, told.stderr
    row = json.loads(told.stdout)
    assert (row["status"], row["exit_code"], row["out"]) == ("FAILED", 3, str(out))
    assert (row["ok"], row["failed"], row["pending"]) == (4, 2, 0)

    logged = nst_batch(head, "logs", job)
    events = [event for line in logged.stdout.splitlines() if (event := reporting.read_event(line))]
    ended = {event["trial_id"]: event["status"] for event in events if event["event"] == "trial"}
    assert ended == {row["trial_id"]: row["status"] for row in tiny.rows(out)}


@pytest.mark.slow
def test_ctrl_c_detaches_stop_drains_and_submitting_again_resumes(head: Head, tmp_path: Path) -> None:
    out = tmp_path / "out"
    tiny.collection(tmp_path, ["good-0", "good-1"])
    study = write_study(tmp_path, steps=8, alpha=[1 + step / 64 for step in range(24)])
    arguments = command(head, "submit", str(study), "--out", str(out))
    with subprocess.Popen(arguments, env=head.environment, stderr=subprocess.PIPE, text=True) as process:
        await_ended(out, 3)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        said = process.stderr.read()
        assert process.wait(60) == 130
    [job] = set(re.findall(r"nst-tiny-[0-9a-f]{8}", said))
    assert f"nst-batch logs {job} --address {head.dashboard} --follow" in said

    stopped = nst_batch(head, "stop", job)
    assert stopped.returncode == 0, stopped.stderr
    first = finished(out)
    assert 3 <= len(first) < 48
    assert not (out / "_SUCCESS").exists()
    assert "trials are safe in" in nst_batch(head, "logs", job).stdout
    assert nst_batch(head, "logs", job, "--follow").returncode == 143
    assert "had ended already" in nst_batch(head, "stop", job).stderr

    again = nst_batch(head, "submit", str(study), "--out", str(out))
    assert again.returncode == 0, again.stderr
    assert again.stdout.splitlines() == [str(out)]
    tiny.assert_whole(out)
    last = finished(out)
    assert len(last) == 48
    assert {trial_id: last[trial_id] for trial_id in first} == first


def finished(out: Path) -> dict[str, Any]:
    """When each trial that has ended did, by trial_id."""
    table = RunDirectory(out).table("trials", ["trial_id", "finished_at"])
    return {row["trial_id"]: row["finished_at"] for row in table.to_pylist()}


def await_ended(out: Path, count: int) -> None:
    """Until a run says that so many trials have ended."""
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        progress = out / "progress.json"
        if progress.exists() and json.loads(progress.read_text())["ok"] >= count:
            return
        time.sleep(0.2)
    raise AssertionError("the job never got going")


@pytest.mark.slow
def test_run_attaches_to_the_cluster(head: Head, tmp_path: Path) -> None:
    tiny.collection(tmp_path, ["good-0"])
    study = write_study(tmp_path)
    arguments = ["run", str(study), "--out", str(tmp_path / "out"), "--address", head.address]
    done = subprocess.run(
        [sys.executable, "-m", "nst_batch", *arguments],
        env=head.environment, capture_output=True, text=True, timeout=_SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "1 worker with 1 CPU core each (no GPU found)" in done.stderr


@pytest.mark.slow
def test_errors_are_one_line_before_anything_starts(head: Head, study: Path, tmp_path: Path) -> None:
    submit = ("submit", str(study), "--out", str(tmp_path / "out"))
    wrong = nst_batch(head, *submit, token="wrong" * 8)
    assert (wrong.returncode, len(wrong.stderr.splitlines())) == (1, 1)
    assert "set RAY_AUTH_TOKEN" in wrong.stderr
    unknown = nst_batch(head, "logs", "nst-tiny-00000000")
    assert unknown.returncode == 1
    assert "cannot find job nst-tiny-00000000" in unknown.stderr
    nowhere = [sys.executable, "-m", "nst_batch", *submit, "--address", "http://127.0.0.1:9"]
    done = subprocess.run(nowhere, env=head.environment, capture_output=True, text=True, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert not (tmp_path / "out").exists()


# Without a cluster


def test_the_parcel_is_small_and_holds_the_package_and_the_study(tmp_path: Path) -> None:
    from nst_batch.cluster.jobs import _parcel

    tiny.collection(tmp_path, ["good-0"])
    with _parcel(tiny.study(tmp_path).to_dict()) as folder:
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert {path.name for path in folder.iterdir()} == {"nst_batch", "study.json"}
        assert {path.suffix for path in files} <= {".py", ".json", ".yaml", ".typed", ".html", ".css", ".js", ".j2"}
        assert sum(path.stat().st_size for path in files) < 2_000_000
        from nst_batch.study.reading import load_study

        assert load_study(str(folder / "study.json")) == tiny.study(tmp_path)
    assert not folder.exists()


def worker_command(python: str) -> dict[str, Any]:
    site = f"/opt/lib/{python}/site-packages/ray/_private/workers/setup_worker.py"
    line = f"--python_worker_command=/opt/bin/{python} {site} more"
    return {"data": {"summary": [{"raylet": {"isHeadNode": True}, "cmdline": ["raylet", line]}]}}


@pytest.mark.parametrize(
    ("ray_version", "python", "notes"),
    [("1.2.3", "python3.99", 2), ("here", "python3.99", 1), ("here", "here", 0)],
)
def test_versions_that_differ_are_told(
    monkeypatch: pytest.MonkeyPatch, ray_version: str, python: str, notes: int
) -> None:
    import ray

    jobs = jobs_that_answer(
        monkeypatch,
        ray.__version__ if ray_version == "here" else ray_version,
        f"python3.{sys.version_info.minor}" if python == "here" else python,
    )
    assert len(jobs.version_notes()) == notes
    assert jobs._cluster_python()[0].startswith("/opt/bin/python3")


def test_a_python_that_is_too_old_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from nst_batch.errors import ClusterError

    with pytest.raises(ClusterError, match=r"Python 3\.9, nst-batch needs 3\.11"):
        jobs_that_answer(monkeypatch, "2.60.0", "python3.9").version_notes()


def jobs_that_answer(monkeypatch: pytest.MonkeyPatch, ray_version: str, python: str) -> Any:
    """A client whose cluster says that it runs these versions."""
    from nst_batch.cluster.jobs import Jobs

    answers = {"/api/version": {"ray_version": ray_version}, "/nodes?view=summary": worker_command(python)}
    monkeypatch.setattr(Jobs, "_get", lambda _, path: answers[path])
    return object.__new__(Jobs)


def test_what_a_job_prints_becomes_notes_and_progress_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nst_batch.cli.console._LINE_SECONDS", 0)
    progress = reporting.Progress(
        num_trials=9, ok=3, failed=1, diverged=0, pending=5, num_workers=2, worker_deaths=0,
        elapsed_seconds=8.0, eta_seconds=61.0,
    )  # fmt: skip
    log = reporting.JsonLog()
    log.note("two workers")
    log.progress(progress)
    log.progress(progress)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2  # what has not changed is not said again
    with TerminalReporter() as reporter:
        for line in (*lines, '{"event": "progress"}', '{"event": ', "", "Traceback (most recent call last):"):
            reporting.replay(line, reporter)
    said = capsys.readouterr().err.splitlines()
    assert said[:2] == ["two workers", "4/9 1 failed · 2 workers · 1 min 1 s left"]
    assert said[2:] == ['{"event": ', "Traceback (most recent call last):"]
