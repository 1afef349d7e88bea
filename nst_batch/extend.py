"""Running a changed study into an old run directory: extended if every old trial is still in it, else refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from nst_batch.errors import StudyChangedError
from nst_batch.plan import BAD_INPUT_BATCH, Plan
from nst_batch.records import Trial
from nst_batch.store import RunDirectory

_Ids = npt.NDArray[np.void]


def extension(run: RunDirectory, plan: Plan) -> Iterator[Trial]:
    """The trials that `plan` adds to what `run` has planned, numbered on from there.

    A trial whose picture was bad may vanish: its row stays, and the picture's replacement is a new trial.

    Raises:
        StudyChangedError: Other planned trials are no longer in the study; the message shows what changed.
    """
    old = run.plan(["trial_id", "error_type", "batch"])
    needed = _ids(old.filter(pc.is_null(old["error_type"]))["trial_id"].to_pylist())
    wanted = _ids([trial.trial_id for trial in plan.trials()])
    lost = len(needed) - int(np.isin(needed, wanted).sum())
    changes = list(_differences(run.study["study"], plan.study.to_dict()))
    renamed = [line for line in changes if line.startswith(("name:", "output."))]
    if lost or renamed:
        shown = "\n  ".join(changes or ["the content of pictures"])
        raise StudyChangedError(
            f"{run.directory.url()} holds {len(needed)} trials of which {lost} are not in the study as it is now. "
            f"What changed:\n  {shown}\nRun it into another --out; only additions extend a run directory"
        )
    known = _ids(old["trial_id"].to_pylist())
    last_batch = max(old["batch"].to_pylist(), default=-1)
    return _fresh(plan, known, len(old), last_batch + 1)


def _fresh(plan: Plan, known: _Ids, first_index: int, first_batch: int) -> Iterator[Trial]:
    seen = set(known.tolist())
    index = first_index
    for trial in plan.trials():
        if bytes.fromhex(trial.trial_id) not in seen:
            batch = trial.batch if trial.batch == BAD_INPUT_BATCH else trial.batch + first_batch
            yield replace(trial, trial_index=index, batch=batch)
            index += 1


def _ids(trial_ids: list[str]) -> _Ids:
    """Sixteen bytes each: a million of them are little."""
    return np.array([bytes.fromhex(trial_id) for trial_id in trial_ids], dtype="V16")


def _differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key in dict.fromkeys((*old, *new)):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            yield from _differences(before, after, f"{prefix}{key}.")
        elif before != after:
            yield f"{prefix}{key}: {before} → {after}"
