"""How near `nst-batch plan` comes: three different studies, estimated, then run by a worker in this process.

    python -m benchmarks.estimates [--clock wall|cpu]

With one thread. `--clock cpu` compares processor time, which other programs on the machine hardly disturb; `wall`
is what a person waits, and wants a quiet machine. Ray's start is left out of both. Results go to
benchmarks/results/DATE-estimates-NUMBER.json.
"""

from __future__ import annotations

import argparse
import time
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.report import write
from nst_batch.cluster.options import WorkerOptions
from nst_batch.cluster.worker import Worker
from nst_batch.inputs.finding import list_inputs
from nst_batch.inputs.weights import resolve
from nst_batch.study.calibration import Machine
from nst_batch.study.estimate import START_SECONDS, estimate
from nst_batch.study.model import Study
from nst_batch.study.plan import make_plan
from nst_batch.study.reading import load_study

STUDIES: dict[str, tuple[str, str, int, int, list[str]]] = {
    "a grid": ("demo", "scene.jpg", 128, 20, []),
    "deep layers": ("week7_content_layers", "scene.jpg", 96, 30, ["optimizer.plateau=0"]),
    "adam, kept aspect": (
        "gatys2016",
        "*.jpg",
        128,
        20,
        ["optimizer.name=adam", "image.fit=keep", "output.format=jpeg"],
    ),
}


def measured(name: str, clock: str) -> dict[str, Any]:
    """Estimated and true seconds of one study."""
    preset, contents, size, steps, changes = STUDIES[name]
    chosen = load_study(
        preset,
        content=[f"examples/content/{contents}"],
        style=["examples/style/swirl.jpg"],
        weights="random:0",
        size=size,
        steps=steps,
        overrides=["network.pooling=average", *changes],
    )
    now = time.process_time if clock == "cpu" else time.perf_counter
    machine = Machine(device=torch.device("cpu"), name="one thread", threads=1, num_workers=1, memory_bytes=8 << 30)
    with patch.object(time, "perf_counter", now):
        found = estimate(chosen, machine=machine)
    trials, seconds = _run(chosen, clock)
    assert trials == found.num_trials
    estimated = found.seconds - START_SECONDS
    return {"trials": trials, "estimated": estimated, "measured": seconds, "ratio": estimated / seconds}


def _run(chosen: Study, clock: str) -> tuple[int, float]:
    """Every trial in this process, by a worker that is ready; how many, and how long they took."""
    now = time.process_time if clock == "cpu" else time.perf_counter
    weights = resolve("random:0", "vgg16", "average")
    configurations = tuple(
        chosen.configurations(weights_sha256=weights.sha256, normalization=weights.normalization)
    )
    listing = list_inputs(chosen.content, chosen.style, chosen.pairs)
    trials = list(make_plan(chosen, listing, configurations=configurations, batch_size=1).trials())
    worker = Worker(WorkerOptions(device="cpu", threads=1, format=chosen.output.format))
    worker.setup(configurations[0])
    begun = now()
    for trial in trials:
        [result] = worker.run([trial])
        assert result.outcome.status == "ok", result.outcome.error_message
    return len(trials), now() - begun


def main() -> None:
    """All three."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    clock = parser.parse_args().clock
    torch.set_num_threads(1)
    write("estimates", {"clock": clock} | {name: measured(name, clock) for name in STUDIES})


if __name__ == "__main__":
    main()
