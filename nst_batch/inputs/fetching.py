"""Files as bytes, from local paths and from URLs of the protocols that are allowed."""

from __future__ import annotations

import errno
import hashlib
import shutil
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, TypeVar
from urllib.parse import urlsplit

import fsspec
import tenacity

from nst_batch.errors import ImageError, is_missing, is_timeout, is_transient, network_cause, network_errors
from nst_batch.records import valid_unicode
from nst_batch.vocabulary import url_mistake

MAX_BYTES = 512 * 1024**2
"""Larger pictures are refused before they are read."""
MAX_TRIES = 4
FIRST_WAIT_SECONDS = 0.5
"""Before the second try; twice as long before each later one."""
TIMEOUT_SECONDS = 30.0
"""How long a web server may take to accept a connection, and to send the next piece."""
LEAST_RATE = 20_000
"""Bytes per second, on the whole, that a server must send after `TIMEOUT_SECONDS`."""
MAX_SECONDS = 90.0
"""After so long nothing is tried again."""

T = TypeVar("T")


def read_bytes(uri: str, *, expected_sha256: str | None = None, limit_bytes: int = MAX_BYTES) -> bytes:
    """The file at `uri`, a local path or a URL; network errors are retried.

    Args:
        expected_sha256: What the plan saw; None accepts anything.

    Raises:
        ImageError: `missing`, `unreadable`, `timeout`, `empty`, `too_large`, or `changed` when it is not what the
            plan saw.
    """
    if valid_unicode(uri) != uri:
        reason = "the name is not valid Unicode, so no table can hold it; rename the file"
        raise ImageError("unreadable", valid_unicode(uri), reason)
    path = local_path(uri)
    data = _read_remote(uri, limit_bytes) if path is None else _read_local(uri, path, limit_bytes)
    if not data:
        raise ImageError("empty", uri, "the file is empty (0 bytes)")
    if expected_sha256 is not None and (found := sha256(data)) != expected_sha256:
        raise ImageError(
            "changed",
            uri,
            f"the file changed after planning: its SHA-256 was {expected_sha256[:12]}… and is {found[:12]}…; "
            f"put the planned file back, or run the study into a new directory",
        )
    return data


def fetch(url: str, path: Path) -> None:
    """Downloads the file at `url`, of any size, to `path`, with a progress bar on stderr.

    Raises:
        ValueError, ImportError: The protocol is not allowed, or its package is not installed.
        network_errors(): The last of several tries failed.
    """
    from rich.console import Console
    from rich.progress import wrap_file

    def copy() -> None:
        with _open(url) as stream, path.open("wb") as file:
            total = getattr(stream, "size", None) or 0
            with wrap_file(
                stream, total, description=Path(urlsplit(url).path).name, console=Console(stderr=True)
            ) as shown:
                shutil.copyfileobj(shown, file, 1 << 20)

    patiently(copy)


def patiently(action: Callable[[], T]) -> T:
    """Does something over the network, again after a while where that may help; raises what the last try did."""
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(lambda error: isinstance(error, Exception) and is_transient(error)),
        stop=tenacity.stop_after_attempt(MAX_TRIES) | tenacity.stop_after_delay(MAX_SECONDS),
        wait=tenacity.wait_exponential(multiplier=FIRST_WAIT_SECONDS),
        reraise=True,
    )
    return retrying(action)


def sha256(data: bytes) -> str:
    """64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def local_path(uri: str) -> Path | None:
    """Where a local file is, also one that a URL names; None for others."""
    if "://" not in uri:
        return Path(uri)
    is_local = uri.startswith(("file://", "local://")) and url_mistake(uri) is None
    return Path(fsspec.core.strip_protocol(uri)) if is_local else None


def _read_local(uri: str, path: Path, limit_bytes: int) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe or a device could be read for ever
            kind = "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise ImageError("unreadable", uri, f"expected a picture, found {kind}")
        _check_size(uri, status.st_size, limit_bytes)
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a name with a null byte
        raise _image_error(uri, error) from error


def _read_remote(uri: str, limit_bytes: int) -> bytes:
    def read() -> bytes:
        with _open(uri) as stream:
            return _read_at_most(stream, uri, limit_bytes)

    try:
        return patiently(read)
    except network_errors(ImportError, ValueError) as error:  # of protocols not allowed, or not installed
        raise _image_error(uri, error) from error


def _open(url: str) -> Any:
    if (mistake := url_mistake(url)) is not None:
        raise ValueError(mistake)
    options = {}
    if url.lower().startswith(("http://", "https://")):
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=None, sock_connect=TIMEOUT_SECONDS, sock_read=TIMEOUT_SECONDS)
        options = {"client_kwargs": {"timeout": timeout}, "block_size": 0}  # one request, without ranges
    return fsspec.open(url, "rb", **options)


def _read_at_most(stream: IO[bytes], uri: str, limit_bytes: int) -> bytes:
    """Everything in `stream`; streams of unknown length give what they have, piece by piece."""
    _check_size(uri, getattr(stream, "size", None) or 0, limit_bytes)
    pieces, length, begun = list[bytes](), 0, time.monotonic()
    while piece := stream.read(limit_bytes + 1 - length):
        pieces.append(piece)
        length += len(piece)
        _check_size(uri, length, limit_bytes)
        seconds = time.monotonic() - begun
        if seconds > TIMEOUT_SECONDS + length / LEAST_RATE:
            raise ImageError("timeout", uri, f"the server sent only {length:,} bytes in {seconds:.0f} s")
    return b"".join(pieces)


def _check_size(uri: str, size_bytes: int, limit_bytes: int) -> None:
    if size_bytes > limit_bytes:
        found = f"{size_bytes:,} bytes or more; at most {limit_bytes:,} bytes are read"
        raise ImageError("too_large", uri, found)


def _image_error(uri: str, error: Exception) -> ImageError:
    """What went wrong, for the person who has the file."""
    cause = network_cause(error)
    if is_missing(cause):
        return ImageError("missing", uri, "no such file")
    if isinstance(cause, PermissionError):
        return ImageError("unreadable", uri, "permission denied")
    if isinstance(cause, OSError) and cause.errno == errno.ENAMETOOLONG:
        return ImageError("unreadable", uri, "the name is too long")
    tries = f" (after {MAX_TRIES} tries)" if "://" in uri and is_transient(cause) else ""
    if is_timeout(cause):
        return ImageError("timeout", uri, f"the server did not answer in time: {type(cause).__name__}{tries}")
    return ImageError("unreadable", uri, f"cannot be read: {type(cause).__name__}: {cause}{tries}")
