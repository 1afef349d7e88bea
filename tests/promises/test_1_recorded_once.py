"""Promise 1: whatever is killed, whenever, every trial is recorded exactly once and no reader sees it twice."""

from __future__ import annotations

import multiprocessing
import random
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from nst_batch.errors import RunDirectoryError
from nst_batch.store.committer import Committer
from nst_batch.store.files import Directory
from nst_batch.store.run_directory import RunDirectory
from tests import simulated

NUM_TRIALS = 600


def write_everything(path: str, pause: float) -> None:
    """The child process: commits what is missing, in an order of its own, and retries what failed."""
    run = RunDirectory(path)
    with Committer(run, segment_rows=11, flush_seconds=0.01) as committer:
        if not run.exists():
            committer.write_plan(simulated.STUDY, simulated.trials(NUM_TRIALS // 2))
        if run.num_trials < NUM_TRIALS:
            committer.write_plan(simulated.STUDY, simulated.trials(NUM_TRIALS, start=NUM_TRIALS // 2))
        committer.retry_failed()
        missing = list(run.iter_plan(skip=committer.ended))
        random.shuffle(missing)
        for trial in sorted(missing, key=lambda trial: trial.trial_index // 50):
            lucky = random.random() < 0.95
            committer.commit(simulated.result(trial) if lucky else simulated.failure(trial))
            time.sleep(pause)
        committer.finish()


class Reader(threading.Thread):
    """Reads by plain glob, and through RunDirectory, all the while; keeps what it must not see."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path, self.stop, self.reads, self.wrong = path, threading.Event(), 0, ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.join()

    def run(self) -> None:
        while not self.stop.wait(0.1) and not self.wrong:
            if (self.path / "trials" / "part-00000.parquet").exists():
                self.wrong = self._look()
                self.reads += 1

    def _look(self) -> str:
        for table, key in (("trials", "trial_id"), ("curves", "trial_id"), ("layers", "trial_id || layer")):
            if not (self.path / table).exists():
                continue
            seen = (
                duckdb.connect()
                .execute(f"SELECT count(*), count(DISTINCT {key}) FROM '{self.path}/{table}/*.parquet'")
                .fetchone()
            )
            if seen is None or seen[0] != seen[1]:
                return f"DuckDB, {table}: rows, distinct = {seen}"
        ids = ds.dataset(str(self.path / "trials")).to_table(["trial_id"])["trial_id"]
        if len(ids) != len(ids.unique()):
            return f"pyarrow: {len(ids)} rows, {len(ids.unique())} distinct"
        return duplicates(RunDirectory(self.path).table("trials", ["trial_id"]))


def duplicates(table: pa.Table) -> str:
    ids = table["trial_id"]
    return "" if len(ids) == len(ids.unique()) else f"table(): {len(ids)} rows, {len(ids.unique())} distinct"


def assert_exactly_once(path: Path, num_trials: int) -> None:
    """Every planned trial has one row, its own curve, 13 layers and its own picture."""
    run = RunDirectory(path)
    planned = {trial.trial_index: trial.trial_id for trial in run.iter_plan()}
    assert len(planned) == num_trials
    trials = ds.dataset(str(path / "trials")).to_table().to_pylist()
    assert sorted((row["trial_index"], row["trial_id"]) for row in trials) == sorted(planned.items())
    ran = {row["trial_index"] for row in trials if row["status"] == "ok"}
    curves = ds.dataset(str(path / "curves")).to_table().to_pylist()
    assert sorted(row["trial_index"] for row in curves) == sorted(ran)
    for row in curves:
        assert row["total"] == list(simulated.curve(row["trial_index"]).total)
    layers = ds.dataset(str(path / "layers")).to_table(["trial_index", "layer"]).to_pylist()
    assert len({(row["trial_index"], row["layer"]) for row in layers}) == len(layers) == 13 * len(ran)
    for row in trials:
        if row["image_path"] is not None:
            assert (path / row["image_path"]).read_bytes() == simulated.image(row["trial_index"])
    assert run.is_complete()
    assert run.directory.list("staging") == []


def test_kills_at_random_moments_lose_and_duplicate_nothing(tmp_path: Path) -> None:
    path, rng = tmp_path / "run", random.Random(7)
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload([__name__])
    with Reader(path) as reader:
        for _ in range(25):
            child = processes.Process(target=write_everything, args=(str(path), 0.02))
            child.start()
            child.join(rng.uniform(0.02, 0.5))  # 25 of these are less than what 600 pauses take
            child.kill()
            child.join()
            assert child.exitcode == -signal.SIGKILL
        write_everything(str(path), 0)
    assert reader.wrong == ""
    assert reader.reads > 5
    assert_exactly_once(path, NUM_TRIALS)


class KilledError(RunDirectoryError):
    """Stands for the process's end at a write."""


def test_a_stop_at_any_write_is_recovered_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the k-th step of a write or removal, for every k, nothing more is done; then all is resumed."""
    calls, fatal = 0, 0

    def dying(real: Callable[..., Any]) -> Callable[..., Any]:
        def method(self: Directory, *arguments: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > fatal:
                raise KilledError("killed")
            done = real(self, *arguments)
            if calls == fatal:
                raise KilledError("killed")
            return done

        return method

    monkeypatch.setattr("os.fsync", lambda _: None)
    for name in ("stage", "move", "remove"):
        monkeypatch.setattr(Directory, name, dying(getattr(Directory, name)))
    while True:
        fatal += 1
        path = tmp_path / str(fatal)
        calls = 0
        try:
            extend_and_retry(path)
            break
        except KilledError:
            pass
        calls = -(10**9)
        extend_and_retry(path)
        assert_exactly_once(path, 34)
    assert fatal > 40


def extend_and_retry(path: Path) -> None:
    """A run in three acts, each of which does only what is still to be done: a plan, an extension, a retry."""
    run = RunDirectory(path)
    with Committer(run, segment_rows=7) as committer:
        if not run.exists():
            committer.write_plan(simulated.STUDY, simulated.trials(18))
        for act in (1, 2, 3):
            if act == 2 and run.num_trials == 18:
                committer.write_plan(simulated.STUDY, simulated.trials(34, start=18))
            if act == 3:
                committer.retry_failed()
            for trial in run.iter_plan(skip=committer.ended):
                unlucky = act < 3 and trial.trial_index % 9 == 4
                result = simulated.failure(trial) if unlucky else simulated.result(trial)
                committer.commit(result if trial.trial_index % 8 == 0 else replace(result, image=None))
            committer.finish()
