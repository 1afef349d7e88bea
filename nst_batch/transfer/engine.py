"""The optimisation of a batch of images, each independently of the others.

Images of more than 1024 pixels along an edge are first optimised at half their size, and so on down: the
network sees some two hundred pixels at a time, so what is large in a style is found where the image is small, and
the large sizes refine it (Gatys, Ecker, Bethge, Hertzmann and Shechtman, "Controlling perceptual factors in neural
style transfer", CVPR 2017). Smaller images have no such stages. They halve the first loss at full size at most,
because the fine strokes of the shallow layers are not in them, and a few full-size steps with a scale per band do
as well: on trained weights at 224 pixels a start at half the sides was up to 1.4 times sooner for one pair of
pictures, and later for the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from nst_batch.records import Curve
from nst_batch.transfer.bands import ImageBands
from nst_batch.transfer.losses import TERMS
from nst_batch.transfer.objective import Evaluation, Objective
from nst_batch.transfer.optimizers import DIVERGED, PLATEAU, RUNNING, STOP_REASONS, Adam, Lbfgs, Minimizer
from nst_batch.transfer.problem import Problem, initial_image, reduced
from nst_batch.transfer.targets import Targets
from nst_batch.transfer.tiles import TiledObjective
from nst_batch.transfer.vgg import Vgg
from nst_batch.vocabulary import WHOLE_IMAGE, Loss, MemoryLayout, OptimizerName, Pyramid, num_stages

_CHECK_EVERY = 10  # steps between two looks at who has finished: each waits for the device, which strips do anyway
_LEAST_STEPS = 20  # before a plateau is looked for


@dataclass(frozen=True, kw_only=True, slots=True)
class SolveOptions:
    """How a batch is optimised; the same for all of its problems."""

    steps: int
    optimizer: OptimizerName = "lbfgs"
    learning_rate: float = 0.02
    plateau: float = 0.0
    """A problem ends when what its loss would still fall by the last step is below this part of it; 0: never."""
    convention: Loss = "sum"
    pyramid: Pyramid = "auto"
    """Whether large images start from what was found at half their size."""
    layout: MemoryLayout = WHOLE_IMAGE
    """How the problems are held in memory; in strips only one at a time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Solution:
    """What became of a problem."""

    image: Tensor
    """3xHxW, on the device: the best image found. Not clamped."""
    curve: Curve
    """Losses of the best image so far after each evaluation; step 0 is the initial image, or what the last coarse
    stage found."""
    best_step: int
    stop_reason: str
    diverged: bool


def solve(
    targets: Targets,
    problems: Sequence[Problem],
    options: SolveOptions,
    on_progress: Callable[[float], object] = lambda _: None,
) -> list[Solution]:
    """Optimises a batch of problems of one size together, each independently of the others.

    Args:
        targets: The network, and the targets that it has computed so far.
        problems: In any order; all of one height and width.
        on_progress: Is told which part of all steps, weighted by their pixels, the device has done: every ten, at
            the last one of a stage, and in strips at each.

    Returns:
        A solution for each problem, in the order given.
    """
    network = targets.network
    depth = [max((network.layers.index(layer) for layer in problem.layers), default=-1) for problem in problems]
    order = sorted(range(len(problems)), key=lambda index: -depth[index])
    ordered = [problems[index] for index in order]
    halvings = num_stages(ordered[0].height, ordered[0].width) if options.pyramid == "auto" else 0
    stages = [
        [reduced(problem, left, options.convention) for problem in ordered] for left in range(halvings, -1, -1)
    ]
    edges = [0, *accumulate(stage[0].height * stage[0].width for stage in stages)]
    found: Tensor | None = None
    for stage, (begin, end) in zip(stages, pairwise(edges), strict=True):
        initial = _initial(network, stage, found)
        on_stage = partial(_tell, on_progress, begin / edges[-1], end / edges[-1])
        run = _descend(targets, stage, initial, options, on_stage)
        found = run.images
    if targets.judge is not targets:
        with torch.no_grad():
            run.judge(_objective(targets.judge, ordered, options)(run.images))
    solutions = _solutions(run, initial)
    return [solutions[order.index(index)] for index in range(len(problems))]


def _tell(on_progress: Callable[[float], object], begin: float, end: float, done: float) -> None:
    """Which part of all is done, when that much of what lies between `begin` and `end` is."""
    on_progress(begin + done * (end - begin))


def _initial(network: Vgg, problems: Sequence[Problem], found: Tensor | None = None) -> Tensor:
    """Bx3xHxW: what each begins with, or what was `found` for it at a smaller size."""
    rows = [None] * len(problems) if found is None else list(found)
    images = [initial_image(problem, network.device, row) for problem, row in zip(problems, rows, strict=True)]
    return torch.stack(images).to(network.exact_dtype)


def _objective(targets: Targets, problems: Sequence[Problem], options: SolveOptions) -> Objective | TiledObjective:
    if options.layout.tile:
        return TiledObjective(targets, problems, options.convention, tile=options.layout.tile)
    return Objective(targets, problems, options.convention)


def step(objective: Objective | TiledObjective, minimizer: Minimizer) -> Evaluation:
    """One evaluation, and the move that follows from it: what a run consists of. Reads no value of the device."""
    found, gradient = objective.with_gradient(minimizer.point)
    minimizer.update(found.total, gradient)
    return found


def minimizer(images: Tensor, options: SolveOptions) -> Minimizer:
    """Of Bx3xHxW images, which it sees flattened."""
    if options.optimizer == "adam":
        return Adam(images.flatten(1), learning_rate=options.learning_rate)
    bands = ImageBands(images.shape[2], images.shape[3], images.device, images.dtype)
    pairs = torch.bfloat16 if options.layout.pair_precision == "bfloat16" else None
    history = min(options.layout.num_pairs, options.steps)
    return Lbfgs(images.flatten(1), history=history, pairs=pairs, bands=bands)


@dataclass(frozen=True, slots=True)
class _Descent:
    """What a batch went through."""

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
    def of(cls, start: Tensor, steps: int) -> _Descent:
        """Before the first evaluation."""
        count = torch.zeros(len(start), dtype=torch.long, device=start.device)
        terms = start.new_full((len(start), steps, len(TERMS)), torch.nan)
        totals = start.new_full((len(start), steps), torch.nan)
        return cls(start.clone(), terms, totals, count, count.clone(), torch.full_like(count, RUNNING))

    def record(self, at: int, rows: Tensor, running: Tensor, accepted: Tensor, found: Evaluation) -> None:
        """Puts down evaluation number `at` of the images at these rows."""
        before = max(0, at - 1)
        self.terms[rows, at] = torch.where(accepted.unsqueeze(1), found.terms, self.terms[rows, before])
        self.totals[rows, at] = torch.where(accepted, found.total, self.totals[rows, before])
        self.evaluations[rows] += running
        self.best[rows] = torch.where(accepted, at, self.best[rows])

    def judge(self, found: Evaluation) -> None:
        """Puts the losses of the images found, computed more exactly, in the place of those from their best on."""
        steps = torch.arange(self.totals.shape[1], device=self.totals.device)
        kept = (steps >= self.best.unsqueeze(1)) & self.totals.isfinite()
        self.totals.copy_(torch.where(kept, found.total.unsqueeze(1), self.totals))
        self.terms.copy_(torch.where(kept.unsqueeze(2), found.terms.unsqueeze(1), self.terms))

    def left_to_fall(self, at: int, rows: Tensor) -> Tensor:
        """By how much, over the loss, the last evaluation would end lower if the loss went on falling as 1/k.

        A loss c/k + d has fallen by c/k since half as many evaluations, and falls by as much in all that follow.
        Measured at 128 pixels, trained weights, 150 steps: where this first was below 0.01, after 77 to 147 steps,
        the loss was 0.7 to 1.5 % above its end (four problems, alpha 0.5 and 0.005).
        """
        now, steps = self.totals[rows, at], self.totals.shape[1]
        return (self.totals[rows, at // 2] - now) * (1 - (at + 1) / steps) / now


def _descend(
    targets: Targets,
    problems: Sequence[Problem],
    start: Tensor,
    options: SolveOptions,
    on_progress: Callable[[float], object],
) -> _Descent:
    """Optimises problems that are ordered deepest first; those that finish leave the batch."""
    run, rows = _Descent.of(start, options.steps), torch.arange(len(start), device=start.device)
    objective = _objective(targets, problems, options)
    search = minimizer(start, options)
    every = 1 if options.layout.tile else _CHECK_EVERY
    for at in range(options.steps):
        running = search.state == RUNNING
        found = step(objective, search)
        run.record(at, rows, running, search.accepted, found)
        if options.plateau and at >= _LEAST_STEPS:
            flat = (run.left_to_fall(at, rows) < options.plateau) & (search.state == RUNNING)
            search.state = torch.where(flat, PLATEAU, search.state)
        last = at == options.steps - 1
        if last or at % every == every - 1:
            run.images[rows], run.state[rows] = objective.variables.images(search.best), search.state.long()
            left = (search.state == RUNNING).nonzero().squeeze(1)
            on_progress((at + 1) / options.steps)
            if not len(left):
                break
            if len(left) < len(rows):
                rows = rows[left]
                search.select(left)
                objective = _objective(targets, [problems[row] for row in rows.tolist()], options)
    return run


def _solutions(run: _Descent, initial: Tensor) -> list[Solution]:
    """Reads the device once. The first evaluation is of the initial image: it is step 0 as well as step 1."""
    terms, totals = run.terms.cpu(), run.totals.cpu()
    states, used, best = run.state.tolist(), run.evaluations.tolist(), run.best.tolist()
    return [
        _solution(run.images[row], terms[row], totals[row], used[row], best[row], states[row])
        for row in range(len(initial))
    ]


def _solution(image: Tensor, terms: Tensor, totals: Tensor, used: int, best: int, state: int) -> Solution:
    """From what was recorded of one image after `used` evaluations; `best` is the number of the best, from 0."""
    entries = [0, *range(used)]
    columns = zip(TERMS, terms[entries].T.tolist(), strict=True)
    curve = Curve(
        step=tuple(range(used + 1)),
        total=tuple(totals[entries].tolist()),
        **{term.name: tuple(values) for term, values in columns},
    )
    return Solution(
        image=image,
        curve=curve,
        best_step=best + 1 if best else 0,
        stop_reason=STOP_REASONS[state],
        diverged=state == DIVERGED,
    )
