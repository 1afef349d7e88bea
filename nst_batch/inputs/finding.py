"""What a study's `content` and `style` mean: files, globs, directories, URLs and list files become picture URIs."""

from __future__ import annotations

import hashlib
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from threading import Semaphore
from typing import Any, TypeVar
from urllib.parse import urlsplit

import fsspec

from nst_batch.errors import ImageError, StudyError
from nst_batch.inputs import lists
from nst_batch.inputs.fetching import RETRY_AFTER_SECONDS, is_transient, network_errors
from nst_batch.inputs.images import Inspection, inspect
from nst_batch.vocabulary import is_list_file

PICTURE_SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tga"}
    | {".tif", ".tiff", ".webp"}
)
_GLOB = frozenset("*?[")
_READ_AT_ONCE = 32  # a bucket answers after tens of milliseconds, and to many at once
_INSPECTED_AHEAD = 256
_Found = Iterable[tuple[str, str]]
"""(uri, stamp): the stamp changes when the file does, as far as that can be seen without opening it."""

T = TypeVar("T")


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

    Folders and globs give their pictures by name, in alphabetical order; lists keep theirs. Of what list files
    name on other machines no size or time is asked for: a worker that finds such a picture changed says so.

    Raises:
        StudyError: Something named matches no picture, or a list file cannot be read; all of them at once.
    """
    problems: list[str] = []
    stamps: dict[str, str] = {}
    listed = {
        key: tuple(dict.fromkeys(_expand_all(key, patterns, problems, stamps)))
        for key, patterns in (("content", content), ("style", style))
    }
    pairs_found = None
    if is_list_file(pairs):
        pairs_found = _pairs(pairs, problems)
        listed = {
            key: tuple(dict.fromkeys(pair[side] for pair in pairs_found))
            for side, key in enumerate(("content", "style"))
        }
        stamps = {uri: _stamp(uri) for key in listed for uri in listed[key]}
    if problems:
        raise StudyError(problems)
    digest = _digest([*listed["content"], "", *listed["style"], "", *stamps.values(), repr(pairs_found)])
    return Listing(content=listed["content"], style=listed["style"], pairs=pairs_found, fingerprint=digest)


def inspect_all(uris: Iterable[str]) -> Iterator[Inspection]:
    """Opens, hashes and fully decodes every picture, in order.

    Many are read at once, as many decoded as there are cores; decoded pixels are never all in memory.
    """
    turn = Semaphore(os.cpu_count() or 1)
    waiting: deque[Future[Inspection]] = deque()
    pool = ThreadPoolExecutor(_READ_AT_ONCE, "inspect")
    try:
        for uri in uris:
            waiting.append(pool.submit(inspect, uri, turn))
            if len(waiting) >= _INSPECTED_AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _expand_all(key: str, patterns: Sequence[str], problems: list[str], stamps: dict[str, str]) -> Iterator[str]:
    for pattern in patterns:
        try:
            found = list(_expand(pattern))
        except _failures() as error:
            reason = error.message if isinstance(error, ImageError) else str(error) or type(error).__name__
            problems.append(f"{key}: {pattern}: cannot be listed: {reason}")
            continue
        if not found:
            problems.append(f"{key}: no pictures match {pattern!r}; expected files, a directory, a glob or a URL")
        for uri, stamp in found:
            stamps[uri] = stamp
            yield uri


def _failures() -> tuple[type[Exception], ...]:
    """What listing may raise; asked for when something was raised, as network libraries are loaded by their use."""
    return (*network_errors(), ImageError, ValueError, ImportError)


def _expand(pattern: str) -> _Found:
    """The pictures that one entry means."""
    if is_list_file(urlsplit(pattern).path if "://" in pattern else pattern):
        return [(row["uri"], _stamp(row["uri"])) for row in lists.rows(pattern, ("uri",))]
    if urlsplit(pattern).scheme in ("http", "https"):
        return [(pattern, "")]
    return sorted(_expand_remote(pattern) if "://" in pattern else _expand_local(pattern))


def _expand_local(pattern: str) -> Iterator[tuple[str, str]]:
    path = Path(pattern)
    if path.is_dir():
        found: Iterable[Path] = (each for each in path.rglob("*") if _is_picture(each.relative_to(path)))
    elif _GLOB & set(pattern) and not path.exists():
        anchor = Path(path.anchor or ".")
        found = anchor.glob(str(path.relative_to(path.anchor) if path.anchor else path))
    else:
        found = [path] if path.exists() or path.is_symlink() else []
    for file in found:
        if not file.is_dir():
            yield str(file), _stamp(str(file))


def _expand_remote(pattern: str) -> Iterator[tuple[str, str]]:
    filesystem, root = fsspec.core.url_to_fs(pattern, use_listings_cache=False)
    for name, entry in _patiently(lambda: _entries(filesystem, root)).items():
        if entry.get("type") != "directory":
            version = entry.get("ETag") or entry.get("etag") or entry.get("mtime") or entry.get("created")
            yield filesystem.unstrip_protocol(name), f"{entry.get('size')} {version}"


def _entries(filesystem: Any, root: str) -> dict[str, dict[str, Any]]:
    if _GLOB & set(root) and not filesystem.exists(root):
        globbed: dict[str, dict[str, Any]] = filesystem.glob(root, detail=True)
        return globbed
    if filesystem.isdir(root):
        found: dict[str, dict[str, Any]] = filesystem.find(root, detail=True)
        folder = root.rstrip("/") + "/"
        return {
            name: entry for name, entry in found.items() if _is_picture(PurePosixPath(name.removeprefix(folder)))
        }
    return {root: filesystem.info(root)}


def _patiently(action: Callable[[], T]) -> T:
    """Does something over the network, again after a while where that may help."""
    for wait in RETRY_AFTER_SECONDS:
        try:
            return action()
        except network_errors() as error:
            if isinstance(error, FileNotFoundError) or not is_transient(error):
                raise
            time.sleep(wait)
    return action()


def _is_picture(path: PurePosixPath | Path) -> bool:
    return path.suffix.lower() in PICTURE_SUFFIXES and not any(part.startswith(".") for part in path.parts)


def _stamp(uri: str) -> str:
    """Size and time of modification of a local file."""
    if "://" in uri:
        return ""
    try:
        found = os.stat(uri)  # noqa: PTH116 (a hundred thousand times)
    except (OSError, ValueError) as error:
        return f"unreadable: {type(error).__name__}"
    return f"{found.st_size} {found.st_mtime_ns}"


def _pairs(source: str, problems: list[str]) -> tuple[tuple[str, str], ...]:
    try:
        found = tuple((row["content"], row["style"]) for row in lists.rows(source, ("content", "style")))
    except (ImageError, ValueError) as error:
        reason = error.message if isinstance(error, ImageError) else error
        problems.append(f"pairs: {source}: {reason}")
        return ()
    if not found:
        problems.append(f"pairs: {source}: the list is empty")
    return found


def _digest(texts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode(errors="surrogateescape") + b"\n")
    return digest.hexdigest()
