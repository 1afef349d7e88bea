"""Where a run stands, and everybody who hears of it: a reporter, progress.json, Ray's metrics, and a job's log.

A job prints one JSON object per line, for programs to read:

    {"event": "note", "at": "2026-11-22T21:10:34.893+00:00", "text": "4 workers with 1 GPU each"}
    {"event": "trial", "at": …, "trial_id": "9e77…", "trial_index": 12, "status": "ok", "seconds": 4.1, …}
    {"event": "progress", "at": …, "num_trials": 400, "ok": 13, …}

`nst-batch logs --follow` turns it back into a progress bar.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any, NamedTuple, Self

from nst_batch.errors import without_secrets
from nst_batch.records import Result

_TELL_SECONDS = 2.0
_LOG_SECONDS = 10.0
"""Progress is logged at least this often, and whenever a trial ends; so a long run's log stays small."""
_SECONDS_PER_STEP: list[float] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0]
_BATCH_SIZES: list[float] = [1, 2, 4, 8, 16, 32, 64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """Where a run stands."""

    num_trials: int
    ok: int
    failed: int
    diverged: int
    pending: int
    num_workers: int
    worker_deaths: int
    elapsed_seconds: float
    eta_seconds: float | None
    """None as long as no worker has told how fast it is."""

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> Self | None:
        """From what progress.json or a line of a job's log holds; None if that is something else."""
        names = [each.name for each in fields(cls)]
        return cls(**{name: said[name] for name in names}) if said.keys() >= set(names) else None


class Reporter:
    """Whoever wants to hear how a run goes; this one does nothing of it."""

    def note(self, text: str) -> None:
        """One line that a person should see once."""

    def progress(self, progress: Progress) -> None:
        """Every two seconds or so, and at the end."""

    def ended(self, result: Result) -> None:
        """A trial was recorded."""


class Pace(NamedTuple):
    """What of unfinished trials is done."""

    pixels: float
    """Of trials: half done counts half."""
    seconds: float
    """That workers have spent on these."""


def _unknown_pace() -> Pace:
    return Pace(0.0, 0.0)


class RunProgress:
    """Hears of workers and results, and tells its reporter, progress.json and Ray's metrics.

    Args:
        counts: The trials by status at this moment, `pending` among them.
        write: Takes what progress.json is to hold.
        pixels: Of all trials that are still to be run: the work that is left.
    """

    def __init__(
        self,
        reporter: Reporter,
        counts: Callable[[], Mapping[str, int]],
        write: Callable[[dict[str, Any]], None],
        pixels: float,
    ) -> None:
        self.reporter, self._counts, self._write = reporter, counts, write
        self._metrics = _Metrics()
        self._left = RemainingWork(pixels)
        self._started = self._told = time.monotonic()
        self._num_workers = self._worker_deaths = 0
        self._busy_seconds = 0.0
        self._pace: Callable[[], Pace] = _unknown_pace

    def workers(self, num_ready: int, busy_seconds: float, pace: Callable[[], Pace] = _unknown_pace) -> None:
        """How many workers are ready, what all together have spent on batches that are not back, and their pace."""
        self._num_workers, self._busy_seconds, self._pace = num_ready, busy_seconds, pace

    def worker_died(self) -> None:
        """A worker is gone that was still needed."""
        self._worker_deaths += 1
        self._metrics.deaths.inc()

    def recorded(self, results: Sequence[Result]) -> None:
        """Results were recorded, those of trials that never reached a worker too."""
        self._left.learn(results)
        self._metrics.recorded(results)
        for result in results:
            self.reporter.ended(result)

    def tick(self) -> None:
        """Tells where the run stands, if it has not done so for two seconds."""
        if time.monotonic() - self._told >= _TELL_SECONDS:
            self.tell()

    def tell(self) -> Progress:
        """Tells everybody where the run stands."""
        self._told = time.monotonic()
        counts = self._counts()
        progress = Progress(
            num_trials=sum(counts.values()),
            **counts,
            num_workers=self._num_workers,
            worker_deaths=self._worker_deaths,
            elapsed_seconds=self._told - self._started,
            eta_seconds=self._eta_seconds() if counts["pending"] else None,
        )
        self._write(asdict(progress) | {"updated_at": datetime.now(UTC).isoformat()})
        self._metrics.pending.set(progress.pending)
        self._metrics.workers.set(progress.num_workers)
        self.reporter.progress(progress)
        return progress

    def _eta_seconds(self) -> float | None:
        return self._left.seconds(self._num_workers, self._busy_seconds, self._pace)


class RemainingWork:
    """How long the rest of a run of so many pixels will take.

    Counting trials misleads: the largest come first, several end at once, and workers come and go. So what is
    learned is the worker's time per pixel, and the rest of the pixels is shared by the workers that there are. As
    long as no trial has ended, that is what workers tell of those that they are at.
    """

    def __init__(self, pixels: float) -> None:
        self._pixels_left = pixels
        self._pixels_done = self._worker_seconds = 0.0

    def learn(self, results: Sequence[Result]) -> None:
        """Takes account of trials that have ended."""
        for result in results:
            pixels = result.trial.width * result.trial.height
            self._pixels_left -= pixels
            if result.outcome.seconds is not None and result.outcome.status != "failed":
                self._pixels_done += pixels
                self._worker_seconds += result.outcome.seconds

    def seconds(
        self, num_workers: int, busy_seconds: float = 0.0, pace: Callable[[], Pace] = _unknown_pace
    ) -> float | None:
        """How long so many workers will take, having been busy so long; None if that is not known, or overdue."""
        pixels, seconds = (self._pixels_done, self._worker_seconds) if self._pixels_done else pace()
        if not pixels or not num_workers:
            return None
        rest = self._pixels_left * seconds / pixels - busy_seconds
        return rest / num_workers if rest >= 0 else None


class _Metrics:
    """Ray's metrics of one run, which its dashboard draws; Ray must be there when they are made."""

    def __init__(self) -> None:
        from ray.util.metrics import Counter, Gauge, Histogram

        self._trials = Counter("nst_batch_trials_total", "Trials that ended.", ("status",))
        self.deaths = Counter("nst_batch_worker_deaths_total", "Workers that died.")
        self.pending = Gauge("nst_batch_pending_trials", "Trials that have not ended.")
        self.workers = Gauge("nst_batch_workers", "Workers that are ready.")
        self._batch_size = Histogram("nst_batch_batch_size", "Trials per batch.", _BATCH_SIZES)
        self._step = Histogram("nst_batch_seconds_per_step", "Of one trial.", _SECONDS_PER_STEP)
        self._memory = Gauge("nst_batch_gpu_memory_bytes", "Peak of the last batch.", ("node",))

    def recorded(self, results: Sequence[Result]) -> None:
        if size := sum(result.outcome.node is not None for result in results):  # the rest never reached a worker
            self._batch_size.observe(size)
        for outcome in (result.outcome for result in results):
            self._trials.inc(1, {"status": outcome.status})
            if outcome.seconds and outcome.steps_done:
                self._step.observe(outcome.seconds / outcome.steps_done)
            if outcome.node and outcome.device != "cpu" and outcome.peak_memory_bytes:
                self._memory.set(outcome.peak_memory_bytes, {"node": outcome.node})


# The log of a job


class JsonLog(Reporter):
    """A reporter that writes the log to stdout."""

    def __init__(self) -> None:
        self._pending, self._told = -1, float("-inf")

    def note(self, text: str) -> None:
        _print("note", text=text)

    def progress(self, progress: Progress) -> None:
        now = time.monotonic()
        if progress.pending != self._pending or now - self._told >= _LOG_SECONDS:
            self._pending, self._told = progress.pending, now
            _print("progress", **asdict(progress))

    def ended(self, result: Result) -> None:
        of_trial = {name: getattr(result.trial, name) for name in ("trial_id", "trial_index", "batch")}
        names = ("status", "error_type", "error_message", "seconds", "node", "device")
        _print("trial", **of_trial, **{name: getattr(result.outcome, name) for name in names})


def replay(line: str, reporter: Reporter) -> None:
    """Tells `reporter` what a line of a job's output says; what is no event (a traceback, say) is a note.

    Events of trials are passed over: the bar counts them.
    """
    event = read_event(line)
    if event is None:
        if line.strip():
            reporter.note(line)
    elif event["event"] == "note":
        reporter.note(str(event.get("text")))
    elif progress := Progress.read(event):
        reporter.progress(progress)


def last_progress(log: str) -> Progress | None:
    """What a job last said of itself."""
    events = filter(None, map(read_event, reversed(log.splitlines())))
    return next(filter(None, map(Progress.read, events)), None)


def read_event(line: str) -> dict[str, Any] | None:
    """A line of the log, or None if it is not one."""
    try:
        return dict(json.loads(line)) if line.startswith('{"event": ') else None
    except ValueError:
        return None


def _print(event: str, **values: Any) -> None:
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    shown = {name: without_secrets(value) if isinstance(value, str) else value for name, value in values.items()}
    sys.stdout.write(json.dumps({"event": event, "at": at, **shown}) + "\n")
    sys.stdout.flush()
