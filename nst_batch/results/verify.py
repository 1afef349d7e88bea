"""Is a run directory what it says it is? Every row against its plan, its picture and its own numbers.

Nothing is written, and nothing that a kill may leave behind is held against a run: what is staged, pictures without
a row, a part of `curves` or `layers` whose part of `trials` was about to follow.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nst_batch.errors import RunDirectoryError
from nst_batch.inputs.images import sha256
from nst_batch.records import Trial, trial_id
from nst_batch.store import tables
from nst_batch.store.run_directory import SUCCESS, RunDirectory, part_name
from nst_batch.vocabulary import conv_layers

LOSS_TOLERANCE = 1e-4
"""Relative: losses are sums of millions of float32 numbers, and curves are stored as float32."""
DISTANCE_TOLERANCE = 1e-6

_PART = re.compile(r"part-(\d{5,})\.parquet")
_IMAGES_AT_ONCE = 8
_TERMS = ("content", "style", "tv", "total")


@dataclass(slots=True)
class Verification:
    """What was looked at, and what is wrong with it."""

    num_trials: int = 0
    """In the plan."""
    num_rows: int = 0
    """In published parts."""
    num_images: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def verify(
    run: RunDirectory, *, images: bool = True, progress: Callable[[int, int], None] = lambda *_: None
) -> Verification:
    """Checks a run directory, finished or not; one that a run is writing to may be told of too early.

    Args:
        images: Whether pictures are read and hashed.
        progress: Called with the number of parts checked and of all.

    Raises:
        RunDirectoryError: It is no run directory, or its plan cannot be read.
    """
    found = Verification(num_trials=run.num_trials)
    found.problems += _configuration_problems(run)
    found.problems += _foreign_files(run)
    published, num_parts = set(run.parts()), math.ceil(run.num_trials / run.rows_per_part)
    trials, seen = run.iter_plan(), set[bytes]()
    for number in range(num_parts):
        planned, part = list(islice(trials, run.rows_per_part)), part_name(number)
        found.problems += _plan_problems(planned, number * run.rows_per_part, seen)
        if part in published:
            try:
                _check_part(run, part, planned, found, images)
            except (RunDirectoryError, pa.ArrowException, OSError) as error:
                found.problems.append(f"{part}: cannot be read: {error}")
        elif run.is_complete():
            found.problems.append(f"trials/{part}: missing, although {SUCCESS} exists")
        progress(number + 1, num_parts)
    if len(seen) != run.num_trials:
        found.problems.append(f"plan: {len(seen)} different trials, study.json says {run.num_trials}")
    if run.is_complete() and run.segment_paths():
        found.problems.append(f"staging: holds results that are not published, although {SUCCESS} exists")
    return found


def _configuration_problems(run: RunDirectory) -> Iterator[str]:
    for identity, configuration in run.configurations.items():
        if configuration.identity() != identity:
            yield f"study.json: configuration {identity} was changed: it is {configuration.identity()} now"


def _plan_problems(planned: Sequence[Trial], first: int, seen: set[bytes]) -> Iterator[str]:
    """Adds the ids of a stretch of the plan, which begins at `first`, to those `seen`."""
    for index, trial in enumerate(planned, first):
        seen.add(bytes.fromhex(trial.trial_id))
        if trial.trial_index != index:
            yield f"plan: trial_index {trial.trial_index} where {index} was expected"
        if trial.trial_id != trial_id(trial.content, trial.styles, tables.identity(trial.configuration)):
            yield f"plan: trial {index}: its trial_id is not that of its pictures and configuration"


def _foreign_files(run: RunDirectory) -> Iterator[str]:
    """What a plain glob over a table would choke on or count."""
    last = math.ceil(run.num_trials / run.rows_per_part)
    for table in tables.SCHEMAS:
        for path in run.directory.list(table):
            name = _PART.fullmatch(path.removeprefix(f"{table}/"))
            if name is None:
                yield f"{path}: does not belong there"
            elif int(name.group(1)) >= last:
                yield f"{path}: beyond the end of the plan"


# One part


def _check_part(run: RunDirectory, part: str, planned: Sequence[Trial], found: Verification, images: bool) -> None:
    found.problems += [problem for table in tables.SCHEMAS for problem in _schema_problems(run, table, part)]
    rows = run.read_part(f"trials/{part}").to_pylist()
    curves = run.read_part(f"curves/{part}").to_pylist()
    layers = run.read_part(f"layers/{part}").to_pylist()
    found.num_rows += len(rows)
    found.problems += _row_problems(part, rows, planned)
    ran = {row["trial_id"]: row for row in rows if row["status"] != "failed"}
    found.problems += _curve_problems(part, ran, curves)
    found.problems += _layer_problems(part, ran, layers)
    if images:
        pictured = [row for row in rows if row["image_path"] is not None]
        found.num_images += len(pictured)
        found.problems += _image_problems(run, pictured)


def _schema_problems(run: RunDirectory, table: str, part: str) -> Iterator[str]:
    path, expected = f"{table}/{part}", tables.SCHEMAS[table]
    with run.directory.open_input(path) as source:
        schema = pq.read_schema(source)
    metadata = schema.metadata or {}
    if not schema.equals(expected):
        yield f"{path}: its columns are not those of {table}"
    elif metadata.get(b"schema_version") != (expected.metadata or {})[b"schema_version"]:
        yield f"{path}: schema version {metadata.get(b'schema_version')!r}"


def _row_problems(part: str, rows: Sequence[dict[str, Any]], planned: Sequence[Trial]) -> Iterator[str]:
    """A part holds each of its trials once, as planned and in order."""
    indexes = [row["trial_index"] for row in rows]
    if indexes != [trial.trial_index for trial in planned]:
        yield f"trials/{part}: its trials are not those of the plan, each once and in order"
    by_index = {trial.trial_index: trial for trial in planned}
    for row in rows:
        trial, name = by_index.get(row["trial_index"]), f"trial {row['trial_index']} ({row['trial_id']})"
        if trial is None:
            continue
        planned_row = tables.plan_row(trial)
        for column in ("trial_id", "configuration", "content_uri", "content_sha256"):
            if row[column] != planned_row[column]:
                yield f"{name}: {column} is {row[column]}, planned was {planned_row[column]}"
        yield from (f"{name}: {problem}" for problem in _value_problems(row))


def _value_problems(row: dict[str, Any]) -> Iterator[str]:
    """What contradicts itself within a row of `trials`."""
    status = row["status"]
    if status not in ("ok", "failed", "diverged"):
        yield f"unknown status {status!r}"
    if (row["error_type"] is None) != (status == "ok"):
        yield f"status {status} with error_type {row['error_type']}"
    if status == "ok" and (row["image_path"] is None or row["final_total_loss"] is None):
        yield "ok, but without a picture or a final loss"
    floats = (value for value in row.values() if isinstance(value, float))
    if not all(map(math.isfinite, floats)):
        yield "a number that is not finite, which makes filters wrong"
    for when in ("initial", "final"):
        losses = [row[f"{when}_{term}_loss"] for term in _TERMS]
        if None not in losses and not _adds_up(row, *losses):
            yield f"{when} total loss is {losses[3]:.7g}, its terms make {_sum(row, *losses[:3]):.7g}"


def _sum(row: dict[str, Any], content: float, style: float, tv: float) -> float:
    return float(row["alpha"] * content + row["beta"] * style + row["tv_weight"] * tv)


def _adds_up(row: dict[str, Any], content: float, style: float, tv: float, total: float) -> bool:
    """total = alpha·content + beta·style + tv_weight·tv."""
    return math.isclose(_sum(row, content, style, tv), total, rel_tol=LOSS_TOLERANCE, abs_tol=1e-30)


def _curve_problems(part: str, ran: dict[str, dict[str, Any]], curves: Sequence[dict[str, Any]]) -> Iterator[str]:
    ids = [curve["trial_id"] for curve in curves]
    if len(set(ids)) != len(ids) or set(ids) != set(ran):
        yield f"curves/{part}: expected one curve for each trial that ran"
    for curve in curves:
        row, name = ran.get(curve["trial_id"]), f"curve of trial {curve['trial_index']}"
        if row is None:
            continue
        steps = curve["step"]
        if any(len(curve[term]) != len(steps) for term in _TERMS) or steps != sorted(set(steps)) or 0 not in steps:
            yield f"{name}: its lists do not belong together"
            continue
        points = zip(*(curve[term] for term in _TERMS), strict=True)
        finite = [point for point in points if all(map(math.isfinite, point))]
        if not all(_adds_up(row, *point) for point in finite):
            yield f"{name}: totals that are not the sum of their terms"
        first = row["initial_total_loss"]
        if first is not None and not math.isclose(curve["total"][0], first, rel_tol=LOSS_TOLERANCE):
            yield f"{name}: begins at {curve['total'][0]:.7g}, its row says {first:.7g}"


def _layer_problems(part: str, ran: dict[str, dict[str, Any]], layers: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Each trial that ran has every convolution once, and their mean is in its row."""
    of_trial: dict[str, list[dict[str, Any]]] = {}
    for layer in layers:
        of_trial.setdefault(layer["trial_id"], []).append(layer)
    if set(of_trial) != set(ran):
        yield f"layers/{part}: expected layers of each trial that ran"
    for key, own in of_trial.items():
        row = ran.get(key)
        if row is None:
            continue
        if [layer["layer"] for layer in own] != list(conv_layers(row["arch"])):
            yield f"layers of trial {row['trial_index']}: not every convolution once and in order"
        for column in ("content_distance", "style_distance"):
            values = [layer[column] for layer in own if layer[column] is not None]
            mean = sum(values) / len(values) if values else None
            if (mean is None) != (row[column] is None) or (
                mean is not None and not math.isclose(mean, row[column], rel_tol=DISTANCE_TOLERANCE, abs_tol=1e-30)
            ):
                yield f"trial {row['trial_index']}: {column} is {row[column]}, its layers' mean is {mean}"


def _image_problems(run: RunDirectory, rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    with ThreadPoolExecutor(_IMAGES_AT_ONCE, "verify") as pool:
        pending = iter(rows)
        while chunk := list(islice(pending, 16 * _IMAGES_AT_ONCE)):
            yield from filter(None, pool.map(lambda row: _image_problem(run, row), chunk))


def _image_problem(run: RunDirectory, row: dict[str, Any]) -> str | None:
    path, key = row["image_path"], row["trial_id"]
    if not re.fullmatch(rf"images/{key[:2]}/{key}\.(png|jpg|webp)", path):
        return f"trial {row['trial_index']}: image_path {path!r} is not the place of its picture"
    data = run.directory.find(path)
    if data is None:
        return f"{path}: missing"
    if sha256(data) != row["image_sha256"]:
        return f"{path}: its content is not what was written"
    return None
