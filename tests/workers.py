"""Workers that need no network: what they return is a function of the trial, and some of them come to harm.

What happens to a trial is written in the name of its content picture, so that one class serves a whole study:
`kill-1.png` kills its worker, `hang-1.png` never ends, `raise-1.png` raises, and so on, each time. In a collection
that `tests.tiny` made, every attempt at a trial leaves a file in the folder `.calls`, so that they can be counted.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import sys
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import psutil

from nst_batch.cluster.options import WorkerOptions
from nst_batch.errors import ImageError, WeightsError
from nst_batch.inputs.fetching import read_bytes
from nst_batch.records import Configuration, Curve, Outcome, Result, Trial
from nst_batch.scores import LayerDistance
from nst_batch.vocabulary import conv_layers
from tests.pictures import file_of, gradient

CALLS, SECONDS = ".calls", ".seconds"
"""Beside the pictures, where no study looks: a folder of attempts, and a file that says how long a trial takes."""
CROWD = ".crowd"
"""Likewise: a folder that says which processes compute a picture named `crowd-1.png`; two do not fit together."""
SICK = ".sick"
"""Likewise: names the process of `RaisesAlways`, or the node of `LosesItsMount`, that is sick."""
PHOTOS = "NST_BATCH_TEST_PHOTOS"
"""An environment variable that names the folder of pictures, for `CannotStart`."""
HEALED = ".healed"
"""Likewise: once it is there, `until-1.png` is computed."""


class SimulatedWorker:
    """The worker's contract, without a network."""

    def __init__(self, options: WorkerOptions) -> None:
        self.options = options

    def setup(self, configuration: Configuration) -> None:
        assert configuration.steps

    def run(self, trials: Sequence[Trial]) -> list[Result]:
        for trial in trials:
            note_call(trial)
        return [self._run(trial) for trial in trials]

    def _run(self, trial: Trial) -> Result:
        assert trial.content is not None
        uri = trial.content.uri
        try:
            read_bytes(uri, expected_sha256=trial.content.sha256)
        except ImageError as error:
            outcome = Outcome(status="failed", error_type=error.kind, error_message=str(error))
            return Result(trial=trial, outcome=outcome)
        pace = Path(uri).parent / SECONDS
        time.sleep(float(pace.read_text()) if pace.exists() else 0.0)
        how = Path(uri).name.partition("-")[0]
        if how == "crowd":
            crowd(Path(uri).parent / CROWD)
        suffer(how, healed=(Path(uri).parent / HEALED).exists())
        return computed(trial)


class RaisesAlways(SimulatedWorker):
    """The first process of this class is sick: it raises whatever it is given."""

    def run(self, trials: Sequence[Trial]) -> list[Result]:
        assert trials[0].content is not None
        claim = Path(trials[0].content.uri).parent / SICK
        if not claim.exists():
            claim.write_text(str(os.getpid()))
        if claim.read_text() == str(os.getpid()):
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        time.sleep(0.05)
        return super().run(trials)


class Unreliable(SimulatedWorker):
    """Of the workers of each Ray the first is sick: in turn it raises, answers slowly, and finds no picture."""

    def run(self, trials: Sequence[Trial]) -> list[Result]:
        assert trials[0].content is not None
        folder = Path(trials[0].content.uri).parent
        claim = folder / f"{SICK}-{os.getppid()}"
        if not claim.exists():
            claim.write_text(str(os.getpid()))
        if claim.read_text() != str(os.getpid()):
            return super().run(trials)
        fault = ("raises", "is slow", "finds nothing")[len(list(folder.glob(f"{SICK}-*"))) % 3]
        if fault == "raises":
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        if fault == "finds nothing":
            return [lost(trial) for trial in trials]
        time.sleep(1)
        return super().run(trials)


class LeavesTheSickAlone(SimulatedWorker):
    """The first process finds no picture; the next two die before they are ready: for a while it is alone."""

    def setup(self, configuration: Configuration) -> None:
        super().setup(configuration)
        photos, number = Path(os.environ[PHOTOS]), 0
        while True:
            with contextlib.suppress(FileExistsError):
                (photos / f"{SICK}-{number}").touch(exist_ok=False)
                break
            number += 1
        self._is_sick = number == 0
        if number in (1, 2):
            while len(list((photos / CALLS).iterdir())) < 3:
                time.sleep(0.1)
            os.kill(os.getpid(), signal.SIGKILL)

    def run(self, trials: Sequence[Trial]) -> list[Result]:
        return [lost(trial) for trial in trials] if self._is_sick else super().run(trials)


class LosesItsMount(SimulatedWorker):
    """Cannot find a picture: on the node that a file names, or everywhere after three trials if there is none."""

    _done = 0

    def run(self, trials: Sequence[Trial]) -> list[Result]:
        import ray

        assert trials[0].content is not None
        named = Path(trials[0].content.uri).parent / SICK
        if self._done == 3 and not named.exists():
            named.touch()
        self._done += 1
        sick = named.read_text() if named.exists() else None
        if sick is None or sick not in ("", ray.get_runtime_context().get_node_id()):
            return super().run(trials)
        return [lost(trial) for trial in trials]


class Unstartable(SimulatedWorker):
    """Raises before it can do anything."""

    def __init__(self, options: WorkerOptions) -> None:
        super().__init__(options)
        raise RuntimeError("no driver for this device")


class CannotStart(SimulatedWorker):
    """Does not find its weights on the node that a file names, after others have computed something.

    These take their time until three of them have failed so.
    """

    def setup(self, configuration: Configuration) -> None:
        import ray

        super().setup(configuration)
        photos = Path(os.environ[PHOTOS])
        if (photos / SICK).read_text() == ray.get_runtime_context().get_node_id():
            while len(list((photos / CALLS).iterdir())) < 3:
                time.sleep(0.1)
            (photos / f"{SICK}-{os.getpid()}").touch()
            raise WeightsError("weights.pth: no such file")

    def run(self, trials: Sequence[Trial]) -> list[Result]:
        photos = Path(os.environ[PHOTOS])
        while len(list((photos / CALLS).iterdir())) >= 3 and len(list(photos.glob(f"{SICK}-*"))) < 3:
            time.sleep(0.1)
        return super().run(trials)


class DiesInSetup(SimulatedWorker):
    """Dies while it loads its network."""

    def setup(self, configuration: Configuration) -> None:  # noqa: ARG002
        os.kill(os.getpid(), signal.SIGKILL)


class HangsInSetup(SimulatedWorker):
    """Never has its network."""

    def setup(self, configuration: Configuration) -> None:  # noqa: ARG002
        time.sleep(3600)


class DiesAfterTwo(SimulatedWorker):
    """Dies after its second batch, whatever it is given: an unlucky machine, not an unlucky trial."""

    _done = 0

    def run(self, trials: Sequence[Trial]) -> list[Result]:
        if self._done == 2:
            time.sleep(0.5)  # what it returned before is on its way, however busy the machine is
            os.kill(os.getpid(), signal.SIGKILL)
        self._done += 1
        return super().run(trials)


class Forgetful(SimulatedWorker):
    """Returns no result for the last trial of a batch."""

    def run(self, trials: Sequence[Trial]) -> list[Result]:
        return super().run(trials)[:-1]


def crowd(folder: Path) -> None:
    """Takes 0.3 s, and kills this process if another one is at it: as if memory held one of them.

    The first process waits for the second, so that they meet.
    """
    folder.mkdir(exist_ok=True)
    mine = folder / str(os.getpid())
    mine.touch()
    deadline = time.monotonic() + 60
    while len(list(folder.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.15)
    if any(other != mine and runs(int(other.name)) for other in folder.iterdir()):
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.15)
    mine.rename(folder / "0")  # they have met


def runs(pid: int) -> bool:
    """Whether a process has not ended."""
    try:
        return pid > 0 and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def suffer(how: str, *, healed: bool) -> None:
    """Does what the name of a picture says, or nothing."""
    if how != "good":
        sys.stdout.write(f"about to {how} at https://me:hunter2@host/?token=hunter3\n")
        sys.stdout.flush()
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
    elif how == "raise" or (how == "until" and not healed):
        raise RuntimeError("this trial is cursed")


def note_call(trial: Trial) -> None:
    """Counts an attempt at a trial, also one that kills this process."""
    assert trial.content is not None
    folder = Path(trial.content.uri).parent / CALLS
    if folder.exists():
        (folder / f"{trial.trial_id}.{uuid.uuid4().hex}").touch()


def calls(folder: Path) -> Counter[str]:
    """How often each trial of the pictures in `folder` was begun, by trial_id."""
    return Counter(path.name.partition(".")[0] for path in (folder / CALLS).iterdir())


def lost(trial: Trial) -> Result:
    """What a worker returns that cannot find the picture."""
    assert trial.content is not None
    note_call(trial)
    message = f"{trial.content.uri}: no such file"
    return Result(trial=trial, outcome=Outcome(status="failed", error_type="missing", error_message=message))


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
