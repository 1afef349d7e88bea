"""The client side of the Ray Jobs API: a study is submitted with the code that is to run it, followed and stopped.

What travels is small: this package and the resolved study. The cluster runs `python -m nst_batch run` on them, so
client and cluster run the same code, and a job does exactly what the command does here.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import platform
import re
import secrets
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import ray
import ray.exceptions
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

import nst_batch
from nst_batch.errors import ClusterError, without_secrets

STOP_SECONDS = 30
"""How long a stopped job may take to record what it has; Ray's own default is 3 s, then SIGKILL."""
PATIENCE_SECONDS = 600.0
"""How long a head that one follows may not answer."""
SILENCE_SECONDS = 60.0
"""After which a connection is made anew: one that has broken may not say so, and a job says something every ten."""
MINIMUM_PYTHON = (3, 11)

_FAILURES = (RuntimeError, OSError, aiohttp.ClientError, ray.exceptions.RayError)
_NOT_SHIPPED = shutil.ignore_patterns("__pycache__", "*.pyc")
_HEAD_SECONDS = 20.0
_MAX_MISSES = 3  # failures to read the log of a job that has ended, from a head that answers
_CHATTY = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
_WORKER_PYTHON = re.compile(r"--python_worker_command=(\S*python\S*) ")


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What is known of a submitted study."""

    study: str
    out: str
    status: str
    """PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED, as Ray says."""
    exit_code: int | None
    """As of `nst-batch run`; None until it has ended."""
    message: str


class Jobs:
    """A cluster's jobs.

    Args:
        address: http://HEAD:8265, Ray's dashboard; None takes RAY_API_SERVER_ADDRESS or RAY_ADDRESS.

    Raises:
        ClusterError: It cannot be reached, or wants another token.
    """

    def __init__(self, address: str | None = None) -> None:
        self.address = address or os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS") or ""
        if "://" not in self.address or self.address.startswith("ray://"):
            found = f"found {self.address}" if self.address else "found none"
            raise ClusterError(f"--address: expected http://HEAD:8265, the address of Ray's dashboard, {found}")
        for name in _CHATTY:
            logging.getLogger(name).setLevel(logging.ERROR)
        os.environ["RAY_API_SERVER_ADDRESS"] = self.address  # Ray lets its variables win over the argument
        with self._explained("reach it"):
            self._client = JobSubmissionClient(self.address)

    def submit(self, study: dict[str, Any], out: str, options: Sequence[str]) -> str:
        """Submits a study and returns the job's id.

        Args:
            study: As `Study.to_dict` gives it, with absolute paths or URLs that the cluster can read.
            out: The run directory, likewise; without secrets, as whoever sees the cluster sees it.
            options: Further arguments of `nst-batch run`.
        """
        command = [self._python(), "-m", "nst_batch", "run", "study.json", "--log-json", "--out", out, *options]
        job_id = f"nst-{re.sub(r'[^A-Za-z0-9-]+', '-', study['name'])[:40]}-{secrets.token_hex(4)}"
        with tempfile.TemporaryDirectory(prefix="nst-batch-") as folder, self._explained("submit to it"):
            shutil.copytree(Path(nst_batch.__file__).parent, Path(folder, "nst_batch"), ignore=_NOT_SHIPPED)
            Path(folder, "study.json").write_text(json.dumps(study, indent=2), encoding="utf-8")
            environment = {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS), "RAY_USAGE_STATS_ENABLED": "0"}
            try:
                self._client.submit_job(
                    entrypoint=f"exec {shlex.join(command)}",
                    submission_id=job_id,
                    runtime_env={"working_dir": folder, "env_vars": environment},
                    metadata={"nst_batch": nst_batch.__version__, "study": study["name"][:200], "out": out},
                )
            except OSError as error:  # the connection broke, perhaps when the head had already taken the job
                try:
                    _patient(_HEAD_SECONDS)(self._client.get_job_info, job_id)
                except _FAILURES:
                    raise error from None
        return job_id

    def version_notes(self) -> list[str]:
        """What differs between here and there, a line each; a Python that is too old is a ClusterError."""
        notes, about = [], self._get("/api/v0/cluster_metadata")
        ray_there, python = about.get("rayVersion"), str(about.get("pythonVersion", ""))
        here = platform.python_version()
        if ray_there and ray_there != ray.__version__:
            notes.append(f"the cluster runs Ray {ray_there}, this machine Ray {ray.__version__}")
        if python and _minor(python) < MINIMUM_PYTHON:
            needed = ".".join(map(str, MINIMUM_PYTHON))
            raise ClusterError(
                f"the cluster runs Python {python}, nst-batch needs {needed} or newer; use an image with that "
                "(see Dockerfile)"
            )
        if python and _minor(python) != _minor(here):
            notes.append(f"the cluster runs Python {python}, this machine {here}")
        return notes

    def describe(self, job_id: str) -> Job:
        """What is known of a job."""
        with self._explained(f"find job {job_id}"):
            return _job(self._client.get_job_info(job_id))

    def log(self, job_id: str) -> str:
        """Everything that a job has printed."""
        with self._explained(f"find job {job_id}"):
            return str(self._client.get_job_logs(job_id))

    def follow(self, job_id: str, on_line: Callable[[str], None]) -> Job:
        """Passes on every line that the job prints, from the first, and returns how it ended.

        A head that does not answer is asked again for ten minutes; meanwhile the job goes on.
        """
        job, seen = self.describe(job_id), 0  # no such job is an error at once

        async def tail() -> None:
            """Passes on what is new until the connection ends, as it does when the job has ended."""
            nonlocal seen
            count, rest, now = 0, "", asyncio.get_running_loop().time
            async with asyncio.timeout(SILENCE_SECONDS) as silence:
                async for chunk in self._client.tail_job_logs(job_id):
                    silence.reschedule(now() + SILENCE_SECONDS)
                    *lines, rest = (rest + chunk).split("\n")
                    for line in lines:
                        count += 1
                        if count > seen:
                            seen = count
                            on_line(line)

        whole, misses = False, 0
        with self._explained(f"find job {job_id}"):
            while not whole and misses < _MAX_MISSES:
                ended = job.exit_code is not None
                try:
                    asyncio.run(tail())
                    whole = ended  # also where the last connection broke
                except _FAILURES:
                    misses += ended
                if not whole:
                    time.sleep(1)
                    job = _job(_patient(PATIENCE_SECONDS)(self._client.get_job_info, job_id))
        if not whole:
            on_line("the rest of its log cannot be read; the node that it ran on is gone, perhaps")
        return job

    def stop(self, job_id: str) -> bool:
        """Asks a job to record what it has and end; False if it had ended already."""
        with self._explained(f"stop job {job_id}"):
            return bool(self._client.stop_job(job_id))

    def _python(self) -> str:
        """The interpreter that the head's workers run on.

        A job's bare `python` may be another one: Ray starts the entry point in a plain shell.
        """
        deadline = time.monotonic() + _HEAD_SECONDS
        while time.monotonic() < deadline:
            for node in self._get("/nodes?view=summary").get("summary", ()):
                found = _WORKER_PYTHON.search(" ".join(node.get("cmdline") or ()))
                if found and node.get("raylet", {}).get("isHeadNode"):
                    return found[1]
            time.sleep(1)  # a head that has just started does not know itself yet
        return "python"

    def _get(self, path: str) -> dict[str, Any]:
        """What the dashboard answers where Ray's client has no method; empty if this version has no answer."""
        with self._explained("ask it"):
            answer = self._client._do_request("GET", path)
            return dict(answer.json()["data"]) if answer.ok else {}

    @contextlib.contextmanager
    def _explained(self, action: str) -> Iterator[None]:
        try:
            yield
        except ray.exceptions.AuthenticationError as error:
            reason = "it wants another token than it was given; set RAY_AUTH_TOKEN to the cluster's"
            raise ClusterError(f"{self.address}: cannot {action}: {reason}") from error
        except _FAILURES as error:
            raise ClusterError(
                f"{self.address}: cannot {action}: {without_secrets(_first_line(str(error)))[:500]}"
            ) from error


def _patient(seconds: float) -> Retrying:
    """Calls what it is given until it succeeds, for so long."""
    return Retrying(
        retry=retry_if_exception_type(_FAILURES),
        wait=wait_exponential(multiplier=0.5, max=30),
        stop=stop_after_delay(seconds),
        reraise=True,
    )


def _job(details: JobDetails) -> Job:
    metadata: dict[str, Any] = details.metadata or {}
    exit_code = details.driver_exit_code
    if exit_code is None or exit_code < 0:  # it was killed
        exit_code = {JobStatus.SUCCEEDED: 0, JobStatus.STOPPED: 143}.get(details.status, 1)
    return Job(
        study=str(metadata.get("study", "")),
        out=str(metadata.get("out", "")),
        status=str(details.status.value),
        exit_code=exit_code if details.status.is_terminal() else None,
        message=_first_line(details.message or ""),
    )


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


def _minor(version: str) -> tuple[int, ...]:
    """`3.11.4` as (3, 11)."""
    return tuple(map(int, version.split(".")[:2]))
