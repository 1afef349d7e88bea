"""The commands that ask a run: status, rank, show, query, report, vote, export."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from nst_batch.cli.jobs import is_job, job_row
from nst_batch.cli.options import Format, JobsAddress, Output, RunArgument, Where
from nst_batch.cli.printing import print_line, print_note, print_rows
from nst_batch.cli.progress import TerminalReporter
from nst_batch.cluster.progress import Progress
from nst_batch.vocabulary import ExportKind, RankBy

if TYPE_CHECKING:
    from nst_batch.api import Run

app = typer.Typer()

Folder = Annotated[
    Path | None, typer.Option("--output", metavar="FOLDER", help="Write there instead of to DIR/report.")
]
Fetch = Annotated[bool, typer.Option("--fetch", help="Also fetch inputs that the run names by URLs.")]

WATCH_SECONDS = 2.0
_SAID = ("num_workers", "worker_deaths", "elapsed_seconds", "eta_seconds", "updated_at")
"""What `status` repeats of progress.json."""


@app.command(epilog="Example: nst-batch status runs/w7 --watch")
def status(
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="A run directory, a path or a URL; or a job's id.")
    ],
    address: JobsAddress = None,
    watch: Annotated[bool, typer.Option("--watch", help="Go on until every trial has ended.")] = False,
    format: Format = "table",
    output: Output = None,
) -> None:
    """Say how far a run or a job is."""
    import pyarrow as pa

    if is_job(target, address):
        print_rows(pa.Table.from_pylist([job_row(target, address)]), format, output, upright=True)
        return
    run = _opened(target)
    if watch:
        _watch(run)
    row = {"study": run.study["name"], "complete": run.is_complete, "trials": run.directory.num_trials}
    said = run.progress()
    row |= run.counts() | {key: said.get(key) for key in _SAID}
    print_rows(pa.Table.from_pylist([row]), format, output, upright=True)
    if not row["complete"]:
        print_note("not finished; `nst-batch run` with the same study and --out goes on where it stopped")


@app.command(epilog='Example: nst-batch rank runs/w7 --by style --where "alpha = 0.5"')
def rank(
    run: RunArgument,
    by: Annotated[RankBy, typer.Option(help="What the order follows; the last four with --over.")] = "score",
    where: Where = None,
    judge: Annotated[
        list[str] | None,
        typer.Option(
            metavar="JUDGE",
            help="Who measures the pictures: own, pixels, random:SEED, imagenet, imagenet_v1, a file; repeatable.",
        ),
    ] = None,
    over: Annotated[
        str | None, typer.Option(metavar="AXIS", help="Compare curves along an axis of the grid, such as alpha.")
    ] = None,
    votes: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Votes that `nst-batch vote` saved: the order follows them; repeatable."),
    ] = None,
    fetch: Fetch = False,
    format: Format = "table",
    output: Output = None,
) -> None:
    """Rank the configurations by the transfer score, best first.

    The score is content kept times style taken, 0 to 1 each; mean_rank is the mean of the ranks within each pair,
    low and high its 95% interval over pairs; won is the share of pairs in which a configuration is first; pareto
    says that no other keeps more content and takes more style.
    """
    from nst_batch.results.rank import notes

    ranking = _opened(run).rank(by, where=where, judges=judge or (), over=over, votes=votes or (), fetch=fetch)
    print_rows(ranking, format, output)
    for note in notes(ranking):
        print_note(note)


@app.command(epilog="Example: nst-batch show runs/w7 --where \"content_layer = 'block4_conv1'\"")
def show(
    run: RunArgument,
    trial: Annotated[
        str | None, typer.Argument(metavar="TRIAL", help="A trial_id, the beginning of one, or a trial_index.")
    ] = None,
    where: Where = None,
    format: Format = "table",
    output: Output = None,
) -> None:
    """Show all that is known of one trial, or list trials."""
    print_rows(_opened(run).show(trial, where=where), format, output, upright=trial is not None)


@app.command(
    epilog='Example: nst-batch query runs/w7 "SELECT content_layer, avg(style_distance) FROM trials GROUP BY ALL"'
)
def query(
    run: RunArgument,
    sql: Annotated[str, typer.Argument(metavar="SQL", help="One SELECT over trials, curves, layers, regions.")],
    format: Annotated[
        Literal["table", "json", "csv", "parquet"], typer.Option("--format", help="How rows are printed.")
    ] = "table",
    output: Output = None,
) -> None:
    """Ask the tables with SQL, also while the run goes on.

    The tables are trials, curves, layers and regions, the SQL is DuckDB's; a run is only read.
    """
    print_rows(_opened(run).query(sql), format, output)


@app.command(epilog="Example: nst-batch report runs/w7")
def report(run: RunArgument, output: Folder = None, fetch: Fetch = False) -> None:
    """Write the HTML report, and its plots as PNG and SVG."""
    print_line(_opened(run).report(output, fetch=fetch))


@app.command(epilog="Example: nst-batch vote runs/w7")
def vote(run: RunArgument, output: Folder = None, fetch: Fetch = False) -> None:
    """Write a page on which people compare finished pictures."""
    print_line(_opened(run).vote(output, fetch=fetch))


@app.command(epilog="Example: nst-batch export runs/w7 images --to pictures")
def export(
    run: RunArgument,
    kind: Annotated[
        ExportKind,
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
    for path in _opened(run).export(kind, to, where=where, names=names):
        print_line(str(path))


def _opened(url: str) -> Run:
    from nst_batch.api import open_run

    return open_run(url)


def _watch(run: Run) -> None:
    """Shows what the driver says of its progress until every trial has ended."""
    with TerminalReporter() as reporter:
        while not run.is_complete:
            if said := Progress.read(run.progress()):
                reporter.progress(said)
            time.sleep(WATCH_SECONDS)
