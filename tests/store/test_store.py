"""The run directory: plan, commit protocol, resuming, extending, retrying and reading."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import polars as pl
import pyarrow.dataset as ds
import pytest

from nst_batch.errors import LockedError, RunDirectoryError
from nst_batch.records import Trial
from nst_batch.store import tables
from nst_batch.store.committer import Committer
from nst_batch.store.run_directory import RunDirectory, image_path, rows_per_part
from tests import simulated


def planned(path: Path, num_trials: int = 40) -> RunDirectory:
    run = RunDirectory(path)
    with Committer(run) as committer:
        committer.write_plan(simulated.STUDY, simulated.trials(num_trials))
    return run


def commit_all(run: RunDirectory, indexes: range, **options: int) -> None:
    with Committer(run, **options) as committer:
        for index in indexes:
            committer.commit(simulated.result(simulated.trial(index)))
        committer.finish()


def globbed(run: RunDirectory, table: str = "trials") -> list[int]:
    """What a stranger sees: the trial_index column by plain glob."""
    if not run.parts():
        return []
    query = f"SELECT trial_index FROM '{run.directory.url(table)}/*.parquet' ORDER BY ALL"
    return [index for (index,) in duckdb.execute(query).fetchall()]


def test_a_plan_comes_back_as_it_was_written(tmp_path: Path) -> None:
    run = planned(tmp_path, 100)
    assert list(run.iter_plan()) == list(simulated.trials(100))
    assert run.num_trials == 100
    assert run.study["fingerprint"] == "f00d"
    assert set(run.configurations) == {made.identity() for made in simulated.CONFIGURATIONS}
    assert run.plan(["trial_index"])["trial_index"].to_pylist() == list(range(100))


def test_a_plan_is_read_without_what_has_ended(tmp_path: Path) -> None:
    run = planned(tmp_path, 100)
    skip = np.ones(100, np.bool_)
    skip[[3, 77]] = False
    assert [trial.trial_index for trial in run.iter_plan(skip=skip)] == [3, 77]


def test_a_plan_has_no_gaps(tmp_path: Path) -> None:
    with Committer(RunDirectory(tmp_path)) as committer, pytest.raises(ValueError, match="expected trial_index 0"):
        committer.write_plan(simulated.STUDY, simulated.trials(5, start=1))


def test_a_plan_that_was_not_finished_does_not_count(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    with Committer(run) as committer, pytest.raises(RunDirectoryError, match="vanished"):
        committer.write_plan(simulated.STUDY, _vanishing())
    assert not run.exists()
    with Committer(run) as committer:
        committer.write_plan(simulated.STUDY, simulated.trials(3))
    assert len(list(run.iter_plan())) == 3


def _vanishing() -> Iterator[Trial]:
    yield simulated.trial(0)
    raise RunDirectoryError("the list of pictures has vanished")


@pytest.mark.parametrize(("trials", "rows"), [(1, 16), (1024, 16), (6400, 100), (10**5, 1000), (10**6, 3906)])
def test_parts_are_about_64_and_neither_tiny_nor_huge(trials: int, rows: int) -> None:
    assert rows_per_part(trials) == rows


def test_parts_appear_when_they_are_whole(tmp_path: Path) -> None:
    run = planned(tmp_path, 40)  # parts of 16, 16 and 8
    with Committer(run) as committer:
        for index in range(31):
            committer.commit(simulated.result(simulated.trial(index)))
        committer.flush()
        assert globbed(run) == list(range(16))
        assert run.table("trials")["trial_index"].to_pylist() == list(range(31))
        assert run.counts() == {"ok": 31, "failed": 0, "diverged": 0, "pending": 9}
        committer.commit(simulated.result(simulated.trial(31)))
        assert not committer.finish()
        assert globbed(run) == globbed(run, "curves") == list(range(32))
        assert not run.is_complete()
    assert run.segment_paths() == []


def test_trials_may_end_in_any_order(tmp_path: Path) -> None:
    run = planned(tmp_path, 100)
    order = np.random.default_rng(0).permutation(100)
    with Committer(run, segment_rows=7) as committer:
        for index in order.tolist():
            committer.commit(simulated.result(simulated.trial(index)))
        assert committer.finish()
    assert globbed(run) == list(range(100))
    assert globbed(run, "layers") == sorted(list(range(100)) * 13)
    assert run.segment_paths() == []
    assert run.is_complete()


def test_a_segment_grows_until_it_is_full(tmp_path: Path) -> None:
    run = planned(tmp_path, 40)
    with Committer(run, segment_rows=4) as committer:
        for count, index in enumerate(range(10), 1):
            committer.commit(simulated.result(simulated.trial(index)))
            committer.flush()
            assert len(run.segment_paths()) == -(-count // 4)


def test_a_result_waits_no_longer_than_it_may(tmp_path: Path) -> None:
    run = planned(tmp_path)
    with Committer(run, flush_seconds=0) as committer:
        committer.commit(simulated.result(simulated.trial(0)))
        assert len(run.segment_paths()) == 1


def test_a_trial_is_committed_once(tmp_path: Path) -> None:
    run = planned(tmp_path)
    with Committer(run) as committer:
        assert committer.commit(simulated.result(simulated.trial(5)))
        assert not committer.commit(simulated.failure(simulated.trial(5)))
    with Committer(run) as committer:
        assert not committer.commit(simulated.result(simulated.trial(5)))
        with pytest.raises(ValueError, match="not in the plan"):
            committer.commit(simulated.result(simulated.trial(40)))
    assert run.table("trials", ["status"]).to_pylist() == [{"status": "ok"}]


def test_run_again_resumes(tmp_path: Path) -> None:
    run = planned(tmp_path)
    commit_all(run, range(20))
    with Committer(run) as committer:
        assert np.flatnonzero(committer.ended).tolist() == list(range(20))
        for trial in run.iter_plan(skip=committer.ended):
            committer.commit(simulated.result(trial))
        assert committer.finish()
    assert globbed(run) == list(range(40))


def test_images_lie_where_the_rows_say(tmp_path: Path) -> None:
    run = planned(tmp_path, 16)
    commit_all(run, range(16))
    for row in run.table("trials", ["trial_id", "trial_index", "image_path", "image_sha256"]).to_pylist():
        assert row["image_path"] == f"images/{row['trial_id'][:2]}/{row['trial_id']}.png"
        assert run.directory.read(row["image_path"]) == simulated.image(row["trial_index"])
    assert image_path("abc", b"\xff\xd8\xff") == "images/ab/abc.jpg"
    assert image_path("abc", b"RIFF\0\0\0\0WEBPVP8 ") == "images/ab/abc.webp"
    assert image_path("abc", b"II*\0") == "images/ab/abc.tif"


def test_failed_trials_are_retried_and_replace_their_rows(tmp_path: Path) -> None:
    run = planned(tmp_path, 20)
    with Committer(run) as committer:
        for trial in run.iter_plan():
            failed = trial.trial_index % 10 == 3
            committer.commit(simulated.failure(trial) if failed else simulated.result(trial))
        assert committer.finish()
    with Committer(run) as committer:
        assert committer.counts() == {"pending": 0, "ok": 18, "failed": 2, "diverged": 0}
        assert committer.retry_failed() == 2
        assert not run.is_complete()
        assert globbed(run) == list(range(20)), "the old rows stay until the new ones are there"
        pending = list(run.iter_plan(skip=committer.ended))
        assert [trial.trial_index for trial in pending] == [3, 13]
        committer.commit(simulated.result(pending[0]))
        committer.flush()
        assert run.table("trials")["trial_index"].to_pylist() == list(range(20))
        assert run.table("trials")["attempt"].to_pylist() == [2 if index == 3 else 1 for index in range(20)]
        assert globbed(run, "curves") == [index for index in range(20) if index not in (3, 13)]
        committer.commit(simulated.failure(pending[1], "again"))
        assert committer.finish()
    assert globbed(run) == list(range(20))
    assert globbed(run, "curves") == [index for index in range(20) if index != 13]
    row = run.table("trials").to_pylist()[13]
    assert (row["attempt"], row["error_message"]) == (2, "again")
    assert run.is_complete()


def test_a_retry_that_was_killed_leaves_the_old_rows(tmp_path: Path) -> None:
    run = planned(tmp_path, 16)
    with Committer(run) as committer:
        for trial in run.iter_plan():
            committer.commit(simulated.failure(trial))
        committer.finish()
    with Committer(run) as committer:
        committer.retry_failed()
    with Committer(run) as committer:
        assert committer.counts()["failed"] == 16
        assert committer.finish()


def test_an_extension_goes_on_in_the_last_part(tmp_path: Path) -> None:
    run = planned(tmp_path, 20)
    commit_all(run, range(20))
    with Committer(run) as committer:
        committer.write_plan(simulated.STUDY | {"fingerprint": "beef"}, simulated.trials(50, start=20))
        assert not run.is_complete()
        assert globbed(run) == list(range(20))
        assert committer.counts()["pending"] == 30
    assert run.study["fingerprint"] == "beef"
    assert list(run.iter_plan()) == list(simulated.trials(50))
    commit_all(run, range(20, 50))
    assert globbed(run) == globbed(run, "curves") == list(range(50))
    assert run.is_complete()


def test_a_file_is_no_run_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirectoryError, match="choose another --out"), Committer(RunDirectory(tmp_path / "file")):
        pass


def test_there_is_one_writer(tmp_path: Path) -> None:
    run = planned(tmp_path)
    with Committer(run), pytest.raises(LockedError, match="pid"), Committer(RunDirectory(tmp_path)):
        pass


def test_a_writer_that_lost_its_lock_writes_nothing_more(tmp_path: Path) -> None:
    run = planned(tmp_path)
    committer = Committer(run)
    with committer:
        for trial in run.iter_plan():
            committer.commit(replace(simulated.result(trial), image=None))
        (tmp_path / "lock").rename(tmp_path / "taken")
        with pytest.raises(LockedError, match="removed or replaced"):
            committer.flush()
        with pytest.raises(LockedError, match="removed or replaced"):
            committer.write_progress({"done": 3})
        assert run.progress() is None
        assert run.parts() == run.segment_paths() == []
        (tmp_path / "taken").rename(tmp_path / "lock")
    assert globbed(run) == list(range(40)), "a failed flush can be done again"


def test_damage_is_named(tmp_path: Path) -> None:
    run = planned(tmp_path, 16)
    commit_all(run, range(16))
    (tmp_path / "trials" / "part-00000.parquet").write_bytes(b"PAR1 but not really PAR1")
    with pytest.raises(RunDirectoryError, match=r"part-00000\.parquet: damaged"):
        run.table("trials")
    (tmp_path / "staging" / "segment-aa-000001.arrow").write_bytes(b"nonsense")
    with pytest.raises(RunDirectoryError, match=r"segment-aa-000001\.arrow: damaged"):
        run.snapshot()


def test_progress_is_kept(tmp_path: Path) -> None:
    run = planned(tmp_path)
    assert run.progress() is None
    with Committer(run) as committer:
        committer.write_progress({"done": 3})
        with pytest.raises(ValueError):
            committer.write_progress({"rate": float("nan")})
    assert run.progress() == {"done": 3}


def test_results_of_an_interrupted_run_are_flushed(tmp_path: Path) -> None:
    run = planned(tmp_path)
    committer = Committer(run)
    with pytest.raises(KeyboardInterrupt), committer:
        raise KeyboardInterrupt(committer.commit(simulated.result(simulated.trial(0))))
    assert run.counts()["ok"] == 1


@pytest.mark.parametrize("name", ["trials", "curves", "layers"])
def test_every_reader_reads_every_column_by_plain_glob(tmp_path: Path, name: str) -> None:
    run = planned(tmp_path, 40)
    commit_all(run, range(40))
    pattern, schema = f"{tmp_path}/{name}/*.parquet", tables.SCHEMAS[name]
    rows = run.table(name).num_rows
    assert rows == 40 * (13 if name == "layers" else 1)
    relation = duckdb.sql(f"SELECT * FROM '{pattern}'")
    assert relation is not None
    assert (relation.columns, relation.to_arrow_table().num_rows) == (schema.names, rows)
    dataset = ds.dataset(str(tmp_path / name)).to_table()
    assert dataset.schema.equals(schema)
    frame = pl.read_parquet(pattern)
    assert (frame.columns, frame.height) == (schema.names, rows)
    pandas = pd.read_parquet(tmp_path / name)
    assert (list(pandas.columns), len(pandas)) == (schema.names, rows)
    assert dataset.sort_by("trial_index").equals(run.table(name).cast(schema))
    assert {path.suffix for path in (tmp_path / name).iterdir()} == {".parquet"}


def test_a_part_with_newer_staged_rows_is_in_the_rest_of_a_snapshot(tmp_path: Path) -> None:
    run = planned(tmp_path, 32)
    with Committer(run) as committer:
        for trial in run.iter_plan():
            committer.commit(simulated.failure(trial) if trial.trial_index in (3, 5) else simulated.result(trial))
        committer.flush()
        committer.retry_failed()
        committer.commit(simulated.result(simulated.trial(3)))
        committer.flush()
        snapshot = run.snapshot()
        assert snapshot.paths("curves") == ["curves/part-00001.parquet"]
        assert snapshot.rest("curves")["trial_index"].to_pylist() == [i for i in range(16) if i != 5]
        assert snapshot.rest("trials")["attempt"].to_pylist() == [2 if i == 3 else 1 for i in range(16)]
        assert snapshot.table("layers", ["layer"]).num_rows == 31 * 13
