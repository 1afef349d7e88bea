"""Everything that reaches the terminal: lines, notes, rows as a table for people or as JSON, CSV or Parquet.

What comes from outside (names of files, messages of other programs) neither steers the terminal nor shows a secret
of a URL: see `printable`.
"""

from __future__ import annotations

import io
import json
import re
import sys
import textwrap
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from nst_batch.errors import QueryError, without_secrets
from nst_batch.records import storable
from nst_batch.results.labels import layer_set

if TYPE_CHECKING:
    import pyarrow as pa
    from rich.table import Table

_SHOWN_ITEMS = 4
TERMINAL_ROWS = 1000
"""A person reads no more, and a terminal takes minutes for a hundred thousand."""
_LEAST_WIDTH, _GAP = 16, 2
"""Of a column before others are left out, and between columns; the widest are folded first."""
_NOTHING = "–"
_UNPRINTABLE = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but tab and newline, characters that turn the direction of writing, halves of characters."""


def printable(text: str) -> str:
    r"""`text` without secrets of URLs, and with its control characters as escapes such as `\x1b`."""
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], without_secrets(text))


def print_line(text: str) -> None:
    """A line of the answer, on stdout."""
    sys.stdout.write(f"{printable(text)}\n")


def print_note(text: str) -> None:
    """A line for the person, on stderr."""
    sys.stderr.write(f"{printable(text)}\n")
    sys.stderr.flush()


def print_json(value: Any) -> None:
    """One JSON document on stdout, without NaN or infinities: they become null."""
    sys.stdout.write(_json(value))


def print_rows(
    rows: pa.Table,
    format: Literal["table", "json", "csv", "parquet"] = "table",
    output: Path | None = None,
    *,
    upright: bool = False,
) -> None:
    """Writes rows to stdout, or to `output`.

    Args:
        upright: As a table, each row's columns below each other; as JSON, one object instead of a list.
    """
    if output is None and format == "parquet" and sys.stdout.isatty():
        raise QueryError("Parquet is not for a terminal: give --output FILE, or redirect it to one")
    if format in ("csv", "parquet"):
        data = _file(rows, format)
    elif format == "json":
        values = rows.to_pylist()
        data = _json(values[0] if upright and values else values).encode()
    else:
        data = _table(rows, upright).encode()
    if output is not None:
        try:
            output.write_bytes(data)
        except OSError as error:
            raise QueryError(f"{output}: cannot be written: {error.strerror}") from error
    elif sys.stdout.isatty() or not hasattr(sys.stdout, "buffer"):
        sys.stdout.write(data.decode() if format == "table" else printable(data.decode()))
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


def _json(value: Any) -> str:
    text = json.dumps(storable(value), indent=2, ensure_ascii=False, allow_nan=False, default=_as_json)
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n"


def _as_json(value: Any) -> Any:
    """What JSON has no word for: times in ISO 8601, decimals as numbers, bytes in hexadecimal."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return value.hex() if isinstance(value, bytes) else str(value)


def _file(rows: pa.Table, format: Literal["csv", "parquet"]) -> bytes:
    import pyarrow.csv
    import pyarrow.parquet

    from nst_batch.results.export import plain_columns

    sink = io.BytesIO()
    try:
        if format == "csv":
            pyarrow.csv.write_csv(plain_columns(rows), sink)
        else:
            pyarrow.parquet.write_table(rows, sink, compression="zstd")
    except pyarrow.ArrowException as error:  # of intervals and the like
        raise QueryError(f"it cannot be written as {format}: {error}; cast the column to text") from error
    return sink.getvalue()


def _table(rows: pa.Table, upright: bool) -> str:
    """A table as wide as the terminal, of the first rows; where there is none, as wide as its content, of all."""
    from rich.console import Console

    on_terminal = sys.stdout.isatty()
    console = Console(file=io.StringIO(), force_terminal=on_terminal, width=None if on_terminal else 10_000)
    shown = rows.slice(0, TERMINAL_ROWS) if on_terminal else rows
    table, left_out = (_upright(shown), []) if upright else _grid(shown, console.width, split_names=on_terminal)
    with console.capture() as capture:
        console.print(table)
    lines = [line.rstrip() for line in capture.get().splitlines()]
    if left_out:
        lines += textwrap.wrap(f"not shown: {', '.join(left_out)}; --format json shows all", console.width)
    if len(shown) < len(rows):
        more = f"these are the first {len(shown):,} of {len(rows):,} rows; --format csv shows all"
        lines += textwrap.wrap(more, console.width)
    return "".join(f"{line}\n" for line in lines)


def _upright(rows: pa.Table) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for row in rows.to_pylist():
        for name, value in row.items():
            table.add_row(Text(printable(name)), Text(cell(value)))
    return table


def _grid(rows: pa.Table, width: int, *, split_names: bool) -> tuple[Table, list[str]]:
    """Rows below a header, and the names of the columns that were left out.

    Texts are folded where that makes all columns fit; else columns without a value go, then the last ones.
    """
    from rich.box import SIMPLE_HEAD
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    names = rows.schema.names
    columns = [
        [printable(name.replace("_", "_\n") if split_names else name), *map(cell, values.to_pylist())]
        for name, values in zip(names, rows.columns, strict=True)
    ]
    needed = [max(cell_len(line) for text in column for line in text.split("\n")) for column in columns]
    shown = list(range(len(names)))  # names may be equal

    def fits() -> bool:
        return sum(min(needed[each], _LEAST_WIDTH) + _GAP for each in shown) - _GAP <= width

    if not fits():
        shown = [each for each in shown if set(columns[each][1:]) != {_NOTHING}]
    while len(shown) > 1 and not fits():
        shown.pop()
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, collapse_padding=True)
    for each in shown:
        numeric = str(rows.schema.types[each]).startswith(("int", "uint", "double", "float", "decimal"))
        justify: Literal["left", "right"] = "right" if numeric else "left"
        table.add_column(Text(columns[each][0]), justify=justify, overflow="fold")
    for texts in zip(*(columns[each][1:] for each in shown), strict=True):
        table.add_row(*map(Text, texts))
    return table, [name for each, name in enumerate(names) if each not in shown]


def cell(value: Any) -> str:
    """A value in few characters, for people."""
    if value is None:
        return _NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    if isinstance(value, dict):
        return "  ".join(f"{printable(name)} {cell(each)}" for name, each in value.items())
    return _list_cell(value) if isinstance(value, list) else printable(str(value))


def _list_cell(values: list[Any]) -> str:
    """Layers as their short name, rows in columns, of anything else the first few."""
    if values and all(isinstance(each, str) for each in values):
        return printable(layer_set(values))
    if values and all(isinstance(each, dict) for each in values):
        lines = [[*map(printable, values[0])], *([cell(value) for value in row.values()] for row in values)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
    more = ["…"] if len(values) > _SHOWN_ITEMS else []
    return f"[{', '.join([*map(cell, values[:_SHOWN_ITEMS]), *more])}]"
