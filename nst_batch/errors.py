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

Messages are for the person who can act on them: what was expected, what was found, where, what to do.
"""

from __future__ import annotations

from collections.abc import Sequence


class NstBatchError(Exception):
    """The root: catching this catches everything that nst-batch raises on purpose."""

    exit_code = 1


class StudyError(NstBatchError):
    """A study that cannot be run as written.

    Args:
        problems: One line each, `file:line: key: what was expected and what was found`.
    """

    exit_code = 2

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


class LayerError(NstBatchError, ValueError):
    """An unknown layer name, or a layer deeper than the image allows."""

    exit_code = 2


class ImageError(NstBatchError):
    """A picture that cannot be used.

    Args:
        kind: A stable word for tables: `missing`, `empty`, `not_an_image`, `truncated`, `corrupt`,
            `too_large`, `too_small`, `changed`, `unreadable` or `timeout`.
        uri: The picture, as the study names it.
        message: What was expected and what was found.
    """

    def __init__(self, kind: str, uri: str, message: str) -> None:
        self.kind, self.uri, self.message = kind, uri, message
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
