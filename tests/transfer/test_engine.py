"""Whole optimisations: curves, independence of batch mates, stop reasons, coarse to fine."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from nst_batch.transfer import Objective, Problem, Solution, SolveOptions, TargetImage, engine, solve
from nst_batch.transfer.problem import reduced, resized
from nst_batch.vocabulary import Loss, OptimizerName, num_stages
from tests.transfer.problems import STYLE_LAYERS, picture, problem, targets

PLAIN = SolveOptions(steps=8)
SHALLOW: dict[str, Any] = {"content_layers": ("block3_conv1",), "style_layers": STYLE_LAYERS[:3]}
"""Of small pictures the deep layers take most of the time."""


def mixed(dtype: torch.dtype = torch.float32) -> list[Problem]:
    """Problems of every depth and kind."""
    return [
        problem(1, 2, dtype=dtype, content_layers=("block1_conv2",)),
        problem(3, 2, dtype=dtype, content_layers=("block5_conv3",)),
        problem(1, 4, dtype=dtype, style_layers=("block1_conv1",), content_layers=("block3_conv1",)),
        problem(5, 2, dtype=dtype, init="noise", seed=7),
        problem(1, 2, dtype=dtype, content_layers=()),
    ]


def totals(solution: Solution) -> torch.Tensor:
    return torch.tensor(solution.curve.total, dtype=torch.float64)


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_alone_or_together_in_any_order_is_the_same(optimizer: OptimizerName) -> None:
    """To the last digits of float64: whatever passed from one image to another would be far more."""
    options = dataclasses.replace(PLAIN, optimizer=optimizer)
    posed, cache = mixed(torch.float64), targets(dtype=torch.float64)
    backward = solve(cache, posed[::-1], options)[::-1]
    for one, found, other in zip(posed, solve(cache, posed, options), backward, strict=True):
        [alone] = solve(cache, [one], options)
        torch.testing.assert_close(totals(found), totals(alone), rtol=1e-9, atol=0)
        torch.testing.assert_close(totals(other), totals(alone), rtol=1e-9, atol=0)


def test_in_float32_a_batch_changes_what_rounding_changes() -> None:
    """A batch is multiplied in another order, which steps amplify: some tenfold every two."""
    posed, cache = mixed(), targets()
    together = solve(cache, posed, PLAIN)
    for one, found in zip(posed, together, strict=True):
        [alone] = solve(cache, [one], PLAIN)
        torch.testing.assert_close(totals(found)[:8], totals(alone)[:8], rtol=1e-4, atol=0)
        torch.testing.assert_close(totals(found), totals(alone), rtol=0.2, atol=0)
    for found, again in zip(together, solve(cache, posed, PLAIN), strict=True):
        assert found.curve == again.curve
        assert found.image.equal(again.image)


@pytest.mark.parametrize("steps", [1, 5, 30])
def test_the_curve_begins_at_the_initial_image_and_falls(steps: int) -> None:
    [solution] = solve(targets(), [problem(**SHALLOW)], SolveOptions(steps=steps))
    assert solution.curve.step == tuple(range(steps + 1))
    losses = totals(solution)
    assert (losses.diff() <= 1e-6 * losses[0]).all()
    assert solution.curve.content[0] == 0, "the content itself"
    assert solution.stop_reason == "steps"
    assert losses[-1] < losses[0] or steps == 1


def test_a_diverging_image_ends_alone_and_keeps_its_best() -> None:
    broken = TargetImage(key="nan", pixels=torch.full((3, 32, 32), torch.nan))
    cache = targets()
    lost, kept = solve(cache, [problem(styles=(broken,)), problem()], PLAIN)
    assert lost.diverged
    assert lost.stop_reason == "diverged"
    assert lost.image.isfinite().all()
    [alone] = solve(cache, [problem()], PLAIN)
    torch.testing.assert_close(totals(kept), totals(alone), rtol=1e-4, atol=0)


def test_an_image_that_has_arrived_leaves_the_others_alone() -> None:
    exact = torch.float64  # steps amplify what float32 rounds
    arrived = problem(style_layers=(), alpha=0.0, dtype=exact)  # nothing is left to be done
    cache = targets(dtype=exact)
    options = dataclasses.replace(PLAIN, steps=15)
    early, late = solve(cache, [arrived, problem(dtype=exact)], options)
    assert early.stop_reason == "converged"
    assert len(early.curve.step) < 15
    assert late.curve.step[-1] == 15
    [alone] = solve(cache, [problem(dtype=exact)], options)
    torch.testing.assert_close(totals(late), totals(alone), rtol=1e-6, atol=0)


def test_a_plateau_ends_where_little_is_left_to_fall() -> None:
    """What the rule foretells is what happens: the full run ends hardly lower."""
    full, early = (
        solve(targets(), [problem(**SHALLOW)], SolveOptions(steps=120, plateau=plateau))[0]
        for plateau in (0.0, 0.05)
    )
    assert full.stop_reason == "steps"
    assert early.stop_reason == "plateau"
    assert early.curve.step[-1] < 120
    assert early.curve.total == full.curve.total[: len(early.curve.total)]
    assert early.curve.total[-1] < 1.1 * full.curve.total[-1]


def test_reconstruction_from_noise_approaches_the_content() -> None:
    posed = problem(init="noise", style_layers=(), styles=(), content_layers=("block1_conv1",))
    [solution] = solve(targets(), [posed], SolveOptions(steps=80))
    assert solution.curve.total[-1] < 1e-3 * solution.curve.total[0]
    assert (solution.image - picture(1).pixels).abs().mean() < 0.02


def test_a_large_image_starts_from_what_was_found_at_half_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    cache, [small, large] = targets(), [problem(side=32), problem(side=64)]
    plain = dataclasses.replace(PLAIN, pyramid="off")
    [without] = solve(cache, [large], plain)
    monkeypatch.setattr(engine, "num_stages", lambda height, _: int(height == 64))
    [staged] = solve(cache, [large], PLAIN)
    [coarse] = solve(cache, [reduced(large, 1, "sum")], plain)
    begun = Objective(cache, [large], "sum")(resized(coarse.image, 64, 64).unsqueeze(0)).total
    assert staged.curve.total[0] == pytest.approx(float(begun), rel=1e-4)
    assert staged.curve.total[0] < without.curve.total[0]
    assert len(staged.curve.total) == len(without.curve.total)
    told: list[float] = []
    solve(cache, [large], dataclasses.replace(PLAIN, steps=20), told.append)
    assert told == pytest.approx([0.1, 0.2, 0.6, 1.0])  # a step at half the size is a quarter of the work
    for one, other in zip(solve(cache, [small], PLAIN), solve(cache, [small], plain), strict=True):
        assert one.image.equal(other.image)


@pytest.mark.parametrize("convention", ["sum", "mean"])
@pytest.mark.parametrize("weights", [{"alpha": 3.0}, {"alpha": 0.0, "tv_weight": 2.0}])
def test_terms_weigh_the_same_at_half_the_size(convention: Loss, weights: dict[str, Any]) -> None:
    """Of smooth pictures; otherwise a coarse stage would strike another balance than the image that it begins."""
    cache, across = targets(), torch.linspace(0, 3, 128)
    content, image = (wave.cos().mul(0.4).add(0.5).expand(3, 128, 128) for wave in (across, across[:, None] + 1))
    large = problem(side=128, style_layers=(), styles=(), content_layers=("block1_conv1",), **weights)
    large = dataclasses.replace(large, content=TargetImage(key="wave", pixels=content))
    small = reduced(large, 1, convention)
    whole, half = (
        float(Objective(cache, [each], convention)(resized(image, each.height, each.width).unsqueeze(0)).total)
        for each in (large, small)
    )
    assert half == pytest.approx(whole, rel=0.1)


@pytest.mark.parametrize(
    ("size", "stages"),
    [((1024, 1024), 0), ((1025, 700), 1), ((2731, 4096), 2), ((100, 9000), 0), ((8192, 300), 2)],
)
def test_stages_end_where_the_image_is_held_at_once_or_has_no_side_left(size: tuple[int, int], stages: int) -> None:
    assert num_stages(*size) == stages
