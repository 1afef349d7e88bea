"""The objective in strips against the whole one, in float64: the same numbers, whatever the strips."""

from __future__ import annotations

import dataclasses
from typing import Any, get_args

import pytest
import torch

from nst_batch.transfer import Objective, SolveOptions, TargetImage, Targets, layer_distances, solve
from nst_batch.transfer.losses import CONTENT, STYLE
from nst_batch.transfer.objective import Evaluation
from nst_batch.transfer.problem import Problem
from nst_batch.transfer.tiles import TiledObjective
from nst_batch.vocabulary import Loss, MemoryLayout, Pooling, layer_names
from tests.transfer.problems import STYLE_LAYERS, he_network

EXACT = torch.float64


def targets(pooling: Pooling = "max", arch: str = "vgg16") -> Targets:
    return Targets(he_network(pooling, arch))


def pixels(seed: int, height: int, width: int) -> torch.Tensor:
    """Noise: every position has its own value."""
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed), dtype=EXACT)


def posed(height: int, width: int, **changes: Any) -> Problem:
    """A problem of any size, with a style picture of another."""
    content = TargetImage(key=f"content {height}×{width}", pixels=pixels(1, height, width))
    style = TargetImage(key="style", pixels=pixels(2, 40, 56))
    values: dict[str, Any] = {
        "content_layers": ("block4_conv1",),
        "style_layers": STYLE_LAYERS,
        "alpha": 0.5,
        "beta": 5.0,
    }
    return Problem(height=height, width=width, content=content, styles=(style,), **(values | changes))


def both(
    one: Problem, rows: int, cache: Targets, convention: Loss = "sum"
) -> list[tuple[Evaluation, torch.Tensor]]:
    """The losses and gradient of the whole, and in strips of so many rows, at one image."""
    point = pixels(3, one.height, one.width).reshape(1, -1)
    whole = Objective(cache, [one], convention)
    tiled = TiledObjective(cache, [one], convention, tile=rows)
    return [whole.with_gradient(point), tiled.with_gradient(point)]


def check(one: Problem, rows: int, cache: Targets, **how: Any) -> None:
    (expected, gradient), (found, tiled) = both(one, rows, cache, **how)
    torch.testing.assert_close(found.terms, expected.terms, rtol=1e-12, atol=0)
    torch.testing.assert_close(found.total, expected.total, rtol=1e-12, atol=0)
    assert gradient.norm() > 0
    assert (tiled - gradient).norm() <= 1e-10 * gradient.norm()


@pytest.mark.parametrize("pooling", get_args(Pooling))
@pytest.mark.parametrize("rows", [2, 8, 16, 20, 32, 1000])
def test_strips_of_any_height_give_the_same_loss_and_gradient(rows: int, pooling: Pooling) -> None:
    check(posed(64, 48), rows, targets(pooling))


@pytest.mark.parametrize("pooling", get_args(Pooling))
@pytest.mark.parametrize("size", [(33, 47), (47, 33), (65, 16), (81, 19), (130, 35)])
def test_odd_sizes_pool_as_the_whole(size: tuple[int, int], pooling: Pooling) -> None:
    cache = targets(pooling)
    for rows in (4, 16, 18):
        check(posed(*size), rows, cache)


@pytest.mark.parametrize("convention", get_args(Loss))
@pytest.mark.parametrize(
    "changes",
    [
        {"style_layers": ()},
        {"content_layers": ()},
        {"content_layers": ("block1_conv1", "block1_pool", "block3_conv2"), "style_layers": ("block1_conv1",)},
        {"content_layers": (), "style_layers": ("block1_pool", "block3_pool", "block5_pool")},
        {"content_layers": ("block5_conv3",), "style_layers": STYLE_LAYERS[:2], "style_layer_weights": (1.0, 3.0)},
        {"tv_weight": 1e6},
        {"content_layers": (), "style_layers": (), "tv_weight": 2.0},
    ],
)
def test_every_set_of_layers(changes: dict[str, Any], convention: Loss) -> None:
    check(posed(70, 41, **changes), 16, targets(), convention=convention)


@pytest.mark.parametrize("arch", ["vgg11_lrn", "vgg19"])
def test_every_architecture(arch: str) -> None:
    layers = tuple(name for name in layer_names(arch) if name.endswith("conv1"))
    check(posed(96, 64, style_layers=layers), 16, targets("average", arch))


def test_losses_without_a_gradient() -> None:
    one, cache = posed(70, 41, tv_weight=3.0), targets()
    (expected, _), _ = both(one, 16, cache)
    tiled = TiledObjective(cache, [one], "sum", tile=16)
    found = tiled(pixels(3, 70, 41).unsqueeze(0))
    torch.testing.assert_close(found.terms, expected.terms, rtol=1e-12, atol=0)
    torch.testing.assert_close(found.total, expected.total, rtol=1e-12, atol=0)


def test_a_single_problem_at_a_time() -> None:
    with pytest.raises(ValueError, match="expected one problem to be solved in strips, found 2"):
        TiledObjective(targets(), [posed(32, 32)] * 2, "sum", tile=16)


def test_a_large_picture_is_measured_in_strips() -> None:
    one, image = posed(97, 50), pixels(4, 97, 50)
    whole = targets()
    layers = layer_names("vgg16")[:-1]
    in_strips = Targets(whole.network, strip_pixels=50 * 20)
    for term in (CONTENT, STYLE):
        wanted, joined = (cache.of(term, term.pictures(one), layers) for cache in (whole, in_strips))
        torch.testing.assert_close(joined, wanted, rtol=1e-10, atol=1e-10)
    for expected, found in zip(
        layer_distances(whole, image, one), layer_distances(in_strips, image, one), strict=True
    ):
        assert found.layer == expected.layer
        numbers = (dataclasses.astuple(each)[1:] for each in (found, expected))
        assert next(numbers) == pytest.approx(next(numbers), rel=1e-5)


def test_a_run_in_strips_ends_where_the_whole_does() -> None:
    one, cache = posed(48, 40, alpha=1.0), targets()
    fits = (MemoryLayout(), MemoryLayout(tile=16))
    whole, tiled = (solve(cache, [one], SolveOptions(steps=8, layout=fit))[0].curve.total for fit in fits)
    assert tiled == pytest.approx(whole, rel=1e-9)
    assert tiled[-1] < tiled[0]


def test_pairs_in_bfloat16_lead_as_far() -> None:
    one, cache = posed(48, 40, alpha=1.0), targets()
    fits = (MemoryLayout(), MemoryLayout(pair_precision="bfloat16"))
    exact, short = (solve(cache, [one], SolveOptions(steps=12, layout=fit))[0].curve.total for fit in fits)
    assert short[-1] < short[0]
    assert short[-1] == pytest.approx(exact[-1], rel=0.1)
