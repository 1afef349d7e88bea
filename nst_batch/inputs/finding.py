"""What a study's `content` and `style` mean: files, globs, directories, URLs and list files become picture URIs."""

from __future__ import annotations

import fnmatch
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import fsspec

from nst_batch.errors import ImageError, StudyError, network_errors
from nst_batch.inputs.fetching import patiently
from nst_batch.inputs.lists import NamedPair, NamedPicture, listed_pairs, rows
from nst_batch.vocabulary import OBJECT_STORES, is_list_file, url_mistake

PICTURE_SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tga"}
    | {".tif", ".tiff", ".webp"}
)
_GLOB = frozenset("*?[")
_Found = Iterable[tuple[str, str]]
"""(uri, stamp): the stamp changes when the file does, as far as that can be seen without opening it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """The pictures that a study names, before any of them is opened."""

    content: tuple[NamedPicture, ...]
    style: tuple[NamedPicture, ...]
    pairs: tuple[NamedPair, ...] | None
    """Where a list file says so."""
    fingerprint: str
    """Changes when a name, a size or a time of modification does."""

    @property
    def uris(self) -> tuple[str, ...]:
        """Of all pictures and masks, each once."""
        named = [*self.content, *self.style]
        return tuple(dict.fromkeys([*(each.uri for each in named), *(each.mask for each in named if each.mask)]))


def list_inputs(
    content: Sequence[str], style: Sequence[str], pairs: str, content_masks: str = "", style_masks: str = ""
) -> Listing:
    """Finds the pictures of a study.

    Folders and globs give their pictures by name, in alphabetical order; lists keep theirs. Of what list files
    name on other machines no size or time is asked for: a worker that finds such a picture changed says so.

    Args:
        content, style, pairs: As a study has them.
        content_masks, style_masks: Where masks are that have their pictures' names, whatever the suffix.

    Raises:
        StudyError: Something named matches no picture, or a folder or list file cannot be read; all of them at
            once.
    """
    mistakes: list[str] = []
    stamps: dict[str, str] = {}
    contents = [NamedPicture(uri) for uri in _expand_all("content", content, mistakes, stamps)]
    styles = [NamedPicture(uri) for uri in _expand_all("style", style, mistakes, stamps)]
    listed = list(listed_pairs(pairs, mistakes)) if is_list_file(pairs) else None
    if listed is not None:
        contents, styles = [each for each, _ in listed], [style for _, row in listed for style in row]
        stamps = {each.uri: _stamp(each.uri) for each in (*contents, *styles)}
    content_of = _masked("content_masks", content_masks, contents, mistakes, stamps)
    style_of = _masked("style_masks", style_masks, styles, mistakes, stamps)
    if mistakes:
        raise StudyError(mistakes)
    if listed is not None:
        listed = [(content_of[one], tuple(style_of[each] for each in several)) for one, several in listed]
    contents, styles = list(dict.fromkeys(content_of.values())), list(dict.fromkeys(style_of.values()))
    stamps |= {each.mask: _stamp(each.mask) for each in (*contents, *styles) if each.mask}
    fingerprint = _digest([*map(repr, contents), "", *map(repr, styles), "", *stamps.values(), repr(listed)])
    return Listing(
        content=tuple(contents),
        style=tuple(styles),
        pairs=None if listed is None else tuple(listed),
        fingerprint=fingerprint,
    )


def _masked(
    key: str, pattern: str, pictures: Sequence[NamedPicture], mistakes: list[str], stamps: dict[str, str]
) -> dict[NamedPicture, NamedPicture]:
    """The pictures with the masks of their names; those that have one, and those without, stay as they are."""
    found: dict[str, str] = {}
    for uri in _expand_all(key, [pattern] if pattern else [], mistakes, stamps):
        same = found.setdefault(_stem(uri), uri)
        if same != uri:
            mistakes.append(f"{key}: {same} and {uri} are masks of the same picture; keep one")
    if found and not any(_stem(each.uri) in found for each in pictures):
        named = ", ".join(repr(_stem(each.uri)) for each in pictures[:3]) or "none"
        mistakes.append(f"{key}: expected masks with the names of pictures ({named}), found none in {pattern}")
    return {each: NamedPicture(each.uri, each.mask or found.get(_stem(each.uri))) for each in pictures}


def _stem(uri: str) -> str:
    return PurePosixPath(urlsplit(uri).path if "://" in uri else uri).stem


# Folders, globs, URLs


def _expand_all(key: str, patterns: Sequence[str], mistakes: list[str], stamps: dict[str, str]) -> Iterator[str]:
    for pattern in patterns:
        try:
            found = list(_expand(pattern))
        except _failures() as error:
            reason = error.message if isinstance(error, ImageError) else str(error) or type(error).__name__
            mistakes.append(f"{key}: {pattern}: cannot be listed: {reason}")
            continue
        if not found:
            mistakes.append(f"{key}: no pictures match {pattern!r}; expected files, a directory, a glob or a URL")
        stamps.update(found)
        yield from (uri for uri, _ in found)


def _failures() -> tuple[type[Exception], ...]:
    """What listing may raise; asked for when something was raised, as network libraries are loaded by their use."""
    return (*network_errors(), ImageError, ValueError, ImportError)


def _expand(pattern: str) -> _Found:
    """The pictures that one entry means."""
    if "://" in pattern and (mistake := url_mistake(pattern)) is not None:
        raise ValueError(mistake)
    if is_list_file(urlsplit(pattern).path if "://" in pattern else pattern):
        return [(uri, _stamp(uri)) for row in rows(pattern, ("uri",)) for uri in row["uri"]]
    if urlsplit(pattern).scheme in ("http", "https"):
        return [(pattern, "")]
    return sorted(_expand_remote(pattern) if "://" in pattern else _expand_local(pattern))


def _expand_local(pattern: str) -> Iterator[tuple[str, str]]:
    path = Path(pattern)
    if path.is_dir():
        found: Iterable[Path] = (each for each in _files_below(path) if _is_picture(each.relative_to(path)))
    elif _GLOB & set(pattern) and not path.exists():
        anchor = Path(path.anchor or ".")
        found = _globbed(anchor, path.relative_to(path.anchor).parts)
    else:
        found = [path] if path.exists() or path.is_symlink() else []
    yield from ((str(file), _stamp(str(file))) for file in found if not file.is_dir())


def _files_below(folder: Path) -> Iterator[Path]:
    """The files in a folder and its folders; one that cannot be listed is an OSError with its path."""

    def fail(error: OSError) -> None:
        raise error

    for root, folders, files in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(root, name) for name in files)


def _globbed(folder: Path, parts: Sequence[str]) -> Iterator[Path]:
    """What `Path.glob` finds, which leaves out what it cannot list; here that is an OSError with its path."""
    if not parts:
        yield folder
    elif parts[0] == "**":
        yield from _globbed(folder, parts[1:])
        for entry in _entries_of(folder):
            if entry.is_dir(follow_symlinks=False):
                yield from _globbed(Path(entry.path), parts)
    elif _GLOB & set(parts[0]):
        for entry in _entries_of(folder):
            if fnmatch.fnmatchcase(entry.name, parts[0]) and (len(parts) == 1 or entry.is_dir()):
                yield from _globbed(Path(entry.path), parts[1:])
    elif os.path.lexists(folder / parts[0]):
        yield from _globbed(folder / parts[0], parts[1:])


def _entries_of(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return list(entries)


def _expand_remote(pattern: str) -> Iterator[tuple[str, str]]:
    filesystem, root = fsspec.core.url_to_fs(pattern, use_listings_cache=False)
    for name, entry in patiently(lambda: _entries(filesystem, root, urlsplit(pattern).scheme)).items():
        if entry.get("type") != "directory":
            version = entry.get("ETag") or entry.get("etag") or entry.get("mtime") or entry.get("created")
            yield filesystem.unstrip_protocol(name), f"{entry.get('size')} {version}"


def _entries(filesystem: Any, root: str, protocol: str) -> dict[str, dict[str, Any]]:
    if _GLOB & set(root) and not filesystem.exists(root):
        globbed: dict[str, dict[str, Any]] = filesystem.glob(root, detail=True)
        return globbed
    if not filesystem.isdir(root):
        return {root: filesystem.info(root)}
    if protocol in OBJECT_STORES:
        found: dict[str, dict[str, Any]] = filesystem.find(root, detail=True)
    else:
        found = {entry["name"]: entry for entry in _remote_files(filesystem, root)}
    folder = root.rstrip("/") + "/"
    return {name: entry for name, entry in found.items() if _is_picture(PurePosixPath(name.removeprefix(folder)))}


def _remote_files(filesystem: Any, folder: str) -> Iterator[dict[str, Any]]:
    """The files in a folder and its folders; `find` would leave out what cannot be listed."""
    for entry in filesystem.ls(folder, detail=True):
        if entry["type"] == "directory":
            yield from _remote_files(filesystem, entry["name"])
        else:
            yield entry


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


def _digest(texts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode(errors="surrogateescape") + b"\n")
    return digest.hexdigest()
