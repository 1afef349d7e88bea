"""Opening every picture of a study: what it holds, how large it is, or what is wrong with it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Semaphore
from typing import Any

from nst_batch.errors import ImageError
from nst_batch.inputs import limits
from nst_batch.inputs.decoding import decode_sized
from nst_batch.inputs.fetching import local_path, read_bytes, sha256
from nst_batch.inputs.masks import Color
from nst_batch.records import Picture, valid_unicode
from nst_batch.vocabulary import MAX_REGIONS

_READ_AT_ONCE = 32  # a bucket answers after tens of milliseconds, and to many at once
_AHEAD = 256
_DECODERS = Semaphore(limits.num_cores())


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspection:
    """What planning learns about a picture."""

    picture: Picture
    width: int = 0
    height: int = 0
    """Pixels, upright; 0 when the picture is bad."""
    colors: tuple[Color, ...] = ()
    """Where there are so few that they may be regions of a mask."""
    error_type: str | None = None
    """`ImageError.kind`; None when the picture is good."""
    error_message: str | None = None
    """Names the picture."""


def inspect_all(uris: Iterable[str]) -> Iterator[Inspection]:
    """`inspect` of every picture, in order; as many are decoded at once as there are cores, and memory holds."""
    waiting: deque[Future[Inspection]] = deque()
    pool = ThreadPoolExecutor(_READ_AT_ONCE, "inspect")
    try:
        for uri in uris:
            waiting.append(pool.submit(inspect, uri))
            if len(waiting) >= _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def inspect(uri: str) -> Inspection:
    """Reads, hashes and fully decodes the picture at `uri`; what is wrong with it is returned, not raised."""
    digest = None
    try:
        with limits.READING.holding(_file_bytes(uri)):
            data = read_bytes(uri)
            digest = sha256(data)
            with _DECODERS:
                image, (width, height) = decode_sized(data, uri, target_edge=1)
                colors: Any = image.getcolors(MAX_REGIONS)
    except ImageError as error:
        bad = Picture(uri=valid_unicode(uri), sha256=digest)
        return Inspection(picture=bad, error_type=error.kind, error_message=str(error))
    picture, few = Picture(uri=uri, sha256=digest), tuple(color for _, color in colors or ())
    return Inspection(picture=picture, width=width, height=height, colors=few)


def _file_bytes(uri: str) -> int:
    """Of a local file; 0 where it is not known before the file is opened."""
    try:
        return path.stat().st_size if (path := local_path(uri)) else 0
    except (OSError, ValueError):
        return 0
