"""How far a run is, for a person who watches: a bar on a terminal, elsewhere a line every 30 seconds."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Self

from nst_batch.cli.printing import print_note, printable
from nst_batch.cluster.progress import Progress, Reporter
from nst_batch.vocabulary import duration

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

LINE_SECONDS = 30.0


class TerminalReporter(Reporter):
    """Shows a run's notes and progress on stderr; use it in a `with` block."""

    def __init__(self) -> None:
        self._bar: Bar | None = None
        self._lined = time.monotonic()

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn
            from rich.progress import Progress as Bar

            columns = SpinnerColumn(), BarColumn(bar_width=None), MofNCompleteColumn()
            description = TextColumn("{task.description}")
            self._bar = Bar(*columns, description, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task("starting", total=None)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def note(self, text: str) -> None:
        """One line that stays."""
        if self._bar:
            self._bar.console.print(printable(text), markup=False, highlight=False)
        else:
            print_note(text)

    def progress(self, progress: Progress) -> None:
        """Moves the bar, or prints a line if the last one is old enough."""
        done = progress.num_trials - progress.pending
        if self._bar:
            self._bar.update(self._task, completed=done, total=progress.num_trials, description=describe(progress))
        elif time.monotonic() - self._lined >= LINE_SECONDS:
            self._lined = time.monotonic()
            print_note(f"{done}/{progress.num_trials} {describe(progress)}")


def describe(progress: Progress) -> str:
    """`3 failed · 2 workers · 4 min left`, or, while that is not known, `1 worker · 4 min so far`."""
    if not progress.num_workers:
        return "starting workers"
    parts = []
    if failed := progress.failed + progress.diverged:
        parts.append(f"{failed} failed")
    if deaths := progress.worker_deaths:
        parts.append(f"{deaths} worker{'s' * (deaths != 1)} died")
    parts.append(f"{progress.num_workers} worker{'s' * (progress.num_workers != 1)}")
    if progress.pending and progress.eta_seconds is not None:
        parts.append(f"{duration(progress.eta_seconds)} left")
    elif progress.pending:
        parts.append(f"{duration(progress.elapsed_seconds)} so far")
    return " · ".join(parts)
