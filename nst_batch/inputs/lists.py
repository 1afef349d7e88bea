"""List files: .csv, .jsonl and .parquet tables with columns of URIs."""

from __future__ import annotations

import io
import posixpath
from collections.abc import Iterator, Sequence
from itertools import repeat
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from nst_batch.errors import ImageError
from nst_batch.inputs.fetching import read_bytes


class NamedPicture(NamedTuple):
    """A picture that a study names, and the mask of its regions."""

    uri: str
    mask: str | None = None


NamedPair = tuple[NamedPicture, tuple[NamedPicture, ...]]
"""A content with its styles."""


def listed_pairs(source: str, mistakes: list[str]) -> Iterator[NamedPair]:
    """The pairs in a list file with columns `content`, `style` and perhaps `content_mask` and `style_mask`.

    Args:
        mistakes: Takes up why the file cannot be used.
    """
    try:
        found = [_pair(row) for row in rows(source, ("content", "style"), ("content_mask", "style_mask"))]
    except (ImageError, ValueError) as error:
        reason = error.message if isinstance(error, ImageError) else error
        mistakes.append(f"pairs: {source}: {reason}")
        return
    if not found:
        mistakes.append(f"pairs: {source}: the list is empty")
    yield from found


def _pair(row: dict[str, list[str]]) -> NamedPair:
    """A row of a list of pairs; several styles or masks are separated by ` + `, as tables show them."""
    styles, masks = row["style"], row["style_mask"]
    if len(masks) not in (0, len(styles)):
        raise ValueError(f"expected a style_mask for each of {len(styles)} styles, found {len(masks)}")
    content = NamedPicture(row["content"][0], *row["content_mask"])
    return content, tuple(map(NamedPicture, styles, masks or repeat(None)))


def rows(source: str, columns: Sequence[str], optional: Sequence[str] = ()) -> Iterator[dict[str, list[str]]]:
    """The rows of a list file in order, with the URIs in each column; columns of other names are ignored.

    Relative paths start from the list's folder. Rows without any of the columns are skipped.

    Raises:
        ImageError: The file cannot be read.
        ValueError: It is not such a table, lacks a column, or a row lacks one of several columns.
    """
    table = _table(read_bytes(source), Path(urlsplit(source).path).suffix.lower(), (*columns, *optional))
    missing = [name for name in columns if name not in table.column_names]
    if missing:
        raise ValueError(f"expected a column {missing[0]!r}, found {', '.join(table.column_names)}")
    for number, row in enumerate(table.to_pylist(), 1):
        if not any(row[name] for name in columns):
            continue
        found = {name: row.get(name) or "" for name in optional} | {name: row[name] for name in columns}
        for name, value in found.items():
            if not isinstance(value, str) or (not value and name in columns):
                raise ValueError(f"row {number}: expected text under {name!r}, found {value!r}")
        yield {
            name: [_anchored(each, source) for each in value.split(" + ") if each] for name, value in found.items()
        }


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
