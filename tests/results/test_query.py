from __future__ import annotations

import json
import threading
from pathlib import Path

import pyarrow as pa
import pytest

from nst_batch.errors import QueryError, RunDirectoryError
from nst_batch.results import query as module
from nst_batch.results.query import Session, listed, query
from nst_batch.store import tables
from nst_batch.store.committer import Committer
from nst_batch.store.run_directory import RunDirectory
from tests import simulated, small_run
from tests.object_store import bucket

__all__ = ["bucket"]


def run_of(path: Path | str, ended: int, planned: int = 100) -> RunDirectory:
    """A run of which the first trials have ended: parts of 16 are published, the rest is staged."""
    with Committer(RunDirectory(path)) as committer:
        committer.write_plan(simulated.STUDY, simulated.trials(planned))
        for trial in simulated.trials(ended):
            committer.commit(simulated.result(trial))
        committer.finish()
    return RunDirectory(path)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return run_of(tmp_path_factory.mktemp("query") / "it's a run", 40)


@pytest.mark.parametrize("ended", [0, 5, 16, 40, 100])
def test_every_trial_is_seen_once_at_any_moment(tmp_path: Path, ended: int) -> None:
    run = run_of(tmp_path, ended)
    with Session(run) as session:
        for name in ("trials", "curves"):
            answer = session.query(f"SELECT trial_index FROM {name} ORDER BY 1")
            assert answer["trial_index"].to_pylist() == list(range(ended))
        assert session.query("SELECT count(*) AS n FROM layers")["n"].to_pylist() == [13 * ended]


def test_a_staged_retry_replaces_the_published_row(tmp_path: Path) -> None:
    with Committer(RunDirectory(tmp_path)) as committer:
        committer.write_plan(simulated.STUDY, simulated.trials(16))
        committer.commit(simulated.failure(simulated.trial(0)))
        for trial in simulated.trials(16, start=1):
            committer.commit(simulated.failure(trial))
        committer.finish()
        committer.retry_failed()
        committer.commit(simulated.result(simulated.trial(3)))
    run = RunDirectory(tmp_path)
    assert run.snapshot().parts
    assert run.snapshot().segment.num_rows == 1
    answer = query(run, "SELECT trial_index, status, attempt FROM trials ORDER BY 1").to_pylist()
    assert len(answer) == 16
    assert answer[3] == {"trial_index": 3, "status": "ok", "attempt": 2}
    assert query(run, "SELECT trial_index FROM curves").to_pylist() == [{"trial_index": 3}]


def test_answers_equal_the_tables(run: RunDirectory) -> None:
    for name in tables.SCHEMAS:
        stored = run.table(name)
        columns = ", ".join(stored.schema.names)
        answer = query(run, f"SELECT {columns} FROM {name} ORDER BY trial_index").to_pylist()
        assert answer == stored.to_pylist()


def test_layer_lists_are_also_text(run: RunDirectory) -> None:
    answer = query(run, "SELECT DISTINCT content_layer, style_layer FROM trials").to_pylist()
    assert answer == [{"content_layer": "block4_conv2", "style_layer": "block1_conv1 + block2_conv1"}]


def test_a_path_with_brackets_is_a_path(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run [1]*", 20)
    assert query(run, "SELECT count(*) AS n FROM trials").to_pylist() == [{"n": 20}]


def test_an_object_store_is_queried_like_a_disk() -> None:
    run = run_of("memory://bucket/run", 40)
    with Session(run) as session:
        assert session.query("SELECT count(*) AS n FROM trials").to_pylist() == [{"n": 40}]
        last = session.query("SELECT curves.total[-1] AS last FROM curves WHERE trial_index = 39").to_pylist()
        assert last == [{"last": simulated.curve(39).total[-1]}]


@pytest.mark.filterwarnings("ignore::DeprecationWarning:botocore")
def test_s3_is_queried_like_a_disk(bucket: str) -> None:
    run = run_of(f"{bucket}/run", 40)
    assert query(run, "SELECT count(*) AS n FROM curves").to_pylist() == [{"n": 40}]


def test_queries_are_answered_while_a_run_writes(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    seen: list[int] = []
    with Committer(run, flush_seconds=0.1) as committer:
        committer.write_plan(simulated.STUDY, simulated.trials(300))
        done = threading.Event()

        def read() -> None:
            while not done.is_set():
                answer = query(run, "SELECT count(*) AS n, count(DISTINCT trial_id) AS ids FROM trials").to_pylist()
                assert answer[0]["n"] == answer[0]["ids"]
                seen.append(answer[0]["n"])

        reader = threading.Thread(target=read)
        reader.start()
        for trial in simulated.trials(300):
            committer.commit(simulated.result(trial))
        done.set()
        reader.join()
    assert seen == sorted(seen)


# Mistakes


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT nope FROM trials", "nope"),
        ("SELECT * FROM trial", "trial"),
        ("SELEC 1", "syntax error"),
        ("SELECT 1/'x'", "Conversion Error"),
        ("", "found nothing"),
        ("SELECT 1; SELECT 2", "found SELECT, SELECT"),
    ],
)
def test_mistakes_are_explained(run: RunDirectory, sql: str, message: str) -> None:
    with pytest.raises(QueryError, match=message):
        query(run, sql)


def test_a_mistake_shows_what_can_be_asked(run: RunDirectory) -> None:
    with pytest.raises(QueryError) as caught:
        query(run, "SELECT final_loss FROM trials")
    text = str(caught.value)
    for word in ("trials:", "curves:", "layers:", "final_content_loss", "content_layer", "best_step"):
        assert word in text
    assert "pg_" not in text


def test_what_is_no_run_cannot_be_queried(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="not a run directory"):
        query(RunDirectory(tmp_path / "none"), "SELECT 1")


# Locked down


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('{other}')",
        "SELECT * FROM '{other}'",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM glob('/etc/*')",
        "SELECT * FROM read_parquet('{root}/plan/*.parquet')",
        "SELECT * FROM read_json('{root}/study.json')",
        "SELECT * FROM read_csv('https://example.com/x.csv')",
        "COPY trials TO '{root}/trials/part-00000.parquet' (FORMAT parquet, USE_TMP_FILE false)",
        "COPY trials TO '{root}/new.csv'",
        "EXPLAIN ANALYZE COPY trials TO '{root}/new.csv'",
        "EXPORT DATABASE '{root}/new'",
        "ATTACH '{root}/new.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SET allowed_directories = ['/']",
        "DROP VIEW trials",
        "CREATE TABLE x AS SELECT 1",
        "PRAGMA database_list",
    ],
)
def test_a_query_touches_nothing_else(run: RunDirectory, tmp_path: Path, sql: str) -> None:
    other = tmp_path / "other.csv"
    other.write_text("a\n1\n")
    root = Path(run.directory.root)
    before = sorted(path for path in root.rglob("*"))
    with pytest.raises(QueryError):
        query(run, sql.format(other=other, root=str(root).replace("'", "''")))
    assert sorted(path for path in root.rglob("*")) == before
    assert query(run, "SELECT count(*) AS n FROM trials").to_pylist() == [{"n": 40}]


def test_variables_of_the_program_are_not_tables(run: RunDirectory) -> None:
    secret = pa.table({"a": [1]})
    with pytest.raises(QueryError):
        query(run, "SELECT * FROM secret")
    assert secret.num_rows == 1


def test_times_need_no_further_package(run: RunDirectory) -> None:
    answer = query(run, "SELECT started_at, hour(started_at) AS hour FROM trials LIMIT 1")
    assert answer.schema.field("started_at").type == pa.timestamp("us", tz="UTC")
    assert answer["hour"].to_pylist() == [simulated.STARTED.hour]


def test_a_damaged_part_is_an_error_of_ours(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", 32)
    part = Path(run.directory.root) / "curves" / "part-00000.parquet"
    part.write_bytes(b"PAR1 not at all")
    with pytest.raises(RunDirectoryError, match="curves cannot be read"):
        query(run, "SELECT * FROM curves")


def test_the_columns_are_those_described(run: RunDirectory) -> None:
    for name, columns in module.describe().items():
        assert query(run, f"FROM {name} LIMIT 0").schema.names == columns
    assert json.loads(json.dumps(module.describe()))


def test_a_list_names_masks_where_these_alone_tell_trials_apart(tmp_path: Path) -> None:
    [content, style] = small_run.inputs(tmp_path, ["c.png", "s.png"])
    one, other = (
        small_run.masked(content, tmp_path / f"{name}.png", color)
        for name, color in (("face", "red"), ("sky", "blue"))
    )
    for name, contents in (("alike", [one]), ("apart", [one, other, content])):
        trials = list(small_run.plan(contents, [[style]], small_run.configurations({})))
        rows = listed(small_run.write(tmp_path / name, trials))
        assert "style_mask_uri" not in rows.schema.names
        assert ("content_mask_uri" in rows.schema.names) == (name == "apart")
    assert [Path(mask or "none").stem for mask in rows["content_mask_uri"].to_pylist()] == ["face", "sky", "none"]
