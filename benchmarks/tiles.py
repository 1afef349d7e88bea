"""What a step in strips costs: `python -m benchmarks.tiles [--size 1024] [--tile 256] [--threads 1] [--alone]`.

Prints JSON: processor seconds of a step (losses and gradient) whole and in strips, their ratio, the peak bytes of
each beyond the network (a process of its own for each), and how far apart their losses and gradients are.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from benchmarks.memory import resident_bytes
from nst_batch.transfer import Objective, Problem, TargetImage, Targets, Vgg, keep_freed_memory
from nst_batch.transfer.tiles import TiledObjective
from nst_batch.transfer.vgg import conv_shapes

_WARM_UP = 256  # pixels: 16 tiles of Winograd's at block5_conv1
STYLE_LAYERS = ("block1_conv1", "block2_conv1", "block3_conv1", "block4_conv1", "block5_conv1")


def network() -> Vgg:
    """With He's weights, which keep activations at their size."""
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, (out, channels) in conv_shapes("vgg16").items():
        weights[f"{name}.weight"] = (
            torch.randn(out, channels, 3, 3, generator=generator) * (2 / (9 * channels)) ** 0.5
        )
        weights[f"{name}.bias"] = torch.zeros(out)
    return Vgg("vgg16", weights)


def objective(targets: Targets, size: int, tile: int) -> Objective | TiledObjective:
    """Content block4_conv2 and style block1..5_conv1, of noise; whole where `tile` is 0."""
    generator = torch.Generator().manual_seed(size)
    content, style = (
        TargetImage(key=f"{name} {size}", pixels=torch.rand(3, side, side, generator=generator))
        for name, side in (("content", size), ("style", min(size, 512)))
    )
    problem = Problem(
        height=size, width=size, content=content, styles=(style,),
        content_layers=("block4_conv2",), style_layers=STYLE_LAYERS,
    )  # fmt: skip
    if tile:
        return TiledObjective(targets, [problem], "sum", tile=tile)
    return Objective(targets, [problem], "sum")


def peak_bytes(size: int, tile: int) -> int:
    """Of two steps, in this process, beyond the network and after a small warm-up.

    The network keeps its kernels as Winograd's filtering takes them too, a quarter of a gigabyte. The warm-up is
    just large enough for it to have made all of them, at block5_conv1 too.
    """
    keep_freed_memory()
    targets = Targets(network())
    objective(targets, _WARM_UP, tile and 64).with_gradient(torch.rand(1, 3 * _WARM_UP**2))
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins again
    before = resident_bytes("VmRSS")
    current, point = objective(targets, size, tile), torch.rand(1, 3 * size * size)
    for _ in range(2):
        current.with_gradient(point)
    return resident_bytes("VmHWM") - before


def alone(current: Objective | TiledObjective, point: torch.Tensor, rounds: int) -> dict[str, float]:
    """Median seconds of a step, by the clock and of the processors; the first step is one of them."""
    times: list[tuple[float, float]] = []
    for _ in range(rounds):
        begun = time.monotonic(), time.process_time()
        current.with_gradient(point)
        times.append((time.monotonic() - begun[0], time.process_time() - begun[1]))
    seconds, processor_seconds = (statistics.median(each) for each in zip(*times, strict=True))
    return {"seconds": seconds, "processor_seconds": processor_seconds}


def main() -> None:
    """Alternates the two in one process."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("size", 1024), ("tile", 256), ("rounds", 3), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--alone", action="store_true", help="the strips alone, where the whole would not fit")
    parser.add_argument("--peak", action="store_true", help="print the peak of this tile alone, 0 for the whole")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    if chosen.peak:
        print(peak_bytes(chosen.size, chosen.tile))
        return
    keep_freed_memory()
    targets = Targets(network())
    point = torch.rand(1, 3 * chosen.size**2)
    if chosen.alone:
        print(json.dumps(vars(chosen) | alone(objective(targets, chosen.size, chosen.tile), point, chosen.rounds)))
        return
    both = [objective(targets, chosen.size, tile) for tile in (0, chosen.tile)]
    seconds: list[tuple[float, float]] = []
    for _ in range(chosen.rounds + 1):
        times, found = [], []
        for each in both:
            begun = time.process_time()
            found.append(each.with_gradient(point))
            times.append(time.process_time() - begun)
        seconds.append((times[0], times[1]))
    (whole, whole_gradient), (tiled, gradient) = found
    call = [sys.executable, "-m", "benchmarks.tiles", "--peak", "--size", str(chosen.size), "--tile"]
    peaks = [int(subprocess.check_output([*call, str(tile)])) for tile in (0, chosen.tile)]
    result = {
        "size": chosen.size,
        "tile": chosen.tile,
        "whole_seconds": statistics.median(first for first, _ in seconds[1:]),
        "tiled_seconds": statistics.median(second for _, second in seconds[1:]),
        "time_ratio": statistics.median(second / first for first, second in seconds[1:]),
        "whole_bytes": peaks[0],
        "tiled_bytes": peaks[1],
        "memory_ratio": peaks[1] / peaks[0],
        "loss_difference": abs(float(tiled.total / whole.total) - 1),
        "gradient_difference": float((gradient - whole_gradient).norm() / whole_gradient.norm()),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
