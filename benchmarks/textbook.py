"""The program that the engine is measured against: one image, full size, torch.optim.LBFGS, as tutorials write it.

It is given every advantage that does not change the method: the same frozen network and losses, the loss scaled
to one so that its tolerances do not stop it early, and as many evaluations as it is asked for.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from nst_batch.transfer import Objective, Problem, Targets, initial_image


@dataclass(frozen=True, slots=True)
class Trace:
    """What one optimisation went through."""

    seconds: list[float]
    """Since the start, after each evaluation."""
    losses: list[float]
    """The best total loss so far, at full size, after each evaluation."""


def textbook(targets: Targets, problem: Problem, evaluations: int, search: str | None = None) -> Trace:
    """Optimises one image the usual way.

    Args:
        search: torch's `line_search_fn`; tutorials leave it out.
    """
    size = problem.height, problem.width
    objective = Objective(targets, [problem], size=size, scale=1.0, convention="sum")
    image = initial_image(problem, targets.network.device).flatten().unsqueeze(0).requires_grad_()
    optimizer = torch.optim.LBFGS([image], max_iter=20, tolerance_grad=0, tolerance_change=0, line_search_fn=search)
    seconds: list[float] = []
    losses: list[float] = []
    scale = 1.0
    started = time.perf_counter()

    def closure() -> float:
        nonlocal scale
        found, gradient = objective.with_gradient(image)
        loss = float(found.total)
        scale = scale if losses else 1 / loss
        image.grad = gradient * scale
        seconds.append(time.perf_counter() - started)
        losses.append(min(loss, losses[-1] if losses else loss))
        return loss * scale

    while len(losses) < evaluations:
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    return Trace(seconds[:evaluations], losses[:evaluations])
