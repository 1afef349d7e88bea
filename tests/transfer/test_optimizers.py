"""The batched optimisers against torch's, one problem at a time, and the independence of their rows."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nst_batch.transfer import Objective, Targets, Vgg, step
from nst_batch.transfer.bands import OCTAVES, Bands, ImageBands, OneBand
from nst_batch.transfer.optimizers import CONVERGED, DIVERGED, RUNNING, STALLED, Adam, Lbfgs, Minimizer
from tests.transfer.problems import problem, weights

Function = Callable[[Tensor], Tensor]

CURVATURES = torch.logspace(0, 3, 50, dtype=torch.float64)


def rosenbrock(x: Tensor) -> Tensor:
    return (100 * (x[:, 1::2] - x[:, ::2] ** 2) ** 2 + (1 - x[:, ::2]) ** 2).sum(1)


def quadratic(x: Tensor) -> Tensor:
    return (CURVATURES.to(x.dtype) * x * x).sum(1) / 2


def evaluate(function: Function, point: Tensor) -> tuple[Tensor, Tensor]:
    x = point.detach().clone().requires_grad_()
    loss = function(x)
    (gradient,) = torch.autograd.grad(loss.sum(), x)
    return loss.detach(), gradient


def evaluations(optimizer: Minimizer, function: Function, goal: float, limit: int = 600) -> list[int]:
    """How many evaluations each row needed to get below `goal`."""
    needed = [limit] * len(optimizer.point)
    for count in range(1, limit):
        optimizer.update(*evaluate(function, optimizer.point))
        for row, loss in enumerate(optimizer.best_loss.tolist()):
            if loss < goal:
                needed[row] = min(needed[row], count)
        if max(needed) < limit:
            break
    return needed


def torchs_evaluations(start: Tensor, function: Function, goal: float, search: str | None) -> int:
    x = start.unsqueeze(0).clone().requires_grad_()
    count, limit = 0, 600
    optimizer = torch.optim.LBFGS(
        [x],
        max_iter=limit,
        max_eval=limit,
        history_size=20,
        tolerance_grad=0,
        tolerance_change=0,
        line_search_fn=search,
    )

    def closure() -> float:
        nonlocal count
        optimizer.zero_grad()
        loss = function(x).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        count += 1
        if loss.item() < goal:
            raise ReachedError
        return loss.item()

    try:
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    except ReachedError:
        return count
    return limit


class ReachedError(Exception):
    """The loss is as low as was asked for."""


@pytest.mark.parametrize(("function", "size"), [(rosenbrock, 10), (quadratic, 50)])
def test_lbfgs_needs_no_more_evaluations_than_torchs(function: Function, size: int) -> None:
    starts = torch.randn(4, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ours = evaluations(Lbfgs(starts, first_step=0.1), function, 1e-8)
    for start, count in zip(starts, ours, strict=True):
        theirs = min(torchs_evaluations(start, function, 1e-8, search) for search in (None, "strong_wolfe"))
        assert count <= 1.2 * theirs + 2, (count, theirs)


@pytest.mark.parametrize("scale", [1e-12, 1e-4, 1.0, 1e12])
def test_lbfgs_does_not_feel_the_scale_of_the_loss(scale: float) -> None:
    start = torch.randn(2, 10, generator=torch.Generator().manual_seed(1))
    plain, scaled = Lbfgs(start), Lbfgs(start)
    for _ in range(40):
        plain.update(*evaluate(rosenbrock, plain.point))
        scaled.update(*evaluate(lambda x: scale * rosenbrock(x), scaled.point))
    assert (scaled.best_loss / scale < 0.1 * rosenbrock(start)).all()
    assert (plain.best_loss < 0.1 * rosenbrock(start)).all()


@pytest.mark.parametrize("bands", [OneBand(), ImageBands(4, 5, torch.device("cpu"), torch.float64)])
def test_the_triangular_systems_are_the_two_loop_recursion(bands: Bands) -> None:
    optimizer = Lbfgs(torch.randn(1, 60, dtype=torch.float64), history=4, bands=bands)
    pairs: list[tuple[Tensor, Tensor]] = []
    for _ in range(12):
        point, gradient = optimizer.best.clone(), optimizer._gradient.clone()
        known = optimizer.best_loss.isfinite().item()
        optimizer.update(*evaluate(rosenbrock, optimizer.point))
        s, y = optimizer.best - point, optimizer._gradient - gradient
        pairs.append((s, y) if known and (s * y).sum() > 0 else (torch.zeros_like(s), torch.zeros_like(y)))
        pairs = pairs[-4:]
    torch.testing.assert_close(optimizer._quasi_newton_direction(), two_loop(optimizer._gradient, pairs, bands))


def two_loop(gradient: Tensor, pairs: list[tuple[Tensor, Tensor]], bands: Bands) -> Tensor:
    """Algorithm 7.4 of Nocedal and Wright, "Numerical optimization"."""
    useful = [(s, y) for s, y in pairs if (s * y).sum() > 0]
    q, alphas = gradient.clone(), []
    for s, y in reversed(useful):
        alphas.append((s * q).sum() / (s * y).sum())
        q = q - alphas[-1] * y
    ratios = []
    for s, y in useful:
        above, below = bands.norms(s), bands.norms(y)
        ratios.append(torch.where((above > 0) & (below > 0), above / below, s.norm() / y.norm()))
    q = bands.scaled(q, torch.stack(ratios).mean(0))
    for (s, y), alpha in zip(useful, reversed(alphas), strict=True):
        q = q + s * (alpha - (y * q).sum() / (s * y).sum())
    return -q


@pytest.mark.parametrize("size", [(4, 5), (31, 48), (1, 1)])
def test_bands_are_orthogonal_and_add_up(size: tuple[int, int]) -> None:
    bands = ImageBands(*size, torch.device("cpu"), torch.float64)
    vectors = torch.randn(2, 3 * size[0] * size[1], dtype=torch.float64)
    norms = bands.norms(vectors)
    torch.testing.assert_close(norms.square().sum(1), vectors.square().sum(1))
    torch.testing.assert_close(bands.scaled(vectors, torch.ones_like(norms)), vectors)
    for band in range(norms.shape[1]):
        only = torch.zeros_like(norms)
        only[:, band] = 1
        part = bands.scaled(vectors, only)
        torch.testing.assert_close(bands.norms(part), norms * only, atol=1e-12, rtol=1e-9)


def test_known_patterns_lie_in_their_bands() -> None:
    bands = ImageBands(64, 64, torch.device("cpu"), torch.float64)
    checks = (torch.arange(64).unsqueeze(1) + torch.arange(64)) % 2 * 2.0 - 1
    stripes = (torch.arange(64).double() * torch.pi * 5 / 32).sin().expand(64, 64)  # 5/64 of a cycle per pixel
    grey, red_to_blue = torch.ones(3, 1, 1), torch.tensor([1.0, 0.0, -1.0]).view(3, 1, 1)
    patterns = torch.stack([grey * checks, red_to_blue * stripes]).double().flatten(1)
    strong = (bands.norms(patterns) > 1e-6).nonzero().tolist()
    assert strong == [[0, 0], [1, OCTAVES + 2]]


def test_bands_find_the_curvature_of_each() -> None:
    """A quadratic whose curvature differs from band to band, a million times at most."""
    bands = ImageBands(16, 16, torch.device("cpu"), torch.float64)
    curvatures = torch.logspace(0, 6, 21, dtype=torch.float64).unsqueeze(0)

    def bowl(x: Tensor) -> Tensor:
        return (x * bands.scaled(x, curvatures)).sum(1) / 2

    start = torch.randn(1, 768, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    goal = 1e-9 * bowl(start).item()
    [scaled], [plain] = (evaluations(Lbfgs(start, bands=each), bowl, goal, 200) for each in (bands, OneBand()))
    assert scaled < plain / 2


def make(kind: str, start: Tensor, side: int = 2) -> Minimizer:
    """For flattened images, side x side."""
    if kind == "adam":
        return Adam(start, learning_rate=0.02)
    return Lbfgs(start, bands=ImageBands(side, side, start.device, start.dtype))


@pytest.mark.parametrize("kind", ["lbfgs", "adam"])
def test_rows_do_not_feel_each_other(kind: str) -> None:
    starts = torch.randn(5, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    together, alone = make(kind, starts), make(kind, starts[3:4])
    for _ in range(30):
        loss, gradient = evaluate(rosenbrock, together.point)
        loss[0], gradient[1] = torch.nan, torch.inf  # two neighbours diverge
        together.update(loss, gradient)
        alone.update(*evaluate(rosenbrock, alone.point))
    torch.testing.assert_close(together.best[3:4], alone.best, rtol=1e-6, atol=1e-9)
    assert together.state[:2].tolist() == [DIVERGED, DIVERGED]
    assert together.best[0].equal(starts[0])


@pytest.mark.parametrize("kind", ["lbfgs", "adam"])
def test_selecting_rows_keeps_their_paths(kind: str) -> None:
    starts = torch.randn(4, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    whole, part = make(kind, starts), make(kind, starts)
    for number in range(30):
        if number == 15:
            part.select(torch.tensor([1, 3]))
        whole.update(*evaluate(rosenbrock, whole.point))
        part.update(*evaluate(rosenbrock, part.point))
    torch.testing.assert_close(part.best, whole.best[[1, 3]], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kind", ["lbfgs", "adam"])
def test_a_step_reads_no_value(kind: str) -> None:
    """So it never waits for a device. `meta` tensors have shapes and no values: to read one is an error."""
    network = Vgg("vgg16", weights(), pooling="average", device="meta")
    problems = [problem(1), problem(2, content_layers=("block2_conv1",), style_layers=("block1_conv1",))]
    objective = Objective(Targets(network), problems, "sum")
    optimizer = make(kind, torch.empty(2, 3 * 32 * 32, device="meta"), side=32)
    for _ in range(3):
        step(objective, optimizer)
    with pytest.raises(RuntimeError, match="meta"):
        optimizer.best_loss.tolist()


def test_lbfgs_converges_and_stays() -> None:
    optimizer = Lbfgs(torch.randn(1, 50, generator=torch.Generator().manual_seed(4)))
    for _ in range(400):
        optimizer.update(*evaluate(lambda x: quadratic(x) + 1, optimizer.point))
    assert optimizer.state.item() == CONVERGED
    assert optimizer.best_loss.item() == pytest.approx(1, rel=1e-5)
    best = optimizer.best.clone()
    optimizer.update(*evaluate(lambda x: quadratic(x) + 1, optimizer.point))
    assert optimizer.best.equal(best)


def test_lbfgs_steps_back_from_a_cliff() -> None:
    """Where the loss is not a number beyond a wall, shorter steps are tried before giving up."""
    optimizer = Lbfgs(torch.full((1, 1), 2.0, dtype=torch.float64), first_step=5.0)
    for _ in range(60):
        loss, gradient = evaluate(lambda x: (x - torch.log(x)).sum(1), optimizer.point)
        optimizer.update(loss, gradient)
    assert optimizer.best.item() == pytest.approx(1, abs=1e-6)


def test_lbfgs_stalls_when_no_step_helps() -> None:
    """A gradient that points the wrong way."""
    optimizer = Lbfgs(torch.ones(1, 3, dtype=torch.float64))
    for _ in range(40):
        loss, gradient = evaluate(lambda x: (x * x).sum(1), optimizer.point)
        optimizer.update(loss, -gradient)
    assert optimizer.state.item() == STALLED


def test_a_vanishing_gradient_is_convergence() -> None:
    for kind in ("lbfgs", "adam"):
        optimizer = make(kind, torch.zeros(1, 12))
        optimizer.update(torch.zeros(1), torch.zeros(1, 12))
        assert optimizer.state.item() == CONVERGED
        assert optimizer.point.equal(torch.zeros(1, 12))


def test_adam_descends_and_keeps_the_best() -> None:
    optimizer = Adam(torch.randn(2, 50), learning_rate=0.05)
    first = None
    for _ in range(300):
        loss, gradient = evaluate(quadratic, optimizer.point)
        first = loss if first is None else first
        optimizer.update(loss, gradient)
        assert (optimizer.best_loss <= loss).all()
    assert first is not None
    assert (optimizer.best_loss < 0.05 * first).all()
    assert optimizer.state.tolist() == [RUNNING, RUNNING]
