"""The worker in this process: memory that runs out, and results that stand on their own."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from nst_batch.cluster import retries, worker
from nst_batch.cluster.options import WorkerOptions
from nst_batch.cluster.worker import Worker
from nst_batch.errors import WeightsError
from nst_batch.inputs import fetching, limits, weights
from nst_batch.records import Picture, Result, Trial, trial_id
from nst_batch.scores import transfer_scores
from nst_batch.transfer import Problem, solve
from tests import tiny
from tests.simulated import configuration

CHOSEN = configuration(
    size=32, steps=2, weights="random:0", weights_sha256=weights.resolve("random:0", "vgg16", "average").sha256
)


@pytest.fixture(scope="module")
def real() -> Worker:
    made = Worker(WorkerOptions(device="cpu"))
    made.setup(CHOSEN)
    return made


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> list[Trial]:
    """Eight, of eight contents."""
    folder = tmp_path_factory.mktemp("photos")
    made = []
    for index in range(9):
        (folder / f"{index}.png").write_bytes(tiny.picture(50 * index))
    style, *contents = [
        Picture(uri=str(path), sha256=fetching.sha256(path.read_bytes())) for path in sorted(folder.iterdir())
    ]
    for index, content in enumerate(contents):
        key = trial_id(content, (style,), CHOSEN.identity())
        made.append(
            Trial(
                trial_id=key, trial_index=index, batch=0, content=content, styles=(style,), width=32, height=32,
                configuration=CHOSEN,
            )
        )  # fmt: skip
    return made


class Scarce:
    """`solve` on a machine whose memory holds so many problems together."""

    def __init__(self, room: int) -> None:
        self.room, self.parts = room, list[int]()
        self._solve = solve

    def __call__(self, targets: Any, problems: Sequence[Problem], options: Any, *_: object) -> Any:
        self.parts.append(len(problems))
        if len(problems) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return self._solve(targets, problems, options)


def losses(results: Sequence[Result]) -> list[float]:
    return [result.outcome.final.total for result in results if result.outcome.final]


def test_a_batch_that_does_not_fit_is_halved_until_it_does(
    real: Worker, trials: list[Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = real.run(trials)
    scarce = Scarce(3)
    monkeypatch.setattr(worker, "solve", scarce)
    monkeypatch.setattr(Worker, "_part_size", lambda *_: 8)
    results = real.run(trials)
    assert scarce.parts == [8, 4, 2, 2, 2, 2]
    assert [result.trial for result in results] == trials
    assert {result.outcome.status for result in results} == {"ok"}
    assert losses(results) == pytest.approx(losses(whole), rel=1e-3)


def compute_slowly(trials: Sequence[Trial], seconds: float) -> None:
    """In a process of its own: progress is made four times, after so long each, where five seconds are allowed."""
    retries.MIN_DEADLINE_SECONDS = 5.0

    def slow(targets: Any, problems: Any, options: Any, *on_progress: Callable[[float], object]) -> Any:
        for _ in range(4):
            time.sleep(seconds)
            for told in on_progress:
                told(0.5)
        return solve(targets, problems, options, *on_progress)

    setattr(worker, "solve", slow)  # noqa: B010 (a function is replaced)
    Worker(WorkerOptions(device="cpu")).run(trials)


@pytest.mark.parametrize("hangs", [False, True])
def test_a_worker_that_hangs_ends_itself_and_says_where_and_a_slow_one_does_not(
    trials: list[Trial], hangs: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    spawning = multiprocessing.get_context("spawn")
    process = spawning.Process(target=compute_slowly, args=(trials[:1], 600.0 if hangs else 2.0))
    process.start()
    process.join(timeout=120)
    ended = process.exitcode
    process.kill()
    assert ended == int(hangs)
    assert ("Timeout (0:00:05)!" in (said := capfd.readouterr().err)) == hangs
    assert ("in slow" in said) == hangs


def test_a_trial_that_does_not_fit_alone_is_recorded_and_the_others_go_on(
    real: Worker, trials: list[Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "solve", Scarce(0))
    results = real.run(trials[:3])
    assert [result.trial for result in results] == trials[:3]
    for result in results:
        assert (result.outcome.status, result.outcome.error_type) == ("failed", "out_of_memory")
        assert "not enough GPU memory for this image alone, choose a smaller size" in str(
            result.outcome.error_message
        )


def test_a_worker_takes_strips_where_the_whole_does_not_fit_and_says_so(
    real: Worker, trials: list[Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = replace(CHOSEN, size=192, steps=3)
    large = [replace(trial, width=192, height=192, configuration=chosen) for trial in trials]
    [whole] = real.run(large[:1])
    assert (whole.outcome.tile, whole.outcome.num_pairs, whole.outcome.pair_precision) == (0, 3, "float32")
    monkeypatch.setattr(limits, "total_bytes", lambda: 1 << 20)
    [strips] = real.run(large[:1])
    assert (strips.outcome.tile, strips.outcome.num_pairs, strips.outcome.pair_precision) == (96, 3, "bfloat16")
    assert losses([strips]) == pytest.approx(losses([whole]), rel=1e-3)
    asked = Worker(replace(real.options, tile=64))
    assert asked.run(large[:1])[0].outcome.tile == 64


def test_how_a_trial_is_held_does_not_depend_on_its_batch(
    real: Worker, trials: list[Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deep layers need strips where shallow ones fit whole, also behind these in a batch."""
    shallow = replace(CHOSEN, size=192, content_layers=("block1_conv1",), style_layers=("block1_conv1",))
    mixed = [
        replace(trial, width=192, height=192, configuration=chosen)
        for trial, chosen in zip(trials, (shallow, replace(CHOSEN, size=192)), strict=False)
    ]
    monkeypatch.setattr(limits, "total_bytes", lambda: 72 << 20)
    alone = [real.run([trial])[0].outcome.tile for trial in mixed]
    assert alone[0] == 0 != alone[1]
    assert [result.outcome.tile for result in real.run(mixed)] == alone


def test_a_worker_refuses_weights_other_than_the_plans(real: Worker) -> None:
    with pytest.raises(WeightsError, match="the plan was made with"):
        real.setup(configuration(weights="random:0", weights_sha256="0" * 64))


def test_a_result_has_the_scores_that_its_layers_make(real: Worker, trials: list[Trial]) -> None:
    [result] = real.run(trials[:1])
    scores = transfer_scores(result.layers)
    assert scores.transfer_score is not None
    outcome = result.outcome
    found = (outcome.content_kept, outcome.style_taken, outcome.transfer_score, outcome.score_reason)
    assert found == (scores.content_kept, scores.style_taken, scores.transfer_score, None)
