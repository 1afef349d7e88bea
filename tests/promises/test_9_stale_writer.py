"""Promise 9: a stale writer cannot publish, in an object store either, where no kernel keeps it out.

The writer is a process that stops itself (SIGSTOP) at the last moment: its lock was checked, and the request that
puts a file in place is next. Another process takes the run over and goes on; then the first one continues.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from nst_batch.records import Result, Trial
from nst_batch.store import committer
from nst_batch.store.committer import Committer
from nst_batch.store.lock import run_lock
from nst_batch.store.run_directory import RunDirectory
from tests import simulated
from tests.object_store import bucket

__all__ = ["bucket"]

QUICK = partial(run_lock, refresh_seconds=0.3, dead_seconds=6)


def result(of: Trial, writer: str) -> Result:
    """A result of which row and picture tell who wrote them."""
    made = simulated.result(of, device=writer)
    image = (made.image or b"") + writer.encode()
    return Result(trial=of, outcome=made.outcome, curve=made.curve, layers=made.layers, image=image)


def write_until_paused(url: str, target: str) -> None:
    """The stale writer; stops itself right before a file whose name ends in `target` is put in place."""
    from s3fs import S3FileSystem

    paused: list[str] = []

    def pausing(real: Callable[..., Any], position: int) -> Callable[..., Any]:
        async def method(self: S3FileSystem, *arguments: Any, **options: Any) -> Any:
            if str(arguments[position]).endswith(target) and not paused:
                paused.append(target)
                os.kill(os.getpid(), signal.SIGSTOP)
            return await real(self, *arguments, **options)

        return method

    for name, position in (("_pipe_file", 0), ("_cp_file", 1)):
        setattr(S3FileSystem, name, pausing(getattr(S3FileSystem, name), position))
    run = RunDirectory(url)
    with Committer(run) as writing:
        for trial in run.iter_plan(skip=writing.ended):
            failed = trial.trial_index == 3
            writing.commit(simulated.failure(trial) if failed else result(trial, "stale"))
        if target == "study.json":
            writing.write_plan(simulated.STUDY, simulated.trials(20, start=16))
        writing.finish()


def files(run: RunDirectory) -> dict[str, bytes]:
    """Everything but what the living writer stages to renew its lease."""
    paths = (path for path in run.directory.list("") if not path.startswith("staging/tmp-"))
    return {path: run.directory.read(path) for path in paths}


@pytest.mark.parametrize("target", ["trials/part-00000.parquet", ".png", "study.json", "_SUCCESS"])
def test_a_writer_that_was_paused_changes_nothing(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    monkeypatch.setattr(committer, "run_lock", QUICK)
    run = RunDirectory(f"{bucket}/{tmp_path.name}")
    with Committer(run) as writing:
        writing.write_plan(simulated.STUDY, simulated.trials(16))
    command = [sys.executable, "-c", f"from {__name__} import main; main()"]
    stale = subprocess.Popen([*command, run.directory.root, target], stderr=subprocess.PIPE, text=True)
    _, status = os.waitpid(stale.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status), stale.communicate()[1]
    with Committer(run) as writing:
        writing.retry_failed()
        if target == "_SUCCESS":
            writing.write_plan(simulated.STUDY, simulated.trials(20, start=16))
        else:
            for trial in run.iter_plan(skip=writing.ended):
                writing.commit(result(trial, "successor"))
        assert writing.finish() == (target != "_SUCCESS")
        before = files(run)
        os.kill(stale.pid, signal.SIGCONT)
        _, said = stale.communicate(timeout=60)
        assert (stale.returncode, "LockedError" in said) == (1, True), said
        after = files(run)
        assert after.keys() == before.keys()
        changed = {path for path in before if after[path] != before[path]}
        assert changed <= {"leases/000002", "leases/000003"}, "each writer's own lease alone"
        assert json.loads(after["leases/000003"])["pid"] == os.getpid()
    assert run.is_complete() == (target != "_SUCCESS")
    assert run.table("trials", ["device"])["device"].to_pylist().count("successor") == (
        {".png": 16, "_SUCCESS": 0}.get(target, 1)
    )


def main() -> None:
    """What the stale process runs."""
    setattr(committer, "run_lock", QUICK)  # noqa: B010 (the module's own name is not exported)
    write_until_paused(*sys.argv[1:])
