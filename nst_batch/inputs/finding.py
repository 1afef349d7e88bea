"""What a study's `content` and `style` mean: files, globs, directories, URLs and list files become picture URIs."""

from __future__ import annotations

import fnmatch
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePath, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import fsspec

from nst_batch.errors import ImageError, StudyError, network_errors
from nst_batch.inputs.fetching import patiently
from nst_batch.inputs.lists import NamedPair, NamedPicture, listed_pairs, listed_pictures
from nst_batch.vocabulary import OBJECT_STORES, is_list_file, url_mistake, url_path

PICTURE_SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tga"}
    | {".tif", ".tiff", ".webp"}
)
_GLOB = frozenset("*?[")


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
        return _uris((*self.content, *self.style))


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
    search, listed = _Search(), None
    contents = [NamedPicture(uri) for uri in search.uris("content", content)]
    styles = [NamedPicture(uri) for uri in search.uris("style", style)]
    if is_list_file(pairs):
        listed = []
        with search.told(f"pairs: {pairs}"):
            listed = listed_pairs(pairs)
        contents, styles = [each for each, _ in listed], [style for _, row in listed for style in row]
    content_of = search.masked("content_masks", content_masks, contents)
    style_of = search.masked("style_masks", style_masks, styles)
    if search.mistakes:
        raise StudyError(search.mistakes)
    if listed is not None:
        listed = [(content_of[one], tuple(style_of[each] for each in several)) for one, several in listed]
    contents, styles = list(dict.fromkeys(content_of.values())), list(dict.fromkeys(style_of.values()))
    stamps = [search.versions.get(uri) or _stamp(uri) for uri in _uris([*contents, *styles])]
    return Listing(
        content=tuple(contents),
        style=tuple(styles),
        pairs=None if listed is None else tuple(listed),
        fingerprint=hashlib.sha256(repr((contents, styles, listed, stamps)).encode()).hexdigest(),
    )


def _uris(pictures: Sequence[NamedPicture]) -> tuple[str, ...]:
    masks = (each.mask for each in pictures if each.mask)
    return tuple(dict.fromkeys([*(each.uri for each in pictures), *masks]))


@dataclass(frozen=True, slots=True)
class _Search:
    """What was found wrong, and of what version remote files are."""

    mistakes: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    """By URI, where listing a folder or bucket told it."""

    @contextmanager
    def told(self, what: str) -> Iterator[None]:
        """Takes up why something cannot be listed."""
        try:
            yield
        except network_errors(ImageError, ValueError, ImportError) as error:
            reason = error.message if isinstance(error, ImageError) else str(error) or type(error).__name__
            self.mistakes.append(f"{what}: {reason}")

    def uris(self, key: str, patterns: Sequence[str]) -> Iterator[str]:
        """The pictures that the entries of a study's key mean."""
        for pattern in patterns:
            found: list[str] | None = None
            with self.told(f"{key}: {pattern}: cannot be listed"):
                found = self._expanded(pattern)
            if found == []:
                expected = "expected files, a directory, a glob or a URL"
                self.mistakes.append(f"{key}: no pictures match {pattern!r}; {expected}")
            yield from found or ()

    def masked(self, key: str, pattern: str, pictures: Sequence[NamedPicture]) -> dict[NamedPicture, NamedPicture]:
        """The pictures with the masks of their names; those that have one, and those without, stay as they are."""
        found: dict[str, str] = {}
        for uri in self.uris(key, [pattern] if pattern else []):
            if (same := found.setdefault(_stem(uri), uri)) != uri:
                self.mistakes.append(f"{key}: {same} and {uri} are masks of the same picture; keep one")
        owners: dict[str, str] = {}
        for each in pictures:
            stem = _stem(each.uri)
            if stem in found and (same := owners.setdefault(stem, each.uri)) != each.uri and not each.mask:
                both = f"{found[stem]} could be the mask of {same} and of {each.uri}"
                self.mistakes.append(f"{key}: {both}; rename one, or name masks in a list of pairs")
        if found and not owners:
            named = ", ".join(repr(_stem(each.uri)) for each in pictures[:3]) or "none"
            wanted = f"expected masks with the names of pictures ({named})"
            self.mistakes.append(f"{key}: {wanted}, found none in {pattern}")
        return {each: NamedPicture(each.uri, each.mask or found.get(_stem(each.uri))) for each in pictures}

    def _expanded(self, pattern: str) -> list[str]:
        if "://" in pattern and (mistake := url_mistake(pattern)) is not None:
            raise ValueError(mistake)
        if is_list_file(pattern):
            return listed_pictures(pattern)
        if urlsplit(pattern).scheme in ("http", "https"):
            return [pattern]
        return sorted(self._remote(pattern) if "://" in pattern else _local(pattern))

    def _remote(self, pattern: str) -> Iterator[str]:
        filesystem, root = fsspec.core.url_to_fs(pattern, use_listings_cache=False)
        for name, entry in patiently(lambda: _entries(filesystem, root, urlsplit(pattern).scheme)).items():
            if entry.get("type") != "directory":
                version = entry.get("ETag") or entry.get("etag") or entry.get("mtime") or entry.get("created")
                uri = filesystem.unstrip_protocol(name)
                self.versions[uri] = f"{entry.get('size')} {version}"
                yield uri


def _local(pattern: str) -> Iterator[str]:
    path = Path(pattern)
    found: Iterable[Path] = [path] if os.path.lexists(path) else []
    if path.is_dir():
        below = _globbed(path, ("**", "*"), hidden=False)
        found = (each for each in below if _is_picture(each.relative_to(path)))
    elif _GLOB & set(pattern) and not path.exists():
        found = _globbed(Path(path.anchor or "."), path.relative_to(path.anchor).parts)
    return (str(file) for file in found if not file.is_dir())


def _globbed(folder: Path, parts: Sequence[str], *, hidden: bool = True) -> Iterator[Path]:
    """What `Path.glob` finds, which leaves out what it cannot list; here that is an OSError with its path."""
    if not parts:
        yield folder
    elif parts[0] == "**":
        yield from _globbed(folder, parts[1:])
        for entry in _entries_of(folder):
            if entry.is_dir(follow_symlinks=False) and (hidden or not entry.name.startswith(".")):
                yield from _globbed(Path(entry.path), parts, hidden=hidden)
    elif _GLOB & set(parts[0]):
        for entry in _entries_of(folder):
            if fnmatch.fnmatchcase(entry.name, parts[0]) and (len(parts) == 1 or entry.is_dir()):
                yield from _globbed(Path(entry.path), parts[1:])
    elif os.path.lexists(folder / parts[0]):
        yield from _globbed(folder / parts[0], parts[1:])


def _entries_of(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return list(entries)


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


def _is_picture(path: PurePath) -> bool:
    return path.suffix.lower() in PICTURE_SUFFIXES and not any(part.startswith(".") for part in path.parts)


def _stem(uri: str) -> str:
    return PurePosixPath(url_path(uri)).stem


def _stamp(uri: str) -> str:
    """Size and time of modification of a local file."""
    if "://" in uri:
        return ""
    try:
        found = os.stat(uri)  # noqa: PTH116 (a hundred thousand times)
    except (OSError, ValueError) as error:
        return f"unreadable: {type(error).__name__}"
    return f"{found.st_size} {found.st_mtime_ns}"
