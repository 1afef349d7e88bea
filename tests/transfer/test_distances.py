"""Distances at every layer, their baselines, and the scores made of them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from nst_batch.scores import Scores, transfer_scores
from nst_batch.transfer import Problem, SolveOptions, Targets, Vgg, layer_distances, solve
from nst_batch.transfer.problem import resized
from tests.transfer.problems import network, picture, problem, targets, weights


def scores(image: Tensor, posed: Problem, measured: Targets | None = None) -> Scores:
    return transfer_scores(layer_distances(measured or targets(), image, posed))


def test_distances_vanish_at_the_pictures_themselves() -> None:
    content = layer_distances(targets(), picture(1).pixels, problem())
    assert len(content) == 13
    assert all(layer.content_distance == 0 for layer in content)
    assert all(layer.style_distance is not None and layer.style_distance > 0.01 for layer in content)
    style = layer_distances(targets(), picture(2).pixels, problem())
    assert all(layer.style_distance is not None and layer.style_distance < 1e-9 for layer in style)
    alone = layer_distances(targets(), picture(1).pixels, problem(styles=(), style_layers=()))
    assert all(layer.style_distance is layer.content_baseline is layer.style_baseline is None for layer in alone)


def test_baselines_are_the_pictures_own_distances() -> None:
    nothing = layer_distances(targets(), picture(1).pixels, problem())
    pasted = layer_distances(targets(), picture(2).pixels, problem())
    for unchanged, replaced in zip(nothing, pasted, strict=True):
        assert unchanged.style_distance == pytest.approx(unchanged.style_baseline, rel=1e-4)
        assert replaced.content_distance == pytest.approx(replaced.content_baseline, rel=1e-4)


def test_baselines_are_measured_once_for_a_pair_and_size() -> None:
    made = []

    class Counting(Targets):
        def kept(self, key: tuple[str | int, ...], make: Callable[[], Any]) -> Any:
            return super().kept(key, lambda: made.append(key) or make())  # type: ignore[func-returns-value]

    measured = Counting(network())
    first = layer_distances(measured, picture(1).pixels, problem())
    again = layer_distances(measured, picture(3).pixels, problem(alpha=7.0))
    assert [layer.content_baseline for layer in first] == [layer.content_baseline for layer in again]
    assert len(made) == 1
    layer_distances(measured, picture(1).pixels, problem(content=3))
    assert len(made) == 2


def test_doing_nothing_scores_nothing() -> None:
    found = scores(picture(1).pixels, problem())
    assert (found.content_kept, found.style_taken) == pytest.approx((1, 0), abs=1e-3)
    assert found.transfer_score == pytest.approx(0, abs=1e-3)


def test_pasting_the_style_scores_nothing() -> None:
    found = scores(picture(2).pixels, problem())
    assert (found.content_kept, found.style_taken) == pytest.approx((0, 1), abs=1e-3)
    assert found.transfer_score == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("seed", [2, 3])
def test_pasting_either_style_of_a_blend_scores_nothing(seed: int) -> None:
    found = scores(picture(seed).pixels, problem(styles=(picture(2), picture(3))))
    assert found.transfer_score == pytest.approx(0, abs=1e-3)


def test_pasting_a_style_of_another_size_scores_nothing() -> None:
    posed = problem(styles=(picture(2, side=48),))
    found = scores(resized(picture(2, side=48).pixels, 32, 32).clamp(0, 1), posed)
    assert found.content_kept == pytest.approx(0, abs=1e-6)
    assert found.style_taken is not None
    assert 0 < found.style_taken < 1


def test_what_is_neither_scores_nothing() -> None:
    """Noise keeps no content: what lies beyond the baseline counts as the baseline."""
    noise = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = scores(noise, problem())
    assert found.transfer_score is not None
    assert found.transfer_score < 0.05


def test_the_scale_of_the_features_does_not_count() -> None:
    """A ReLU network with its first kernel and every bias doubled computes features twice as large."""
    doubled = {
        name: value * (2 if name == "block1_conv1.weight" or name.endswith("bias") else 1)
        for name, value in weights().items()
    }
    once, twice = (Targets(Vgg("vgg16", state, pooling="average")) for state in (weights(), doubled))
    for part, column in ((0.2, "content_kept"), (0.9, "style_taken")):
        image = picture(1).pixels * (1 - part) + picture(2).pixels * part
        one, two = (getattr(scores(image, problem(), measured), column) for measured in (once, twice))
        assert one == pytest.approx(two, rel=1e-3)
        assert one > 0.1


def test_the_score_falls_from_a_good_transfer_towards_either_picture() -> None:
    """A transfer that is not quite the best may gain by a little of either picture, never by more."""
    posed, measured = problem(alpha=5.0), targets()
    [solution] = solve(measured, [posed], SolveOptions(steps=40))
    parts = (0.0, 0.1, 0.2, 0.4, 0.7, 1.0)
    for other in (picture(1).pixels, picture(2).pixels):
        path = [solution.image * (1 - part) + other * part for part in parts]
        found = [scores(image, posed, measured).transfer_score or 0.0 for image in path]
        best = found.index(max(found))
        assert parts[best] <= 0.1, found
        assert found[best] > 0.1
        assert all(later < earlier + 1e-3 for earlier, later in pairwise(found[best:])), found
        assert found[-1] == pytest.approx(0, abs=1e-3)


def test_equal_or_missing_pictures_have_no_score_but_a_reason() -> None:
    same = scores(picture(3).pixels, problem(styles=(picture(1),)))
    assert same == Scores(score_reason="content and style are the same to the network")
    alone = scores(picture(3).pixels, problem(styles=(), style_layers=()))
    assert alone == Scores(score_reason="no style picture")
    style = scores(picture(3).pixels, problem(content=1, content_layers=()))
    assert style.transfer_score is not None


def test_a_network_as_a_whole_is_looked_at() -> None:
    assert [layer.layer for layer in layer_distances(Targets(network()), picture(3).pixels, problem())] == [
        layer for layer in network().layers if "_conv" in layer
    ]
