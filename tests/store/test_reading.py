"""Reading what is damaged, or was written before there were today's tables and columns."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from nst_batch.errors import RunDirectoryError
from nst_batch.store import tables
from nst_batch.store.committer import Committer
from nst_batch.store.run_directory import RunDirectory
from tests import simulated

ADDED = {"content_mask_uri", "style_mask_uri", "content_mask_sha256", "style_mask_uris", "style_mask_sha256s"}
"""Columns that came with the table `regions`."""


def half_done(path: Path) -> RunDirectory:
    """Of 40 trials 16 are published, 4 staged."""
    run = RunDirectory(path)
    with Committer(run) as committer:
        committer.write_plan(simulated.STUDY | {"study": {}}, simulated.trials(40))
        committer.commit(*map(simulated.result, simulated.trials(20)))
    return run


def without_regions(path: Path) -> RunDirectory:
    """A finished run as it was left before there were regions."""
    run = half_done(path)
    with Committer(run) as committer:
        committer.commit(*map(simulated.result, simulated.trials(40)))
        assert committer.finish()
    for part in (path / "regions").iterdir():
        part.unlink()
    (path / "regions").rmdir()
    for file in [*(path / "plan").iterdir(), *(path / "trials").iterdir()]:
        table = pq.read_table(file)
        pq.write_table(table.drop_columns([name for name in table.column_names if name in ADDED]), file)
    return RunDirectory(path)


def test_a_run_from_before_regions_is_read_without_them(tmp_path: Path) -> None:
    run = without_regions(tmp_path)
    assert run.table("regions").num_rows == 0
    assert run.table("trials")["trial_index"].to_pylist() == list(range(40))
    assert run.table("trials", ["style_mask_uri"])["style_mask_uri"].null_count == 40
    assert run.plan().schema.names == tables.PLAN.names
    assert list(run.iter_plan()) == list(simulated.trials(40))
    assert run.snapshot().paths("regions") == []
    assert len(run.snapshot().paths("layers")) == 3


@pytest.mark.parametrize("key", ["format_version", "num_trials", "configurations"])
def test_a_study_that_lacks_something_is_damaged(tmp_path: Path, key: str) -> None:
    run = half_done(tmp_path)
    run.directory.write("study.json", run.directory.read("study.json").replace(key.encode(), b"x"))
    with pytest.raises(RunDirectoryError, match=rf"study\.json: damaged: it has no {key}"):
        RunDirectory.existing(tmp_path)


@pytest.mark.parametrize("folder", ["plan", "trials", "curves", "layers", "regions", "staging"])
def test_whatever_is_damaged_is_named(tmp_path: Path, folder: str) -> None:
    run, chance, num_found = half_done(tmp_path), random.Random(0), 0
    [path] = [path for path in (tmp_path / folder).iterdir() if path.is_file()]
    whole = path.read_bytes()
    for attempt in range(40):
        damaged = bytearray(whole[: chance.randrange(len(whole))] if attempt % 4 == 0 else whole)
        for at in [chance.randrange(len(damaged)) for _ in range(3)] if damaged else ():
            damaged[at] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        found = error_of(run)
        assert path.name in found or not found
        num_found += bool(found)
    assert num_found > 10, "a flip among numbers is not seen, others are"


def error_of(run: RunDirectory) -> str:
    """What is said when everything is read; empty if nothing is."""
    try:
        for name in tables.SCHEMAS:
            run.table(name)
        list(run.iter_plan())
    except RunDirectoryError as error:
        return str(error)
    return ""
