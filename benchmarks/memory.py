"""Prints by how many bytes one step at this size raises the process's peak: `python -m benchmarks.memory 300`."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import torch

from nst_batch.transfer import (
    Objective,
    Problem,
    SolveOptions,
    TargetImage,
    Targets,
    Vgg,
    keep_freed_memory,
    minimizer,
    step,
)
from nst_batch.transfer.vgg import conv_shapes

LAYERS = ("block1_conv1", "block2_conv1", "block3_conv1", "block4_conv1", "block5_conv1")


def resident_bytes(which: str) -> int:
    """What Linux says of this process: VmRSS, what it holds now, or VmHWM, the most that it held."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(which))


def network() -> Vgg:
    """With weights that cost nothing to make."""
    shapes = conv_shapes("vgg16").items()
    weights = {f"{name}.weight": torch.zeros(out, channels, 3, 3) for name, (out, channels) in shapes}
    weights |= {f"{name}.bias": torch.zeros(out) for name, (out, _) in shapes}
    return Vgg("vgg16", weights)


def run_steps(targets: Targets, size: int, steps: int) -> None:
    """A few steps of one image."""
    picture = TargetImage(key=str(size), pixels=torch.full((3, size, size), 0.5))
    problem = Problem(
        height=size, width=size, content=picture, styles=(picture,), content_layers=LAYERS[3:4], style_layers=LAYERS
    )
    objective = Objective(targets, [problem], "sum")
    optimizer = minimizer(torch.rand(1, 3, size, size), SolveOptions(steps=1))
    for _ in range(steps):
        step(objective, optimizer)


def main() -> None:
    """Warms up at a small size, so that libraries and weights do not count."""
    targets = Targets(network())
    keep_freed_memory()  # as a worker does
    run_steps(targets, 256, 2)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins again
    before = resident_bytes("VmRSS")
    run_steps(targets, int(sys.argv[1]), 3)
    print(resident_bytes("VmHWM") - before)


if __name__ == "__main__":
    main()
