"""Running a changed study into an old run directory: extended if every old trial is still in it, else refused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from nst_batch.errors import TRANSIENT_KINDS, StudyChangedError, without_secrets
from nst_batch.inputs.finding import Listing
from nst_batch.inputs.inspecting import inspect_all
from nst_batch.records import Picture, Trial
from nst_batch.study.plan import BAD_INPUT_BATCH, Plan, packed

_SHOWN = 5


class Planned(Protocol):
    """The plan that a run directory holds, as `store.RunDirectory` reads it."""

    def plan(self, columns: Sequence[str] | None = None) -> Any:
        """Columns of it, as an Arrow table."""

    def iter_plan(self, *, skip: npt.NDArray[np.bool_] | None = None) -> Iterator[Trial]:
        """Its trials, without those at which `skip` is true."""


def extension(plan: Plan, old: Planned, study: dict[str, Any], where: str) -> Iterator[Trial]:
    """The trials that `plan` adds to a run directory, numbered on from there, in batches of their own.

    A trial whose picture was bad when it was planned may vanish: if the picture can be used now, its new trial
    takes the old one's `trial_index`; otherwise the row stays. The plans are compared as arrays of ids: a trial is
    made only when it is known to be new.

    Args:
        plan: Of the study as it is now.
        study: What the run directory holds, as `Study.shown` gave it.
        where: The run directory, for the message.

    Raises:
        StudyChangedError: Other planned trials are no longer in the study; the message shows what changed.
    """
    table = old.plan(["trial_id", "error_type", "batch"])
    known = packed(text for chunk in table["trial_id"].chunks for text in chunk.to_pylist())
    wanted = plan.trial_ids()
    bad, gone = table["error_type"].is_valid().to_numpy(), np.isin(known, wanted, invert=True)
    lost, vanished = gone & ~bad, gone & bad
    changes = list(_differences(study, plan.study.shown()))
    if lost.any() or any(line.startswith(("name:", "output.")) for line in changes):
        shown = "\n  ".join((*changes, *_changed_pictures(old.iter_plan(skip=~lost), plan)))
        raise StudyChangedError(
            f"{where} holds {(~bad).sum()} trials of which {lost.sum()} are not in the study as it is now. "
            f"What changed:\n  {shown}\nRun it into another --out; only additions extend a run directory"
        )
    trials = old.iter_plan(skip=~vanished) if vanished.any() else ()
    places = {_place(trial): trial.trial_index for trial in trials}
    last_batch = pc.max(table["batch"]).as_py() if len(table) else BAD_INPUT_BATCH
    fresh = plan.trials(np.isin(wanted, known, invert=True), first_batch=last_batch + 1)
    return _placed(fresh, places, len(table))


def readable_again(old: Planned, listing: Listing) -> bool:
    """Whether a picture can be read that for some passing reason could not when the study was planned."""
    passing = pc.is_in(old.plan(["error_type"])["error_type"], pa.array(sorted(TRANSIENT_KINDS))).to_numpy()
    trials = old.iter_plan(skip=~passing) if passing.any() else ()
    unread = {without_secrets(file.uri) for trial in trials for file in trial.files if file.sha256 is None}
    candidates = [uri for uri in listing.uris if without_secrets(uri) in unread]
    return any(inspection.picture.sha256 is not None for inspection in inspect_all(candidates))


def _placed(trials: Iterator[Trial], places: dict[Any, int], first: int) -> Iterator[Trial]:
    """Numbers trials from `first`, but for those that have a place already."""
    for trial in trials:
        index = places.pop(_place(trial), None) if places else None
        if index is None:
            index, first = first, first + 1
        yield replace(trial, trial_index=index)


def _place(trial: Trial) -> tuple[Any, ...]:
    """The names of a trial's pictures and masks, as they may be shown, and its configuration."""
    return (*map(_names, (trial.content, *trial.styles)), trial.configuration.identity())


def _names(picture: Picture | None) -> tuple[str, ...]:
    files = (picture, picture.mask) if picture else ()
    return tuple(without_secrets(file.uri) for file in files if file)


def _changed_pictures(lost: Iterator[Trial], plan: Plan) -> Iterator[str]:
    """Lines that name the pictures of `lost` trials of which the content is no longer in the study, and why."""
    there, reasons = plan.names(), {without_secrets(each.picture.uri): each.error_message for each in plan.bad}
    files = (file for trial in lost for file in trial.files if file.sha256 not in there)
    uris = sorted({without_secrets(file.uri) for file in files})
    yield from (reasons.get(uri) or f"{uri}: changed or gone" for uri in uris[:_SHOWN])
    if len(uris) > _SHOWN:
        yield f"… and {len(uris) - _SHOWN:,} more pictures"


def _differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key in dict.fromkeys((*old, *new)):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            yield from _differences(before, after, f"{prefix}{key}.")
        elif before != after:
            yield f"{prefix}{key}: {before} → {after}"
