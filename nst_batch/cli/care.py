"""The commands that look after runs and machines: verify, doctor."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from nst_batch.cli.console import print_error, print_json

RunArgument = Annotated[str, typer.Argument(metavar="DIR", help="A run directory: a path or a URL.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    app.command(epilog="Example: nst-batch verify runs/w7")(verify)
    app.command(epilog="Example: nst-batch doctor --out runs/ --json")(doctor)


def verify(
    directory: RunArgument,
    images: Annotated[bool, typer.Option(help="Read and hash every picture.")] = True,
    as_json: AsJson = False,
) -> None:
    """Check every row of a run against its plan, its picture and its own numbers; exit 1 if something is wrong."""
    from nst_batch.results.verify import verify as check
    from nst_batch.store.run_directory import RunDirectory

    run = RunDirectory(directory)
    found = check(run, images=images)
    if as_json:
        print_json(asdict(found) | {"complete": run.is_complete()})
    else:
        for problem in found.problems:
            typer.echo(problem)
    looked = f"{found.num_rows} published rows of {found.num_trials} trials, {found.num_images} pictures"
    verdict = f"{len(found.problems)} problems" if found.problems else "all sound"
    print_error(f"{looked}: {verdict}" + ("" if run.is_complete() else "; the run has not ended"))
    if not found.is_sound:
        raise typer.Exit(1)


def doctor(
    out: Annotated[str, typer.Option(metavar="DIR", help="Where a run would write.")] = ".",
    ray: Annotated[bool, typer.Option(help="Start Ray to see that it can be.")] = True,
    as_json: AsJson = False,
) -> None:
    """Say what this machine has and whether a run can work with it; exit 1 if not."""
    from nst_batch.cli.doctor import examine

    findings = examine(out, start_ray=ray)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        width = max(len(finding.name) for finding in findings)
        for finding in findings:
            advice = f"; {finding.advice}" if finding.advice else ""
            typer.echo(f"{finding.state:4}  {finding.name:{width}}  {finding.found}{advice}")
    if any(finding.state == "bad" for finding in findings):
        raise typer.Exit(1)
