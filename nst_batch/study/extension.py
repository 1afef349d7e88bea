"""Running a changed study into an old run directory: extended if every old trial is still in it, else refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nst_batch.errors import StudyChangedError
from nst_batch.records import Trial
from nst_batch.study.plan import BAD_INPUT_BATCH, Plan, packed

_SHOWN = 5


PlanTable = Callable[[Sequence[str]], Any]


def extension(plan: Plan, *, where: str, study: dict[str, Any], planned: PlanTable) -> Iterator[Trial]:
    """The trials that `plan` adds to a run directory, numbered on from there, in batches of their own.

    A trial whose picture was bad may vanish: its row stays, and the picture's replacement is a new trial. The
    plans are compared as arrays of ids: a trial is made only when it is known to be new.

    Args:
        plan: Of the study as it is now.
        where: The run directory, for the message.
        study: The study that it holds, as `Study.shown` gave it.
        planned: Columns of its plan, as `RunDirectory.plan` gives them.

    Raises:
        StudyChangedError: Other planned trials are no longer in the study; the message shows what changed.
    """
    old = planned(["trial_id", "error_type", "batch"])
    known, wanted = packed(_texts(old["trial_id"])), plan.trial_ids()
    needed = known[pc.is_null(old["error_type"]).to_numpy()]
    lost = len(needed) - int(np.isin(needed, wanted).sum())
    changes = list(_differences(study, plan.study.shown()))
    renamed = [line for line in changes if line.startswith(("name:", "output."))]
    if lost or renamed:
        shown = "\n  ".join((*changes, *_gone(planned, plan)))
        raise StudyChangedError(
            f"{where} holds {len(needed)} trials of which {lost} are not in the study as it is now. "
            f"What changed:\n  {shown}\nRun it into another --out; only additions extend a run directory"
        )
    fresh = np.isin(wanted, known, invert=True)
    last_batch = pc.max(old["batch"]).as_py() if len(old) else BAD_INPUT_BATCH
    return plan.trials(fresh, first_index=len(old), first_batch=last_batch + 1)


def _gone(planned: PlanTable, plan: Plan) -> Iterator[str]:
    """Lines that name planned pictures of which the content is no longer in the study."""
    pictures = (each for pair in plan.pairs for each in (pair.content, *pair.styles) if each)
    there = {each.picture.sha256 for each in pictures}
    old = planned(["content_sha256", "content_uri", "style_sha256s", "style_uris"])
    contents = pa.table([old["content_sha256"], old["content_uri"]], ["digest", "uri"])
    styles = pa.table([pc.list_flatten(old["style_sha256s"]), pc.list_flatten(old["style_uris"])], contents.schema)
    named = pa.concat_tables([contents, styles]).group_by(["digest", "uri"]).aggregate([]).sort_by("uri")
    gone = [row["uri"] for row in named.to_pylist() if row["digest"] is not None and row["digest"] not in there]
    yield from (f"{uri}: changed or gone" for uri in gone[:_SHOWN])  # the error shows them without secrets
    if len(gone) > _SHOWN:
        yield f"… and {len(gone) - _SHOWN:,} more pictures"


def _texts(column: pa.ChunkedArray) -> Iterator[str]:
    for chunk in column.chunks:
        yield from chunk.to_pylist()


def _differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key in dict.fromkeys((*old, *new)):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            yield from _differences(before, after, f"{prefix}{key}.")
        elif before != after:
            yield f"{prefix}{key}: {before} → {after}"
