"""The optimisation of a batch of images, coarse to fine.

`steps` is a budget in full-size evaluations. With the pyramid off every evaluation is at full size. With it, a
part of the budget is spent on smaller objectives first, whose evaluations cost as little as their images are
small, and the curve goes on at full size from what that part has cost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nst_batch.records import Curve
from nst_batch.transfer.losses import TERMS
from nst_batch.transfer.objective import Evaluation, Objective
from nst_batch.transfer.optimizers import DIVERGED, PLATEAU, RUNNING, STOP_REASONS, Adam, Lbfgs, Minimizer
from nst_batch.transfer.problem import Problem, initial_image, resized
from nst_batch.transfer.targets import Targets
from nst_batch.vocabulary import Loss, OptimizerName, Pyramid

# Halvings of the sides, and the part of the budget spent there, coarsest first. To spend more (0.3 and 0.25) leaves
# less to the full size and starts it hardly lower: at 300 pixels and a budget of 65 the loss was 14 % higher.
_COARSE = ((2, 0.1), (1, 0.1))
# Of one coarse stage. At 300 pixels and a budget of 260, 416 at a quarter of the sides lead to where the full size
# ends 6 % higher (content block4_conv3) than after 112. At 150 pixels 112 are within 3 % of 416, and 60 are not.
_MOST_COARSE_EVALUATIONS = 120
_SMALLEST_SIDE = 32  # pixels: of a coarser image too little reaches the deepest layers
_CHECK_EVERY = 10  # steps between two looks at who has finished: each waits for the device
_PLATEAU_STEPS = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class SolveOptions:
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
    """Losses of the best image so far, at full size; `step` counts the budget spent."""
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
    """The stages, coarsest first, that a budget of `steps` allows; the last one is at full size."""
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


def solve(targets: Targets, problems: Sequence[Problem], options: SolveOptions) -> list[Solution]:
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
        first = objective(full, everyone)(initial)
    run = _descend(objective, full, _carried(images, initial, height, width), options)
    solutions = _solutions(run, first, initial, options.steps)
    return [solutions[order.index(index)] for index in everyone]


def _carried(images: Tensor, initial: Tensor, height: int, width: int) -> Tensor:
    """Images taken to another size by their change: what a coarse stage never saw, it cannot blur."""
    base = resized(initial, *images.shape[2:])
    return resized(initial, height, width) + resized(images - base, height, width)


def step(objective: Objective, minimizer: Minimizer) -> Evaluation:
    """One evaluation, and the move that follows from it: what a run consists of. Reads no value of the device."""
    found, gradient = objective.with_gradient(minimizer.point)
    minimizer.update(found.total, gradient)
    return found


def minimizer(points: Tensor, options: SolveOptions) -> Minimizer:
    """Of flattened images, BxD."""
    if options.optimizer == "adam":
        return Adam(points, learning_rate=options.learning_rate)
    return Lbfgs(points)


@dataclass(frozen=True, slots=True)
class _Descent:
    """What a batch went through at one size."""

    images: Tensor
    """Bx3xHxW: the best found."""
    terms: Tensor
    """BxKxT: the losses of the best image so far after each evaluation; a finished image's last ones stay."""
    totals: Tensor
    """BxK"""
    evaluations: Tensor
    """B: how many each used."""
    best: Tensor
    """B: after which of them the best was found."""
    state: Tensor
    """B."""

    @classmethod
    def of(cls, start: Tensor, evaluations: int) -> _Descent:
        """Before the first evaluation."""
        batch = len(start)
        count = torch.zeros(batch, dtype=torch.long, device=start.device)
        terms = start.new_full((batch, evaluations, len(TERMS)), torch.nan)
        totals = start.new_full((batch, evaluations), torch.nan)
        return cls(start.clone(), terms, totals, count, count.clone(), torch.full_like(count, RUNNING))

    def record(self, at: int, rows: Tensor, running: Tensor, accepted: Tensor, found: Evaluation) -> None:
        """Puts down evaluation number `at` of the images at these rows."""
        before = max(0, at - 1)
        self.terms[rows, at] = torch.where(accepted.unsqueeze(1), found.terms, self.terms[rows, before])
        self.totals[rows, at] = torch.where(accepted, found.total, self.totals[rows, before])
        self.evaluations[rows] += running
        self.best[rows] = torch.where(accepted, at, self.best[rows])

    def flat(self, at: int, rows: Tensor, plateau: float) -> Tensor:
        """Whose loss has hardly fallen for `_PLATEAU_STEPS`."""
        before, now = self.totals[rows, at - _PLATEAU_STEPS], self.totals[rows, at]
        return before - now < plateau * before


def _descend(
    objective: Callable[[Stage, Sequence[int]], Objective], stage: Stage, start: Tensor, options: SolveOptions
) -> _Descent:
    """Optimises a batch at one size; images that finish leave it."""
    run = _Descent.of(start, stage.evaluations)
    rows = torch.arange(len(start), device=start.device)
    current, search = objective(stage, range(len(start))), minimizer(start.flatten(1), options)
    for at in range(stage.evaluations):
        running = search.state == RUNNING
        found = step(current, search)
        run.record(at, rows, running, search.accepted, found)
        if options.plateau and at >= _PLATEAU_STEPS:
            flat = run.flat(at, rows, options.plateau) & (search.state == RUNNING)
            search.state = torch.where(flat, PLATEAU, search.state)
        last = at == stage.evaluations - 1
        if last or at % _CHECK_EVERY == _CHECK_EVERY - 1:
            run.images[rows], run.state[rows] = search.best.view(-1, *start.shape[1:]), search.state.long()
            left = (search.state == RUNNING).nonzero().squeeze(1)
            if not len(left):
                break
            if len(left) < len(rows):
                rows = rows[left]
                search.select(left)
                current = objective(stage, rows.tolist())
    return run


def _solutions(run: _Descent, first: Evaluation, initial: Tensor, steps: int) -> list[Solution]:
    """Reads the device once, and puts the curve behind the losses of the initial image."""
    terms = torch.cat((first.terms.unsqueeze(1), run.terms), 1).cpu()
    totals = torch.cat((first.total.unsqueeze(1), run.totals), 1).cpu()
    states, used, best = run.state.tolist(), run.evaluations.tolist(), run.best.tolist()
    spent = steps - run.totals.shape[1]
    solutions = []
    for row, (state, count, at) in enumerate(zip(states, used, best, strict=True)):
        steps_ = (0, *range(spent + 1, spent + count + 1))
        entries, image, best_step = torch.arange(count + 1), run.images[row], steps_[at + 1]
        if not totals[row, at + 1] < totals[row, 0]:
            entries, image, best_step = torch.zeros_like(entries), initial[row], 0
        columns = zip(TERMS, terms[row, entries].T.tolist(), strict=True)
        curve = Curve(
            step=steps_,
            total=tuple(totals[row, entries].tolist()),
            **{term.name: tuple(values) for term, values in columns},
        )
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
