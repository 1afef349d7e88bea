"""What a study's `content` and `style` mean: files, globs, directories, URLs and list files become picture URIs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import fsspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from nst_batch.errors import StudyError
from nst_batch.images import Inspection, inspect

PICTURE_SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tga"}
    | {".tif", ".tiff", ".webp"}
)
LIST_SUFFIXES = frozenset({".csv", ".jsonl", ".parquet"})
_GLOB = frozenset("*?[")
_INSPECTED_AT_ONCE = 8
_INSPECTED_AHEAD = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """The pictures that a study names, before any of them is opened."""

    content: tuple[str, ...]
    style: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...] | None
    """(content, style) where a list file says so."""
    fingerprint: str
    """Changes when a name, a size or a time of modification does."""


def list_inputs(content: Sequence[str], style: Sequence[str], pairs: str) -> Listing:
    """Finds the pictures of a study.

    Raises:
        StudyError: Something named matches no picture, or a list file lacks its columns; all of them at once.
    """
    problems: list[str] = []
    stamps: list[str] = []
    listed = {
        key: tuple(dict.fromkeys(_expand_all(key, patterns, problems, stamps)))
        for key, patterns in (("content", content), ("style", style))
    }
    pairs_found = None
    if Path(pairs).suffix in LIST_SUFFIXES:
        pairs_found = _pairs(pairs, problems)
        listed = {
            key: tuple(dict.fromkeys(pair[side] for pair in pairs_found))
            for side, key in enumerate(("content", "style"))
        }
    if problems:
        raise StudyError(problems)
    text = "\n".join((*listed["content"], "", *listed["style"], "", *stamps, pairs))
    digest = hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()
    return Listing(content=listed["content"], style=listed["style"], pairs=pairs_found, fingerprint=digest)


def inspect_all(uris: Iterable[str]) -> Iterator[Inspection]:
    """Opens, hashes and fully decodes every picture, several at once, in order, never all in memory."""
    remaining = iter(uris)
    with ThreadPoolExecutor(_INSPECTED_AT_ONCE, "inspect") as pool:
        while chunk := list(islice(remaining, _INSPECTED_AHEAD)):
            yield from pool.map(inspect, chunk)


def _expand_all(key: str, patterns: Sequence[str], problems: list[str], stamps: list[str]) -> Iterator[str]:
    for pattern in patterns:
        try:
            found = sorted(_expand(pattern))
        except (OSError, ValueError, ImportError, pa.ArrowInvalid) as error:
            problems.append(f"{key}: {pattern}: cannot be listed: {error}")
            continue
        if not found:
            problems.append(f"{key}: no pictures match {pattern!r}; expected files, a directory, a glob or a URL")
        for uri, stamp in found:
            stamps.append(stamp)
            yield uri


def _expand(pattern: str) -> Iterator[tuple[str, str]]:
    """(uri, size and time of modification) of the pictures that one entry means."""
    if "://" in pattern:
        yield from _expand_remote(pattern)
        return
    path = Path(pattern)
    if path.is_dir():
        found: Iterable[Path] = (each for each in path.rglob("*") if _is_picture(each.relative_to(path)))
    elif path.suffix in LIST_SUFFIXES and path.is_file():
        yield from ((uri, "") for uri in _column(pattern, "uri"))
        return
    elif _GLOB & set(pattern) and not path.exists():
        anchor = Path(path.anchor or ".")
        found = anchor.glob(str(path.relative_to(path.anchor) if path.anchor else path))
    else:
        found = [path] if path.exists() or path.is_symlink() else []
    for file in found:
        if not file.is_dir():
            yield str(file), _stamp(file)


def _expand_remote(pattern: str) -> Iterator[tuple[str, str]]:
    path = Path(urlsplit(pattern).path)
    if path.suffix in LIST_SUFFIXES:
        yield from ((uri, "") for uri in _column(pattern, "uri"))
        return
    if urlsplit(pattern).scheme in ("http", "https"):
        yield pattern, ""
        return
    filesystem, root = fsspec.core.url_to_fs(pattern)
    if _GLOB & set(pattern):
        entries = filesystem.glob(root, detail=True)
    elif filesystem.isdir(root):
        found = filesystem.find(root, detail=True)
        entries = {name: entry for name, entry in found.items() if _is_picture(Path(name))}
    else:
        entries = {root: filesystem.info(root)}
    for name, entry in entries.items():
        if entry.get("type") != "directory":
            yield filesystem.unstrip_protocol(name), f"{entry.get('size')} {entry.get('ETag', entry.get('mtime'))}"


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in PICTURE_SUFFIXES and not any(part.startswith(".") for part in path.parts)


def _stamp(path: Path) -> str:
    try:
        found = path.stat()
    except OSError as error:
        return f"unreadable: {error.errno}"
    return f"{found.st_size} {found.st_mtime_ns}"


def _pairs(source: str, problems: list[str]) -> tuple[tuple[str, str], ...]:
    try:
        return tuple(zip(_column(source, "content"), _column(source, "style"), strict=True))
    except (OSError, ValueError, pa.ArrowInvalid) as error:
        problems.append(f"pairs: {source}: {error}")
        return ()


def _column(source: str, name: str) -> list[str]:
    """A column of a list file; relative paths in it start from the file's folder."""
    with fsspec.open(source, "rb") as file:
        table = _read_table(Path(urlsplit(source).path).suffix, file)
    if name not in table.column_names:
        raise ValueError(f"expected a column {name!r}, found {', '.join(table.column_names)}")
    folder = source.rsplit("/", 1)[0] if "/" in source else "."
    values = [str(value) for value in table[name].to_pylist() if value]
    return [value if "://" in value or Path(value).is_absolute() else f"{folder}/{value}" for value in values]


def _read_table(suffix: str, file: Any) -> pa.Table:
    if suffix == ".parquet":
        return pyarrow.parquet.read_table(pa.PythonFile(file, "r"))
    reader = pyarrow.csv.read_csv if suffix == ".csv" else pyarrow.json.read_json
    return reader(file)
