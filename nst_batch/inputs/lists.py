"""List files: .csv, .jsonl and .parquet tables with columns of URIs, relative ones from the list's own folder."""

from __future__ import annotations

import io
import posixpath
from collections.abc import Iterator, Sequence
from itertools import repeat
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from nst_batch.inputs.fetching import read_bytes
from nst_batch.vocabulary import url_path


class NamedPicture(NamedTuple):
    """A picture that a study names, and the mask of its regions."""

    uri: str
    mask: str | None = None


NamedPair = tuple[NamedPicture, tuple[NamedPicture, ...]]
"""A content with its styles."""


def listed_pictures(source: str) -> list[str]:
    """The URIs in a list file with a column `uri`.

    Raises:
        ImageError: The file cannot be read.
        ValueError: It is not such a table, or a row has no text there.
    """
    return [_anchored(row["uri"], source) for _, row in _rows(source, ("uri",))]


def listed_pairs(source: str) -> list[NamedPair]:
    """The pairs in a list file with columns `content`, `style` and perhaps `content_mask` and `style_mask`.

    Several styles, and their masks, are separated by ` + `, as tables show them.

    Raises:
        ImageError, ValueError: As for `listed_pictures`; or a row has not as many masks as styles.
    """
    pairs = []
    for number, row in _rows(source, ("content", "style"), ("content_mask", "style_mask")):
        content, mask = (_anchored(row[name], source) for name in ("content", "content_mask"))
        styles, masks = (
            [_anchored(each, source) for each in row[name].split(" + ") if each] for name in ("style", "style_mask")
        )
        if len(masks) not in (0, len(styles)):
            wanted = f"a style_mask for each of {len(styles)} styles"
            raise ValueError(f"row {number}: expected {wanted}, found {len(masks)}")
        several = tuple(map(NamedPicture, styles, masks or repeat(None)))
        pairs.append((NamedPicture(content, mask or None), several))
    if not pairs:
        raise ValueError("the list is empty")
    return pairs


def _rows(
    source: str, columns: Sequence[str], optional: Sequence[str] = ()
) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows in order, numbered from 1; those without any of the columns are skipped, other columns ignored."""
    table = _table(read_bytes(source), PurePosixPath(url_path(source)).suffix.lower(), (*columns, *optional))
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
        yield number, found


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


def _anchored(name: str, source: str) -> str:
    if not name or "://" in name or Path(name).is_absolute():
        return name
    if "://" not in source:
        return str(Path(source).parent / name)
    place = urlsplit(source)
    path = posixpath.normpath(posixpath.join(posixpath.dirname(place.path) or "/", name))
    return urlunsplit((place.scheme, place.netloc, path, "", ""))
