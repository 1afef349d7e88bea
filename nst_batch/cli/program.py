"""The command line: opens the library, calls one thing, prints. Data goes to stdout, everything else to stderr.

Heavy modules (torch, ray, pyarrow) are imported by the command that needs them, so `--help` is instant.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from nst_batch import __version__
from nst_batch.cli import answers as cli_answers
from nst_batch.cli import care as cli_care
from nst_batch.cli import jobs as cli_jobs
from nst_batch.cli.confirm import confirm
from nst_batch.cli.console import TerminalReporter, print_error, print_json, seconds
from nst_batch.cli.options import (
    BatchSize,
    Content,
    CpusPerWorker,
    Device,
    GpusPerWorker,
    MaxWorkers,
    Out,
    RetryFailed,
    Set,
    Size,
    Steps,
    StudyArgument,
    Style,
    WeightsOption,
    Yes,
)
from nst_batch.errors import Interrupted, NstBatchError
from nst_batch.interrupts import Interrupts
from nst_batch.vocabulary import duration

app = typer.Typer(
    name="nst-batch",
    help="Neural style transfer by the grid: every pair of pictures under every layer configuration, on every GPU.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> NoReturn:
    """The console script: runs a command, and turns errors into one message and an exit code."""
    if "RAY_AUTH_TOKEN" in os.environ:
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # before Ray is imported: it looks only once
    try:
        with Interrupts():
            app()
    except Interrupted as stopped:
        print_error(str(stopped))
        _end(stopped.exit_code)
    except NstBatchError as error:
        print_error(str(error))
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.exit(0)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0)


def _end(exit_code: int) -> NoReturn:
    """Without taking the interpreter down: a Ray that was interrupted as it started has threads that crash then."""
    with suppress(BrokenPipeError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(exit_code)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"nst-batch {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


@app.command(epilog="Example: nst-batch init study.yaml --preset week7_content_layers")
def init(
    file: Annotated[Path, typer.Argument(help="Where to write it; '-' prints it.")] = Path("study.yaml"),
    preset: Annotated[str | None, typer.Option(help="Start from a shipped study.", metavar="NAME")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
) -> None:
    """Write a commented study file."""
    from nst_batch.study.reading import init_text

    text = init_text(preset)
    if str(file) == "-":
        typer.echo(text, nl=False)
        return
    if file.exists() and not force:
        raise typer.BadParameter(f"{file} exists; choose another name, or give --force to replace it")
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise typer.BadParameter(f"{file} cannot be written: {error.strerror}") from error
    print_error(f"wrote {file}; put your pictures into it, then: nst-batch plan {file}")


@app.command(epilog="Example: nst-batch plan week7_content_layers --content photos/ --style paintings/ --json")
def plan(
    study: StudyArgument,
    content: Content = None,
    style: Style = None,
    weights: WeightsOption = None,
    size: Size = None,
    steps: Steps = None,
    overrides: Set = None,
    device: Device = "auto",
    gpu_hour_price: Annotated[float | None, typer.Option(help="Also print the cost.", metavar="PRICE")] = None,
    deadline: Annotated[
        float | None,
        typer.Option(parser=seconds, metavar="TIME", help="Also print how many workers end in time: 6h, 2d."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what a study would compute: trials, batches, memory, time, bad inputs. Computes nothing of it.

    The time comes from a few evaluations on this machine, which are remembered; it is an upper bound where trials
    stop early.
    """
    from nst_batch.cli.plan_text import describe
    from nst_batch.study.estimate import estimate
    from nst_batch.study.reading import load_study

    loaded = load_study(
        study,
        overrides=overrides,
        content=content,
        style=style,
        weights=weights,
        size=size,
        steps=steps,
    )
    found = estimate(
        loaded, device=device, gpu_hour_price=gpu_hour_price, deadline_seconds=deadline, note=print_error
    )
    if as_json:
        print_json(found.to_dict())
    else:
        typer.echo(describe(found))


@app.command(
    epilog="Example: nst-batch run week7_content_layers --content photos/ --style paintings/ --out runs/w7"
)
def run(
    study: StudyArgument,
    out: Out,
    content: Content = None,
    style: Style = None,
    weights: WeightsOption = None,
    size: Size = None,
    steps: Steps = None,
    overrides: Set = None,
    device: Device = "auto",
    address: Annotated[
        str | None, typer.Option(help="A running Ray cluster: auto or HOST:PORT.", metavar="ADDRESS")
    ] = None,
    max_workers: MaxWorkers = None,
    gpus_per_worker: GpusPerWorker = 1.0,
    cpus_per_worker: CpusPerWorker = None,
    batch_size: BatchSize = None,
    retry_failed: RetryFailed = False,
    yes: Yes = False,
    log_json: Annotated[
        bool, typer.Option("--log-json", help="Print one JSON object per line to stdout: notes, trials, progress.")
    ] = False,
) -> None:
    """Run a study in the foreground; run it again to resume.

    Exit codes: 0 every trial ok, 1 the run failed, 2 usage or study wrong, 3 finished but some trials failed,
    130/143 interrupted after a clean flush.
    """
    from nst_batch.study.reading import load_study

    loaded = load_study(
        study,
        overrides=overrides,
        content=content,
        style=style,
        weights=weights,
        size=size,
        steps=steps,
    )
    confirm(loaded, yes)
    with TerminalReporter() as bar:
        from nst_batch.cluster.job_log import JsonLog
        from nst_batch.cluster.options import ClusterOptions
        from nst_batch.run import RunOptions, run_study

        reporter = JsonLog() if log_json else bar
        cluster = ClusterOptions(
            address=address,
            gpus_per_worker=gpus_per_worker,
            cpus_per_worker=cpus_per_worker,
            max_workers=max_workers,
        )
        options = RunOptions(
            out=out, cluster=cluster, device=device, batch_size=batch_size, retry_failed=retry_failed
        )
        progress = run_study(loaded, options, reporter)
    failed = progress.failed + progress.diverged
    summary = f"{progress.ok} of {progress.num_trials} trials ok in {duration(progress.elapsed_seconds)}"
    reporter.note(f"{summary}; {failed} failed" if failed else summary)
    for sheet in sheets(out):
        reporter.note(f"to look at: {sheet}")
    if not log_json:
        typer.echo(out)
    if failed:
        question = "SELECT content_uri, error_message FROM trials WHERE status != 'ok'"
        reporter.note(f'see why: nst-batch query {out} "{question}"')
        raise typer.Exit(3)


def sheets(out: str) -> list[str]:
    """Draws a run's contact sheets, and says where they are."""
    from nst_batch.results.sheets import write_sheets
    from nst_batch.store.run_directory import RunDirectory

    found = RunDirectory(out)
    return [found.directory.url(path) for path in write_sheets(found)]


@app.command(epilog="Example: nst-batch figure runs/content runs/style --out figure.png")
def figure(
    content_run: Annotated[str, typer.Argument(metavar="CONTENT_RUN", help="A run of content_reconstruction.")],
    style_run: Annotated[str, typer.Argument(metavar="STYLE_RUN", help="A run of style_reconstruction.")],
    out: Annotated[Path, typer.Option(help="The picture to write.", metavar="FILE")] = Path("figure.png"),
) -> None:
    """Draw Gatys' figure: what each layer keeps of the content, and each set of layers of the style."""
    from nst_batch.results.sheets import reconstruction_sheet
    from nst_batch.store.run_directory import RunDirectory

    drawn = reconstruction_sheet(RunDirectory(content_run), RunDirectory(style_run))
    try:
        drawn.save(out)
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"{out} cannot be written: {error}") from error
    typer.echo(out)


cli_answers.register(app)
cli_jobs.register(app)
cli_care.register(app)
