"""The rules of the backlog, for every pattern of trials that kill or raise, without any worker."""

from __future__ import annotations

import math
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from nst_batch.cluster.retries import MAX_DEATHS, Backlog
from tests import simulated


@given(st.lists(st.sampled_from(["ok", "ok", "kill", "raise"]), min_size=1, max_size=40), st.integers(1, 16))
def test_every_trial_ends_once_and_only_the_guilty_fail(fates: list[str], batch_size: int) -> None:
    trials = list(simulated.trials(len(fates)))
    batches = [trials[start : start + batch_size] for start in range(0, len(trials), batch_size)]
    backlog = Backlog(iter(batches))
    ended: Counter[int] = Counter()
    attempts: Counter[int] = Counter()
    failed = {}
    while backlog.has():
        batch = backlog.take()
        members = [fates[trial.trial_index] for trial in batch.trials]
        attempts.update(trial.trial_index for trial in batch.trials)
        assert max(attempts.values()) <= MAX_DEATHS + math.ceil(math.log2(batch_size)) + 2
        result = None
        if "kill" in members:
            result = backlog.died(batch, "killed")
        elif "raise" in members:
            result = backlog.raised(batch, "RuntimeError", "raised")
        else:
            ended.update(trial.trial_index for trial in batch.trials)
        if result is not None:
            ended[result.trial.trial_index] += 1
            failed[result.trial.trial_index] = result.outcome.error_type
    assert ended == dict.fromkeys(range(len(fates)), 1)
    assert failed == {
        index: "worker_died" if fate == "kill" else "RuntimeError"
        for index, fate in enumerate(fates)
        if fate != "ok"
    }


@given(st.integers(1, 16), st.data())
def test_one_poison_trial_costs_few_workers(batch_size: int, data: st.DataObject) -> None:
    trials = list(simulated.trials(batch_size))
    poison = data.draw(st.integers(0, batch_size - 1))
    backlog = Backlog(iter([trials]))
    deaths = 0
    while backlog.has():
        batch = backlog.take()
        if any(trial.trial_index == poison for trial in batch.trials):
            deaths += 1
            assert deaths <= MAX_DEATHS + math.ceil(math.log2(batch_size)) + (batch_size > 1)
            backlog.died(batch, "killed")
    assert deaths


def test_batches_are_read_no_further_than_is_looked_ahead() -> None:
    read = []

    def batches() -> object:
        for trial in simulated.trials(9):
            read.append(trial.trial_index)
            yield [trial]

    backlog = Backlog(batches())  # type: ignore[arg-type]
    assert backlog.has(2)
    assert read == [0, 1]
    backlog.take()
    assert backlog.has(2)
    assert read == [0, 1, 2]


def test_what_is_put_back_comes_first() -> None:
    backlog = Backlog(iter([[trial] for trial in simulated.trials(3)]))
    first = backlog.take() if backlog.has() else None
    assert first is not None
    assert backlog.has()
    backlog.put_back(first)
    assert backlog.take() is first
