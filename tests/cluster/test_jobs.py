"""A study as a job on a real head on loopback, through the command line, with token authentication on."""

from __future__ import annotations

import json
import platform
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml

from nst_batch.cluster.progress import read_event
from nst_batch.store.run_directory import RunDirectory
from tests import tiny
from tests.proxy import proxy
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
    events = [event for line in logged.stdout.splitlines() if (event := read_event(line))]
    ended = {event["trial_id"]: event["status"] for event in events if event["event"] == "trial"}
    assert ended == {row["trial_id"]: row["status"] for row in tiny.rows(out)}


@pytest.mark.slow
def test_ctrl_c_detaches_stop_drains_and_submitting_again_resumes(head: Head, tmp_path: Path) -> None:
    out = tmp_path / "out"
    tiny.collection(tmp_path, ["good-0", "good-1"])
    study = write_study(tmp_path, steps=8, alpha=[1 + step / 64 for step in range(24)])
    arguments = command(head, "submit", str(study), "--out", str(out))
    with subprocess.Popen(arguments, env=head.environment, stderr=subprocess.PIPE, text=True) as process:
        await_ended(out, 3, process)
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

    said = submitted_over_bad_connections(head, study, out)
    assert said.count("1 worker with 1 CPU core") == 1, said  # no line is lost or passed on twice
    assert "48 of 48 trials ok" in said
    tiny.assert_whole(out)
    last = finished(out)
    assert len(last) == 48
    assert {trial_id: last[trial_id] for trial_id in first} == first


def finished(out: Path) -> dict[str, Any]:
    """When each trial that has ended did, by trial_id."""
    table = RunDirectory(out).table("trials", ["trial_id", "finished_at"])
    return {row["trial_id"]: row["finished_at"] for row in table.to_pylist()}


def await_ended(out: Path, count: int, client: subprocess.Popen[str]) -> None:
    """Until a run that a client follows says that so many trials have ended."""
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        progress = out / "progress.json"
        if progress.exists() and json.loads(progress.read_text())["ok"] >= count:
            return
        assert client.poll() is None, client.communicate()
        time.sleep(0.2)
    raise AssertionError("the job never got going")


def submitted_over_bad_connections(head: Head, study: Path, out: Path) -> str:
    """Submits and follows a study; the answer to the submission is lost, and later the head is out of reach."""
    with proxy(int(head.dashboard.rsplit(":", 1)[1]), lost=b"POST /api/jobs/ ") as gate:
        command = [sys.executable, "-m", "nst_batch", "submit", str(study), "--out", str(out)]
        command += ["--address", f"http://127.0.0.1:{gate.port}"]
        with subprocess.Popen(
            command, env=head.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            await_ended(out, len(finished(out)) + 1, process)
            gate.close()
            time.sleep(5)
            assert process.poll() is None
            gate.open()
            printed, said = process.communicate(timeout=_SECONDS)
            assert process.returncode == 0, said
            assert printed.splitlines() == [str(out)]
            return said


OLDER = """
import platform, sys
from nst_batch.cluster import jobs
head = jobs.Jobs(sys.argv[1])
print(head.version_notes())
jobs.ray.__version__, platform.python_version = "2.1", lambda: "3.99.1"
print(head.version_notes())
"""


@pytest.mark.slow
def test_other_versions_are_told(head: Head) -> None:
    environment = head.environment | {"RAY_AUTH_MODE": "token"}
    told = subprocess.check_output([sys.executable, "-c", OLDER, head.dashboard], env=environment, text=True)
    same, other = told.splitlines()
    assert same == "[]"
    assert f"the cluster runs Ray {ray.__version__}, this machine Ray 2.1" in other
    assert f"the cluster runs Python {platform.python_version()}, this machine 3.99.1" in other


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
    assert "1 worker with 1 CPU core (no GPU found)" in done.stderr


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
