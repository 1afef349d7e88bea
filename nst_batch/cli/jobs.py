"""The commands for studies that run as jobs on a Ray cluster: submit, logs, stop, and `status` of a job."""

from __future__ import annotations

import os
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, Unpack

import typer

from nst_batch.cli.options import (
    ExecutionOptions,
    JobsAddress,
    Out,
    StudyArgument,
    StudyOptions,
    chosen,
    with_options,
)
from nst_batch.cli.printing import print_line, print_note, printable
from nst_batch.cli.progress import TerminalReporter
from nst_batch.cli.studies import confirmed
from nst_batch.cluster.interrupts import Interrupts
from nst_batch.cluster.progress import last_progress, replay
from nst_batch.errors import Interrupted, without_secrets

if TYPE_CHECKING:
    from nst_batch.cluster.jobs import Jobs

app = typer.Typer()

_JOB_PREFIXES = ("nst-", "raysubmit_")
JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="The id that `submit` printed.")]


@app.command(epilog="Example: nst-batch submit study.yaml --out s3://bucket/run --address http://HEAD:8265")
@with_options
def submit(
    study: StudyArgument,
    *,
    out: Out,
    address: JobsAddress = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Print the job's id and return.")] = False,
    **options: Unpack[ExecutionOptions],
) -> None:
    """Run a study as a job on a Ray cluster; submit it again to resume. Exit codes are those of run.

    Pictures, weights and --out must be at places that the cluster sees: shared paths or URLs. Ctrl-C detaches.
    """
    if (shown := without_secrets(out)) != out:
        raise typer.BadParameter(
            f"--out {shown}: expected a place without user, password or signature, as whoever sees the cluster "
            "sees a job's command; give its nodes the credentials (AWS_ACCESS_KEY_ID and the like, or a role)"
        )
    loaded = confirmed(study, options)
    names = ExecutionOptions.__annotations__.keys() - StudyOptions.__annotations__.keys() - {"yes"}
    flags = {name.replace("_", "-"): value for name, value in chosen(options, *sorted(names)).items()}
    passed_on = [f"--{name}" if value is True else f"--{name}={value}" for name, value in flags.items()]
    jobs = _jobs(address)
    for note in jobs.version_notes():
        print_note(note)
    job_id = jobs.submit(loaded.to_dict(), out if "://" in out else str(Path(out).absolute()), passed_on)
    if no_wait:
        print_line(job_id)
        print_note(f"submitted; {_commands(jobs, job_id)}")
        return
    print_note(f"job {job_id} at {jobs.address}")
    _follow(jobs, job_id)


@app.command(epilog="Example: nst-batch logs JOB --address http://HEAD:8265 --follow")
def logs(
    job: JobArgument,
    address: JobsAddress = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Show progress until the job ends.")] = False,
) -> None:
    """Print what a job has logged, or follow it and exit as it does."""
    jobs = _jobs(address)
    if follow:
        _follow(jobs, job)
    typer.echo(printable(jobs.log(job)), nl=False)


@app.command(epilog="Example: nst-batch stop JOB --address http://HEAD:8265")
def stop(job: JobArgument, address: JobsAddress = None) -> None:
    """Stop a job; what it has finished is recorded first. Submit the same study again to go on."""
    jobs = _jobs(address)
    if not jobs.stop(job):
        print_note(f"job {job} had ended already")
        return
    ended = jobs.follow(job, lambda _: None)
    print_note(f"job {job} has stopped; what had finished is safe in {ended.out}")


def is_job(target: str, address: str | None) -> bool:
    """Whether `status` is asked about a job rather than a run directory."""
    from_environment = "RAY_API_SERVER_ADDRESS" in os.environ or "RAY_ADDRESS" in os.environ
    return target.startswith(_JOB_PREFIXES) and bool(address or from_environment) and not Path(target).exists()


def job_row(job_id: str, address: str | None) -> dict[str, Any]:
    """What `status` prints of a job: what Ray knows of it, and what it last said of itself."""
    jobs = _jobs(address)
    progress = last_progress(jobs.log(job_id))
    return asdict(jobs.describe(job_id)) | (asdict(progress) if progress else {})


def _jobs(address: str | None) -> Jobs:
    from nst_batch.cluster.jobs import Jobs

    return Jobs(address)


def _follow(jobs: Jobs, job_id: str) -> NoReturn:
    """Shows a job's progress until it ends, and exits as it did; Ctrl-C leaves it running."""
    try:
        with Interrupts(), TerminalReporter() as reporter:
            ended = jobs.follow(job_id, lambda line: replay(line, reporter))
    except Interrupted as stopped:
        message = f"detached; job {job_id} goes on: {_commands(jobs, job_id)}"
        raise Interrupted(stopped.exit_code - 128, message) from None
    if ended.exit_code == 0:
        print_line(ended.out)
    else:
        print_note(f"job {job_id} {ended.status.lower()}; submit the same study again to go on")
    raise typer.Exit(ended.exit_code or 0)


def _commands(jobs: Jobs, job_id: str) -> str:
    rest = f"{job_id} --address {shlex.quote(jobs.address)}"
    return f"`nst-batch logs {rest} --follow` attaches again, `nst-batch stop {rest}` ends it"
