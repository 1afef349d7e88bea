"""Which trials of a plan have ended, and how: three bytes per trial, so that a million of them are nothing."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Mask = npt.NDArray[np.bool_]
"""One truth value per trial, by `trial_index`."""

STATES = ("pending", "ok", "failed", "diverged")
_PENDING, _, _FAILED, _ = range(4)


class TrialStatus:
    """The last attempt and the state of every trial, by `trial_index`: at first 0 and pending."""

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
