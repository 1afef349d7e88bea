"""Running a changed study into an old run directory: extended if every old trial is still in it, else refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow.compute as pc

from nst_batch.errors import StudyChangedError
from nst_batch.plan import BAD_INPUT_BATCH, Plan
from nst_batch.records import Trial
from nst_batch.store import RunDirectory


def extension(run: RunDirectory, plan: Plan) -> Iterator[Trial]:
    """The trials that `plan` adds to what `run` has planned, numbered on from there, in batches of their own.

    A trial whose picture was bad may vanish: its row stays, and the picture's replacement is a new trial. The
    plans are compared as columns: nothing is made for each trial until it is known to be new.

    Raises:
        StudyChangedError: Other planned trials are no longer in the study; the message shows what changed.
    """
    old = run.plan(["trial_id", "error_type", "batch"])
    wanted = plan.trial_ids()
    needed = old.filter(pc.is_null(old["error_type"]))["trial_id"]
    lost = len(needed) - pc.sum(pc.is_in(needed, wanted)).as_py() if len(needed) else 0
    changes = list(_differences(run.study["study"], plan.study.to_dict()))
    renamed = [line for line in changes if line.startswith(("name:", "output."))]
    if lost or renamed:
        shown = "\n  ".join(changes or ["the content of pictures"])
        raise StudyChangedError(
            f"{run.directory.url()} holds {len(needed)} trials of which {lost} are not in the study as it is now. "
            f"What changed:\n  {shown}\nRun it into another --out; only additions extend a run directory"
        )
    fresh = pc.invert(pc.is_in(wanted, old["trial_id"])).to_numpy()
    last_batch = pc.max(old["batch"]).as_py() if len(old) else BAD_INPUT_BATCH
    return plan.trials(fresh, first_index=len(old), first_batch=last_batch + 1)


def _differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key in dict.fromkeys((*old, *new)):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            yield from _differences(before, after, f"{prefix}{key}.")
        elif before != after:
            yield f"{prefix}{key}: {before} → {after}"
