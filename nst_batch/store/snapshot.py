"""A run at one moment: which trials have ended, and the tables, where published and staged rows meet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from nst_batch.errors import RunDirectoryError
from nst_batch.store import rows

if TYPE_CHECKING:
    from nst_batch.store.run_directory import RunDirectory

_READ_ATTEMPTS = 50

Mask = npt.NDArray[np.bool_]
"""One truth value per trial, by `trial_index`."""

STATES = ("pending", "ok", "failed", "diverged")
_PENDING, _, _FAILED, _ = range(4)


class TrialStatus:
    """The last attempt and the state of every trial, by `trial_index`: at first 0 and pending.

    Three bytes per trial, so that a million of them are nothing.
    """

    COLUMNS = ("trial_index", "attempt", "status")
    """The columns of `trials` that `learn` needs."""

    def __init__(self, num_trials: int) -> None:
        self.attempts = np.zeros(num_trials, np.uint16)
        self.states = np.zeros(num_trials, np.uint8)
        """Positions in STATES."""

    @property
    def ended(self) -> Mask:
        """True where a trial has ended."""
        return np.not_equal(self.states, _PENDING)

    @property
    def failed(self) -> Mask:
        """True where a trial has failed."""
        return np.equal(self.states, _FAILED)

    def counts(self) -> dict[str, int]:
        """The trials by state: pending, ok, failed, diverged."""
        return dict(zip(STATES, np.bincount(self.states, minlength=len(STATES)).tolist(), strict=True))

    def learn(self, rows: pa.Table) -> None:
        """Records the trials in `rows`, as far as their attempts are later than those known."""
        index, attempt = rows["trial_index"].to_numpy(), rows["attempt"].to_numpy()
        state = pc.index_in(rows["status"], pa.array(STATES)).to_numpy()
        later = attempt > self.attempts[index]
        self.attempts[index[later]], self.states[index[later]] = attempt[later], state[later]


@dataclass(frozen=True)
class Snapshot:
    """The tables at one moment: a table is the rows of `paths` and those of `rest`, each trial once.

    Where staged rows replace rows of a published part (a retry, or an extension that goes on in the last part), the
    whole part is read into `rest`, so that nobody has to leave rows out. Such parts are few at any moment.
    """

    run: RunDirectory
    parts: tuple[str, ...]
    """The file names of the published parts, in order, the same in every table."""
    replaced: tuple[str, ...]
    """Those of `parts` that have newer rows in `segment`."""
    segment: pa.Table
    """The staged rows (SEGMENT) that are newer than what is published."""

    def paths(self, name: str) -> list[str]:
        """The published files that are to be read as they are, relative to the run directory."""
        return self._paths(name, (part for part in self.parts if part not in self.replaced))

    def rest(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of a table that are not in `paths`, in order of `trial_index`."""
        published = self._read(name, self._paths(name, self.replaced), columns)
        staged = rows.split(self.segment, name).select(published.schema.names).replace_schema_metadata()
        return rows.replaced(published, self.segment["trial_index"], staged)

    def table(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows, in order of `trial_index`."""
        found = self._read(name, self.paths(name), columns)
        if self.segment.num_rows:
            found = pa.concat_tables([found, self.rest(name, columns)]).sort_by("trial_index")
        return found if columns is None else found.select(list(columns))

    def _paths(self, name: str, parts: Iterable[str]) -> list[str]:
        """Runs that are older than masks have no files of regions."""
        is_there = name != "regions" or self.run.directory.list(name)
        return [f"{name}/{part}" for part in parts] if is_there else []

    def _read(self, name: str, paths: Sequence[str], columns: Sequence[str] | None) -> pa.Table:
        """These columns of these files, and `trial_index`; None means all."""
        names = dict.fromkeys([*columns, "trial_index"]) if columns else None
        return self.run.read(name, paths, list(names) if names else None)


def take_snapshot(run: RunDirectory) -> Snapshot:
    """What is published and what is staged now, without duplicates, even while a run writes.

    Raises:
        RunDirectoryError: Something is damaged, or changes too quickly.
    """
    for _ in range(_READ_ATTEMPTS):
        paths = run.segment_paths()
        staged = [segment for path in paths if (segment := run.find_segment(path)) is not None]
        if len(staged) == len(paths):
            # Listed after the segments were read: a row that left staging since then is in a part by now.
            parts = set(run.parts())
            segment = _unpublished(run, rows.joined(staged), parts)
            replaced = parts & run.part_names(segment)
            return Snapshot(run, tuple(sorted(parts)), tuple(sorted(replaced)), segment)
    raise RunDirectoryError(f"{run.directory.url()}: it changes too quickly to be read; try again")


def _unpublished(run: RunDirectory, segment: pa.Table, parts: set[str]) -> pa.Table:
    """The rows of `segment` that are newer than what `parts` have of their trials."""
    last = int(run.part_of(segment).max(initial=-1))
    published = TrialStatus(run.trials_of(last).stop)
    for part in parts & run.part_names(segment):
        published.learn(run.read("trials", [f"trials/{part}"], TrialStatus.COLUMNS))
    return rows.newer(segment, published.attempts)
