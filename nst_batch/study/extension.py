"""Running a changed study into an old run directory: extended if every old trial is still in it, else refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nst_batch.errors import TRANSIENT_KINDS, StudyChangedError, without_secrets
from nst_batch.inputs.finding import Listing
from nst_batch.inputs.inspecting import inspect_all
from nst_batch.records import Picture, Trial
from nst_batch.study.plan import BAD_INPUT_BATCH, Ids, Plan, packed

_SHOWN = 5


PlanTable = Callable[[Sequence[str]], Any]


def extension(plan: Plan, *, where: str, study: dict[str, Any], planned: PlanTable) -> Iterator[Trial]:
    """The trials that `plan` adds to a run directory, numbered on from there, in batches of their own.

    A trial whose picture was bad when it was planned may vanish: if the picture can be used now, its new trial
    takes the old one's `trial_index`; otherwise the row stays. The plans are compared as arrays of ids: a trial is
    made only when it is known to be new.

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
    places = _places(planned, known, wanted)
    return _placed(plan.trials(fresh, first_batch=last_batch + 1), places, len(old))


def readable_again(planned: PlanTable, listing: Listing) -> bool:
    """Whether a picture can be read that for some passing reason could not when the study was planned."""
    old = planned(["error_type", *(name for both in _PICTURES for name in both)])
    bad = old.filter(pc.is_in(old["error_type"], pa.array(sorted(TRANSIENT_KINDS))))
    named = _named(bad)
    unread = set(named.filter(pc.is_null(named["digest"]))["uri"].to_pylist())
    candidates = [uri for uri in listing.uris if without_secrets(uri) in unread]
    return any(inspection.picture.sha256 is not None for inspection in inspect_all(candidates))


_PICTURES = (
    ("content_sha256", "content_uri"),
    ("content_mask_sha256", "content_mask_uri"),
    ("style_sha256s", "style_uris"),
    ("style_mask_sha256s", "style_mask_uris"),
)
"""Columns of the plan."""


def _named(planned: pa.Table) -> pa.Table:
    """(digest, uri) of every picture and mask that rows of a plan name, each once."""
    parts = []
    for names in _PICTURES:
        digests, uris = (planned[name] for name in names)
        if pa.types.is_list(uris.type):
            digests, uris = pc.list_flatten(digests), pc.list_flatten(uris)
        parts.append(pa.table([digests, uris], ["digest", "uri"]).filter(pc.is_valid(uris)))
    return pa.concat_tables(parts).group_by(["digest", "uri"]).aggregate([]).sort_by("uri")


_Place = tuple[Any, ...]
"""The names of a trial's pictures and masks, and the identity of its configuration."""


def _places(planned: PlanTable, known: Ids, wanted: Ids) -> dict[_Place, int]:
    """The `trial_index` of each trial whose picture was bad and that is no longer wanted."""
    names = [uris for _, uris in _PICTURES]
    old = planned(["trial_index", "configuration", "error_type", *names])
    gone = pc.and_(pc.is_valid(old["error_type"]), pa.array(np.isin(known, wanted, invert=True)))
    return {
        (*(_hashable(row[name]) for name in names), row["configuration"]): row["trial_index"]
        for row in old.filter(gone).to_pylist()
    }


def _hashable(names: str | list[str | None] | None) -> str | tuple[str | None, ...] | None:
    return tuple(names) if isinstance(names, list) else names


def _place(trial: Trial) -> _Place:
    """Names as a plan shows them; no masks at all are an empty list."""
    shown = [_shown(each) for each in (trial.content, *trial.styles)]
    (content, content_mask), styles = shown[0], shown[1:]
    masks = tuple(mask for _, mask in styles) if any(mask for _, mask in styles) else ()
    return content, content_mask, tuple(uri for uri, _ in styles), masks, trial.configuration.identity()


def _shown(picture: Picture | None) -> tuple[str | None, str | None]:
    """The names of a picture and its mask."""
    if picture is None:
        return None, None
    return without_secrets(picture.uri), without_secrets(picture.mask.uri) if picture.mask else None


def _placed(trials: Iterator[Trial], places: dict[_Place, int], first: int) -> Iterator[Trial]:
    """Numbers trials from `first`, but for those that have a place already."""
    for trial in trials:
        index = places.pop(_place(trial), None) if places else None
        if index is None:
            index, first = first, first + 1
        yield replace(trial, trial_index=index)


def _gone(planned: PlanTable, plan: Plan) -> Iterator[str]:
    """Lines that name planned pictures of which the content is no longer in the study."""
    there = plan.names()
    named = _named(planned([name for both in _PICTURES for name in both]))
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
