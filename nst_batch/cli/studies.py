"""The commands that are about a study: init, schema, plan, run, figure."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Unpack

import typer

from nst_batch.cli.options import (
    AsJson,
    Device,
    ExecutionOptions,
    Out,
    StudyArgument,
    StudyOptions,
    chosen,
    seconds,
    with_options,
)
from nst_batch.cli.printing import print_json, print_line, print_note
from nst_batch.cli.progress import TerminalReporter
from nst_batch.vocabulary import duration

if TYPE_CHECKING:
    from nst_batch.study.estimate import Estimate
    from nst_batch.study.model import Study

app = typer.Typer()

LARGE_TRIALS = 1_000
"""Larger studies are asked about."""
_SHOWN = 10


@app.command(epilog="Example: nst-batch init study.yaml --preset week7_content_layers")
def init(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it; '-' prints it.")] = Path(
        "study.yaml"
    ),
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
    print_note(f"wrote {file}; put your pictures into it, then: nst-batch plan {file}")


@app.command(epilog="Example: nst-batch schema > study.schema.json")
def schema() -> None:
    """Print the study file's JSON Schema, for editors."""
    from nst_batch.study.model import json_schema

    print_json(json_schema())


@app.command(epilog="Example: nst-batch plan week7_content_layers --content photos/ --style paintings/ --json")
@with_options
def plan(
    study: StudyArgument,
    *,
    device: Device = None,
    gpu_hour_price: Annotated[float | None, typer.Option(help="Also print the cost.", metavar="PRICE")] = None,
    deadline: Annotated[
        float | None,
        typer.Option(parser=seconds, metavar="TIME", help="Also print how many workers end in time: 6h, 2d."),
    ] = None,
    as_json: AsJson = False,
    **overrides: Unpack[StudyOptions],
) -> None:
    """Show what a study would take, and which inputs are bad.

    Computes nothing of it. The time comes from a few evaluations on this machine; it is an upper bound where trials
    stop early.
    """
    from nst_batch.study.estimate import estimate
    from nst_batch.study.reading import load_study

    found = estimate(
        load_study(study, **overrides),
        device=device or "auto",
        gpu_hour_price=gpu_hour_price,
        deadline_seconds=deadline,
        note=print_note,
    )
    if as_json:
        print_json(found.to_dict())
    else:
        print_line(described(found))


@app.command(
    epilog="Example: nst-batch run week7_content_layers --content photos/ --style paintings/ --out runs/w7"
)
@with_options
def run(
    study: StudyArgument,
    *,
    out: Out,
    address: Annotated[
        str | None, typer.Option(help="A running Ray cluster: auto or HOST:PORT.", metavar="ADDRESS")
    ] = None,
    log_json: Annotated[
        bool, typer.Option("--log-json", help="Print one JSON object per line to stdout: notes, trials, progress.")
    ] = False,
    **options: Unpack[ExecutionOptions],
) -> None:
    """Run a study in the foreground; run it again to resume.

    Exit codes: 0 every trial ok, 1 the run failed, 2 usage or study wrong, 3 finished but some trials failed,
    130/143 interrupted after a clean flush.
    """
    loaded = confirmed(study, options)
    with TerminalReporter() as bar:
        from nst_batch.api import open_run
        from nst_batch.cluster.options import ClusterOptions
        from nst_batch.cluster.progress import JsonLog
        from nst_batch.run import RunOptions, run_study

        reporter = JsonLog() if log_json else bar
        workers = chosen(options, "max_workers", "gpus_per_worker", "cpus_per_worker")
        how = chosen(options, "device", "batch_size", "retry_failed")
        cluster = ClusterOptions(address=address, **workers)
        progress = run_study(loaded, RunOptions(out=out, cluster=cluster, **how), reporter)
    failed = progress.failed + progress.diverged
    summary = f"{progress.ok} of {progress.num_trials} trials ok in {duration(progress.elapsed_seconds)}"
    reporter.note(f"{summary}; {failed} failed" if failed else summary)
    for sheet in open_run(out).sheets(fetch=True):
        reporter.note(f"to look at: {sheet}")
    if not log_json:
        print_line(out)
    if failed:
        question = "SELECT content_uri, error_message FROM trials WHERE status != 'ok'"
        reporter.note(f'see why: nst-batch query {out} "{question}"')
        raise typer.Exit(3)


@app.command(epilog="Example: nst-batch figure runs/content runs/style --out figure.png")
def figure(
    content_run: Annotated[str, typer.Argument(metavar="CONTENT_RUN", help="A run of content_reconstruction.")],
    style_run: Annotated[str, typer.Argument(metavar="STYLE_RUN", help="A run of style_reconstruction.")],
    out: Annotated[Path, typer.Option(help="The picture to write.", metavar="FILE")] = Path("figure.png"),
) -> None:
    """Draw Gatys' figure: what layers keep of content and of style."""
    from nst_batch.results.sheets import reconstruction_sheet
    from nst_batch.store.run_directory import RunDirectory

    drawn = reconstruction_sheet(RunDirectory.existing(content_run), RunDirectory.existing(style_run))
    try:
        drawn.save(out)
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"{out} cannot be written: {error}") from error
    print_line(str(out))


# Asking before a large study is run


def confirmed(name: str, options: Mapping[str, Any]) -> Study:
    """The study as overridden. A person is asked before a large one, if they did not say --yes."""
    from nst_batch.study.reading import load_study

    study = load_study(name, **chosen(options, *StudyOptions.__annotations__))
    asking = sys.stdin.isatty() and not options.get("yes")
    if asking and (count := num_trials(study)) > LARGE_TRIALS:
        steps = f"{count:,} trials of {study.optimizer.steps:,} steps at {study.image.size} pixels"
        print_note(f"{study.name}: up to {steps}; `nst-batch plan` says how long that takes.")
        typer.confirm("Run it?", abort=True, err=True)
    return study


def num_trials(study: Study) -> int:
    """How many trials a study has at most, by names alone; 0: unknown, as of pictures that only a cluster sees."""
    from nst_batch.errors import StudyError
    from nst_batch.inputs.finding import list_inputs
    from nst_batch.study.plan import named_pairs

    try:
        pairs = named_pairs(study.pairs, list_inputs(*study.inputs))
    except StudyError:
        return 0  # whoever runs the study says so, and where
    return study.num_configurations * len(pairs)


# What `plan` prints for a person


def described(found: Estimate) -> str:
    """An estimate as text."""
    lines = [f"{found.study}: {found.num_trials:,} trials", ""]
    lines += (f"  {label:<10}{text}" for label, text in _estimate_rows(found))
    lines += _listed(
        "bad inputs, whose trials will be recorded as failed",
        [str(each["error_message"]) for each in found.bad_inputs],
    )
    same = ["{picture} has the same content as {same_as}".format(**each) for each in found.duplicates]
    lines += _listed("duplicates, left out", same)
    return "\n".join((*lines, *(f"\nnote: {note}" for note in found.notes)))


def _estimate_rows(found: Estimate) -> Iterator[tuple[str, str]]:
    from rich.filesize import decimal

    failing = found.num_trials - found.num_runnable
    grid = f"{_count(found.num_pairs, 'pair')} × {_count(found.num_configurations, 'configuration')}"
    yield "trials", grid + (f"; {failing:,} cannot run" if failing else "")
    bad, same = len(found.bad_inputs), len(found.duplicates)
    yield "pictures", f"{found.num_pictures - bad:,} good, {bad:,} bad, {same:,} duplicates"
    shown = ["{width}×{height} ({num_trials:,})".format(**each) for each in found.sizes[:4]]
    more = [f"and {len(found.sizes) - 4} more"] if len(found.sizes) > 4 else []
    yield "sizes", ", ".join([*shown, *more]) or "none"
    yield "batches", f"{found.num_batches:,}"
    yield "device", f"{found.device}; {_count(found.num_workers, 'worker')}"
    yield "memory", f"{decimal(found.memory_bytes)} per worker"
    each = found.worker_seconds / max(1, found.num_runnable)
    each_shown = f"{each:.2g} s" if each < 10 else duration(each)
    yield "time", f"{duration(found.seconds)} here ({each_shown} per trial on one worker)"
    if found.cost is not None:
        hours = f"{found.worker_seconds / 3600:,.2f} worker hours at {found.gpu_hour_price:g}"
        yield "cost", f"{found.cost:,.2f} ({hours})"
    if found.deadline_seconds is not None:
        needed = found.num_workers_for_deadline
        answer = "no number of workers is enough" if needed is None else f"{needed:,} workers like these"
        yield "deadline", f"{answer} for {duration(found.deadline_seconds)}"
    yield "disk", f"{decimal(found.disk_bytes)} of pictures and tables"


def _listed(title: str, items: Sequence[str]) -> list[str]:
    more = [f"… and {len(items) - _SHOWN:,} more"] if len(items) > _SHOWN else []
    return ["", f"{title}:", *(f"  {item}" for item in [*items[:_SHOWN], *more])] if items else []


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"
