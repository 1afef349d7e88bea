"""`make bench`: what the engine costs above its floor, and how soon it reaches a textbook program's loss.

    python -m benchmarks.engine [--size 300] [--steps 300] [--price 60] [--configurations 7] [--pairs 2]
                                [--limit SECONDS] [--goals RESULT] [--only step,search,memory,grid,race]

Ratios of measurements that alternate in one process; absolute times belong to the machine that is named beside
them. Results go to benchmarks/results/DATE-engine-NUMBER.json and are never overwritten.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.pictures import photo_pairs
from benchmarks.report import write
from benchmarks.textbook import textbook
from nst_batch.study.reading import load_study
from nst_batch.transfer import (
    Evaluation,
    Objective,
    Problem,
    Solution,
    SolveOptions,
    Targets,
    Vgg,
    keep_freed_memory,
    random_weights,
    solve,
    step,
)
from nst_batch.transfer.optimizers import Lbfgs
from nst_batch.transfer.vgg import conv_shapes
from nst_batch.vocabulary import LBFGS_HISTORY, layer_names, layer_shape, predicted_bytes

STYLE_LAYERS = ("block1_conv1", "block2_conv1", "block3_conv1", "block4_conv1", "block5_conv1")

SEARCHED = (1, 2, 5, 10, 20, 50, 100)
"""Evaluations at which line searches are compared."""


def problems(size: int, num_pairs: int, num_configurations: int) -> list[Problem]:
    """The source study's experiments on pairs of real photos."""
    study = load_study("week7_content_layers", content=["-"], style=["-"])
    return [
        Problem(
            height=size,
            width=size,
            content=content,
            styles=(style,),
            content_layers=layers,
            style_layers=STYLE_LAYERS,
            alpha=0.5,
            beta=5.0,
        )
        for layers in study.grid.content_layers[:num_configurations]
        for content, style in photo_pairs(size)[:num_pairs]
    ]


def floor(batch: int, size: int, deepest: str = "block5_conv1") -> Callable[[], None]:
    """The convolutions of one step and nothing else: forward, and backward to the input."""
    names = layer_names("vgg16")
    calls: list[tuple[Tensor, Tensor, Tensor]] = []
    for name in names[: names.index(deepest) + 1]:
        if name in conv_shapes("vgg16"):
            out_channels, in_channels = conv_shapes("vgg16")[name]
            _, rows, columns = layer_shape(name, size, size)
            x = torch.randn(batch, in_channels, rows, columns).to(memory_format=torch.channels_last)
            kernel = torch.randn(out_channels, in_channels, 3, 3).to(memory_format=torch.channels_last)
            calls.append((x.requires_grad_(), kernel, torch.zeros(out_channels)))

    def run() -> None:
        for x, kernel, bias in calls:
            y = functional.conv2d(x, kernel, bias, padding=1)
            torch.autograd.grad(y, x, y.detach())

    return run


def stepping(targets: Targets, problem: Problem, batch: int) -> Callable[[], None]:
    """One step of the engine on a batch, optimiser included, as late in a run: with all the pairs it keeps."""
    size = problem.height, problem.width
    objective = Objective(targets, [problem] * batch, size=size, scale=1.0, convention="sum")
    assert problem.content
    optimizer = Lbfgs(problem.content.pixels.flatten().repeat(batch, 1))

    def run() -> None:
        step(objective, optimizer)

    curvature = torch.linspace(1, 1000, optimizer.point.shape[1])
    for _ in range(LBFGS_HISTORY):  # of a paraboloid, to spare the convolutions
        gradient = curvature * optimizer.point
        optimizer.update((gradient * optimizer.point).sum(1) / 2, gradient)
    return run


def alternate(first: Callable[[], None], second: Callable[[], None], rounds: int) -> tuple[float, float, float]:
    """Median seconds of both, and the median of their ratios round by round."""
    pairs = []
    for _ in range(rounds + 2):
        times = []
        for call in (first, second):
            begun = time.perf_counter()
            call()
            times.append(time.perf_counter() - begun)
        pairs.append((times[0], times[1]))
    kept = pairs[2:]
    ratio = statistics.median(a / b for a, b in kept)
    return statistics.median(a for a, _ in kept), statistics.median(b for _, b in kept), ratio


def flops_per_step(size: int, deepest: str = "block5_conv1") -> int:
    """Of the convolutions of one image, forward and backward: four per multiply-add pair of passes."""
    names = layer_names("vgg16")
    total = 0
    for name in names[: names.index(deepest) + 1]:
        if name in conv_shapes("vgg16"):
            out_channels, in_channels = conv_shapes("vgg16")[name]
            _, rows, columns = layer_shape(name, size, size)
            total += 4 * 9 * out_channels * in_channels * rows * columns
    return total


def peak_flops(side: int = 3072) -> float:
    """FLOP/s of a large float32 matrix product here."""
    left, right = torch.randn(side, side), torch.randn(side, side)
    times = []
    for _ in range(6):
        begun = time.perf_counter()
        left @ right
        times.append(time.perf_counter() - begun)
    return 2 * side**3 / statistics.median(times[1:])


def bench_step(targets: Targets, size: int, steps: int) -> list[dict[str, Any]]:
    """(1) What a step costs above its convolutions, and (3) what batches make of it."""
    rows = []
    problem, peak = problems(size, 1, 1)[0], peak_flops()
    for batch in (1, 2, 4):
        seconds, bare, ratio = alternate(
            stepping(targets, problem, batch), floor(batch, size), 11 if batch == 1 else 7
        )
        flops = flops_per_step(size) * batch / seconds
        rows.append(
            {
                "size": size,
                "batch": batch,
                "step_seconds": seconds,
                "floor_seconds": bare,
                "ratio": ratio,
                "trials_per_hour": 3600 * batch / (seconds * steps),
                "gflops": flops / 1e9,
                "share_of_matrix_product_peak": flops / peak,
            }
        )
    return rows


def goals(path: Path | None) -> dict[tuple[str, tuple[str, ...]], dict[str, Any]]:
    """What the textbook program reached in an earlier race on this machine: rows by content and layers."""
    rows = json.loads(path.read_text())["race"]["rows"] if path else []
    return {(row["content"], tuple(row["content_layers"])): row for row in rows}


def bench_race(
    targets: Targets,
    posed: Sequence[Problem],
    steps: int,
    price: int,
    limit: float,
    known: Mapping[tuple[str, tuple[str, ...]], dict[str, Any]],
) -> dict[str, Any]:
    """(2) The textbook program's `steps` evaluations against the engine at one price for all.

    `seconds` is what the engine took for its whole price, `seconds_to_goal` until its loss at full size was the one
    that the textbook program ended with; the first evaluation, which only records the initial loss, included.
    After `limit` seconds no other problem is begun. A textbook run takes minutes; those that are `known` are not
    repeated.
    """
    rows: list[dict[str, Any]] = []
    started = time.monotonic()
    for problem in posed:
        if time.monotonic() - started > limit:
            break
        assert problem.content
        book = known.get((problem.content.key, problem.content_layers))
        if book is None:
            trace = textbook(targets, problem, steps)
            book = {"textbook_loss": trace.losses[-1], "textbook_seconds": trace.seconds[-1]}
        solution, seconds = solve_timed(targets, problem, price)
        size, goal = (problem.height, problem.width), book["textbook_loss"]
        judge = Objective(targets, [problem], size=size, scale=1.0, convention="sum")
        loss = float(judge(solution.image.unsqueeze(0)).total)
        reached = [at for at, total in zip(seconds, solution.curve.total[1:], strict=True) if total <= goal]
        rows.append(
            {
                "content": problem.content.key,
                "content_layers": list(problem.content_layers),
                "textbook_loss": goal,
                "textbook_seconds": book["textbook_seconds"],
                "price": price,
                "seconds": seconds[-1],
                "loss_ratio": loss / goal,
                "seconds_to_goal": reached[0] if reached else None,
                "speedup": book["textbook_seconds"] / reached[0] if reached else None,
            }
        )
        print(f"  {rows[-1]}", file=sys.stderr, flush=True)
    won = [row for row in rows if row["seconds_to_goal"]]
    theirs, ours = (sum(row[key] for row in won) for key in ("textbook_seconds", "seconds_to_goal"))
    return {
        "reached": f"{len(won)} of {len(rows)}",
        "speedup_of_the_total": theirs / ours if won else None,
        "rows": rows,
    }


def solve_timed(targets: Targets, problem: Problem, price: int) -> tuple[Solution, list[float]]:
    """A solution, and the seconds after which each step of its curve was there."""
    stamps: list[float] = []
    evaluate = Objective.with_gradient

    def stamped(self: Objective, points: Tensor) -> tuple[Evaluation, Tensor]:
        found = evaluate(self, points)
        stamps.append(time.perf_counter() - begun)
        return found

    begun = time.perf_counter()
    with patch.object(Objective, "with_gradient", stamped):
        [solution] = solve(targets, [problem], SolveOptions(steps=price))
    return solution, stamps[1 - len(solution.curve.step) :]


def bench_search(targets: Targets, posed: Sequence[Problem]) -> list[dict[str, Any]]:
    """Why the line search is what it is: total loss after so many evaluations, over that of the initial image."""
    rows = []
    for problem in posed:
        [plain] = solve(targets, [problem], SolveOptions(steps=SEARCHED[-1], pyramid="off"))
        curves = {
            "ours": plain.curve.total[1:],
            "torch, fixed step": textbook(targets, problem, SEARCHED[-1]).losses,
            "torch, strong Wolfe": textbook(targets, problem, SEARCHED[-1], "strong_wolfe").losses,
        }
        rows.append(
            {
                "content": problem.content.key if problem.content else None,
                "content_layers": list(problem.content_layers),
                "evaluations": SEARCHED,
                **{
                    name: [losses[at - 1] / plain.curve.total[0] for at in SEARCHED]
                    for name, losses in curves.items()
                },
            }
        )
    return rows


def bench_memory(size: int) -> list[dict[str, Any]]:
    """(4) Predicted and measured peak bytes of a step, each size in a process of its own."""
    rows = []
    for side in (size // 2, size, 2 * size):
        command = [sys.executable, "-m", "benchmarks.memory", str(side)]
        measured = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        predicted = predicted_bytes("vgg16", STYLE_LAYERS, side, side, 1)
        rows.append({"size": side, "predicted": predicted, "measured": measured, "ratio": predicted / measured})
    return rows


def bench_grid(targets: Targets, posed: Sequence[Problem], steps: int) -> dict[str, Any]:
    """(5) A grid of k configurations on one pair over k single runs, each with a network and targets of its own."""
    options = SolveOptions(steps=steps)
    begun = time.perf_counter()
    shared = Targets(targets.network)
    for problem in posed:
        solve(shared, [problem], options)
    together = time.perf_counter() - begun
    begun = time.perf_counter()
    for problem in posed:
        network = Vgg("vgg16", random_weights("vgg16", 0, "average"), pooling="average")
        solve(Targets(network), [problem], options)
    return {"configurations": len(posed), "grid_seconds": together, "single_seconds": time.perf_counter() - begun}


def main() -> None:
    """Runs what was asked for, prints it, and writes it down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=300)
    parser.add_argument("--steps", type=int, default=300, help="evaluations of the textbook program")
    parser.add_argument("--price", type=int, default=60, help="what the engine may spend")
    parser.add_argument("--configurations", type=int, default=7)
    parser.add_argument("--pairs", type=int, default=2)
    parser.add_argument("--limit", type=float, default=float("inf"), help="seconds after which no race is begun")
    parser.add_argument("--goals", type=Path, help="an earlier race here, whose textbook runs are not repeated")
    parser.add_argument("--only", default="step,search,memory,grid,race")
    arguments = parser.parse_args()
    keep_freed_memory()  # as a worker does
    network = Vgg("vgg16", random_weights("vgg16", 0, "average"), pooling="average")
    targets = Targets(network)
    posed = problems(arguments.size, arguments.pairs, arguments.configurations)
    halves = problems(arguments.size // 2, arguments.pairs, arguments.configurations)[:: 3 * arguments.pairs]
    parts: dict[str, Callable[[], Any]] = {
        "step": lambda: bench_step(targets, arguments.size, arguments.steps),
        "search": lambda: bench_search(targets, halves),
        "memory": lambda: bench_memory(arguments.size),
        "grid": lambda: bench_grid(targets, posed[:: arguments.pairs], 10),
        "race": lambda: bench_race(
            targets, posed, arguments.steps, arguments.price, arguments.limit, goals(arguments.goals)
        ),
    }
    write("engine", {name: parts[name]() for name in arguments.only.split(",")})


if __name__ == "__main__":
    main()
