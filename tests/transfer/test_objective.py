"""The objective against a naive float64 reference, and its parts against what is known."""

from __future__ import annotations

import dataclasses
import functools
from typing import get_args

import pytest
import torch

from nst_batch.records import Losses
from nst_batch.study.reading import load_study, preset_names
from nst_batch.transfer import Objective, Targets, Vgg
from nst_batch.transfer.losses import STYLE, TERMS, content_loss, gram_matrix, style_loss, tv_loss
from nst_batch.vocabulary import Loss, Pooling, layer_names
from tests import simulated
from tests.transfer import reference
from tests.transfer.problems import network, picture, problem, problem_of, targets, weights

SIDE = 32


@functools.cache
def reference_features(
    pooling: Pooling,
) -> tuple[torch.Tensor, reference.Features, reference.Features, reference.Features]:
    """An image that takes a gradient; features of it, of the content and of the style."""
    chosen = simulated.configuration(pooling=pooling)
    exact = {name: value.double() for name, value in weights(pooling).items()}
    start = torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(3)).double().requires_grad_()
    content, style = picture(1, SIDE).pixels.double(), picture(2, SIDE).pixels.double()
    own, wanted, painted = (reference.features(each, exact, chosen) for each in (start, content, style))
    return start, own, wanted, painted


@pytest.mark.parametrize("pooling", get_args(Pooling))
@pytest.mark.parametrize("convention", get_args(Loss))
@pytest.mark.parametrize("preset", preset_names())
def test_loss_and_gradient_agree_with_the_reference(preset: str, convention: Loss, pooling: Pooling) -> None:
    study = load_study(preset, content=["photo.jpg"], style=["painting.jpg"])
    chosen = [
        dataclasses.replace(each, loss=convention, pooling=pooling)
        for each in study.configurations(weights_sha256="", normalization="imagenet")
    ]
    content, style, cache = picture(1, SIDE), picture(2, SIDE), targets(pooling)
    start, own, wanted, painted = reference_features(pooling)
    for each in chosen[:: len(chosen) // 10 or 1]:
        expected = reference.losses(own, wanted, painted, each)
        (wanted_gradient,) = torch.autograd.grad(expected["total"], start, retain_graph=True)
        objective = Objective(cache, [problem_of(each, content, style)], convention)
        found, gradient = objective.with_gradient(start.detach().float().reshape(1, -1))
        terms = dict(zip((term.name for term in TERMS), found.terms[0].tolist(), strict=True))
        for name, loss in (terms | {"total": found.total.item()}).items():
            wanted_loss = expected[name].item() if name in expected else 0.0
            assert loss == pytest.approx(wanted_loss, rel=1e-4), (each, name)
        assert _relative_error(gradient[0].double(), wanted_gradient.flatten()) < 1e-4, each


def _relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def test_layer_shapes_are_those_of_the_paper() -> None:
    sides = {"block1": 300, "pool1": 150, "block2": 150, "pool2": 75, "block3": 75, "pool3": 37, "block4": 37}
    sides |= {"pool4": 18, "block5": 18, "pool5": 9}
    channels = (64, 128, 256, 512, 512)
    features = network("max").features(torch.rand(1, 3, 300, 300), [layer_names("vgg16")])
    for name, found in features.items():
        side = sides[f"pool{name[5]}" if name.endswith("pool") else name[:6]]
        assert found.shape == (1, channels[int(name[5]) - 1], side, side), name
        assert found.min() >= 0, name


def test_nothing_deeper_than_needed_is_computed() -> None:
    shallow = {name: value for name, value in weights().items() if name.startswith(("block1", "block2"))}
    vgg = Vgg("vgg16", shallow, pooling="average")
    assert set(vgg.features(torch.rand(1, 3, 32, 32), [["block2_conv1"]])) == {"block2_conv1"}
    with pytest.raises(KeyError):
        vgg.features(torch.rand(1, 3, 32, 32), [["block3_conv1"]])


def test_a_batch_narrows_at_each_images_own_depth() -> None:
    images = torch.rand(3, 3, 32, 32)
    vgg = network()
    features = vgg.features(images, [["block3_conv1", "block1_conv1"], ["block2_conv1"], ["block1_conv1"]])
    assert {name: len(found) for name, found in features.items()} == {
        "block1_conv1": 3, "block2_conv1": 2, "block3_conv1": 1
    }  # fmt: skip
    alone = vgg.features(images[1:2], [["block2_conv1"]])["block2_conv1"]
    torch.testing.assert_close(features["block2_conv1"][1:2], alone, rtol=1e-4, atol=1.0)  # features are around 1e4
    with pytest.raises(ValueError, match="deepest first"):
        vgg.features(images, [["block1_conv1"], ["block2_conv1"], []])


def test_weights_take_no_gradient() -> None:
    vgg = network()
    image = torch.rand(1, 3, 32, 32, requires_grad=True)
    vgg.features(image, [["block5_conv3"]])["block5_conv3"].sum().backward()  # type: ignore[no-untyped-call]
    assert image.grad is not None
    assert all(not tensor.requires_grad for kernels in vgg._kernels.values() for tensor in kernels)


def test_gram_matrix_of_ones() -> None:
    assert torch.equal(gram_matrix(torch.ones(2, 3, 4, 5)), torch.ones(2, 3, 3))


def test_losses_of_known_features() -> None:
    ones, zeros = torch.ones(1, 2, 3, 3), torch.zeros(1, 2, 3, 3)
    assert content_loss(ones, zeros, "sum").item() == 0.5 * 18
    assert content_loss(ones, zeros, "mean").item() == 1
    wanted = gram_matrix(zeros)
    # G = M everywhere, so Σ (G − 0)² / (4 N² M²) = N² M² / (4 N² M²).
    assert style_loss(ones, wanted, "sum").item() == pytest.approx(1 / 4)
    assert style_loss(ones, wanted, "mean").item() == pytest.approx((1 / 2) ** 2)


def test_style_gradient_is_exact() -> None:
    features = torch.rand(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    wanted = gram_matrix(torch.rand(1, 3, 4, 5, dtype=torch.float64))
    assert torch.autograd.gradcheck(lambda f: style_loss(f, wanted, "sum"), (features,))
    assert torch.autograd.gradcheck(lambda f: style_loss(f, wanted, "mean"), (features,))


def test_tv_of_a_ramp() -> None:
    ramp = torch.arange(4.0).expand(1, 3, 4, 4)
    assert tv_loss(ramp, "sum").item() == 3 * 4 * 3
    assert tv_loss(ramp, "mean").item() == pytest.approx(36 / 72)
    assert tv_loss(torch.rand(1, 3, 1, 1), "sum").item() == 0


def test_total_is_the_weighted_sum() -> None:
    posed = problem(alpha=0.3, beta=7.0, tv_weight=1e9)
    objective = Objective(targets(), [posed], "sum")
    found = objective(torch.rand(1, 3, 32, 32))
    (content, style, tv), total = found.terms[0].tolist(), float(found.total)
    assert total == pytest.approx(0.3 * content + 7.0 * style + 1e9 * tv, rel=1e-6)
    assert tv > 0


def test_the_terms_are_the_columns() -> None:
    assert (*(term.name for term in TERMS), "total") == tuple(field.name for field in dataclasses.fields(Losses))


def test_a_blend_aims_at_the_mean_of_the_grams() -> None:
    cache = targets()
    first, second = picture(2), picture(3)
    layers = ["block1_conv1", "block3_conv1"]
    blended = cache.of(STYLE, [first, second], layers)
    for layer in layers:
        mean = (cache.of(STYLE, [first], layers)[layer] + cache.of(STYLE, [second], layers)[layer]) / 2
        torch.testing.assert_close(blended[layer], mean)


def test_style_weights_are_relative() -> None:
    def loss(weights_: tuple[float, ...]) -> float:
        posed = problem(
            style_layers=("block1_conv1", "block2_conv1"), style_layer_weights=weights_, content_layers=()
        )
        objective = Objective(targets(), [posed], "sum")
        return float(objective(picture(1).pixels.unsqueeze(0)).terms[0, 1])

    assert loss((2.0, 2.0)) == pytest.approx(loss(()), rel=1e-6)
    assert loss((1.0, 3.0)) == pytest.approx((loss((1.0, 0.0)) + 3 * loss((0.0, 1.0))) / 4, rel=1e-6)


def test_targets_are_computed_once_and_forgotten_in_order() -> None:
    class Counting(Vgg):
        calls = 0

        def layer(self, name: str, x: torch.Tensor) -> torch.Tensor:
            Counting.calls += name == "block1_conv1"
            return super().layer(name, x)

    cache = Targets(Counting("vgg16", weights(), pooling="average"), limit_bytes=3 * 64 * 64 * 4)
    for _ in range(3):
        cache.of(STYLE, [picture(1)], ["block1_conv1"])
    assert Counting.calls == 1
    for seed in (2, 3, 4):
        cache.of(STYLE, [picture(seed)], ["block1_conv1"])
    cache.of(STYLE, [picture(1)], ["block1_conv1"])
    assert Counting.calls == 5
