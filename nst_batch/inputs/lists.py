"""List files: `.csv`, `.jsonl` and `.parquet` tables with a column of picture URIs, local or not."""

from __future__ import annotations

import io
import posixpath
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from nst_batch.inputs.fetching import read_bytes


def rows(source: str, columns: Sequence[str]) -> Iterator[dict[str, str]]:
    """The rows of a list file in order, each with `columns` as URIs; other columns are ignored.

    Relative paths start from the list's folder. Rows without any of the columns are skipped.

    Raises:
        ImageError: The file cannot be read.
        ValueError: It is not such a table, lacks a column, or a row lacks one of several columns.
    """
    data = read_bytes(source)
    suffix = Path(urlsplit(source).path).suffix.lower()
    table = _table(data, suffix, columns)
    missing = [name for name in columns if name not in table.column_names]
    if missing:
        found = ", ".join(table.column_names)
        raise ValueError(f"expected a column {missing[0]!r}, found {found}")
    for number, row in enumerate(table.select(list(columns)).to_pylist(), 1):
        if not any(row.values()):
            continue
        for name, value in row.items():
            if not isinstance(value, str) or not value:
                raise ValueError(f"row {number}: expected text under {name!r}, found {value!r}")
        yield {name: _anchored(value, source) for name, value in row.items()}


def _table(data: bytes, suffix: str, columns: Sequence[str]) -> pa.Table:
    file = io.BytesIO(data)
    if suffix == ".parquet":
        schema = pa.parquet.read_schema(file)
        return pa.parquet.read_table(file, columns=[name for name in columns if name in schema.names] or None)
    if suffix == ".csv":
        texts = pa.csv.ConvertOptions(column_types=dict.fromkeys(columns, pa.string()))
        multiline = pa.csv.ParseOptions(newlines_in_values=True)
        return pa.csv.read_csv(file, convert_options=texts, parse_options=multiline)
    return pa.json.read_json(file)


def _anchored(value: str, source: str) -> str:
    if "://" in value or Path(value).is_absolute():
        return value
    if "://" not in source:
        return str(Path(source).parent / value)
    place = urlsplit(source)
    path = posixpath.normpath(posixpath.join(posixpath.dirname(place.path) or "/", value))
    return urlunsplit((place.scheme, place.netloc, path, "", ""))
