"""The commands that ask a run, on the examples' run directory `runs/w7`."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.main import get_command
from typer.testing import CliRunner, Result

from nst_batch.cli import app
from nst_batch.errors import NstBatchError
from nst_batch.store.committer import Committer
from nst_batch.store.run_directory import RunDirectory
from tests import simulated, small_run

COMMANDS = ("query", "show", "rank", "report", "export", "status")
LAYERS = ("block1_conv1", "block4_conv1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the examples' `runs/w7` exists."""
    folder = tmp_path_factory.mktemp("cli")
    contents = small_run.inputs(folder / "photos", [f"photo {number}.png" for number in range(6)])
    style = small_run.inputs(folder / "paintings", ["[bold]<i>.png"])
    chosen = small_run.configurations(*({"content_layers": (layer,)} for layer in LAYERS))
    trials = list(small_run.plan(contents, [style], chosen))
    small_run.write(folder / "runs" / "w7", trials, failing=[1])
    return folder


@pytest.fixture(autouse=True)
def _here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def call(*arguments: str) -> Result:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=True)
    if result.exception and not isinstance(result.exception, NstBatchError | SystemExit):
        raise result.exception
    return result


def rows_of(*arguments: str) -> Any:
    result = call(*arguments, "--format", "json")
    assert result.exit_code == 0
    return json.loads(result.stdout, parse_constant=lambda name: pytest.fail(f"found {name}"))


@pytest.mark.parametrize("name", COMMANDS)
def test_the_example_in_the_help_runs(name: str) -> None:
    epilog = get_command(app).commands[name].epilog  # type: ignore[attr-defined]
    example = shlex.split(epilog.removeprefix("Example: "))
    assert example[:2] == ["nst-batch", name]
    result = call(*example[1:])
    assert result.exit_code == 0
    assert result.stdout


@pytest.mark.parametrize(
    "arguments", [("query", "FROM trials"), ("show",), ("show", "0"), ("rank",), ("status",)], ids=" ".join
)
def test_rows_in_every_format(arguments: tuple[str, ...], tmp_path: Path) -> None:
    arguments = (arguments[0], "runs/w7", *arguments[1:])
    values = rows_of(*arguments)
    names = list(values[0] if isinstance(values, list) else values)
    text = call(*arguments, "--format", "csv").stdout
    assert next(csv.reader(io.StringIO(text))) == names
    table = call(*arguments).stdout
    assert all(name in table for name in names)
    for format in ("json", "csv", "table"):
        output = tmp_path / format
        result = call(*arguments, "--format", format, "--output", str(output))
        assert (result.exit_code, result.stdout) == (0, "")
        assert output.stat().st_size


def test_a_query_may_be_parquet(tmp_path: Path) -> None:
    sql = "SELECT trial_index, content_layers, started_at FROM trials ORDER BY 1"
    call("query", "runs/w7", sql, "--format", "parquet", "--output", str(tmp_path / "a.parquet"))
    table = pq.read_table(tmp_path / "a.parquet")
    assert table["trial_index"].to_pylist() == list(range(12))
    assert str(table.schema.field("started_at").type) == "timestamp[us, tz=UTC]"


def test_json_never_holds_nan() -> None:
    [row] = rows_of(
        "query", "runs/w7", "SELECT 'nan'::DOUBLE AS a, ['inf'::FLOAT] AS b, 1::HUGEINT AS c, 1.5::DECIMAL AS d"
    )
    assert row == {"a": None, "b": [None], "c": 1, "d": 1.5}


def test_file_names_are_text_not_markup() -> None:
    assert "[bold]<i>.png" in call("show", "runs/w7").stdout


def test_mistakes_exit_with_2_and_say_what_can_be_asked() -> None:
    result = call("query", "runs/w7", "SELECT nope FROM trials")
    assert isinstance(result.exception, NstBatchError)
    assert result.exception.exit_code == 2
    assert "final_content_loss" in str(result.exception)


def test_show_finds_a_trial_by_id_beginning_and_index() -> None:
    [first, *_] = rows_of("show", "runs/w7")
    for name in (first["trial_id"], first["trial_id"][:10], "0"):
        shown = rows_of("show", "runs/w7", name)
        assert shown["trial_id"] == first["trial_id"]
        assert len(shown["layers"]) == 13
        assert shown["curve"]["step"] == list(range(11))
    assert rows_of("show", "runs/w7", "1")["curve"] is None
    for unknown in ("zz", "999", "x' OR 1=1"):
        assert isinstance(call("show", "runs/w7", unknown).exception, NstBatchError)


def test_show_lists_what_fits() -> None:
    rows = rows_of("show", "runs/w7", "--where", "content_layer = 'block4_conv1' AND status = 'ok'")
    assert [row["trial_index"] for row in rows] == [3, 5, 7, 9, 11]


def test_notes_are_not_data() -> None:
    result = call("rank", "runs/w7", "--format", "json")
    assert "RANDOM weights" in result.stderr
    json.loads(result.stdout)


def test_status_while_it_runs_and_after(tmp_path: Path) -> None:
    status = rows_of("status", "runs/w7")
    assert (status["trials"], status["ok"], status["failed"], status["pending"]) == (12, 11, 1, 0)
    assert status["complete"] is True
    contents = small_run.inputs(tmp_path / "photos", ["a.png"])
    trials = list(small_run.plan(contents, [contents], small_run.configurations({"alpha": 1.0}, {"alpha": 2.0})))
    small_run.write(tmp_path / "run", trials, pending=[1])
    status = rows_of("status", str(tmp_path / "run"))
    assert (status["complete"], status["pending"]) == (False, 1)
    assert "goes on where it stopped" in call("status", str(tmp_path / "run")).stderr


def test_watch_waits_for_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nst_batch.cli.answers.WATCH_SECONDS", 0.05)
    with Committer(RunDirectory(tmp_path)) as committer:
        committer.write_plan(simulated.STUDY, simulated.trials(2))
        committer.commit(simulated.result(simulated.trial(0)))

        def end() -> None:
            time.sleep(0.3)
            committer.commit(simulated.result(simulated.trial(1)))
            committer.finish()

        thread = threading.Thread(target=end)
        thread.start()
        result = call("status", str(tmp_path), "--watch", "--format", "json")
        thread.join()
    assert json.loads(result.stdout)["complete"] is True


def test_what_is_no_run_is_said_so(tmp_path: Path) -> None:
    for command in (["rank"], ["show"], ["report"], ["status"], ["query", "SELECT 1"]):
        result = call(command[0], str(tmp_path), *command[1:])
        assert isinstance(result.exception, NstBatchError)
        assert re.search("not a run directory", str(result.exception))
