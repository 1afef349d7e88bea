"""The optimisation of a batch of images, coarse to fine.

`steps` is a price: evaluations of the full-size objective, or the worth of so many. With the pyramid off every
step is spent at full size. With it, a part buys evaluations of smaller objectives first, each as cheap as its
image is small, and the curve goes on at full size from where that price leads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nst_batch.records import Curve
from nst_batch.transfer.objective import Objective, Problem, Targets, resized
from nst_batch.transfer.optimizers import DIVERGED, PLATEAU, RUNNING, STOP_REASONS, Adam, Lbfgs, Optimizer
from nst_batch.vocabulary import Loss, OptimizerName, Pyramid

# Halvings of the sides, and the part of the price spent there, coarsest first. To spend more (0.3 and 0.25) leaves
# less to the full size and starts it hardly lower: at 300 pixels and a price of 65 the loss was 14 % higher.
_COARSE = ((2, 0.1), (1, 0.1))
# Of one coarse stage. At 300 pixels and a price of 260, 416 at a quarter of the sides lead to where the full size
# ends 6 % higher (content block4_conv3) than after 112. At 150 pixels 112 are within 3 % of 416, and 60 are not.
_MOST_COARSE_EVALUATIONS = 120
_SMALLEST_SIDE = 32  # pixels: of a coarser image too little reaches the deepest layers
_CHECK_EVERY = 10  # steps between two looks at who has finished: each waits for the device
_PLATEAU_STEPS = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """How a batch is optimised; the same for all of its problems."""

    steps: int
    optimizer: OptimizerName = "lbfgs"
    learning_rate: float = 0.02
    pyramid: Pyramid = "auto"
    plateau: float = 0.0
    convention: Loss = "sum"


@dataclass(frozen=True, kw_only=True, slots=True)
class Solution:
    """What became of a problem."""

    image: Tensor
    """3xHxW, on the device: the best image found. Not clamped."""
    curve: Curve
    """Losses of the best image so far, at full size; `step` counts the price paid."""
    best_step: int
    stop_reason: str
    diverged: bool


@dataclass(frozen=True, slots=True)
class Stage:
    """Evaluations at one size."""

    height: int
    width: int
    scale: float
    evaluations: int


def schedule(steps: int, height: int, width: int, pyramid: Pyramid) -> list[Stage]:
    """The stages, coarsest first, that a price of `steps` buys; the last one is at full size."""
    full = Stage(height, width, 1.0, steps)
    if pyramid == "off":
        return [full]
    stages, spent = [], 0.0
    for halvings, share in _COARSE:
        scale = 0.5**halvings
        rows, columns = round(height * scale), round(width * scale)
        evaluations = min(int(steps * share / scale**2), _MOST_COARSE_EVALUATIONS)
        if evaluations and min(rows, columns) >= _SMALLEST_SIDE:
            stages.append(Stage(rows, columns, scale, evaluations))
            spent += evaluations * scale**2
    return [*stages, Stage(height, width, 1.0, max(1, steps - round(spent)))]


def solve(targets: Targets, problems: Sequence[Problem], options: Options) -> list[Solution]:
    """Optimises a batch of problems of one size together, each independently of the others.

    Args:
        targets: The network, and the targets that it has computed so far.
        problems: In any order; all of one height and width.

    Returns:
        A solution for each problem, in the order given.
    """
    network = targets.network
    depth = [max((network.layers.index(layer) for layer in problem.layers), default=-1) for problem in problems]
    order = sorted(range(len(problems)), key=lambda index: -depth[index])
    ordered = [problems[index] for index in order]
    height, width = problems[0].height, problems[0].width
    initial = torch.stack([initial_image(problem, network.device) for problem in ordered]).to(network.exact_dtype)

    def objective(stage: Stage, rows: Sequence[int]) -> Objective:
        chosen = [ordered[row] for row in rows]
        size = (stage.height, stage.width)
        return Objective(targets, chosen, size=size, scale=stage.scale, convention=options.convention)

    stages = schedule(options.steps, height, width, options.pyramid)
    images = initial
    for coarse in stages[:-1]:
        start = _carried(images, initial, coarse.height, coarse.width)
        images = _descend(objective, coarse, start, options).images
    full = stages[-1]
    everyone = range(len(ordered))
    with torch.no_grad():
        first = objective(full, everyone).terms(initial)
    run = _descend(objective, full, _carried(images, initial, height, width), options)
    solutions = _solutions(run, first, initial, options.steps)
    return [solutions[order.index(index)] for index in everyone]


def initial_image(problem: Problem, device: torch.device) -> Tensor:
    """3xHxW: the content, the style at the content's size, or noise around mid grey."""
    size = problem.height, problem.width
    if problem.init == "noise":
        generator = torch.Generator().manual_seed(problem.seed)
        return (0.5 + 0.1 * torch.randn(3, *size, generator=generator)).clamp(0, 1).to(device)
    picture = problem.content if problem.init == "content" else problem.styles[0]
    assert picture is not None
    return resized(picture.pixels.to(device), *size).clamp(0, 1)


def _carried(images: Tensor, initial: Tensor, height: int, width: int) -> Tensor:
    """Images taken to another size by their change: what a coarse stage never saw, it cannot blur."""
    base = resized(initial, *images.shape[2:])
    return resized(initial, height, width) + resized(images - base, height, width)


@dataclass(frozen=True, slots=True)
class _Descent:
    images: Tensor
    """Bx3xHxW: the best found."""
    history: Tensor
    """BxKx4: the losses of the best image so far after each evaluation; a finished image's last ones stay."""
    evaluations: Tensor
    """B: how many each used."""
    best: Tensor
    """B: after which of them the best was found."""
    state: Tensor
    """B."""


def _descend(
    objective: Callable[[Stage, Sequence[int]], Objective], stage: Stage, start: Tensor, options: Options
) -> _Descent:
    """Optimises a batch at one size; images that finish leave it."""
    batch, device = len(start), start.device
    points = start.flatten(1)
    optimizer = _optimizer(points, options)
    active = torch.arange(batch, device=device)
    current = objective(stage, range(batch))
    out = _Descent(
        points.clone(),
        points.new_full((batch, stage.evaluations, 4), torch.nan),
        torch.zeros(batch, dtype=torch.long, device=device),
        torch.zeros(batch, dtype=torch.long, device=device),
        torch.full((batch,), RUNNING, dtype=torch.uint8, device=device),
    )
    kept = points.new_full((batch, 4), torch.nan)
    for evaluation in range(stage.evaluations):
        losses, gradient = current.losses_and_gradient(optimizer.point)
        running = optimizer.state == RUNNING
        optimizer.update(losses[:, 3], gradient)
        kept = torch.where(optimizer.accepted.unsqueeze(1), losses, kept)
        out.history[active, evaluation] = kept
        out.evaluations[active] += running
        out.best[active] = torch.where(optimizer.accepted, evaluation, out.best[active])
        if options.plateau and evaluation >= _PLATEAU_STEPS:
            before = out.history[active, evaluation - _PLATEAU_STEPS, 3]
            flat = (before - kept[:, 3] < options.plateau * before) & (optimizer.state == RUNNING)
            optimizer.state = torch.where(flat, PLATEAU, optimizer.state)
        last = evaluation == stage.evaluations - 1
        if last or evaluation % _CHECK_EVERY == _CHECK_EVERY - 1:
            out.images[active], out.state[active] = optimizer.best, optimizer.state
            rows = (optimizer.state == RUNNING).nonzero().squeeze(1)
            if not len(rows):
                break
            if len(rows) < len(active):
                active, kept = active[rows], kept[rows]
                optimizer.select(rows)
                current = objective(stage, active.tolist())
    return replace(out, images=out.images.view_as(start))


def _optimizer(points: Tensor, options: Options) -> Optimizer:
    if options.optimizer == "adam":
        return Adam(points, learning_rate=options.learning_rate)
    return Lbfgs(points)


def _solutions(run: _Descent, first: Tensor, initial: Tensor, steps: int) -> list[Solution]:
    """Reads the device once, and puts the curve behind the loss of the initial image."""
    history, initial_losses = run.history.cpu(), first.cpu()
    states, used, best = run.state.tolist(), run.evaluations.tolist(), run.best.tolist()
    offset = steps - history.shape[1]
    solutions = []
    for row, (state, count, at) in enumerate(zip(states, used, best, strict=True)):
        entries = torch.cat((initial_losses[row : row + 1], history[row, :count]))
        price = (0, *range(offset + 1, offset + count + 1))
        image, best_step = run.images[row], price[at + 1]
        if not entries[at + 1, 3] < entries[0, 3]:
            image, best_step = initial[row], 0
            entries = entries[:1].expand(len(entries), 4)
        content, style, tv, total = (tuple(column) for column in entries.T.tolist())
        curve = Curve(step=price, content=content, style=style, tv=tv, total=total)
        solutions.append(
            Solution(
                image=image,
                curve=curve,
                best_step=best_step,
                stop_reason=STOP_REASONS[state],
                diverged=state == DIVERGED,
            )
        )
    return solutions
