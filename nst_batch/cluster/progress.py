"""Where a run stands, who hears of it, and the log that programs read: one JSON object per line.

    {"event": "note", "at": "2026-11-22T21:10:34.893+00:00", "text": "4 workers with 1 GPU each"}
    {"event": "trial", "at": …, "trial_id": "9e77…", "trial_index": 12, "status": "ok", "seconds": 4.1, …}
    {"event": "progress", "at": …, "num_trials": 400, "ok": 13, …}

This is what a job on a cluster prints; `nst-batch logs --follow` turns it back into a bar.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any, Protocol

from nst_batch.records import Result

_PROGRESS_SECONDS = 10.0
"""Progress is logged at least this often, and whenever a trial ends; so a long run's log stays small."""


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
    """None until a first trial has ended in this run."""


class Reporter(Protocol):
    """Whoever wants to hear how a run goes."""

    def note(self, text: str) -> None:
        """One line that a person should see once."""

    def progress(self, progress: Progress) -> None:
        """Every two seconds or so, and at the end."""

    def ended(self, result: Result) -> None:
        """A trial was recorded."""


class Silent:
    """A reporter that says nothing."""

    def note(self, text: str) -> None:
        """Says nothing."""

    def progress(self, progress: Progress) -> None:
        """Says nothing."""

    def ended(self, result: Result) -> None:
        """Says nothing."""


class JsonLog:
    """A reporter that writes the log to stdout."""

    def __init__(self) -> None:
        self._pending, self._told = -1, float("-inf")

    def note(self, text: str) -> None:
        """One line that a person should see once."""
        _write("note", text=text)

    def progress(self, progress: Progress) -> None:
        """Where the run stands, if that has changed."""
        now = time.monotonic()
        if progress.pending != self._pending or now - self._told >= _PROGRESS_SECONDS:
            self._pending, self._told = progress.pending, now
            _write("progress", **asdict(progress))

    def ended(self, result: Result) -> None:
        """A trial was recorded."""
        trial, outcome = result.trial, result.outcome
        _write(
            "trial",
            trial_id=trial.trial_id,
            trial_index=trial.trial_index,
            batch=trial.batch,
            status=outcome.status,
            error_type=outcome.error_type,
            error_message=outcome.error_message,
            seconds=outcome.seconds,
            node=outcome.node,
            device=outcome.device,
        )


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
    elif progress := progress_of(event):
        reporter.progress(progress)


def read_event(line: str) -> dict[str, Any] | None:
    """A line of the log, or None if it is not one."""
    if not line.startswith('{"event": '):
        return None
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) else None


def progress_of(event: dict[str, Any]) -> Progress | None:
    """The progress that an event tells, also if it was written by an older or a newer version."""
    names = [each.name for each in fields(Progress)]
    if event["event"] != "progress" or not all(name in event for name in names):
        return None
    return Progress(**{name: event[name] for name in names})


def _write(event: str, **values: Any) -> None:
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    sys.stdout.write(json.dumps({"event": event, "at": at, **values}, ensure_ascii=False) + "\n")
    sys.stdout.flush()
