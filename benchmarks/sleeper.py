"""A worker that sleeps as long as its trials say and returns results of realistic size; imports nothing heavy."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from nst_batch.cluster.options import WorkerOptions
from nst_batch.records import Configuration, Curve, Outcome, Result, Trial
from nst_batch.scores import LayerDistance
from nst_batch.vocabulary import conv_layers

IMAGE_BYTES = 150_000
"""A PNG of 300×300 pixels."""
STEPS = 300


class Sleeper:
    """Takes `height` milliseconds for a batch whose trials are that high."""

    def __init__(self, options: WorkerOptions) -> None:
        self.options = options
        values = tuple(1.0 / (step + 1) for step in range(STEPS + 1))
        self._curve = Curve(step=tuple(range(STEPS + 1)), content=values, style=values, tv=values, total=values)
        self._image = b"\x89PNG\r\n\x1a\n" + os.urandom(IMAGE_BYTES)

    def setup(self, configuration: Configuration) -> None:
        """Nothing to load."""
        del configuration

    def run(self, trials: Sequence[Trial]) -> list[Result]:
        """Sleeps; `node` says which process it was."""
        begun = datetime.now(UTC)
        time.sleep(max(trial.height for trial in trials) / 1000)
        ended = datetime.now(UTC)
        outcome = Outcome(
            status="ok", steps_done=STEPS, stop_reason="steps", initial=self._curve.at(0), final=self._curve.at(-1),
            best_step=STEPS, content_distance=0.25, style_distance=0.5, device="simulated", node=str(os.getpid()),
            seconds=(ended - begun).total_seconds() / len(trials), started_at=begun, finished_at=ended,
        )  # fmt: skip
        layers = tuple(
            LayerDistance(layer=layer, content_distance=0.25, style_distance=0.5) for layer in conv_layers("vgg16")
        )
        return [
            Result(trial=trial, outcome=outcome, curve=self._curve, layers=layers, image=self._image)
            for trial in trials
        ]
