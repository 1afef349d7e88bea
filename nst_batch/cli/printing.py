"""Rows on stdout or in a file, as a table for people or as JSON, CSV or Parquet for programs."""

from __future__ import annotations

import io
import json
import sys
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from nst_batch.errors import QueryError
from nst_batch.records import finite
from nst_batch.results.labels import layer_set

if TYPE_CHECKING:
    import pyarrow as pa

Format = Literal["table", "json", "csv", "parquet"]

_SHOWN_ITEMS = 4


def print_rows(
    rows: pa.Table, format: Format = "table", output: Path | None = None, *, upright: bool = False
) -> None:
    """Writes rows to stdout, or to `output`.

    Args:
        upright: As a table, each row's columns below each other; as JSON, one object instead of a list.

    Raises:
        QueryError: `output` cannot be written, or Parquet was to go to a terminal.
    """
    data = encoded(rows, format, upright=upright)
    if output is not None:
        try:
            output.write_bytes(data)
        except OSError as error:
            raise QueryError(f"{output}: cannot be written: {error.strerror}") from error
        return
    if format == "parquet" and sys.stdout.isatty():
        raise QueryError("Parquet is not for a terminal: give --output FILE, or redirect it to one")
    binary = getattr(sys.stdout, "buffer", None)
    if binary is None:
        sys.stdout.write(data.decode(errors="replace"))
        return
    sys.stdout.flush()
    binary.write(data)
    binary.flush()


def encoded(rows: pa.Table, format: Format, *, upright: bool = False) -> bytes:
    """Rows in a format; text is UTF-8."""
    if format == "json":
        values = finite([{name: _plain(value) for name, value in row.items()} for row in rows.to_pylist()])
        text = json.dumps(
            values[0] if upright and values else values, indent=2, ensure_ascii=False, allow_nan=False
        )
        return f"{text}\n".encode()
    if format == "table":
        return _drawn(rows, upright).encode()
    sink = io.BytesIO()
    if format == "csv":
        import pyarrow.csv

        from nst_batch.results.export import plain_columns

        pyarrow.csv.write_csv(plain_columns(rows), sink)
    else:
        import pyarrow.parquet

        pyarrow.parquet.write_table(rows, sink, compression="zstd")
    return sink.getvalue()


def cell(value: Any) -> str:
    """A value in few characters, for people."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    if isinstance(value, dict):
        return "  ".join(f"{name} {cell(each)}" for name, each in value.items())
    if isinstance(value, list):
        if value and all(isinstance(each, dict) for each in value):
            return "\n".join(map(cell, value))
        if value and all(isinstance(each, str) for each in value):
            return layer_set(value)
        more = ["…"] if len(value) > _SHOWN_ITEMS else []
        return f"[{', '.join([*map(cell, value[:_SHOWN_ITEMS]), *more])}]"
    return str(value)


def _plain(value: Any) -> Any:
    """A value as JSON has it: times in ISO 8601, decimals as numbers, bytes in hexadecimal."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value if value is None or isinstance(value, str | int | float) else str(value)


def _drawn(rows: pa.Table, upright: bool) -> str:
    """A table as wide as the terminal; as wide as its content where there is none."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None if upright else SIMPLE_HEAD, show_header=not upright, pad_edge=False, show_edge=False)
    if upright:
        table.add_column()
        table.add_column(overflow="fold")
        for row in rows.to_pylist():
            for name, value in row.items():
                table.add_row(Text(name, style="dim"), Text(cell(value)))
    else:
        for field in rows.schema:
            numeric = str(field.type).startswith(("int", "uint", "double", "float", "decimal"))
            table.add_column(Text(field.name), justify="right" if numeric else "left", overflow="fold")
        for row in rows.to_pylist():
            table.add_row(*(Text(cell(value)) for value in row.values()))
    on_terminal = sys.stdout.isatty()
    console = Console(file=io.StringIO(), force_terminal=on_terminal, width=None if on_terminal else 10_000)
    with console.capture() as capture:
        console.print(table)
    return "".join(f"{line.rstrip()}\n" for line in capture.get().splitlines())
