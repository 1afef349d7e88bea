"""Which trials of a plan have ended, and how: three bytes per trial, so that a million of them are nothing."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

_STATUSES = ("pending", "ok", "failed", "diverged")
"""A trial's state is kept as its position here."""

Mask = npt.NDArray[np.bool_]


class Ledger:
    """The state of every trial, by `trial_index`, and how many are pending in each part.

    Args:
        num_trials: The size of the plan; every trial starts as pending.
        rows_per_part: How many consecutive trials make a part.
    """

    COLUMNS = ("trial_index", "attempt", "status")
    """The columns of `trials` that `learn` needs."""

    def __init__(self, num_trials: int, rows_per_part: int) -> None:
        self.rows_per_part = rows_per_part
        self.attempts = np.zeros(num_trials, np.uint16)
        self._status = np.zeros(num_trials, np.uint8)
        self._pending = np.bincount(np.arange(num_trials) // rows_per_part)

    def __len__(self) -> int:
        return len(self._status)

    @property
    def ended(self) -> Mask:
        """True where a trial has ended; a copy."""
        return np.not_equal(self._status, 0)

    def failed(self) -> npt.NDArray[np.int64]:
        """The `trial_index` of every failed trial."""
        return np.flatnonzero(self._status == _STATUSES.index("failed"))

    def counts(self) -> dict[str, int]:
        """The trials by state: pending, ok, failed, diverged."""
        return dict(zip(_STATUSES, np.bincount(self._status, minlength=len(_STATUSES)).tolist(), strict=True))

    def has_ended(self, index: int) -> bool:
        """Whether one trial has ended."""
        return bool(self._status[index])

    def is_whole(self, part: int) -> bool:
        """Whether every trial of a part has ended."""
        return bool(self._pending[part] == 0)

    def note(self, index: int, attempt: int, status: str) -> None:
        """Records how a pending trial ended."""
        self.attempts[index], self._status[index] = attempt, _STATUSES.index(status)
        self._pending[index // self.rows_per_part] -= 1

    def learn(self, rows: pa.Table) -> None:
        """Records the trials in `rows`, as far as their attempts are later than those known."""
        index, attempt = rows["trial_index"].to_numpy(), rows["attempt"].to_numpy()
        status = pc.index_in(rows["status"], pa.array(_STATUSES)).to_numpy()
        later = attempt > self.attempts[index]
        index = index[later]
        np.subtract.at(self._pending, index[self._status[index] == 0] // self.rows_per_part, 1)
        self.attempts[index], self._status[index] = attempt[later], status[later]

    def parts_of(self, rows: pa.Table) -> set[int]:
        """The parts that `rows` belong to."""
        return set(np.unique(rows["trial_index"].to_numpy() // self.rows_per_part).tolist())

    def reopen(self, indexes: npt.NDArray[np.int64]) -> None:
        """Makes ended trials pending again; their attempts go on counting."""
        self._status[indexes] = 0
        np.add.at(self._pending, indexes // self.rows_per_part, 1)
