"""A run from Python: `nst_batch.open_run(DIR)` reads one, `nst_batch.run_study(...)` makes one.

>>> run = nst_batch.open_run("runs/w7")                                          # doctest: +SKIP
>>> run.trials().to_pandas().groupby("content_uri").style_distance.mean()         # doctest: +SKIP
>>> run.rank("style").to_pylist()[0]["content_layers"]                            # doctest: +SKIP
>>> run.image(run.trials()["trial_id"][0].as_py()).show()                         # doctest: +SKIP
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import pyarrow as pa

from nst_batch.errors import QueryError, without_secrets
from nst_batch.store.run_directory import RunDirectory
from nst_batch.vocabulary import ExportKind, RankBy

if TYPE_CHECKING:
    from PIL import Image

    from nst_batch.cluster.progress import Reporter
    from nst_batch.results.verify import Verification
    from nst_batch.study.model import Study
    from nst_batch.study.reading import Overrides


class Run:
    """A run directory, finished or in progress: each call answers with what has ended by then.

    Args:
        url: A path, or a URL that fsspec understands.

    Raises:
        RunDirectoryError: There is no run.
    """

    def __init__(self, url: str | os.PathLike[str]) -> None:
        self.directory = RunDirectory.existing(os.fspath(url))

    def __repr__(self) -> str:
        return f"Run({without_secrets(self.directory.directory.root)!r})"

    @property
    def study(self) -> dict[str, Any]:
        """What study.json says: the study, its configurations, versions."""
        return self.directory.study

    @property
    def is_complete(self) -> bool:
        """Whether every trial of the plan has ended."""
        return self.directory.is_complete()

    def counts(self) -> dict[str, int]:
        """The trials by state: ok, failed, diverged, pending."""
        return self.directory.counts()

    def progress(self) -> dict[str, Any]:
        """What the process that runs the study last said of itself, as progress.json has it; empty before."""
        return self.directory.progress() or {}

    def trials(self, columns: Sequence[str] | None = None) -> pa.Table:
        """One row per trial that has ended, in the order of the plan."""
        return self.directory.table("trials", columns)

    def curves(self, columns: Sequence[str] | None = None) -> pa.Table:
        """One row per trial that ran: its losses from step to step, as lists."""
        return self.directory.table("curves", columns)

    def layers(self, columns: Sequence[str] | None = None) -> pa.Table:
        """One row per trial and convolution: the finished picture's distances from content and style."""
        return self.directory.table("layers", columns)

    def regions(self, columns: Sequence[str] | None = None) -> pa.Table:
        """One row per trial and region, where pictures have masks: how good the transfer is there."""
        return self.directory.table("regions", columns)

    def image(self, trial_id: str) -> Image.Image:
        """The finished picture of a trial, named as `show` takes it.

        Raises:
            QueryError: No such trial has ended, or it has no picture; the message says why.
            ImageError: The picture is missing or damaged.
        """
        from nst_batch.results.pictures import finished_picture

        [trial] = self.show(trial_id).to_pylist()
        if trial["image_path"] is None:
            raise QueryError(f"{trial_id}: {trial['status']}, so it has no picture: {trial['error_message']}")
        return finished_picture(self.directory, trial["image_path"])

    def query(self, sql: str) -> pa.Table:
        """The answer to a SELECT over `trials`, `curves`, `layers` and `regions`; see `results.query.query`."""
        from nst_batch.results.query import query

        return query(self.directory, sql)

    def show(self, trial: str | None = None, *, where: str | None = None) -> pa.Table:
        """One trial with everything that is known of it; or a list of trials.

        Args:
            trial: Its trial_id, or the beginning of it, or its trial_index; None lists those that `where` chooses.
            where: An SQL condition on `trials`.
        """
        from nst_batch.results.query import listed, trial_row

        return listed(self.directory, where) if trial is None else trial_row(self.directory, trial, where)

    def rank(
        self,
        by: RankBy = "score",
        *,
        where: str | None = None,
        judges: Sequence[str] = (),
        over: str | None = None,
        votes: Sequence[str | os.PathLike[str]] = (),
        fetch: bool = False,
    ) -> pa.Table:
        """The configurations, best first, see `results.rank.rank`; `results.rank.notes` is the small print."""
        from nst_batch.results.rank import rank

        files = [Path(file) for file in votes]
        return rank(self.directory, by, where=where, judges=judges, over=over, votes=files, fetch=fetch)

    def report(self, folder: str | os.PathLike[str] | None = None, *, fetch: bool = False) -> str:
        """Writes the HTML report, and returns where it is; see `results.report.write_report`."""
        from nst_batch.results.report import write_report

        return write_report(self.directory, Path(folder) if folder else None, fetch=fetch)

    def vote(self, folder: str | os.PathLike[str] | None = None, *, fetch: bool = False) -> str:
        """Writes the page for votes, and returns where it is; see `results.votes.write_vote_page`."""
        from nst_batch.results.votes import write_vote_page

        return write_vote_page(self.directory, Path(folder) if folder else None, fetch=fetch)

    def sheets(self, *, fetch: bool = False) -> list[str]:
        """Draws the contact sheets into the run directory, and returns where they are."""
        from nst_batch.results.sheets import write_sheets

        return [self.directory.directory.url(path) for path in write_sheets(self.directory, fetch=fetch)]

    def export(
        self, kind: ExportKind, to: str | os.PathLike[str], *, where: str | None = None, names: str | None = None
    ) -> list[Path]:
        """Writes the run for other programs into a new folder; see `results.export.export`."""
        from nst_batch.results.export import NAMES, export

        return export(self.directory, kind, Path(to), where=where, names=names or NAMES)

    def verify(self, *, images: bool = True) -> Verification:
        """Checks every row against its plan, its picture and its own numbers; see `results.verify.verify`."""
        from nst_batch.results.verify import verify

        return verify(self.directory, images=images)


open_run = Run
"""Opens the run in a directory, local or remote, finished or in progress."""


def run_study(
    study: Study | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    device: str = "auto",
    retry_failed: bool = False,
    reporter: Reporter | None = None,
    **overrides: Unpack[Overrides],
) -> Run:
    """Runs a study in this process, or what is missing of it, and returns the run.

    Args:
        study: A file, the name of a preset, or a `Study`.
        out: The run directory.
        reporter: Hears how it goes.
        overrides: content, style, protect, weights, size, steps and overrides, as `study.reading.Overrides` says;
            only for a file or a preset.

    Raises:
        StudyError, RunDirectoryError, WeightsError, ClusterError, Interrupted: As `nst_batch.run.run_study` says.
    """
    from nst_batch import run as running
    from nst_batch.study.reading import load_study

    if isinstance(study, str | os.PathLike):
        study = load_study(os.fspath(study), **overrides)
    elif any(overrides.values()):
        raise ValueError("expected a study file or preset to override, found a Study; use dataclasses.replace")
    options = running.RunOptions(out=os.fspath(out), device=device, retry_failed=retry_failed)
    running.run_study(study, options, reporter)
    return Run(out)
