"""Every error that nst-batch raises on purpose.

    NstBatchError
    ├── StudyError            the study file or an override is wrong (lists every problem)
    ├── LayerError            a layer that does not exist, or that the image is too small for
    ├── ImageError            a picture that cannot be used; `kind` says why in one word
    ├── WeightsError          weights that cannot be had, or do not fit the network
    ├── RunDirectoryError     the run directory cannot be written, read or trusted
    │   ├── LockedError       another process is writing to it
    │   └── StudyChangedError it holds another study's results
    ├── QueryError            a query that cannot be answered
    ├── ClusterError          Ray cannot be started, reached or given what the study needs
    └── Interrupted           a signal ended the run after a clean flush

Messages are for the person who can act on them: what was expected, what was found, where, what to do. None holds
a secret of a URL. Below them: which exceptions of other libraries mean the network, and whether they may pass.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence


class NstBatchError(Exception):
    """The root: catching this catches everything that nst-batch raises on purpose.

    Args:
        message: Shown and stored without the secrets of URLs.
    """

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(without_secrets(message))


class StudyError(NstBatchError):
    """A study that cannot be run as written.

    Args:
        problems: One line each, `file:line: key: what was expected and what was found`.
    """

    exit_code = 2

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = tuple(map(without_secrets, (problems,) if isinstance(problems, str) else problems))
        super().__init__("\n".join(self.problems))


class LayerError(NstBatchError, ValueError):
    """An unknown layer name, or a layer deeper than the image allows."""

    exit_code = 2


TRANSIENT_KINDS = frozenset({"missing", "unreadable", "timeout"})
"""Kinds of `ImageError` that say nothing about the picture itself: it is read again before it is called bad."""


class ImageError(NstBatchError):
    """A picture that cannot be used.

    Args:
        kind: A stable word for tables: `missing`, `empty`, `not_an_image`, `truncated`, `corrupt`,
            `too_large`, `too_small`, `changed`, `unreadable` or `timeout`.
        uri: The picture, as the study names it.
        message: What was expected and what was found.
    """

    def __init__(self, kind: str, uri: str, message: str) -> None:
        self.kind, self.uri, self.message = kind, without_secrets(uri), without_secrets(message)
        super().__init__(f"{uri}: {message}")

    def __reduce__(self) -> tuple[type[ImageError], tuple[str, str, str]]:
        return ImageError, (self.kind, self.uri, self.message)


class WeightsError(NstBatchError):
    """Weights that cannot be downloaded, read or fitted to the network."""


class RunDirectoryError(NstBatchError):
    """A run directory that cannot be written, read or trusted."""


class LockedError(RunDirectoryError):
    """Another process is writing to the run directory; the message names its host, pid and start."""


class StudyChangedError(RunDirectoryError):
    """The run directory holds results that the study, as it is now, would not produce."""

    exit_code = 2


class QueryError(NstBatchError):
    """A query that cannot be answered; the message shows what could be asked."""

    exit_code = 2


class ClusterError(NstBatchError):
    """Ray cannot be started or reached, or no node has what the study needs."""


class Interrupted(NstBatchError):  # noqa: N818 (not an error)
    """A signal ended the run; everything that had finished is on disk.

    Args:
        signal_number: The signal; the exit code is 128 plus this.
        message: How to go on.
    """

    def __init__(self, signal_number: int, message: str) -> None:
        self.exit_code = 128 + signal_number
        super().__init__(message)


# The network


_NETWORK_ERRORS = (
    ("aiohttp", "ClientError"),
    ("azure.core.exceptions", "AzureError"),
    ("botocore.exceptions", "BotoCoreError"),
    ("botocore.exceptions", "ClientError"),
    ("gcsfs.retry", "HttpError"),
    ("google.api_core.exceptions", "GoogleAPIError"),
    ("google.auth.exceptions", "GoogleAuthError"),
    ("http.client", "HTTPException"),
    ("urllib3.exceptions", "HTTPError"),
)
"""Roots of the network libraries' exceptions that are not OSErrors."""
_TRANSIENT_STATUS = (408, 425, 429)
_NO_CREDENTIALS = {"NoCredentialsError", "DefaultCredentialsError", "ClientAuthenticationError"}
"""Of botocore, Google and Azure; the last one's own subclasses too."""


def network_errors(*others: type[Exception]) -> tuple[type[Exception], ...]:
    """OSError, the network libraries' own exceptions and `others`; a library not loaded has raised nothing."""
    found = (getattr(sys.modules.get(module), name, None) for module, name in _NETWORK_ERRORS)
    return (OSError, *(error for error in found if error is not None), *others)


def network_cause(error: Exception) -> Exception:
    """What happened: fsspec calls every failed HTTP request a missing file, with the real reason as its cause."""
    while isinstance(error, FileNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return error


def is_missing(error: Exception) -> bool:
    """Whether there is no such file."""
    cause = network_cause(error)
    return isinstance(cause, FileNotFoundError | NotADirectoryError) or _status(cause) in (404, 410)


def is_timeout(error: Exception) -> bool:
    """Whether a server did not answer in time."""
    cause = network_cause(error)
    return isinstance(cause, TimeoutError) or "Timeout" in type(cause).__name__


def is_transient(error: Exception) -> bool:
    """Whether trying again may help: yes, unless the server or the file system refused for good."""
    cause = network_cause(error)
    if not isinstance(cause, network_errors()) or is_missing(cause):
        return False
    if (status := _status(cause)) is not None:
        return status >= 500 or status in _TRANSIENT_STATUS
    refused = isinstance(cause, PermissionError | IsADirectoryError)
    return not refused and _NO_CREDENTIALS.isdisjoint(each.__name__ for each in type(cause).__mro__)


def _status(error: Exception) -> int | None:
    """The HTTP status that a client library's exception carries."""
    if isinstance(answer := getattr(error, "response", None), dict):  # botocore's
        found = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return found if isinstance(found, int) else None
    statuses = (getattr(error, name, None) for name in ("status", "status_code", "code"))
    return next((each for each in statuses if isinstance(each, int)), None)


# Secrets


_USER = re.compile(
    r"""(?<=://)
        (?!(?:(?<=abfs://)|(?<=abfss://))[^/\s:@]+@(?![^/\s]*@))  # Azure's container@account names no user
        [^/\s?\#'"<>]*@""",
    re.VERBOSE,
)
_SECRET = re.compile(
    r"""([?&;](?:[\w.%-]*(?:signature|token|secret|passw|credential|api[_-]?key|access[_-]?key)[\w.%-]*
        |x-amz-[\w-]+|x-goog-[\w-]+|sig|key|key-pair-id|auth|policy|pwd)=)
        (?:[^&;\#\s'"<>]*[^&;\#\s'"<>:,.)])?  # not what ends a clause after the URL""",
    re.IGNORECASE | re.VERBOSE,
)


def without_secrets(text: str) -> str:
    """`text` as it may be shown and stored: URLs lose `user:password@` and the values of signed queries.

    >>> without_secrets("https://me:pw@host/a.png?size=3&X-Amz-Signature=0f3")
    'https://***@host/a.png?size=3&X-Amz-Signature=***'
    """
    return _SECRET.sub(r"\1***", _USER.sub("***@", text)) if "://" in text else text
