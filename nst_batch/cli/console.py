"""What a person sees in the terminal: progress, notes, tables; JSON and CSV for programs."""

from __future__ import annotations

import json
import re
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from nst_batch.records import finite
from nst_batch.vocabulary import duration

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    from nst_batch.cluster.progress import Progress
    from nst_batch.records import Result

_LINE_SECONDS = 30.0


def print_error(text: str) -> None:
    """A line for the person, on stderr."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def print_json(value: Any) -> None:
    """One JSON document on stdout, without NaN or infinities: they become null."""
    sys.stdout.write(json.dumps(finite(value), indent=2, ensure_ascii=False, default=str, allow_nan=False) + "\n")


def seconds(text: str) -> float:
    """The inverse of `duration`, more or less: `45s`, `90 min`, `6h`, `2 d`.

    Raises:
        ValueError: It is no such text.
    """
    lengths = {"s": 1, "min": 60, "m": 60, "h": 3600, "d": 86400}
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?(s|m|min|h|d)", text.strip())
    if not match:
        raise ValueError(f"expected a time such as 90min, 6h or 2d, found {text!r}")
    return float(match[1]) * lengths[match[2]]


class TerminalReporter:
    """A progress bar on a terminal; elsewhere a line every 30 seconds. All on stderr."""

    def __init__(self) -> None:
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._lined = time.monotonic()

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                SpinnerColumn(),
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TextColumn("{task.description}"),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task("starting", total=None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def note(self, text: str) -> None:
        """One line that stays."""
        if self._bar:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            print_error(text)

    def progress(self, progress: Progress) -> None:
        """Moves the bar, or prints a line if the last one is old enough."""
        done = progress.num_trials - progress.pending
        if self._bar and self._task is not None:
            self._bar.update(self._task, completed=done, total=progress.num_trials, description=describe(progress))
        elif time.monotonic() - self._lined >= _LINE_SECONDS:
            self._lined = time.monotonic()
            print_error(f"{done}/{progress.num_trials} {describe(progress)}")

    def ended(self, result: Result) -> None:
        """Says nothing: the bar counts."""


def describe(progress: Progress) -> str:
    """`3 failed · 2 workers · 4 min left`."""
    parts = []
    failed = progress.failed + progress.diverged
    if failed:
        parts.append(f"{failed} failed")
    if progress.worker_deaths:
        parts.append(f"{progress.worker_deaths} workers died")
    parts.append(f"{progress.num_workers} worker{'s' if progress.num_workers != 1 else ''}")
    if progress.eta_seconds is not None and progress.pending:
        parts.append(f"{duration(progress.eta_seconds)} left")
    return " · ".join(parts) if progress.num_workers else "starting workers"
