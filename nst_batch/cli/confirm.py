"""Asking before a large study is run, where there is somebody to ask."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from nst_batch.study.model import Study

LARGE_TRIALS = 1_000
"""Larger studies are asked about."""


def confirm(study: Study, yes: bool) -> None:
    """Asks whether to run a large study; a program, or a person who said so before, is not asked.

    Counts names alone: nothing is opened. Pictures that only the cluster sees cannot be counted, nor asked about.

    Raises:
        typer.Abort: The answer was no.
    """
    if yes or not sys.stdin.isatty():
        return
    count = num_trials(study)
    if count > LARGE_TRIALS:
        steps = f"{count:,} trials of {study.optimizer.steps:,} steps at {study.image.size} pixels"
        typer.echo(f"{study.name}: up to {steps}; `nst-batch plan` says how long that takes.", err=True)
        typer.confirm("Run it?", abort=True, err=True)


def num_trials(study: Study) -> int:
    """How many trials a study has at most; duplicates are not known before pictures are opened. 0: unknown."""
    from nst_batch.errors import StudyError
    from nst_batch.inputs.finding import list_inputs

    try:
        listing = list_inputs(study.content, study.style, study.pairs)
    except StudyError:
        return 0  # whoever runs the study says so, and where
    contents, styles = len(listing.content) or 1, len(listing.style) or 1
    if listing.pairs is not None:
        pairs = len(listing.pairs)
    else:
        pairs = contents * styles if study.pairs == "cross" else contents
    return pairs * study.num_configurations
