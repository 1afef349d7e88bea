"""What a GPU makes of the engine: `python -m benchmarks.gpu [--sizes 256,512,1024] [--batches 1,4,16,64]`.

For each size, batch and precision: seconds per step, the convolutions' FLOP/s over a measured matrix-product peak,
peak memory against the prediction, and the loss after some steps against float32's. Needs one NVIDIA GPU; 512 px at
batch 64 takes about 70 GB of its memory, and what does not fit is said and left out. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from benchmarks.engine import flops_per_step
from benchmarks.panel import STYLE_LAYERS
from benchmarks.pictures import photo_pairs
from benchmarks.report import write
from nst_batch.inputs.fitting import held_bytes
from nst_batch.transfer import (
    Objective,
    Problem,
    SolveOptions,
    Targets,
    Vgg,
    minimizer,
    random_weights,
    step,
)

PRECISIONS = ("float32", "tf32", "bfloat16")


def seconds_per_call(call: Callable[[], object], rounds: int) -> float:
    """Median over rounds, by the device's own clock, after two rounds that do not count."""
    times: list[float] = []
    for _ in range(rounds + 2):
        event: Any = torch.cuda.Event
        begin, end = event(enable_timing=True), event(enable_timing=True)
        begin.record()
        call()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1000)
    return sorted(times[2:])[rounds // 2]


def set_precision(precision: str) -> torch.dtype:
    """As a worker sets it; returns the features' type."""
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def peak_flops(precision: str, side: int = 8192) -> float:
    """FLOP/s of a large matrix product on random data."""
    dtype = set_precision(precision)
    left, right = (torch.randn(side, side, device="cuda").to(dtype) for _ in range(2))
    return 2 * side**3 / seconds_per_call(lambda: left @ right, 10)


def measure(
    weights: Mapping[str, Tensor], precision: str, size: int, batch: int, steps: int, peak: float
) -> dict[str, Any]:
    """One row of the table."""
    network = Vgg("vgg16", weights, pooling="average", device="cuda", dtype=set_precision(precision))
    content, style = photo_pairs(size)[0]
    problem = Problem(
        height=size,
        width=size,
        content=content,
        styles=(style,),
        content_layers=("block4_conv1",),
        style_layers=STYLE_LAYERS,
        alpha=0.5,
        beta=5.0,
    )
    objective = Objective(Targets(network), [problem] * batch, "sum")
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    optimizer = minimizer(content.pixels.cuda().repeat(batch, 1, 1, 1), SolveOptions(steps=1))

    def run() -> None:
        step(objective, optimizer)

    seconds = seconds_per_call(run, steps)
    flops = flops_per_step(size) * batch / seconds
    itemsize = 2 if precision == "bfloat16" else 4
    measured = torch.cuda.max_memory_allocated() - held
    predicted = batch * held_bytes("vgg16", STYLE_LAYERS, size, size, itemsize=itemsize)
    return {
        "precision": precision,
        "size": size,
        "batch": batch,
        "seconds_per_step": seconds,
        "steps_per_second_and_image": batch / seconds,
        "tflops": flops / 1e12,
        "share_of_peak": flops / peak,
        "peak_memory_bytes": measured,
        "predicted_over_measured": predicted / measured,
        "loss": optimizer.best_loss[0].item(),
    }


def main() -> None:
    """Measures every combination that fits and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="256,512,1024")
    parser.add_argument("--batches", default="1,4,16,64")
    parser.add_argument("--steps", type=int, default=20)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("benchmarks.gpu needs an NVIDIA GPU and a PyTorch that sees it; this machine has none")
    weights = random_weights("vgg16", 0, "average")
    peaks = {precision: peak_flops(precision) for precision in PRECISIONS}
    rows: list[dict[str, Any]] = []
    for size in map(int, arguments.sizes.split(",")):
        for batch in map(int, arguments.batches.split(",")):
            for precision in PRECISIONS:
                try:
                    rows.append(measure(weights, precision, size, batch, arguments.steps, peaks[precision]))
                except torch.OutOfMemoryError:
                    print(f"{size} px, batch {batch}, {precision}: does not fit", file=sys.stderr)
                torch.cuda.empty_cache()
    exact = {(row["size"], row["batch"]): row["loss"] for row in rows if row["precision"] == "float32"}
    for row in rows:
        row["loss_over_float32"] = row["loss"] / exact.get((row["size"], row["batch"]), float("nan"))
    write("gpu", {"peak_tflops": {name: peak / 1e12 for name, peak in peaks.items()}, "rows": rows})


if __name__ == "__main__":
    main()
