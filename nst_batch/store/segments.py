"""Segments: tables of results that are not yet published, each row with its curve and layers (`tables.SEGMENT`)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from nst_batch.store import tables


def to_bytes(segment: pa.Table) -> bytes:
    """A segment as a file: an Arrow stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, segment.schema) as writer:
        writer.write_table(segment)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def from_bytes(data: bytes) -> pa.Table:
    """The inverse of `to_bytes`. Raises pyarrow.ArrowInvalid if the data is damaged."""
    return pa.ipc.open_stream(data).read_all()


def joined(segments: list[pa.Table]) -> pa.Table:
    """The last attempt of each trial in any of `segments`, in order of `trial_index`."""
    rows = pa.concat_tables([tables.SEGMENT.empty_table(), *segments])
    rows = rows.sort_by([("trial_index", "ascending"), ("attempt", "descending")])
    index = rows["trial_index"].to_numpy()
    first = np.ones(len(index), np.bool_)
    first[1:] = index[1:] != index[:-1]
    return rows.filter(pa.array(first))


def later_than(segment: pa.Table, attempts: npt.NDArray[np.integer]) -> pa.Table:
    """The rows of `segment` whose attempt is later than the one in `attempts`, which has an entry for each row."""
    return segment.filter(pa.array(segment["attempt"].to_numpy() > attempts))


def newer(segment: pa.Table, published: pa.Table) -> pa.Table:
    """The rows of `segment` that are a later attempt than `published` (`tables.TRIALS`) has of their trial."""
    known = dict(zip(published["trial_index"].to_pylist(), published["attempt"].to_pylist(), strict=True))
    attempts = [known.get(index, 0) for index in segment["trial_index"].to_pylist()]
    return later_than(segment, np.array(attempts, np.int64))


def of_part(segment: pa.Table, part: int, rows_per_part: int) -> pa.Table:
    """The rows of `segment` that belong to a part."""
    return segment.filter(pa.array(segment["trial_index"].to_numpy() // rows_per_part == part))


def merged(old: pa.Table, fresh: pa.Table, replaced: pa.ChunkedArray) -> pa.Table:
    """`old` without the trials whose index is in `replaced`, and `fresh`, in order of `trial_index`."""
    kept = old.filter(pc.invert(pc.is_in(old["trial_index"], replaced.combine_chunks())))
    return pa.concat_tables([kept.cast(fresh.schema), fresh]).sort_by("trial_index")
