"""Input files as bytes, from local paths and from every URL that fsspec knows."""

from __future__ import annotations

import errno
import hashlib
import stat
import sys
import time
from pathlib import Path
from typing import IO

from nst_batch.errors import ImageError

MAX_BYTES = 512 * 1024**2
"""Larger files are refused before they are read."""

RETRY_AFTER_SECONDS = (0.5, 1.0, 2.0)
"""What is waited before the second and every later try."""

_LOCAL_PROTOCOLS = ("file", "local", "memory")
_CLIENT_ERRORS = (
    ("aiohttp", "ClientError"),
    ("botocore.exceptions", "BotoCoreError"),
    ("botocore.exceptions", "ClientError"),
    ("gcsfs.retry", "HttpError"),
    ("google.auth.exceptions", "GoogleAuthError"),
)
"""Roots of the network libraries' exceptions that are not OSErrors."""

_TRANSIENT_STATUS = (408, 425, 429)


def read_bytes(uri: str, *, expected_sha256: str | None = None, limit_bytes: int = MAX_BYTES) -> bytes:
    """The file at `uri`, a local path or any URL that fsspec knows; network errors are retried.

    Args:
        expected_sha256: What the plan saw; None accepts anything.

    Raises:
        ImageError: `missing`, `unreadable`, `empty`, `too_large`, or `changed` when it is not what the plan saw.
    """
    if printable(uri) != uri:
        reason = "the name is not valid Unicode, so no table can hold it; rename the file"
        raise ImageError("unreadable", printable(uri), reason)
    data = _read_remote(uri, limit_bytes) if "://" in uri else _read_local(uri, limit_bytes)
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


def sha256(data: bytes) -> str:
    """64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def printable(uri: str) -> str:
    r"""`uri` with what UTF-8 cannot hold spelled out, such as `\udcff` for a stray byte in a file's name."""
    return uri.encode("utf-8", "backslashreplace").decode()


def _read_local(uri: str, limit_bytes: int) -> bytes:
    try:
        status = Path(uri).stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe or a device could be read for ever
            kind = "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise ImageError("unreadable", uri, f"expected a picture, found {kind}")
        _check_size(uri, status.st_size, limit_bytes)
        return Path(uri).read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageError("missing", uri, "no such file") from error
    except (OSError, ValueError) as error:  # ValueError: a name with a null byte
        raise ImageError("unreadable", uri, _reason(error)) from error


def _read_remote(uri: str, limit_bytes: int) -> bytes:
    import fsspec

    protocol = uri.partition("://")[0]
    waits = () if protocol in _LOCAL_PROTOCOLS else RETRY_AFTER_SECONDS
    for wait in (*waits, None):
        try:
            with fsspec.open(uri, "rb") as stream:
                return _read_at_most(stream, uri, limit_bytes)
        except (ImportError, ValueError) as error:  # an unknown protocol, or one whose package is not installed
            raise ImageError("unreadable", uri, _reason(error)) from error
        except network_errors() as error:
            root = _root(error, protocol)
            if _is_missing(root):
                raise ImageError("missing", uri, "no such file") from error
            if wait is None or not is_transient(root):
                tries = f" (after {len(waits) + 1} tries)" if wait is None and waits else ""
                raise ImageError("unreadable", uri, _reason(root) + tries) from error
            time.sleep(wait)
    raise AssertionError("the last try returns or raises")


def _read_at_most(stream: IO[bytes], uri: str, limit_bytes: int) -> bytes:
    """Everything in `stream`; streams of unknown length give what they have, piece by piece."""
    _check_size(uri, getattr(stream, "size", None) or 0, limit_bytes)
    pieces, length = [], 0
    while piece := stream.read(limit_bytes + 1 - length):
        pieces.append(piece)
        length += len(piece)
        _check_size(uri, length, limit_bytes)
    return b"".join(pieces)


def _check_size(uri: str, size_bytes: int, limit_bytes: int) -> None:
    if size_bytes > limit_bytes:
        found = f"{size_bytes:,} bytes or more; at most {limit_bytes:,} bytes are read"
        raise ImageError("too_large", uri, found)


def network_errors() -> tuple[type[Exception], ...]:
    """OSError and the network libraries' own exceptions; a library that is not loaded has raised nothing."""
    found = (getattr(sys.modules.get(module), name, None) for module, name in _CLIENT_ERRORS)
    return (OSError, *(error for error in found if error is not None))


def _root(error: Exception, protocol: str) -> Exception:
    """What happened: for fsspec every failed HTTP request is a missing file, with the real reason as its cause."""
    if protocol in ("http", "https"):
        while isinstance(error, FileNotFoundError) and isinstance(error.__cause__, Exception):
            error = error.__cause__
    return error


def _status(error: Exception) -> int | None:
    """The HTTP status that a client library's exception carries."""
    found = getattr(error, "status", None) or getattr(error, "code", None)
    return found if isinstance(found, int) else None


def _is_missing(error: Exception) -> bool:
    return isinstance(error, FileNotFoundError | NotADirectoryError) or _status(error) in (404, 410)


def is_transient(error: Exception) -> bool:
    """Whether trying again may help: yes, unless the server or the file system refused for good."""
    if (status := _status(error)) is not None:
        return status >= 500 or status in _TRANSIENT_STATUS
    refused = isinstance(error, PermissionError | IsADirectoryError)
    return not refused and type(error).__name__ not in ("NoCredentialsError", "DefaultCredentialsError")


def _reason(error: Exception) -> str:
    if isinstance(error, PermissionError):
        return "permission denied"
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return "the name is too long"
    return f"cannot be read: {type(error).__name__}: {error}"
