"""The commands for studies that run as jobs on a Ray cluster: submit, logs, stop, and `status` of a job."""

from __future__ import annotations

import os
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from nst_batch.cli.confirm import confirm
from nst_batch.cli.console import TerminalReporter, print_error
from nst_batch.cli.options import (
    BatchSize,
    Content,
    CpusPerWorker,
    Device,
    GpusPerWorker,
    JobsAddress,
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
from nst_batch.errors import Interrupted
from nst_batch.interrupts import Interrupts

if TYPE_CHECKING:
    import pyarrow as pa

    from nst_batch.cluster.jobs import Jobs

_JOB_PREFIXES = ("nst-", "raysubmit_")
JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="The id that `submit` printed.")]


def register(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    address = "--address http://HEAD:8265"
    commands = (
        (submit, f"Example: nst-batch submit study.yaml --out s3://bucket/run {address}"),
        (logs, f"Example: nst-batch logs JOB {address} --follow"),
        (stop, f"Example: nst-batch stop JOB {address}"),
    )
    for command, example in commands:
        app.command(epilog=example)(command)


def submit(
    study: StudyArgument,
    out: Out,
    address: JobsAddress = None,
    content: Content = None,
    style: Style = None,
    weights: WeightsOption = None,
    size: Size = None,
    steps: Steps = None,
    overrides: Set = None,
    device: Device = "auto",
    max_workers: MaxWorkers = None,
    gpus_per_worker: GpusPerWorker = 1.0,
    cpus_per_worker: CpusPerWorker = None,
    batch_size: BatchSize = None,
    retry_failed: RetryFailed = False,
    yes: Yes = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Print the job's id and return.")] = False,
) -> None:
    """Run a study as a job on a Ray cluster; submit it again to resume. Exit codes are those of run.

    Pictures, weights and --out must be at places that the cluster sees: shared paths or URLs. Ctrl-C detaches.
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
    options = [f"--device={device}", f"--gpus-per-worker={gpus_per_worker}"]
    chosen = {"max-workers": max_workers, "cpus-per-worker": cpus_per_worker, "batch-size": batch_size}
    options += [f"--{name}={value}" for name, value in chosen.items() if value is not None]
    options += ["--retry-failed"] if retry_failed else []
    jobs = _jobs(address)
    for note in jobs.version_notes():
        print_error(note)
    job_id = jobs.submit(loaded.to_dict(), out if "://" in out else str(Path(out).absolute()), options)
    if no_wait:
        typer.echo(job_id)
        print_error(f"submitted; {_commands(jobs, job_id)}")
        return
    print_error(f"job {job_id} at {jobs.address}")
    _follow(jobs, job_id)


def logs(
    job: JobArgument,
    address: JobsAddress = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Show progress until the job ends.")] = False,
) -> None:
    """Print what a job has logged, or follow it; then the exit code is the job's."""
    jobs = _jobs(address)
    if follow:
        _follow(jobs, job)
    typer.echo(jobs.log(job), nl=False)


def stop(job: JobArgument, address: JobsAddress = None) -> None:
    """Stop a job; what it has finished is recorded first. Submit the same study again to go on."""
    jobs = _jobs(address)
    if not jobs.stop(job):
        print_error(f"job {job} had ended already")
        return
    ended = jobs.follow(job, lambda _: None)
    print_error(f"job {job} has stopped; what had finished is safe in {ended.out}")


def is_job(target: str, address: str | None) -> bool:
    """Whether `status` is asked about a job rather than a run directory."""
    from_environment = "RAY_API_SERVER_ADDRESS" in os.environ or "RAY_ADDRESS" in os.environ
    return target.startswith(_JOB_PREFIXES) and bool(address or from_environment) and not Path(target).exists()


def status_of(job_id: str, address: str | None) -> pa.Table:
    """What `status` prints of a job: one row."""
    import pyarrow as pa

    found = _jobs(address).describe(job_id)
    row: dict[str, Any] = {
        name: getattr(found, name) for name in ("study", "out", "status", "exit_code", "message")
    }
    row |= asdict(found.progress) if found.progress else {}
    return pa.Table.from_pylist([row])


def _jobs(address: str | None) -> Jobs:
    from nst_batch.cluster.jobs import Jobs

    return Jobs(address)


def _follow(jobs: Jobs, job_id: str) -> NoReturn:
    """Shows a job's progress until it ends, and exits as it did; Ctrl-C leaves it running."""
    from nst_batch.cluster.job_log import replay

    try:
        with Interrupts(), TerminalReporter() as reporter:
            ended = jobs.follow(job_id, lambda line: replay(line, reporter))
    except Interrupted as stopped:
        message = f"detached; job {job_id} goes on: {_commands(jobs, job_id)}"
        raise Interrupted(stopped.exit_code - 128, message) from None
    if ended.exit_code == 0:
        typer.echo(ended.out)
    else:
        print_error(f"job {job_id} {ended.status.lower()}; submit the same study again to go on")
    raise typer.Exit(ended.exit_code or 0)


def _commands(jobs: Jobs, job_id: str) -> str:
    rest = f"{job_id} --address {shlex.quote(jobs.address)}"
    return f"`nst-batch logs {rest} --follow` attaches again, `nst-batch stop {rest}` ends it"
