"""The race: how soon the engine reaches what the textbook program ends with, on a panel of problems.

Three pairs of pictures, each with much weight on the content (block4_conv1 and block2_conv2, alpha 0.5) and with
much on the style (block4_conv2, alpha 0.005), with max and average pooling. Constants of the engine were chosen on
the problems marked `chosen_on`; the others are only reported.

`evaluations` are counted and the same on every machine of one kind; seconds are those that the process's processors
worked, which on a busy machine says more than the clock, and less than either on a quiet one; beside a GPU, the
clock's.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.pictures import named_picture
from benchmarks.textbook import textbook, working_seconds
from nst_batch.transfer import Objective, Problem, SolveOptions, Targets, Vgg, build_targets, precision_used, solve
from nst_batch.vocabulary import WHOLE_IMAGE, MemoryLayout, Normalization, Pooling, Precision

STYLE_LAYERS = ("block1_conv1", "block2_conv1", "block3_conv1", "block4_conv1", "block5_conv1")
PAIRS = (("astronaut", "woodcut"), ("china", "swirl"), ("coffee", "mosaic"))
KINDS = (("block4_conv1", 0.5), ("block2_conv2", 0.5), ("block4_conv2", 0.005))
POOLINGS: tuple[Pooling, ...] = ("max", "average")
CHOSEN_ON = ("max", "block4_conv1", "astronaut")  # and all with block4_conv2 under max pooling
TOLERANCES = (0.1, 0.05, 0.02, 0.01, 0.0)

PAIR_LAYOUTS = (
    MemoryLayout(pair_precision="bfloat16"),
    *(MemoryLayout(pair_precision="bfloat16", num_pairs=count) for count in (20, 10)),
)
"""How L-BFGS may keep its pairs where 60 in float32 do not fit."""

Entry = tuple[str, Pooling, Problem, bool]


def panel(size: int) -> Iterator[Entry]:
    """Name, pooling, problem, and whether constants were chosen on it."""
    for pooling in POOLINGS:
        for layer, alpha in KINDS:
            for content, style in PAIRS:
                chosen_on = (pooling, layer) == ("max", "block4_conv2") or (pooling, layer, content) == CHOSEN_ON
                problem = Problem(
                    height=size, width=size, content=named_picture(content, size),
                    styles=(named_picture(style, size),), content_layers=(layer,), style_layers=STYLE_LAYERS,
                    alpha=alpha, beta=5.0,
                )  # fmt: skip
                yield f"{content} × {style}, {layer}, alpha {alpha:g}, {pooling}", pooling, problem, chosen_on


def race(
    weights: Mapping[str, Tensor],
    normalization: Normalization,
    *,
    size: int,
    steps: int,
    only: Sequence[str],
    limit: float,
    search: str | None = None,
    device: str = "cpu",
    precision: Precision = "auto",
) -> dict[str, Any]:
    """Both programs on every problem whose name holds one of `only`; none is begun after `limit` seconds."""
    rows: list[dict[str, Any]] = []
    started = time.monotonic()
    for name, pooling, problem, chosen_on in panel(size):
        if any(word in name for word in only) and time.monotonic() - started < limit:
            network = Vgg("vgg16", weights, pooling=pooling, normalization=normalization, device=device)
            found = one_race(weights, network, problem, steps, search, precision)
            rows.append({"problem": name, "chosen_on": chosen_on} | found)
            print(f"  {rows[-1]}", file=sys.stderr, flush=True)
    chosen, held_out = ([row for row in rows if row["chosen_on"] is half] for half in (True, False))
    halves = {"chosen_on": summary(chosen), "held_out": summary(held_out), "all": summary(rows)}
    return {"size": size, **halves, "rows": rows}


def pairs(
    weights: Mapping[str, Tensor], normalization: Normalization, *, size: int, steps: int, only: Sequence[str]
) -> list[dict[str, Any]]:
    """Losses over those with 60 pairs in float32, after a third, two thirds and all of the steps."""
    rows: list[dict[str, Any]] = []
    for name, pooling, problem, _ in panel(size):
        if any(word in name for word in only):
            targets = Targets(Vgg("vgg16", weights, pooling=pooling, normalization=normalization))
            runs = [
                solve(targets, [problem], SolveOptions(steps=steps, layout=layout))[0].curve.total
                for layout in (WHOLE_IMAGE, *PAIR_LAYOUTS)
            ]
            ratios = {
                f"{layout.num_pairs} in {layout.pair_precision}": [
                    run[after] / runs[0][after] for after in (steps // 3, 2 * steps // 3, steps)
                ]
                for layout, run in zip(PAIR_LAYOUTS, runs[1:], strict=True)
            }
            rows.append({"problem": name, "size": size, "steps": steps} | ratios)
            print(f"  {rows[-1]}", file=sys.stderr, flush=True)
    return rows


def one_race(
    weights: Mapping[str, Tensor],
    network: Vgg,
    problem: Problem,
    steps: int,
    search: str | None,
    precision: Precision,
) -> dict[str, Any]:
    """When each program is first within each tolerance of the textbook's end, and the seconds of an evaluation.

    Args:
        network: In float32; the textbook program is as it, and computes in the precision that PyTorch sets itself.
        precision: The engine's.
    """

    def targets(precision: Precision) -> Targets:
        return build_targets(
            network.arch, weights, pooling=network.pooling, normalization=network.normalization,
            device=network.device, precision=precision,
        )  # fmt: skip

    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = True
    book = textbook(weights, network, problem, steps, search)
    own = targets(precision)
    began = working_seconds(network.device)
    [solution] = solve(own, [problem], SolveOptions(steps=steps))
    seconds = working_seconds(network.device) - began
    goals = [book.losses[-1] * (1 + tolerance) for tolerance in TOLERANCES]
    theirs = [first_below(book.losses, goal) for goal in goals]
    ours = [first_below(solution.curve.total[1:], goal) for goal in goals]
    fewer = [their / our if their and our else None for their, our in zip(theirs, ours, strict=True)]
    step_ratio = book.seconds / seconds
    used = precision_used(own)
    exact = Objective(targets("float32"), [problem], "sum")(solution.image.unsqueeze(0))
    return {
        "precision": used,
        "textbook_evaluations": theirs,
        "evaluations": ours,
        "fewer_evaluations": fewer,
        "textbook_step_over_step": step_ratio,
        "sooner": [ratio and step_ratio * ratio for ratio in fewer],
        "final_loss_over_textbooks": float(exact.total) / book.losses[-1],
    }


def first_below(losses: Sequence[float], goal: float) -> int | None:
    """After how many evaluations."""
    return next((number for number, loss in enumerate(losses, 1) if loss <= goal), None)


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Geometric mean and worst of how much sooner 2 % above the textbook's end is reached."""
    at = TOLERANCES.index(0.02)
    found = {}
    for kind in ("fewer_evaluations", "sooner"):
        values = [row[kind][at] or 0.0 for row in rows]
        mean = math.exp(sum(map(math.log, values)) / len(values)) if values and all(values) else None
        found[kind] = {"geometric_mean": mean, "worst": min(values, default=None)}
    return {"problems": len(rows), **found}
