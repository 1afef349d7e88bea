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
from nst_batch.records import ALGORITHM, Trial, storable
from nst_batch.store import rows, tables
from nst_batch.store.run_directory import FORMAT, PRIVATE_NAMES, STUDY, RunDirectory, part_name, rows_per_part
from nst_batch.store.snapshot import Mask

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
    """See `Committer.write_plan`; `unfinished` is true where a trial's names follow `names`."""
    old = run.study if run.exists() else _NO_PLAN
    plan = copy.deepcopy({name: old[name] for name in _NO_PLAN})
    known, replaced = run.private_names(), dict[int, dict[str, Any]]()
    secret = {digest: uri for digest, uri in (known | dict(names)).items() if without_secrets(uri) != uri}
    added = _added(trials, plan, replaced)
    while chunk := list(islice(added, ROWS_PER_FILE)):
        _write_file(write, plan["num_plan_files"], chunk)
        plan["num_plan_files"] += 1
    plan["rows_per_part"] = plan["rows_per_part"] or rows_per_part(plan["num_trials"])
    shown = {digest: without_secrets(uri) for digest, uri in names.items()}
    for number in range(old["num_plan_files"]):
        before = run.read("plan", [f"plan/{part_name(number)}"]).to_pylist()
        after = [replaced.get(row["trial_index"], row) for row in before]
        after = [rows.renamed(row, shown) if unfinished[row["trial_index"]] else row for row in after]
        if after != before:
            _write_file(write, number, after)
    if secret or known:
        table = pa.table([list(secret), list(secret.values())], tables.NAMES)
        write(PRIVATE_NAMES, tables.parquet_bytes(table, "names"))
    for fields in plan["configurations"].values():
        fields["weights"] = shown.get(fields["weights_sha256"], fields["weights"])
    said = storable(study) | FORMAT | {"algorithm": ALGORITHM} | plan
    write(STUDY, json.dumps(said, indent=2, allow_nan=False).encode())


def _added(
    trials: Iterable[Trial], plan: dict[str, Any], replaced: dict[int, dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """The PLAN rows of the trials that go on from `plan`, which counts them; `replaced` takes up the others."""
    num_planned = plan["num_trials"]
    for trial in trials:
        if (key := rows.identity(trial.configuration)) not in plan["configurations"]:
            plan["configurations"][key] = rows.stored(trial.configuration)
        if trial.trial_index < num_planned:
            replaced[trial.trial_index] = rows.plan_row(trial)
            continue
        if trial.trial_index != (expected := plan["num_trials"]):
            raise ValueError(f"expected trial_index {expected}, found {trial.trial_index}: a plan has no gaps")
        plan["num_trials"] += 1
        yield rows.plan_row(trial)


def _write_file(write: Write, number: int, plan: list[dict[str, Any]]) -> None:
    table = pa.Table.from_pylist(plan, tables.PLAN)
    write(f"plan/{part_name(number)}", tables.parquet_bytes(table, "plan"))
