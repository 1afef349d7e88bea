"""`make bench`: what the engine costs above its floor, and how soon it reaches a textbook program's loss.

    python -m benchmarks.engine [--size 300] [--steps 300] [--weights FILE] [--problems WORD …] [--limit SECONDS]
                                [--only step,regions,memory,grid,race,pairs]

Ratios of measurements that alternate in one process; absolute times belong to the machine that is named beside
them. Results go to benchmarks/results/DATE-engine-NUMBER.json and are never overwritten.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.panel import STYLE_LAYERS, pairs, race
from benchmarks.pictures import photo_pairs
from benchmarks.report import write
from nst_batch.inputs import weights
from nst_batch.inputs.fitting import held_bytes
from nst_batch.study.reading import load_study
from nst_batch.transfer import (
    Objective,
    Problem,
    Regions,
    SolveOptions,
    Targets,
    Vgg,
    initial_image,
    keep_freed_memory,
    minimizer,
    random_weights,
    solve,
    step,
)
from nst_batch.transfer.vgg import conv_shapes
from nst_batch.vocabulary import LBFGS_HISTORY, Normalization, Precision, layer_names, layer_shape


def problems(size: int, num_configurations: int) -> list[Problem]:
    """The source study's experiments on a pair of real photos."""
    content, style = photo_pairs(size)[0]
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
    objective = Objective(targets, [problem] * batch, "sum")
    images = initial_image(problem, targets.network.device).repeat(batch, 1, 1, 1)
    search = minimizer(images, SolveOptions(steps=1))
    curvature = torch.linspace(1, 1000, search.point.shape[1], device=images.device)
    for _ in range(LBFGS_HISTORY):  # of a paraboloid, to spare the convolutions
        gradient = curvature * search.point
        search.update((gradient * search.point).sum(1) / 2, gradient)

    def run() -> None:
        step(objective, search)

    return run


def alternate(
    first: Callable[[], None],
    second: Callable[[], None],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[float, float, float]:
    """Median seconds of both, and the median of their ratios round by round."""
    pairs = []
    for _ in range(rounds + 2):
        times = []
        for call in (first, second):
            begun = clock()
            call()
            times.append(clock() - begun)
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
    problem, peak = problems(size, 1)[0], peak_flops()
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


def in_regions(problem: Problem, planes: Mapping[str, Tensor]) -> Problem:
    """The problem with masks: the content's, and the style's, which is the same one."""
    content, style = (
        replace(picture, regions=Regions(key=name, plane=planes[name], labels=_labels(planes[name])))
        for name, picture in (("content", problem.content), ("style", problem.styles[0]))
        if picture
    )
    return replace(problem, content=content, styles=(style,))


def _labels(plane: Tensor) -> tuple[int, ...]:
    return (0, 1) if plane.is_floating_point() else tuple(sorted(set(plane.flatten().tolist())))


def bench_regions(targets: Targets, size: int) -> list[dict[str, Any]]:
    """What a step costs with regions, over the same without, in seconds that the processors worked."""
    side = torch.arange(size)
    waves = (side + size / 8 * torch.sin(side / size * 20).unsqueeze(1) >= size / 2).long()  # no border is straight
    four = (2 * waves.T + waves).to(torch.uint8)
    ramp = torch.linspace(0, 1, size).expand(size, -1).clone()
    masks = {
        "four regions": {"content": four, "style": four},
        "four regions, one of them protected": {"content": four, "style": four.clamp(max=2)},
        "two regions that fade into each other": {"content": ramp, "style": ramp},
    }
    problem, rows = problems(size, 1)[0], []
    for name, planes in masks.items():
        seconds, plain, ratio = alternate(
            stepping(targets, in_regions(problem, planes), 1),
            stepping(targets, problem, 1),
            11,
            time.process_time,
        )
        row = {"regions": name, "size": size, "step_seconds": seconds, "without_seconds": plain, "ratio": ratio}
        rows.append(row)
    return rows


def bench_memory(size: int) -> list[dict[str, Any]]:
    """(4) Predicted and measured peak bytes of a step, each size in a process of its own."""
    rows = []
    for side in (size // 2, size, 2 * size):
        command = [sys.executable, "-m", "benchmarks.memory", str(side)]
        measured = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        predicted = held_bytes("vgg16", STYLE_LAYERS, side, side)
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=300)
    parser.add_argument("--steps", type=int, default=300, help="evaluations of both programs")
    parser.add_argument(
        "--weights", help="a torchvision state dict of the original VGG-16 (its normalization: caffe)"
    )
    parser.add_argument("--search", choices=["strong_wolfe"], help="the textbook program's line search")
    parser.add_argument("--device", default="cpu", help="of the race: cpu or cuda")
    parser.add_argument(
        "--precision", choices=get_args(Precision), default="auto", help="of the engine in the race"
    )
    parser.add_argument("--problems", nargs="*", default=[""], help="words of the names of problems to race on")
    parser.add_argument("--limit", type=float, default=float("inf"), help="seconds after which no race is begun")
    parser.add_argument("--only", default="step,regions,memory,grid,race")
    arguments = parser.parse_args()
    keep_freed_memory()  # as a worker does
    found = weights.resolve(arguments.weights or "random:0", "vgg16", "average", "auto")
    state = weights.load(found, "vgg16", "average")
    normalization: Normalization = "caffe" if arguments.weights else "imagenet"
    network = Vgg("vgg16", state, pooling="average", normalization=normalization)
    posed = problems(arguments.size, 7)
    parts: dict[str, Callable[[], Any]] = {
        "step": lambda: bench_step(Targets(network), arguments.size, arguments.steps),
        "regions": lambda: bench_regions(Targets(network), arguments.size),
        "memory": lambda: bench_memory(arguments.size),
        "grid": lambda: bench_grid(Targets(network), posed, 10),
        "race": lambda: race(
            state, normalization, size=arguments.size, steps=arguments.steps, only=arguments.problems,
            limit=arguments.limit, search=arguments.search, device=arguments.device,
            precision=arguments.precision,
        ),
        "pairs": lambda: pairs(
            state, normalization, size=arguments.size, steps=arguments.steps, only=arguments.problems
        ),
    }  # fmt: skip
    label = "the original VGG's" if arguments.weights else "random:0, untrained"
    write("engine", {"weights": label} | {name: parts[name]() for name in arguments.only.split(",")})


if __name__ == "__main__":
    main()
