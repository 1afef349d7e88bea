"""The rules about failures, for every pattern of trials that kill or raise, without any worker."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nst_batch.cluster.retries import (
    MAX_DEATHS,
    MAX_FRUITLESS,
    MAX_NODE_FAILURES,
    MAX_RAISES,
    Backlog,
    Batch,
    CircuitBreaker,
    NodeHealth,
    Place,
)
from nst_batch.errors import ClusterError
from nst_batch.records import Trial
from tests import simulated

A, A2, B, C = Place("a", 1), Place("a", 2), Place("b", 3), Place("c", 4)
PLACES = (A, A2, B, C)


def taken(backlog: Backlog, place: Place = A, places: tuple[Place, ...] = (A,)) -> Batch:
    batch = backlog.take(place, places)
    assert batch is not None
    return batch


def alone(count: int) -> Iterator[list[Trial]]:
    return ([trial] for trial in simulated.trials(count))


@given(st.lists(st.sampled_from(["ok", "ok", "kill", "raise"]), min_size=1, max_size=40), st.integers(1, 16))
def test_every_trial_ends_once_and_only_the_guilty_fail(fates: list[str], batch_size: int) -> None:
    trials = list(simulated.trials(len(fates)))
    batches = [trials[start : start + batch_size] for start in range(0, len(trials), batch_size)]
    backlog = Backlog(iter(batches))
    ended: Counter[int] = Counter()
    attempts: Counter[int] = Counter()
    failed = {}
    while backlog.has():
        batch = taken(backlog)
        members = [fates[trial.trial_index] for trial in batch.trials]
        attempts.update(trial.trial_index for trial in batch.trials)
        assert max(attempts.values()) <= MAX_DEATHS + math.ceil(math.log2(batch_size)) + 2 + 2 * MAX_RAISES
        result = None
        if "kill" in members:
            result = backlog.died(batch, A, "killed")
        elif "raise" in members:
            result = backlog.raised(batch, A, "RuntimeError", "raised")
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
    kills = data.draw(st.booleans())
    backlog = Backlog(iter([trials]))
    failures = 0
    while backlog.has():
        batch = taken(backlog)
        if any(trial.trial_index == poison for trial in batch.trials):
            failures += 1
            if kills:
                backlog.died(batch, A, "killed")
            else:
                backlog.raised(batch, A, "RuntimeError", "raised")
    most = MAX_DEATHS + math.ceil(math.log2(batch_size)) + (batch_size > 1) if kills else 2 * MAX_RAISES
    assert 0 < failures <= most


def test_a_batch_that_raised_goes_whole_to_another_node() -> None:
    backlog = Backlog(iter([list(simulated.trials(4))]))
    batch = taken(backlog, A, PLACES)
    assert backlog.raised(batch, A, "RuntimeError", "sticky error") is None
    assert backlog.take(A2, PLACES) is None
    assert taken(backlog, B, PLACES) is batch
    assert len(batch.trials) == 4


def test_where_there_is_no_other_node_another_worker_tries_it() -> None:
    backlog = Backlog(alone(1))
    batch = taken(backlog, A, (A, A2))
    backlog.raised(batch, A, "RuntimeError", "sticky error")
    assert backlog.take(A, (A, A2)) is None
    assert taken(backlog, A2, (A, A2)) is batch


def test_where_nobody_else_is_left_a_batch_is_tried_again_by_the_same() -> None:
    backlog = Backlog(alone(1))
    batch = taken(backlog, A, (A,))
    backlog.raised(batch, A, "RuntimeError", "sticky error")
    assert taken(backlog, A, (A,)) is batch
    result = backlog.raised(batch, A, "RuntimeError", "again")
    assert result is not None
    assert (result.outcome.status, result.outcome.attempt) == ("failed", 2)


def test_a_batch_that_died_twice_runs_alone_before_it_is_blamed() -> None:
    backlog = Backlog(alone(1))
    batch = taken(backlog)
    runs_alone = [batch.runs_alone]
    for _ in range(MAX_DEATHS - 1):
        assert backlog.died(batch, A, "killed") is None
        runs_alone.append(taken(backlog).runs_alone)
    assert runs_alone == [False, False, True]
    result = backlog.died(batch, A, "killed")
    assert result is not None
    assert "its worker died 3 times: killed" in str(result.outcome.error_message)


def test_a_picture_that_one_node_cannot_read_is_tried_by_another() -> None:
    backlog = Backlog(iter([list(simulated.trials(3))]))
    batch = taken(backlog, A, PLACES)
    good, lost, changed = batch.trials
    results = [
        simulated.result(good),
        simulated.result(lost, status="failed", error_type="missing", error_message="no such file"),
        simulated.result(changed, status="failed", error_type="changed", error_message="another picture"),
    ]
    certain = backlog.doubted(batch, A, results)
    assert [result.trial for result in certain] == [good, changed]
    assert backlog.take(A, PLACES) is None
    assert backlog.take(A2, PLACES) is None
    again = taken(backlog, B, PLACES)
    assert again.trials == [lost]
    assert backlog.doubted(again, B, results[1:2]) == results[1:2]  # the second node agrees


def test_where_there_is_no_other_worker_a_picture_is_looked_for_again() -> None:
    backlog = Backlog(alone(1))
    batch = taken(backlog, A, (A,))
    lost = [simulated.result(batch.trials[0], status="failed", error_type="timeout", error_message="no answer")]
    assert backlog.doubted(batch, A, lost) == []
    assert backlog.doubted(taken(backlog, A, (A,)), A, lost) == lost


def test_a_batch_waits_for_a_worker_that_is_to_be_started_rather_than_for_who_failed() -> None:
    backlog = Backlog(alone(1))
    batch = taken(backlog, A, (A,))
    assert not backlog.wants_worker(0, (A,))
    backlog.raised(batch, A, "RuntimeError", "sticky error")
    assert backlog.wants_worker(1, (A,))  # although an idle one is there
    assert backlog.take(A, (A,), more=True) is None
    assert not backlog.wants_worker(1, (A, A2))  # it is there, or soon will be
    assert backlog.take(A2, (A, A2), more=True) is batch


def test_a_worker_whose_failures_wait_for_others_gets_no_fresh_batch() -> None:
    """A sick one that fails at once would go through the whole backlog before another has finished anything."""
    backlog = Backlog(alone(99))
    for _ in range(MAX_NODE_FAILURES):
        backlog.raised(taken(backlog, A, PLACES), A, "RuntimeError", "sticky error")
    assert backlog.take(A, PLACES) is None
    assert taken(backlog, B, PLACES).failed_at == [A]
    assert taken(backlog, A, PLACES).failed_at == []


def test_a_node_is_sick_when_what_fails_there_succeeds_elsewhere() -> None:
    def failed_on_a() -> Batch:
        return Batch([], failed_at=[A])

    health = NodeHealth()
    for _ in range(MAX_NODE_FAILURES - 1):
        assert health.succeeded(failed_on_a(), "b") == []
    assert health.succeeded(Batch([]), "a") == []  # it is well after all
    for _ in range(MAX_NODE_FAILURES - 1):
        assert health.succeeded(failed_on_a(), "b") == []
    assert health.succeeded(failed_on_a(), "a") == []  # another worker of the same node
    for _ in range(MAX_NODE_FAILURES - 1):
        assert health.succeeded(failed_on_a(), "c") == []
    assert health.succeeded(failed_on_a(), "c") == ["a"]


def test_failures_in_a_row_end_the_run_and_one_picture_counts_once() -> None:
    breaker = CircuitBreaker()
    for _ in range(5 * MAX_FRUITLESS):
        breaker.failed("no such file", 2, key="photos/1.jpg: no such file")
    for _ in range(2 * MAX_FRUITLESS - 2):
        breaker.failed("boom", 2)
    breaker.succeeded()
    for _ in range(2 * MAX_FRUITLESS - 1):
        breaker.failed("boom", 2)
    with pytest.raises(ClusterError, match=f"{2 * MAX_FRUITLESS} failures in a row .*: boom; put that right"):
        breaker.failed("boom", 2)


def test_batches_are_read_no_further_than_is_looked_ahead() -> None:
    read = []

    def batches() -> Iterator[list[Trial]]:
        for trial in simulated.trials(9):
            read.append(trial.trial_index)
            yield [trial]

    backlog = Backlog(batches())
    assert backlog.has(2)
    assert read == [0, 1]
    taken(backlog)
    assert backlog.has(2)
    assert read == [0, 1, 2]


def test_what_is_put_back_comes_first() -> None:
    backlog = Backlog(alone(3))
    first = taken(backlog)
    assert backlog.has()
    backlog.put_back(first)
    assert taken(backlog) is first
