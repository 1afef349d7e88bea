"""What only an NVIDIA GPU can show: no step waits for it, and batches and precisions end where they should."""

from __future__ import annotations

import pytest
import torch

from nst_batch.transfer import (
    Objective,
    Problem,
    Solution,
    SolveOptions,
    Targets,
    Vgg,
    build_targets,
    initial_image,
    solve,
    step,
)
from nst_batch.transfer.optimizers import Lbfgs
from nst_batch.vocabulary import Precision
from tests.transfer.problems import problem, weights

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU and a PyTorch that sees it"),
]

GPU = torch.device("cuda")
SIDE = 128


def targets(precision: Precision = "float32") -> Targets:
    """On the GPU, as a worker places them."""
    return build_targets(
        "vgg16", weights(), pooling="average", normalization="imagenet", device=GPU, precision=precision
    )


def posed() -> list[Problem]:
    """Eight pairs."""
    return [problem(content, content + 20, SIDE) for content in range(8)]


def full_size_loss(solution: Solution, one: Problem) -> float:
    """In float32, on the CPU."""
    judge = Targets(Vgg("vgg16", weights(), pooling="average"))
    objective = Objective(judge, [one], "sum")
    return float(objective(solution.image.cpu().unsqueeze(0)).total)


def test_a_step_does_not_wait_for_the_device() -> None:
    problems = posed()
    objective = Objective(targets(), problems, "sum")
    optimizer = Lbfgs(torch.stack([initial_image(one, GPU) for one in problems]).flatten(1))
    for number in range(8):
        if number == 3:  # the libraries have chosen their algorithms
            torch.cuda.set_sync_debug_mode("error")
        step(objective, optimizer)
    torch.cuda.set_sync_debug_mode("default")
    assert optimizer.best_loss.isfinite().all()


@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
def test_what_auto_may_choose_ends_within_a_hundredth_of_float32(precision: Precision) -> None:
    options = SolveOptions(steps=100)
    exact, quick = (solve(targets(each), posed(), options) for each in ("float32", precision))
    ratios = [
        full_size_loss(fast, one) / full_size_loss(slow, one)
        for one, slow, fast in zip(posed(), exact, quick, strict=True)
    ]
    if precision == "tf32":  # what auto chooses
        assert max(ratios) < 1.01, ratios
    else:
        assert max(ratios) < 1.2, ratios


def test_a_gpu_ends_where_a_cpu_does() -> None:
    options = SolveOptions(steps=60)
    on_gpu = solve(targets(), posed()[:2], options)
    on_cpu = solve(Targets(Vgg("vgg16", weights(), pooling="average")), posed()[:2], options)
    for one, gpu, cpu in zip(posed(), on_gpu, on_cpu, strict=False):
        assert full_size_loss(gpu, one) == pytest.approx(full_size_loss(cpu, one), rel=0.02)


def test_the_same_batch_gives_the_same_bytes() -> None:
    options = SolveOptions(steps=20)
    cache = targets()
    first, again = solve(cache, posed(), options), solve(cache, posed(), options)
    assert all(one.image.equal(other.image) for one, other in zip(first, again, strict=True))
