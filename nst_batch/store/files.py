"""A directory on a disk or in an object store, of which every file is written whole or not at all.

What is published is first staged under a name of its own in `staging/` and then moved to its place: synced and
renamed on a disk, copied by the store itself elsewhere. A reader sees the old file, the new one or none, and no
temporary file ever lies beside the tables.

The same two steps keep stale writers out. Whoever takes a directory over removes what is staged there: nothing that
an earlier writer had staged can be moved from then on, however long that writer was paused.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import fsspec
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from nst_batch.errors import LockedError, RunDirectoryError, network_errors
from nst_batch.vocabulary import url_mistake

STAGING = "staging"
PRIVATE = "private/"
"""What lies there is for the owner's eyes; other users of the machine cannot read it."""
STAGED = re.compile(rf"{STAGING}/tmp-[0-9a-f]+-\d+")

_ADVICE = {
    errno.ENOSPC: "free space there, then run again to resume",
    errno.EDQUOT: "free space there, or raise the quota, then run again to resume",
    errno.EROFS: "choose another --out, or make it writable, then run again to resume",
    errno.EACCES: "choose another --out, or change its permissions, then run again to resume",
    errno.EPERM: "choose another --out, or change its permissions, then run again to resume",
    errno.ENOENT: "it does not exist or has vanished; put it back, or choose another --out",
    errno.ENOTDIR: "part of this path is a file; choose another --out",
    errno.EISDIR: "this is a directory where a file belongs; choose another --out",
}
_OTHERWISE = "see that it can be reached and written, then run again to resume"


class Directory:
    """Files below one local path or fsspec URL, named by relative paths with forward slashes.

    Every error of a disk or a network becomes a RunDirectoryError that says which path and what to do.

    Attributes:
        root: The absolute local path, or the URL.
        filesystem: The fsspec file system that it lies in. Listings are never cached: others write there too.
    """

    def __init__(self, url: str | os.PathLike[str]) -> None:
        text = os.fspath(url)
        parts = urlsplit(text)
        # Not by `parts.scheme`: that of the chain file::local:///PATH is file.
        self.is_local = "://" not in text or text.lower().startswith(("file://", "local://"))
        self._writer, self._serial = secrets.token_hex(4), itertools.count()
        if self.is_local:
            if "://" in text and (parts.netloc not in ("", "localhost") or not parts.path):
                raise RunDirectoryError(f"{text}: expected {parts.scheme}:///PATH with an absolute path")
            path = unquote(parts.path) if "://" in text else text
            self.root = self._base = str(Path(path).absolute())
            self.filesystem: Any = LocalFileSystem(use_listings_cache=False)
        else:
            self.root = text.rstrip("/")
            self.filesystem, self._base = _remote(self.root)

    def url(self, path: str = "") -> str:
        """Where `path` is: an absolute local path, or a URL."""
        return f"{self.root}/{path}" if path else self.root

    def key(self, path: str = "") -> str:
        """The name of `path` in `filesystem`."""
        return f"{self._base}/{path}" if path else self._base

    def write(self, path: str, data: bytes, check: Callable[[], None] | None = None) -> None:
        """Makes `data` the whole content of `path`, in one step.

        Args:
            check: Called between staging and moving; an error that it raises ends the writing. Whoever takes the
                directory over after it was called finds what is staged, and removes it. None: whoever writes here.
        """
        if check is None and not self.is_local:
            with self.explained("write", path):
                self.filesystem.pipe_file(self.key(path), data)
            return
        staged = self.stage(path, data)
        try:
            if check:
                check()
            self.move(staged, path)
        except RunDirectoryError:
            with contextlib.suppress(RunDirectoryError):
                self.remove(staged)
            raise

    def create(self, path: str, data: bytes) -> None:
        """Makes `data` the content of `path` in an object store; whoever comes second changes nothing."""
        with self.explained("write", path), contextlib.suppress(FileExistsError):
            self.filesystem.pipe_file(self.key(path), data, mode="create")

    def stage(self, path: str, data: bytes) -> str:
        """Writes what is to become `path` under a name of its own in `staging/`; returns that name, for `move`."""
        staged = f"{STAGING}/tmp-{self._writer}-{next(self._serial)}"
        with self.explained("write", path):
            if self.is_local:
                _write_synced(Path(self.key(staged)), data, 0o600 if path.startswith(PRIVATE) else 0o666)
            else:
                self.filesystem.pipe_file(self.key(staged), data)
        return staged

    def move(self, staged: str, path: str) -> None:
        """Makes what was staged the whole content of `path`, in one step.

        Raises:
            LockedError: It is gone: another process has taken the directory over.
        """
        source, target = self.key(staged), self.key(path)
        with self.explained("write", path):
            try:
                if self.is_local:
                    _make_folder(Path(target).parent)
                    Path(source).replace(target)
                    _sync_folder(Path(target).parent)
                else:
                    self.filesystem.cp_file(source, target)
            except FileNotFoundError as error:
                raise LockedError(
                    f"{self.url(path)}: not written: another process has taken this directory over and removed "
                    "what was staged; run again to resume"
                ) from error
            if not self.is_local:
                self.remove(staged)

    def read(self, path: str) -> bytes:
        """The content of `path`, which must exist."""
        with self.explained("read", path):
            return bytes(self.filesystem.cat_file(self.key(path)))

    def find(self, path: str) -> bytes | None:
        """The content of `path`, or None if there is no such file."""
        with self.explained("read", path):
            try:
                return bytes(self.filesystem.cat_file(self.key(path)))
            except (FileNotFoundError, NotADirectoryError):
                return None

    def exists(self, path: str) -> bool:
        """Whether there is a file `path`, which should be small."""
        return self.find(path) is not None

    def leads_outside(self, path: str) -> bool:
        """Whether `path` is a local link, or below one, to something that is not in this directory."""
        return self.is_local and not Path(self.root, path).resolve().is_relative_to(Path(self.root).resolve())

    def names(self) -> list[str]:
        """The sorted names of the files and directories at the top; none if the directory does not exist."""
        with self.explained("list", ""):
            try:
                keys = self.filesystem.ls(self.key(), detail=False)
            except FileNotFoundError:
                return []
            return sorted(key.rstrip("/").rsplit("/", 1)[-1] for key in keys)

    def list(self, prefix: str) -> list[str]:
        """The sorted relative paths of the files at any depth below the directory `prefix`."""
        with self.explained("list", prefix):
            if self.is_local:
                folders = os.walk(self.key(prefix), onerror=_unless_missing)
                keys = [f"{folder}/{name}" for folder, _, names in folders for name in names]
            else:
                keys = self.filesystem.find(self.key(prefix))
            start = len(self._base.strip("/")) + 1
            return sorted(key.lstrip("/")[start:] for key in keys)

    def remove(self, path: str) -> None:
        """Removes the file `path`; does nothing if there is none."""
        with self.explained("remove", path), contextlib.suppress(FileNotFoundError):
            self.filesystem.rm_file(self.key(path))

    def open_input(self, path: str) -> pa.NativeFile:
        """`path` for pyarrow to read; from an object store it is fetched whole, so it cannot change meanwhile."""
        if not self.is_local:
            return pa.BufferReader(self.read(path))
        with self.explained("read", path):
            return pa.OSFile(self.key(path))

    def remove_staged(self) -> None:
        """Removes what earlier writers staged and did not move. Only for who has just taken the directory over."""
        for path in self.list(STAGING):
            if STAGED.fullmatch(path):
                self.remove(path)

    @contextlib.contextmanager
    def explained(self, action: str, path: str) -> Iterator[None]:
        """Turns such an error into a RunDirectoryError: what could not be done to `path`, and what to do."""
        try:
            yield
        except network_errors() as error:
            reason = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
            raise RunDirectoryError(f"{self.url(path)}: cannot {action} it: {reason}; {_advice(error)}") from error


def _remote(url: str) -> tuple[Any, str]:
    """The fsspec file system of `url` and the path in it."""
    if mistake := url_mistake(url):
        raise RunDirectoryError(f"{url}: cannot open this URL: {mistake}")
    try:
        filesystem, base = fsspec.core.url_to_fs(url, use_listings_cache=False)
    except (ImportError, ValueError) as error:
        raise RunDirectoryError(
            f"{url}: cannot open this URL: {error}; for s3:// install nst-batch[s3], for gs:// nst-batch[gcs]"
        ) from error
    return filesystem, base.rstrip("/")


def _unless_missing(error: OSError) -> None:
    """For `os.walk`, which would otherwise take a folder that cannot be listed for an empty one."""
    if not isinstance(error, FileNotFoundError):
        raise error


def _advice(error: Exception) -> str:
    """What to do about `error`; object stores raise the right class but give no number."""
    if isinstance(error, FileNotFoundError):
        return _ADVICE[errno.ENOENT]
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, PermissionError) and number is None:
        return _ADVICE[errno.EACCES]
    return _ADVICE.get(number or 0, _OTHERWISE)


def _write_synced(path: Path, data: bytes, mode: int) -> None:
    _make_folder(path.parent)
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        with contextlib.suppress(OSError):
            path.unlink()
        raise


def _make_folder(folder: Path) -> None:
    """Makes a folder where there is none, such that it survives a power cut; its parents too."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    """Makes what was last created or renamed in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
