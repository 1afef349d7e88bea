"""The commands that ask a run: query, show, rank, report, export, status."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nst_batch.cli import jobs as cli_jobs
from nst_batch.cli.console import TerminalReporter, print_error
from nst_batch.cli.options import JobsAddress

if TYPE_CHECKING:
    import pyarrow as pa

    from nst_batch.store.run_directory import RunDirectory

_WATCH_SECONDS = 2.0
_SAID = ("num_workers", "worker_deaths", "elapsed_seconds", "eta_seconds", "updated_at")
"""What `status` repeats of progress.json."""


class Format(StrEnum):
    """How rows are printed."""

    table = "table"
    json = "json"
    csv = "csv"


class QueryFormat(StrEnum):
    """How the answer to a query is printed."""

    table = "table"
    json = "json"
    csv = "csv"
    parquet = "parquet"


class By(StrEnum):
    """What configurations are ranked by."""

    both = "both"
    content = "content"
    style = "style"
    ssim = "ssim"
    color = "color"


class Kind(StrEnum):
    """What a run is exported as."""

    hf = "hf"
    csv = "csv"
    long = "long"
    images = "images"


RunArgument = Annotated[str, typer.Argument(metavar="DIR", help="A run directory: a path or a URL.")]
FormatOption = Annotated[Format, typer.Option("--format", help="How rows are printed.")]
Output = Annotated[Path | None, typer.Option(metavar="FILE", help="Write there instead of to stdout.")]
Where = Annotated[
    str | None, typer.Option(metavar="SQL", help="Only these trials, as in \"content_layer = 'block4_conv1'\".")
]


def register(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    commands = (
        (status, "Example: nst-batch status runs/w7 --watch"),
        (rank, 'Example: nst-batch rank runs/w7 --by style --where "alpha = 0.5"'),
        (show, "Example: nst-batch show runs/w7 --where \"content_layer = 'block4_conv1'\""),
        (
            query,
            'Example: nst-batch query runs/w7 "SELECT content_layer, avg(style_distance) FROM trials GROUP BY ALL"',
        ),
        (report, "Example: nst-batch report runs/w7"),
        (export, "Example: nst-batch export runs/w7 images --to pictures"),
    )
    for command, example in commands:
        app.command(epilog=example)(command)


def query(
    run: RunArgument,
    sql: Annotated[str, typer.Argument(metavar="SQL", help="One SELECT over trials, curves, layers.")],
    format: Annotated[QueryFormat, typer.Option("--format", help="How rows are printed.")] = QueryFormat.table,
    output: Output = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH", help="Another file or folder that the query may read; repeatable."),
    ] = None,
) -> None:
    """Ask the tables trials, curves and layers with SQL (DuckDB), also while the run goes on. Only reads."""
    from nst_batch.cli.printing import print_rows
    from nst_batch.results.query import query as answer
    from nst_batch.store.run_directory import RunDirectory

    print_rows(answer(RunDirectory.existing(run), sql, allow=allow or ()), format.value, output)


def show(
    run: RunArgument,
    trial: Annotated[
        str | None, typer.Argument(metavar="TRIAL", help="A trial_id, the beginning of one, or a trial_index.")
    ] = None,
    where: Where = None,
    format: FormatOption = Format.table,
    output: Output = None,
) -> None:
    """Show one trial with everything that is known of it, or a list of trials to choose from."""
    from nst_batch.cli.printing import print_rows
    from nst_batch.results.query import listed, trial_row
    from nst_batch.store.run_directory import RunDirectory

    directory = RunDirectory.existing(run)
    if trial is None:
        print_rows(listed(directory, where), format.value, output)
    else:
        print_rows(trial_row(directory, trial, where), format.value, output, upright=True)


def rank(
    run: RunArgument,
    by: Annotated[By, typer.Option(help="What the order follows.")] = By.both,
    where: Where = None,
    metrics: Annotated[
        bool, typer.Option("--metrics", help="Also measure the pictures: SSIM, colour distance. Slower.")
    ] = False,
    format: FormatOption = Format.table,
    output: Output = None,
) -> None:
    """Rank the configurations, best first, by the finished pictures: ranks within each pair, averaged.

    low and high are the 95% interval of mean_rank over pairs; won is the share of pairs in which a configuration
    is first; pareto says that no other keeps more content and matches the style better.
    """
    from nst_batch.cli.printing import print_rows
    from nst_batch.results.rank import notes
    from nst_batch.results.rank import rank as ranked
    from nst_batch.store.run_directory import RunDirectory

    ranking = ranked(RunDirectory.existing(run), by.value, where=where, metrics=metrics)
    print_rows(ranking, format.value, output)
    for note in notes(ranking):
        print_error(note)


def report(
    run: RunArgument,
    output: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write there instead of to DIR/report.")
    ] = None,
) -> None:
    """Write the report: one HTML file to look at, compare and share, and PNG files of every plot."""
    from nst_batch.results.report import write_report
    from nst_batch.store.run_directory import RunDirectory

    typer.echo(write_report(RunDirectory.existing(run), output))


def export(
    run: RunArgument,
    kind: Annotated[
        Kind,
        typer.Argument(help="hf: for datasets.load_dataset; csv: tables; long: a row per step; images: copies."),
    ],
    to: Annotated[Path, typer.Option(metavar="FOLDER", help="A new or empty folder.")],
    where: Where = None,
    names: Annotated[
        str | None,
        typer.Option(metavar="TEMPLATE", help="How pictures are called, as in {content}-{style}-{alpha}."),
    ] = None,
) -> None:
    """Write a run for other programs."""
    from nst_batch.results.export import NAMES
    from nst_batch.results.export import export as exported
    from nst_batch.store.run_directory import RunDirectory

    for path in exported(RunDirectory.existing(run), kind.value, to, where=where, names=names or NAMES):
        typer.echo(path)


def status(
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="A run directory, a path or a URL; or a job's id.")
    ],
    address: JobsAddress = None,
    watch: Annotated[bool, typer.Option("--watch", help="Go on until every trial has ended.")] = False,
    format: FormatOption = Format.table,
    output: Output = None,
) -> None:
    """Say how far a run or a job is."""
    from nst_batch.cli.printing import print_rows
    from nst_batch.store.run_directory import RunDirectory

    if cli_jobs.is_job(target, address):
        print_rows(cli_jobs.status_of(target, address), format.value, output, upright=True)
        return
    directory = RunDirectory.existing(target)
    if watch:
        _watch(directory)
    found = _status(directory)
    print_rows(found, format.value, output, upright=True)
    if not found["complete"][0].as_py():
        print_error("not finished; `nst-batch run` with the same study and --out goes on where it stopped")


def _status(run: RunDirectory) -> pa.Table:
    """One row: what has ended, and what the driver last said."""
    import pyarrow as pa

    said = run.progress() or {}
    row: dict[str, Any] = {"study": run.study["name"], "complete": run.is_complete(), "trials": run.num_trials}
    row |= run.counts()
    row |= {key: said.get(key) for key in _SAID}
    return pa.Table.from_pylist([row])


def _watch(run: RunDirectory) -> None:
    """Shows what the driver says of its progress until every trial has ended."""
    with TerminalReporter() as reporter:
        while not run.is_complete():
            said: Any = SimpleNamespace(**(run.progress() or {}))
            if vars(said):
                reporter.progress(said)
            time.sleep(_WATCH_SECONDS)
