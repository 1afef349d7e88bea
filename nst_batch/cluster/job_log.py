"""What a job prints, for programs to read: one JSON object per line.

    {"event": "note", "at": "2026-11-22T21:10:34.893+00:00", "text": "4 workers with 1 GPU each"}
    {"event": "trial", "at": …, "trial_id": "9e77…", "trial_index": 12, "status": "ok", "seconds": 4.1, …}
    {"event": "progress", "at": …, "num_trials": 400, "ok": 13, …}

`nst-batch logs --follow` turns it back into a progress bar.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from nst_batch.cluster.progress import Progress, Reporter
from nst_batch.errors import without_secrets
from nst_batch.records import Result

_PROGRESS_SECONDS = 10.0
"""Progress is logged at least this often, and whenever a trial ends; so a long run's log stays small."""


class JsonLog(Reporter):
    """A reporter that writes the log to stdout."""

    def __init__(self) -> None:
        self._pending, self._told = -1, float("-inf")

    def note(self, text: str) -> None:
        _write("note", text=text)

    def progress(self, progress: Progress) -> None:
        now = time.monotonic()
        if progress.pending != self._pending or now - self._told >= _PROGRESS_SECONDS:
            self._pending, self._told = progress.pending, now
            _write("progress", **asdict(progress))

    def ended(self, result: Result) -> None:
        of_trial = {name: getattr(result.trial, name) for name in ("trial_id", "trial_index", "batch")}
        names = ("status", "error_type", "error_message", "seconds", "node", "device")
        _write("trial", **of_trial, **{name: getattr(result.outcome, name) for name in names})


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


def _write(event: str, **values: Any) -> None:
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    shown = {name: without_secrets(value) if isinstance(value, str) else value for name, value in values.items()}
    sys.stdout.write(json.dumps({"event": event, "at": at, **shown}) + "\n")
    sys.stdout.flush()
