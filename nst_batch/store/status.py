"""Which trials of a plan have ended, and how: three bytes per trial, so that a million of them are nothing."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Mask = npt.NDArray[np.bool_]
"""One truth value per trial, by `trial_index`."""

_STATES = ("pending", "ok", "failed", "diverged")
"""A trial's state is kept as its position here."""


class TrialStatus:
    """The state and the last attempt of every trial, by `trial_index`; all pending at first."""

    COLUMNS = ("trial_index", "attempt", "status")
    """The columns of `trials` that `learn` needs."""

    def __init__(self, num_trials: int) -> None:
        self.attempts = np.zeros(num_trials, np.uint16)
        self._states = np.zeros(num_trials, np.uint8)

    @property
    def ended(self) -> Mask:
        """True where a trial has ended; a copy."""
        return np.not_equal(self._states, 0)

    @property
    def unfinished(self) -> Mask:
        """True where a trial is pending or has failed; a copy."""
        return np.isin(self._states, [_STATES.index("pending"), _STATES.index("failed")])

    def has_ended(self, index: int) -> bool:
        """Whether one trial has ended."""
        return bool(self._states[index])

    def all_ended(self, trials: slice) -> bool:
        """Whether every trial at these positions has ended."""
        return bool(self._states[trials].all())

    def failed(self) -> npt.NDArray[np.int64]:
        """The `trial_index` of every failed trial."""
        return np.flatnonzero(self._states == _STATES.index("failed"))

    def counts(self) -> dict[str, int]:
        """The trials by state: pending, ok, failed, diverged."""
        return dict(zip(_STATES, np.bincount(self._states, minlength=len(_STATES)).tolist(), strict=True))

    def record(self, index: int, attempt: int, status: str) -> None:
        """Records how a trial ended."""
        self.attempts[index], self._states[index] = attempt, _STATES.index(status)

    def learn(self, rows: pa.Table) -> None:
        """Records the trials in `rows`, as far as their attempts are later than those known."""
        index, attempt = rows["trial_index"].to_numpy(), rows["attempt"].to_numpy()
        state = pc.index_in(rows["status"], pa.array(_STATES)).to_numpy()
        later = attempt > self.attempts[index]
        self.attempts[index[later]], self._states[index[later]] = attempt[later], state[later]

    def reopen(self, indexes: npt.NDArray[np.int64]) -> None:
        """Makes ended trials pending again; their attempts go on counting."""
        self._states[indexes] = 0
