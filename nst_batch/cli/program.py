"""The command line: opens the library, calls one thing, prints. Data goes to stdout, everything else to stderr.

Heavy modules (torch, ray, pyarrow, pydantic) are imported by the command that needs them, so `--help` is instant.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Annotated, NoReturn

import typer

from nst_batch import __version__
from nst_batch.cli import answers, care, jobs, studies
from nst_batch.cli.printing import print_line, print_note
from nst_batch.cluster.interrupts import Interrupts
from nst_batch.errors import Interrupted, NstBatchError

app = typer.Typer(
    name="nst-batch",
    help="Neural style transfer by the grid: every pair of pictures under every layer configuration, on every GPU.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for group in (studies, answers, jobs, care):
    app.add_typer(group.app)


def main() -> NoReturn:
    """The console script: runs a command, and turns errors into one message and an exit code."""
    if "RAY_AUTH_TOKEN" in os.environ:
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # before Ray is imported: it looks only once
    try:
        with Interrupts():
            app()
    except Interrupted as stopped:
        print_note(str(stopped))
        _end(stopped.exit_code)
    except NstBatchError as error:
        print_note(str(error))
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
        print_line(f"nst-batch {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass
