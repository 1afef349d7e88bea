"""Regions: against a plain float64 reference, and what must not depend on what."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, get_args

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from nst_batch.records import Configuration
from nst_batch.scores import RegionScores
from nst_batch.study.reading import load_study
from nst_batch.transfer import (
    Objective,
    Problem,
    Regions,
    SolveOptions,
    TargetImage,
    Targets,
    Vgg,
    build_targets,
    layer_distances,
    region_scores,
    regions_mistake,
    solve,
)
from nst_batch.transfer.losses import style_loss
from nst_batch.transfer.problem import resized
from nst_batch.transfer.regions import Guidance, receptive_field
from nst_batch.transfer.tiles import TiledObjective
from nst_batch.vocabulary import Loss, Pooling
from tests.transfer import reference
from tests.transfer.problems import STYLE_LAYERS, network, picture, weights

EXACT = torch.float64
HEIGHT, WIDTH = 50, 36
SHALLOW = ("block1_conv1", "block2_conv1")


def hard(plane: Tensor, key: str) -> Regions:
    """A mask of labels."""
    plane = plane.to(torch.uint8)
    return Regions(key=key, plane=plane, labels=tuple(sorted(set(plane.flatten().tolist()))))


def soft(height: int, width: int) -> Regions:
    """Label 1 from left to right."""
    return Regions(
        key=f"ramp/{height}/{width}", plane=torch.linspace(0, 1, width).expand(height, -1).clone(), labels=(0, 1)
    )


def quarters(height: int, width: int) -> Tensor:
    """Labels 0 to 3, with borders that no pooling meets exactly."""
    rows, columns = (torch.arange(side) >= side // 2 - 3 for side in (height, width))
    return 2 * rows.unsqueeze(1).long() + columns.long()


def photo(seed: int, height: int, width: int, regions: Regions | None = None) -> TargetImage:
    """Noise: every position has its own value."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.rand(3, height, width, generator=generator, dtype=EXACT)
    return TargetImage(key=f"{seed}/{height}×{width}", pixels=pixels, regions=regions)


def posed(content: Regions | None, styles: tuple[Regions | None, ...], **changes: Any) -> Problem:
    """A problem whose first style is of another size than the second."""
    sizes = ((44, 60), (64, 32))
    values: dict[str, Any] = {
        "content_layers": ("block3_conv1",),
        "style_layers": STYLE_LAYERS[:4],
        "alpha": 0.5,
        "beta": 5.0,
    }
    return Problem(
        height=HEIGHT,
        width=WIDTH,
        content=photo(1, HEIGHT, WIDTH, content),
        styles=tuple(photo(2 + i, *sizes[i], regions) for i, regions in enumerate(styles)),
        **(values | changes),
    )


def four_regions(**changes: Any) -> Problem:
    """Content labels 0 to 3, of which 3 is protected; label 1 is in both styles, 0 and 2 in one of them."""
    first, second = quarters(44, 60).clamp(max=1), quarters(64, 32).clamp(1, 2)
    masks = hard(first, "first"), hard(second, "second")
    return posed(hard(quarters(HEIGHT, WIDTH), "content"), masks, **changes)


def soft_regions(**changes: Any) -> Problem:
    """Two regions that fade into each other, in the content and in the style."""
    return posed(soft(HEIGHT, WIDTH), (soft(44, 60),), **changes)


def feathered(**changes: Any) -> Problem:
    """Label 1 is protected, more and more from left to right; the style has no mask."""
    return posed(soft(HEIGHT, WIDTH), (None,), **changes)


PROBLEMS = (four_regions, soft_regions, feathered)


def exact_targets(pooling: Pooling = "max") -> Targets:
    """In float64."""
    return Targets(network(pooling, EXACT))


def point(seed: int = 9) -> Tensor:
    return photo(seed, HEIGHT, WIDTH).pixels.reshape(1, -1)


def chosen(pooling: Pooling) -> Configuration:
    study = load_study("gatys2016", content=["-"], style=["-"])
    [first, *_] = study.configurations(weights_sha256="", normalization="imagenet")
    return dataclasses.replace(first, pooling=pooling)


def expected_total(problem: Problem, image: Tensor, pooling: Pooling, convention: Loss) -> Tensor:
    """The objective as the paper and `transfer.regions` say, position by position, region by region."""
    exact = {name: value.double() for name, value in weights(pooling).items()}
    own, wanted, *painted = (
        reference.features(pixels, exact, chosen(pooling))
        for pixels in (image, *(each.pixels for each in (problem.content, *problem.styles) if each))
    )
    masks = [_planes(each) for each in (problem.content, *problem.styles) if each]
    styled = [label for label in masks[0] if any(label in mask for mask in masks[1:])]
    protected = [label for label in masks[0] if label not in styled]
    used, total = problem.layers, torch.zeros((), dtype=EXACT)
    for layer in used:
        w = {label: _pooled(plane, layer) for label, plane in masks[0].items()}
        safe = sum((w[label] for label in protected), torch.zeros_like(w[0]))
        squares = ((own[layer] - wanted[layer]) ** 2).sum(0)
        n, m = own[layer].shape
        each = problem.alpha * (0.5 if convention == "sum" else 1 / (n * m))
        total = total + each * (safe * squares).sum() / len(used)
        if layer in problem.content_layers:
            total = total + each * ((1 - safe) * squares).sum() / len(problem.content_layers)
        if layer in problem.style_layers:
            for label in styled:
                targets = [
                    _gram(features[layer], _pooled(mask[label], layer))
                    for features, mask in zip(painted, masks[1:], strict=True)
                    if label in mask
                ]
                distance = ((_gram(own[layer], w[label]) - sum(targets) / len(targets)) ** 2).sum()
                factor = 1 / (4 * n**2) if convention == "sum" else 1 / n**4
                share = w[label].sum() / m / len(problem.style_layers)
                total = total + problem.beta * factor * share * distance
    return total


def _planes(of: TargetImage) -> Mapping[int, Tensor]:
    if of.regions is None:
        return {0: torch.ones(of.pixels.shape[1:], dtype=EXACT)}
    plane = of.regions.plane
    if plane.dtype == torch.float32:
        return {0: 1 - plane.double(), 1: plane.double()}
    return {label: (plane == label).double() for label in set(plane.flatten().tolist())}


def _pooled(plane: Tensor, layer: str) -> Tensor:
    for _ in range(int(layer[5]) - (not layer.endswith("pool"))):
        plane = functional.avg_pool2d(plane[None], 2)[0]
    return plane.flatten()


def _gram(features: Tensor, weight: Tensor) -> Tensor:
    return torch.einsum("ip,jp,p->ij", features, features, weight) / weight.sum()


@pytest.mark.parametrize("pooling", get_args(Pooling))
@pytest.mark.parametrize("convention", get_args(Loss))
@pytest.mark.parametrize("make", PROBLEMS)
def test_loss_and_gradient_agree_with_the_reference(make: Any, convention: Loss, pooling: Pooling) -> None:
    problem = make()
    variables = point().view(3, HEIGHT, WIDTH).requires_grad_()
    kept = 0.0 if make is soft_regions else _planes(problem.content)[3 if make is four_regions else 1]
    image = kept * problem.content.pixels + (1 - kept) * variables
    total = expected_total(problem, image, pooling, convention)
    (gradient,) = torch.autograd.grad(total, variables)
    found, own = Objective(exact_targets(pooling), [problem], convention).with_gradient(point())
    torch.testing.assert_close(found.total[0], total.detach(), rtol=1e-6, atol=0)  # masks are float32
    assert (own.flatten() - gradient.flatten()).norm() < 1e-6 * gradient.norm()


@pytest.mark.parametrize("style", ["as the content", "without a mask"])
def test_one_region_is_no_region_to_the_last_bit(style: str) -> None:
    label = 0 if style == "without a mask" else 3
    content, mask = (hard(torch.full(size, label), f"{label}/{size}") for size in ((32, 32), (32, 32)))
    options, cache = SolveOptions(steps=6), Targets(network("max"))
    plain = _small(None, None)
    masked = _small(content, None if label == 0 else mask)
    (without,), (within,) = (solve(cache, [each], options) for each in (plain, masked))
    assert masked.labels is None
    assert torch.equal(without.image, within.image)
    assert without.curve == within.curve
    assert layer_distances(cache, without.image, plain) == layer_distances(cache, within.image, masked)
    assert region_scores(cache, within.image, masked) == ()


def _small(content: Regions | None, style: Regions | None, **changes: Any) -> Problem:
    pictures = [dataclasses.replace(picture(seed), regions=mask) for seed, mask in ((1, content), (2, style))]
    values: dict[str, Any] = {"content_layers": ("block4_conv1",), "style_layers": STYLE_LAYERS, "alpha": 0.5}
    return Problem(height=32, width=32, content=pictures[0], styles=(pictures[1],), beta=5.0, **(values | changes))


def test_guidance_of_ones_is_no_guidance() -> None:
    features, target = (torch.rand(2, 3, 8, 6, dtype=EXACT, requires_grad=True) for _ in range(2))
    wanted = torch.rand(1, 3, 3, dtype=EXACT)
    ones = Guidance.of([torch.ones(8, 6)], EXACT)
    with torch.no_grad():
        target.copy_(features)
    plain, guided = style_loss(features, wanted, "sum"), style_loss(target, wanted.unsqueeze(1), "sum", ones)
    torch.testing.assert_close(plain, guided, rtol=1e-12, atol=0)
    (plain.sum() + guided.sum()).backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(features.grad, target.grad, rtol=1e-12, atol=1e-15)


def test_gradient_of_guided_style_is_exact() -> None:
    planes = [torch.rand(4, 5).round(), torch.rand(4, 5)]
    guidance = Guidance.of(planes, EXACT)
    features = torch.rand(2, 3, 4, 5, dtype=EXACT, requires_grad=True)
    wanted = torch.rand(1, 2, 3, 3, dtype=EXACT)
    wanted = wanted + wanted.transpose(2, 3)
    assert torch.autograd.gradcheck(lambda f: style_loss(f, wanted, "sum", guidance), (features,))


def test_permuted_labels_change_nothing() -> None:
    order = torch.tensor([6, 2, 0, 7])

    def permuted(of: TargetImage) -> TargetImage:
        assert of.regions
        plane = order[of.regions.plane.long()]
        return dataclasses.replace(of, regions=hard(plane, f"{of.regions.key} permuted"))

    problem = four_regions()
    assert problem.content
    other = dataclasses.replace(
        problem, content=permuted(problem.content), styles=tuple(permuted(style) for style in problem.styles)
    )
    cache = exact_targets()
    (first, gradient), (second, same) = (
        Objective(cache, [each], "sum").with_gradient(point()) for each in (problem, other)
    )
    torch.testing.assert_close(first.terms, second.terms, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient, same, rtol=1e-10, atol=1e-12 * float(gradient.abs().max()))
    image = point().view(3, HEIGHT, WIDTH)
    one, two = (region_scores(cache, image, each) for each in (problem, other))
    for label, scores in zip(order.tolist(), one, strict=True):
        [twin] = (each for each in two if each.label == label)
        assert _numbers(twin)[1:] == pytest.approx(_numbers(scores)[1:], rel=1e-5)


def test_a_region_does_not_feel_the_others_style_beyond_the_receptive_field() -> None:
    """The style of the right half changes; in the left half gradients do, too, but only near the border."""
    plane = torch.zeros(HEIGHT, WIDTH)
    plane[:, WIDTH // 2 :] = 1
    mask, half = hard(plane, "halves"), hard(torch.zeros(44, 60), "left")
    gradients = []
    for seed in (5, 6):
        right = photo(seed, 44, 60, hard(torch.ones(44, 60), "right"))
        problem = posed(mask, (half,), style_layers=SHALLOW, content_layers=())
        problem = dataclasses.replace(problem, styles=(*problem.styles, right))
        _, gradient = Objective(exact_targets(), [problem], "sum").with_gradient(point())
        gradients.append(gradient.view(3, HEIGHT, WIDTH))
    reach = receptive_field("vgg16", SHALLOW[-1])
    changed = (gradients[0] != gradients[1]).any(0).any(0)
    assert changed[WIDTH // 2 :].all()
    assert changed[WIDTH // 2 - 2 : WIDTH // 2].all()
    assert not changed[: WIDTH // 2 - reach].any()
    assert gradients[0][:, :, : WIDTH // 2 - reach].norm() > 0


def test_protected_regions_keep_the_content() -> None:
    plane = torch.zeros(HEIGHT, WIDTH)
    plane[:, WIDTH // 2 :] = 1
    problem = posed(hard(plane, "protect"), (None,), style_layers=SHALLOW, content_layers=("block3_conv1",))
    reach = receptive_field("vgg16", SHALLOW[-1])
    only_style = dataclasses.replace(problem, alpha=0.0)
    _, gradient = Objective(exact_targets(), [only_style], "sum").with_gradient(point())
    inside = gradient.view(3, HEIGHT, WIDTH)[:, :, WIDTH // 2 + reach :]
    assert not inside.any()
    assert gradient.any()
    _, gradient = Objective(exact_targets(), [dataclasses.replace(problem, beta=0.0)], "sum").with_gradient(point())
    assert (gradient.view(3, HEIGHT, WIDTH)[:, :, : WIDTH // 2] != 0).all()
    [solution] = solve(exact_targets(), [dataclasses.replace(problem, init="noise")], SolveOptions(steps=3))
    assert problem.content
    same = solution.image == problem.content.pixels
    assert same[:, :, WIDTH // 2 :].all()
    assert not same[:, :, : WIDTH // 2].any()


def test_a_protected_region_has_a_score_of_its_content_alone() -> None:
    plane = torch.zeros(32, 32)
    plane[:, 16:] = 1
    problem = _small(hard(plane, "half"), None, style_layers=SHALLOW)
    cache = Targets(network("max"))
    [solution] = solve(cache, [problem], SolveOptions(steps=30))
    scores = {each.label: each for each in region_scores(cache, solution.image, problem)}
    assert scores[1].protected
    assert scores[1].style_taken is scores[1].transfer_score is scores[1].style_distance is None
    assert scores[0].style_taken is not None
    assert scores[0].style_taken > 0.1
    assert scores[1].content_kept is not None
    assert scores[0].content_kept is not None
    assert scores[1].content_kept > scores[0].content_kept
    assert scores[0].area == scores[1].area == 0.5


@pytest.mark.parametrize("convention", get_args(Loss))
@pytest.mark.parametrize("make", PROBLEMS)
def test_strips_give_the_same_loss_and_gradient(make: Any, convention: Loss) -> None:
    problem, cache = make(tv_weight=2.0), exact_targets()
    found, gradient = Objective(cache, [problem], convention).with_gradient(point())
    for rows in (8, 16):
        tiled = TiledObjective(cache, [problem], convention, tile=rows)
        in_strips, same = tiled.with_gradient(point())
        torch.testing.assert_close(in_strips.terms, found.terms, rtol=1e-10, atol=0)
        assert (same - gradient).norm() <= 1e-10 * gradient.norm()


def test_large_pictures_are_measured_in_strips() -> None:
    problem, whole, image = four_regions(), exact_targets(), point().view(3, HEIGHT, WIDTH)
    in_strips = Targets(whole.network, strip_pixels=32 * 20)
    one, two = (region_scores(cache, image, problem) for cache in (whole, in_strips))
    for left, right in zip(one, two, strict=True):
        assert _numbers(left) == pytest.approx(_numbers(right), rel=1e-5)


def _numbers(scores: RegionScores) -> list[float]:
    numbers = dataclasses.asdict(scores)
    del numbers["color"]
    return [-1.0 if value is None else value for value in numbers.values()]


def test_mates_do_not_feel_each_other() -> None:
    """Regions of its own, none, the same regions twice: everyone gets what it gets alone."""
    problems = [four_regions(), posed(None, (None,)), soft_regions(), soft_regions(alpha=2.0), feathered()]
    cache = exact_targets()
    points = torch.cat([point(seed) for seed in range(len(problems))])
    found, gradients = Objective(cache, problems, "sum").with_gradient(points)
    for row, problem in enumerate(problems):
        alone, gradient = Objective(cache, [problem], "sum").with_gradient(points[row : row + 1])
        torch.testing.assert_close(found.terms[row], alone.terms[0], rtol=1e-10, atol=0)
        assert (gradients[row] - gradient[0]).norm() <= 1e-10 * gradient.norm()


def test_a_batch_is_solved_as_its_members_are() -> None:
    problems = [soft_regions(), posed(None, (None,), content_layers=("block1_conv1",)), four_regions()]
    cache = exact_targets()
    together = solve(cache, problems, SolveOptions(steps=5))
    for problem, found in zip(problems, together, strict=True):
        [alone] = solve(cache, [problem], SolveOptions(steps=5))
        assert found.curve.total == pytest.approx(alone.curve.total, rel=1e-6)


def test_bfloat16_ends_near_float32() -> None:
    mask = soft(32, 32)
    problem = _small(mask, mask)
    cpu, finals = torch.device("cpu"), []
    for precision in ("bfloat16", "float32"):
        cache = build_targets(
            "vgg16", weights(), pooling="average", normalization="imagenet", device=cpu, precision=precision
        )
        [solution] = solve(cache, [problem], SolveOptions(steps=12))
        finals.append(solution.curve.total[-1])
    assert finals[0] < 1.15 * finals[1] < solution.curve.total[0]


def test_region_targets_are_computed_once() -> None:
    class Counting(Vgg):
        calls = 0

        def layer(self, name: str, x: Tensor) -> Tensor:
            Counting.calls += name == "block1_conv1"
            return super().layer(name, x)

    cache = Targets(Counting("vgg16", weights(), pooling="average"))
    mask = hard(quarters(32, 32), "quarters")
    for _ in range(3):
        Objective(cache, [_small(mask, mask)], "sum")
    assert Counting.calls == 4 + 1  # a pass for each region of the style, one for the content


def test_doing_nothing_and_pasting_the_style_score_nothing_in_any_region() -> None:
    mask = hard(quarters(32, 32).clamp(max=2), "three")
    problem, cache = _small(mask, mask), Targets(network())
    assert problem.content
    for image, kept, taken in ((problem.content.pixels, 1, 0), (problem.styles[0].pixels, 0, 1)):
        for scores in region_scores(cache, image, problem):
            assert (scores.content_kept, scores.style_taken) == pytest.approx((kept, taken), abs=1e-3)
            assert scores.transfer_score == pytest.approx(0, abs=1e-3)


def test_baselines_in_a_region_are_of_the_styles_that_have_it() -> None:
    """Two styles with a region each: pasting one of them keeps no content where it belongs, some elsewhere."""
    plane = torch.zeros(32, 32)
    plane[16:] = 1
    styles = [
        dataclasses.replace(picture(seed), regions=hard(torch.full((32, 32), i), f"all {i}"))
        for i, seed in enumerate((2, 3))
    ]
    problem = dataclasses.replace(_small(hard(plane, "halves"), None), styles=tuple(styles))
    upper, lower = region_scores(Targets(network()), styles[0].pixels, problem)
    assert upper.content_kept == pytest.approx(0, abs=1e-3)
    assert lower.content_kept is not None
    pasted = resized(styles[1].pixels, 32, 32)
    lower = region_scores(Targets(network()), pasted, problem)[1]
    assert lower.content_kept == pytest.approx(0, abs=1e-3)
    assert lower.area == 0.5


@pytest.mark.parametrize(
    ("layer", "side"),
    [("block1_conv1", 3), ("block3_conv1", 24), ("block4_conv2", 76), ("block5_conv3", 196), ("block5_pool", 212)],
)
def test_receptive_fields_are_the_known_ones(layer: str, side: int) -> None:
    assert receptive_field("vgg16", layer) == side


def test_a_layer_sees_no_further_than_its_receptive_field() -> None:
    image = torch.rand(1, 3, 64, 64, dtype=torch.float64, requires_grad=True)
    deep = network("max", torch.float64).features(image, [["block3_conv2"]])["block3_conv2"]
    (gradient,) = torch.autograd.grad(deep[0, :, 8, 8].sum(), image)
    seen = gradient[0].abs().sum(0).nonzero()
    assert (seen.amax(0) - seen.amin(0) + 1 <= receptive_field("vgg16", "block3_conv2")).all()


MISTAKES = {
    "no label in common": (hard(torch.ones(8, 8), "a"), [None], "found 1 in the content's and 0 in the styles'"),
    "empty": (
        Regions(key="b", plane=torch.zeros(16, 16, dtype=torch.uint8), labels=(0, 2)),
        [None, hard(torch.full((16, 16), 2), "c")],
        "region 2 of the content's mask is empty at 16×16 pixels",
    ),
    "too small in the style": (
        hard(torch.arange(900).view(30, 30) % 2, "d"),
        [None, hard(torch.arange(144).view(12, 12) // 143, "e")],
        "region 1 of style 2's mask has 1 pixels at 12×12, fewer than the 10×10 that a position of block2_conv1",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_masks_that_cannot_be_used_are_explained(name: str) -> None:
    content, styles, message = MISTAKES[name]
    assert message in str(regions_mistake(content, styles, SHALLOW, "vgg16"))  # type: ignore[arg-type]


def test_masks_that_can_be_used() -> None:
    mask = hard(quarters(64, 64), "quarters")
    assert regions_mistake(mask, [mask], SHALLOW, "vgg16") is None
    assert regions_mistake(mask, [None], SHALLOW, "vgg16") is None
    assert regions_mistake(None, [None], STYLE_LAYERS, "vgg16") is None
    assert regions_mistake(None, [], (), "vgg16") is None
    lost = Regions(
        key="f", plane=torch.zeros(64, 64, dtype=torch.uint8), labels=(0, 5)
    )  # nothing to protect is left
    assert regions_mistake(lost, [None], SHALLOW, "vgg16") is None
    "a region may be small where no style is taken"
    assert regions_mistake(hard(torch.eye(64), "diagonal"), [None], SHALLOW, "vgg16") is None


@pytest.mark.parametrize(
    ("plane", "message"),
    [
        (torch.full((4, 4), 8, dtype=torch.uint8), "expected labels from 0 to 7, found 8"),
        (torch.full((4, 4), 1.5), "expected weights from 0 to 1"),
        (torch.zeros(1, 4, 4), "expected a plane of HxW"),
        (torch.zeros(4, 4, dtype=torch.int64), "expected a plane of HxW in uint8 or float32"),
    ],
)
def test_planes_are_labels_or_weights(plane: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Regions(key="", plane=plane, labels=(0,))
