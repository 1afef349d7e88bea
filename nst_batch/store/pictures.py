"""Writing the pictures of trials, several at once: an object store answers after tens of milliseconds."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

_AT_ONCE = 16
_WAITING = 32


class PictureWriter:
    """Writes pictures in threads, for the length of a `with` block.

    Args:
        write: Publishes a file by its relative path; called in several threads.
    """

    def __init__(self, write: Callable[[str, bytes], None]) -> None:
        self._write = write
        self._begun: deque[Future[None]] = deque()

    def __enter__(self) -> Self:
        self._pool = ThreadPoolExecutor(_AT_ONCE, "nst-batch images")
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def write(self, path: str, image: bytes) -> None:
        """Begins to write a picture; waits first while too many are being written."""
        self.wait(_WAITING)
        self._begun.append(self._pool.submit(self._write, path, image))

    def wait(self, allowed: int = 0) -> None:
        """Returns when at most `allowed` are still being written; one that failed fails here each time."""
        while len(self._begun) > allowed:
            self._begun[0].result()
            self._begun.popleft()


def image_path(trial_id: str, image: bytes) -> str:
    """Where a trial's picture goes; a PNG unless its first bytes say that it is a JPEG or a WebP."""
    suffix = "png"
    if image.startswith(b"\xff\xd8"):
        suffix = "jpg"
    elif image[8:12] == b"WEBP":
        suffix = "webp"
    return f"images/{trial_id[:2]}/{trial_id}.{suffix}"
