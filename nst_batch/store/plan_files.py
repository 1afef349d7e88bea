"""The plan as files: Parquet, a few tens of thousands of trials each, made as the trials come."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import pyarrow as pa

from nst_batch.records import Configuration, Trial
from nst_batch.store import tables

ROWS_PER_FILE = 50_000
"""Bounds the memory that writing a plan takes."""


def path(number: int) -> str:
    """The relative path of the plan's file `number`, from 0."""
    return f"plan/part-{number:05d}.parquet"


def encoded(trials: Iterable[Trial], first: int, configurations: dict[str, Any]) -> Iterator[tuple[int, bytes]]:
    """The files of a plan, each as its number of rows and its content.

    Args:
        trials: In order, `trial_index` from `first` without gaps.
        first: The size of the plan that this one extends.
        configurations: Takes up every configuration met, as JSON fields by identity.

    Raises:
        ValueError: If `trial_index` has a gap.
    """
    rows = _rows(trials, first, configurations)
    while chunk := list(islice(rows, ROWS_PER_FILE)):
        yield len(chunk), tables.parquet_bytes(pa.Table.from_pylist(chunk, tables.PLAN), "plan")


def _rows(trials: Iterable[Trial], first: int, configurations: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for expected, trial in enumerate(trials, first):
        if trial.trial_index != expected:
            raise ValueError(f"expected trial_index {expected}, found {trial.trial_index}: a plan has no gaps")
        identity = tables.identity(trial.configuration)
        if identity not in configurations:
            configurations[identity] = _json_fields(trial.configuration)
        yield tables.plan_row(trial)


def _json_fields(configuration: Configuration) -> dict[str, Any]:
    return {name: tables.storable(value) for name, value in dataclasses.asdict(configuration).items()}
