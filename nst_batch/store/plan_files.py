"""Writing the plan: a new one, an extended one, one whose pictures have moved or can be read at last.

Each file is replaced in one step and every row of it makes sense by itself, so a kill between two does no harm:
study.json, which is written last, still has the old fingerprint, and the next run plans again.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import pyarrow as pa

from nst_batch.errors import without_secrets
from nst_batch.records import ALGORITHM, Trial
from nst_batch.store import rows, tables
from nst_batch.store.run_directory import (
    FORMAT,
    FORMAT_VERSION,
    PRIVATE_NAMES,
    STUDY,
    RunDirectory,
    part_name,
    rows_per_part,
)
from nst_batch.store.status import Mask

ROWS_PER_FILE = 50_000
"""Bounds the memory that writing a plan takes."""

Write = Callable[[str, bytes], None]
"""Publishes a file by its relative path."""

_NO_PLAN: dict[str, Any] = {"num_trials": 0, "num_plan_files": 0, "rows_per_part": None, "configurations": {}}


def write_plan(
    run: RunDirectory,
    write: Write,
    study: dict[str, Any],
    trials: Iterable[Trial],
    names: Mapping[str, str],
    unfinished: Mask,
) -> None:
    """Makes `trials` the plan of `run`, or adds them to the plan that there is; see `Committer.write_plan`.

    Args:
        unfinished: True at the `trial_index` of every trial whose names follow `names`.
    """
    old = run.study if run.exists() else _NO_PLAN
    plan = copy.deepcopy({name: old[name] for name in _NO_PLAN})
    replaced: dict[int, dict[str, Any]] = {}
    secret = _secret(run.private_names() | dict(names))
    added = rows.plan_rows(_noted(trials, secret), plan["num_trials"], plan["configurations"], replaced)
    while chunk := list(islice(added, ROWS_PER_FILE)):
        path = f"plan/{part_name(plan['num_plan_files'])}"
        write(path, tables.parquet_bytes(pa.Table.from_pylist(chunk, tables.PLAN), "plan"))
        plan["num_plan_files"] += 1
        plan["num_trials"] += len(chunk)
    plan["rows_per_part"] = plan["rows_per_part"] or rows_per_part(plan["num_trials"])
    if old is not _NO_PLAN:
        _rewrite(run, write, names, replaced, unfinished)
    if secret or run.private_names():
        write(PRIVATE_NAMES, tables.parquet_bytes(rows.names_table(secret), "names"))
    for fields in plan["configurations"].values():
        fields["weights"] = without_secrets(names.get(fields["weights_sha256"], fields["weights"]))
    versions = {"format": FORMAT, "format_version": FORMAT_VERSION, "algorithm": ALGORITHM}
    write(STUDY, json.dumps(rows.storable(study) | versions | plan, indent=2, allow_nan=False).encode())


def _rewrite(
    run: RunDirectory,
    write: Write,
    names: Mapping[str, str],
    replaced: Mapping[int, dict[str, Any]],
    unfinished: Mask,
) -> None:
    """Replaces those files of the old plan in which a name has changed or a trial is replaced."""
    public = rows.names_table({digest: without_secrets(uri) for digest, uri in names.items()})
    for path in run.plan_files():
        before = run.read_part(path)
        index = before["trial_index"].to_numpy()
        after = rows.renamed(before, public, unfinished[index])
        fresh = [replaced[each] for each in index.tolist() if each in replaced]
        if fresh:
            table = pa.Table.from_pylist(fresh, before.schema)
            after = rows.replaced(after, table["trial_index"], table)
        if not after.equals(before):
            write(path, tables.parquet_bytes(after.cast(tables.PLAN), "plan"))


def _secret(names: Mapping[str, str]) -> dict[str, str]:
    """Those of `names` that fetching needs and nobody is shown."""
    return {digest: uri for digest, uri in names.items() if without_secrets(uri) != uri}


def _noted(trials: Iterable[Trial], secret: dict[str, str]) -> Iterator[Trial]:
    """The same trials; adds their secret names to `secret` on the way."""
    for trial in trials:
        pictures = [each for each in (trial.content, *trial.styles) if each]
        secret |= _secret({picture.sha256: picture.uri for picture in pictures if picture.sha256 is not None})
        secret |= _secret({trial.configuration.weights_sha256: trial.configuration.weights})
        yield trial
