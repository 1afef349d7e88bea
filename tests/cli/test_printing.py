"""Nothing that comes from outside steers a terminal, and programs read back what was printed."""

from __future__ import annotations

import json
import re
from typing import Literal

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nst_batch.cli.printing import print_json, print_line, print_note, print_rows, printable

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
    print_rows(pa.table({"content_uri": [EVIL], "names": [[EVIL]]}), format, upright=upright)
    print_json({"name": EVIL})
    print_line(EVIL)
    print_note(EVIL)
    out, err = capsys.readouterr()
    assert printable(out) == out
    assert printable(err) == err


def test_json_reads_back_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"name": EVIL, "values": (1.5, float("nan"))})
    assert json.loads(capsys.readouterr().out) == {"name": EVIL, "values": [1.5, None]}
