"""Nothing that comes from outside steers a terminal, and programs read back what was printed."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import subprocess
import sys
from typing import Literal

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nst_batch.cli.printing import TERMINAL_ROWS, print_json, print_line, print_note, print_rows, printable
from nst_batch.errors import QueryError

EVIL = "\x1b[2J\x9b31m\x07\x7f\u202egnp.\r"


@given(st.text())
def test_what_is_printable_cannot_steer_a_terminal(text: str) -> None:
    shown = printable(text)
    assert not re.search("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", shown)
    shown.encode()  # raises if a surrogate is left
    assert printable(shown) == shown


def test_ordinary_text_stays_as_it_is() -> None:
    text = "é 日本 👩‍🎨 – line\n\ttab \\ [bold]"
    assert printable(text) == text
    assert printable("a\x1b[0m\udcff") == r"a\x1b[0m\udcff"


@pytest.mark.parametrize("format", ["table", "json"])
@pytest.mark.parametrize("upright", [False, True])
def test_rows_for_the_terminal_hold_no_control_characters(
    format: Literal["table", "json"], upright: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    print_rows(pa.table({"content_uri": [EVIL], "names": [[EVIL]], EVIL: [{EVIL: EVIL}]}), format, upright=upright)
    print_json({"name": EVIL})
    print_line(EVIL)
    print_note(EVIL)
    out, err = capsys.readouterr()
    assert printable(out) == out
    assert printable(err) == err


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_what_a_format_cannot_hold_is_an_error_of_ours(
    format: Literal["csv", "parquet"], capsys: pytest.CaptureFixture[str]
) -> None:
    day = pa.array([pa.MonthDayNano([0, 1, 0])])
    with pytest.raises(QueryError, match=f"cannot be written as {format}"):
        print_rows(pa.table({"length": day}), format)
    assert capsys.readouterr().out == ""


def test_json_reads_back_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"name": EVIL, "values": (1.5, float("nan"))})
    assert json.loads(capsys.readouterr().out) == {"name": EVIL, "values": [1.5, None]}


def on_terminal(rows: pa.Table, columns: int) -> list[str]:
    """What a terminal of so many columns is given."""
    script = "import sys, pyarrow as pa; from nst_batch.cli.printing import print_rows\n"
    script += f"print_rows(pa.ipc.open_stream(bytes.fromhex({stream(rows).hex()!r})).read_all())"
    ours, theirs = pty.openpty()
    environment = os.environ | {"COLUMNS": str(columns), "TERM": "xterm"}
    with open(ours, "rb", buffering=0) as screen:  # noqa: PTH123 (a descriptor)
        process = subprocess.Popen([sys.executable, "-c", script], stdout=theirs, env=environment)
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # Linux says so at the end
            while chunk := screen.read(4096):
                shown += chunk
        assert process.wait() == 0
    return re.sub(r"\x1b\[[\d;]*m", "", shown.decode()).splitlines()


def stream(rows: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    return bytes(sink.getvalue())


WIDE = pa.table(
    [["layer"], ["x" * 100], [None], [0.5], ["y" * 10]], names=["a_name", "text", "empty", "number", "number"]
)


def test_a_table_fits_its_terminal() -> None:
    for columns in (20, 30, 50, 80, 200):
        shown = on_terminal(WIDE, columns)
        assert max(map(len, shown)) <= columns, columns
        assert shown[0].split()[0] == "a_"
    assert "not shown" not in " ".join(on_terminal(WIDE, 50))
    assert "not shown: empty;" in " ".join(on_terminal(WIDE, 44)[-2:])
    assert " ".join(on_terminal(WIDE, 24)).endswith("not shown: empty, number, number; --format json shows all")


def test_a_terminal_is_given_the_first_rows_of_many_and_a_file_all(capsys: pytest.CaptureFixture[str]) -> None:
    many = pa.table({"number": pa.array(range(TERMINAL_ROWS + 5), pa.int32())})
    shown = on_terminal(many, 80)
    assert shown[-2].split() == [str(TERMINAL_ROWS - 1)]
    assert shown[-1] == "these are the first 1,000 of 1,005 rows; --format csv shows all"
    assert not any("first" in line for line in on_terminal(many.slice(5), 80))
    print_rows(many)
    assert capsys.readouterr().out.split()[-1] == str(TERMINAL_ROWS + 4)
