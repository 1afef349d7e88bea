"""Workers that need no network: what they return is a function of the trial, and some of them come to harm.

A worker reads what to do from the content picture's file name, so that one class serves a whole study:
`kill-*` dies, `hang-*` never ends, `raise-*` raises, and so on, always for that trial. Every trial that is begun
leaves a file in the directory that the environment variable names, so that invocations can be counted.
"""

from __future__ import annotations

import hashlib
import os
import signal
import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from nst_batch.errors import ImageError
from nst_batch.images import read_bytes
from nst_batch.layers import conv_layers
from nst_batch.options import WorkerOptions
from nst_batch.records import Configuration, Curve, LayerDistance, Outcome, Result, Trial
from tests.pictures import file_of, gradient

CALLS = "NST_BATCH_TEST_CALLS"
"""Names the directory in which invocations are counted."""
SECONDS = "NST_BATCH_TEST_SECONDS"
"""How long a trial takes."""


class SimulatedWorker:
    """The worker's contract, without a network."""

    def __init__(self, options: WorkerOptions) -> None:
        self.options = options

    def setup(self, configuration: Configuration) -> str:
        assert configuration.steps
        return "simulated"

    def run(self, trials: Sequence[Trial]) -> list[Result]:
        for trial in trials:
            note_call(trial)
        return [self._run(trial) for trial in trials]

    def _run(self, trial: Trial) -> Result:
        time.sleep(float(os.environ.get(SECONDS, "0")))
        assert trial.content is not None
        try:
            read_bytes(trial.content.uri, expected_sha256=trial.content.sha256)
        except ImageError as error:
            return Result(
                trial=trial, outcome=Outcome(status="failed", error_type=error.kind, error_message=str(error))
            )
        suffer(Path(trial.content.uri).name.partition("-")[0])
        return computed(trial)


class Unstartable(SimulatedWorker):
    """Raises before it can do anything."""

    def __init__(self, options: WorkerOptions) -> None:
        super().__init__(options)
        raise RuntimeError("no driver for this device")


class DiesInSetup(SimulatedWorker):
    """Dies while it loads its network."""

    def setup(self, configuration: Configuration) -> str:
        os.kill(os.getpid(), signal.SIGKILL)
        return ""


class HangsInSetup(SimulatedWorker):
    """Never has its network."""

    def setup(self, configuration: Configuration) -> str:
        time.sleep(3600)
        return ""


class DiesAfterTwo(SimulatedWorker):
    """Dies after its second batch, whatever it is given: an unlucky machine, not an unlucky trial."""

    _done = 0

    def run(self, trials: Sequence[Trial]) -> list[Result]:
        if self._done == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        self._done += 1
        return super().run(trials)


class Forgetful(SimulatedWorker):
    """Returns no result for the last trial of a batch."""

    def run(self, trials: Sequence[Trial]) -> list[Result]:
        return super().run(trials)[:-1]


def suffer(how: str) -> None:
    """Does what the name of a picture says, or nothing."""
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif how == "abort":
        os.abort()
    elif how == "exit":
        os._exit(0)
    elif how == "hang":
        time.sleep(3600)
    elif how == "raise":
        raise RuntimeError("this trial is cursed")


def note_call(trial: Trial) -> None:
    """Counts one attempt at a trial, also if it kills this process."""
    folder = os.environ.get(CALLS)
    if folder:
        Path(folder, f"{trial.trial_id}.{uuid.uuid4().hex}").touch()


def calls(folder: Path) -> dict[str, int]:
    """How often each trial was begun, by trial_id."""
    counts: dict[str, int] = {}
    for path in folder.iterdir():
        name = path.name.partition(".")[0]
        counts[name] = counts.get(name, 0) + 1
    return counts


def computed(trial: Trial) -> Result:
    """A result that depends on the trial alone, to the byte."""
    seed = int(hashlib.sha256(trial.trial_id.encode()).hexdigest()[:6], 16)
    values = tuple(float(seed + step) for step in range(5))
    curve = Curve(step=tuple(range(5)), content=values, style=values, tv=(0.0,) * 5, total=values)
    distances = tuple(
        LayerDistance(layer=layer, content_distance=seed / 2**24, style_distance=None)
        for layer in conv_layers(trial.configuration.arch)
    )
    now = datetime.now(UTC)
    outcome = Outcome(
        status="ok", steps_done=4, stop_reason="steps", initial=curve.at(0), final=curve.at(4), best_step=4,
        content_distance=seed / 2**24, seconds=0.0, device="simulated", started_at=now, finished_at=now,
    )  # fmt: skip
    return Result(
        trial=trial, outcome=outcome, curve=curve, layers=distances, image=file_of(gradient(8 + seed % 8), "PNG")
    )
