"""Is a run directory what it says it is? Every row against its plan, its picture and its own numbers.

Nothing is written, and nothing that a kill may leave behind is held against a run: what is staged, pictures without
a row, a part of `curves` or `layers` whose part of `trials` was about to follow, a last part that an extension of
the study is about to fill.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nst_batch.errors import ImageError, RunDirectoryError
from nst_batch.inputs.images import sha256
from nst_batch.records import TERMS, LayerDistance, Outcome, Result, Trial, transfer_scores, trial_id
from nst_batch.results.pictures import picture_bytes
from nst_batch.store import tables
from nst_batch.store.rows import identity, result_row
from nst_batch.store.run_directory import SUCCESS, RunDirectory, part_name
from nst_batch.vocabulary import conv_layers, is_weights_file

LOSS_TOLERANCE = 1e-4
"""Relative: losses are sums of millions of float32 numbers, and curves are stored as float32."""
DISTANCE_TOLERANCE = 1e-6

_PART = re.compile(r"part-(\d{5,})\.parquet")
_IMAGES_AT_ONCE = 8
_LOSSES = {f"{when}_{term}_loss" for when in ("initial", "final") for term in TERMS}
_ENDED = _LOSSES | {field.name for field in dataclasses.fields(Outcome)}
_PLANNED = [name for name in tables.TRIALS.names if name not in _ENDED]
"""The columns of `trials` that the plan determines."""
_NAMES = {"content_uri", "style_uri"}
"""Of a failed trial the plan may know newer ones: they follow the pictures until it is tried again."""

Row = dict[str, Any]


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
    found, complete = Verification(num_trials=run.num_trials), run.is_complete()
    for key, configuration in run.configurations.items():
        if configuration.identity() != key:
            changed = f"configuration {key} was changed: it is {configuration.identity()} now"
            found.problems.append(f"study.json: {changed}")
    num_parts = math.ceil(run.num_trials / run.rows_per_part)
    found.problems += _foreign_files(run, num_parts)
    published, trials, seen = set(run.parts()), run.iter_plan(), set[bytes]()
    for number in range(num_parts):
        planned, part = list(islice(trials, run.rows_per_part)), part_name(number)
        found.problems += _plan_problems(planned, number * run.rows_per_part, seen)
        if part in published:
            try:
                _check_part(run, part, planned, found, complete=complete, images=images)
            except (RunDirectoryError, pa.ArrowException, OSError) as error:
                found.problems.append(f"{part}: cannot be read: {error}")
        elif complete:
            found.problems.append(f"trials/{part}: missing, although {SUCCESS} exists")
        progress(number + 1, num_parts)
    if len(seen) != run.num_trials:
        found.problems.append(f"plan: {len(seen)} different trials, study.json says {run.num_trials}")
    if complete and run.segment_paths():
        found.problems.append(f"staging: holds results that are not published, although {SUCCESS} exists")
    return found


def _plan_problems(planned: Sequence[Trial], first: int, seen: set[bytes]) -> Iterator[str]:
    """Adds the ids of a stretch of the plan, which begins at `first`, to those `seen`."""
    for index, trial in enumerate(planned, first):
        seen.add(bytes.fromhex(trial.trial_id))
        if trial.trial_index != index:
            yield f"plan: trial_index {trial.trial_index} where {index} was expected"
        if trial.trial_id != trial_id(trial.content, trial.styles, identity(trial.configuration)):
            yield f"plan: trial {index}: its trial_id is not that of its pictures and configuration"


def _foreign_files(run: RunDirectory, num_parts: int) -> Iterator[str]:
    """What a plain glob over a table would choke on or count."""
    for table in tables.SCHEMAS:
        for path in run.directory.list(table):
            name = _PART.fullmatch(path.removeprefix(f"{table}/"))
            if name is None:
                yield f"{path}: does not belong there"
            elif int(name.group(1)) >= num_parts:
                yield f"{path}: beyond the end of the plan"


# One part


def _check_part(
    run: RunDirectory, part: str, planned: Sequence[Trial], found: Verification, *, complete: bool, images: bool
) -> None:
    found.problems += [problem for table in tables.SCHEMAS for problem in _schema_problems(run, table, part)]
    rows, curves, layers = (run.read_part(f"{table}/{part}").to_pylist() for table in tables.SCHEMAS)
    found.num_rows += len(rows)
    indexes, expected = [row["trial_index"] for row in rows], [trial.trial_index for trial in planned]
    if indexes != (expected if complete else expected[: len(indexes)]):
        found.problems.append(f"trials/{part}: its trials are not those of the plan, each once and in order")
    by_index = {trial.trial_index: trial for trial in planned}
    for row in rows:
        name = f"trial {row['trial_index']} ({row['trial_id']})"
        if trial := by_index.get(row["trial_index"]):
            found.problems += (f"{name}: {problem}" for problem in _planned_problems(run, row, trial))
            found.problems += (f"{name}: {problem}" for problem in _value_problems(row))
    ran = {row["trial_id"]: row for row in rows if row["status"] != "failed"}
    coming = set() if complete else {trial.trial_id for trial in planned} - ran.keys()
    found.problems += _curve_problems(part, ran, [row for row in curves if row["trial_id"] not in coming])
    found.problems += _layer_problems(part, ran, [row for row in layers if row["trial_id"] not in coming])
    if images:
        pictured = [row for row in rows if row["image_path"] is not None]
        found.num_images += len(pictured)
        with ThreadPoolExecutor(_IMAGES_AT_ONCE, "verify") as pool:
            found.problems += filter(None, pool.map(lambda row: _image_problem(run, row), pictured))


def _schema_problems(run: RunDirectory, table: str, part: str) -> Iterator[str]:
    path, expected = f"{table}/{part}", tables.SCHEMAS[table]
    with run.directory.open_input(path) as source:
        schema = pq.read_schema(source)
    metadata = schema.metadata or {}
    if not schema.equals(expected):
        yield f"{path}: its columns are not those of {table}"
    elif metadata.get(b"schema_version") != (expected.metadata or {})[b"schema_version"]:
        yield f"{path}: schema version {metadata.get(b'schema_version')!r}"


def _planned_problems(run: RunDirectory, row: Row, trial: Trial) -> Iterator[str]:
    """Where a row is not of the trial that was planned."""
    unread = row["status"] == "failed" and None in (row["content_sha256"], row["style_sha256"])
    if unread and row["trial_id"] != trial.trial_id:
        return  # its picture has been read since: as good as pending
    expected = result_row(str(run.study["name"]), Result(trial=trial, outcome=Outcome(status="ok")))
    for column in _PLANNED:
        if row[column] != expected[column] and not _may_differ(column, row, expected):
            yield f"{column} is {row[column]}, planned was {expected[column]}"


def _may_differ(column: str, row: Row, expected: Row) -> bool:
    """Whether the plan may know a newer name of the same thing; the hashes are compared in any case."""
    if column == "weights":
        return is_weights_file(row[column]) and is_weights_file(expected[column])
    return column in _NAMES and row["status"] == "failed"


def _value_problems(row: Row) -> Iterator[str]:
    """What contradicts itself within a row of `trials`."""
    status = row["status"]
    if status not in ("ok", "failed", "diverged"):
        yield f"unknown status {status!r}"
    if (row["error_type"] is None) != (status == "ok"):
        yield f"status {status} with error_type {row['error_type']}"
    if status == "ok" and (row["image_path"] is None or row["final_total_loss"] is None):
        yield "ok, but without a picture or a final loss"
    if not all(math.isfinite(value) for value in row.values() if isinstance(value, float)):
        yield "a number that is not finite, which makes filters wrong"
    for when in ("initial", "final"):
        losses = {term: row[f"{when}_{term}_loss"] for term in TERMS}
        if None not in losses.values() and not _adds_up(row, losses):
            yield f"{when} total loss is {losses['total']:.7g}, its terms make {_sum(row, losses):.7g}"


def _sum(row: Row, losses: Row) -> float:
    weighted = row["alpha"] * losses["content"] + row["beta"] * losses["style"] + row["tv_weight"] * losses["tv"]
    return float(weighted)


def _adds_up(row: Row, losses: Row) -> bool:
    """total = alpha·content + beta·style + tv_weight·tv."""
    return math.isclose(_sum(row, losses), losses["total"], rel_tol=LOSS_TOLERANCE, abs_tol=1e-30)


def _curve_problems(part: str, ran: dict[str, Row], curves: Sequence[Row]) -> Iterator[str]:
    ids = [curve["trial_id"] for curve in curves]
    if len(set(ids)) != len(ids) or set(ids) != set(ran):
        yield f"curves/{part}: expected one curve for each trial that ran"
    for curve in curves:
        row, name, steps = ran.get(curve["trial_id"]), f"curve of trial {curve['trial_index']}", curve["step"]
        if row is None:
            continue
        if any(len(curve[term]) != len(steps) for term in TERMS) or steps != sorted(set(steps)) or 0 not in steps:
            yield f"{name}: its lists do not belong together"
            continue
        points = (dict(zip(TERMS, point, strict=True)) for point in zip(*(curve[t] for t in TERMS), strict=True))
        finite = (point for point in points if all(map(math.isfinite, point.values())))
        if not all(_adds_up(row, point) for point in finite):
            yield f"{name}: totals that are not the sum of their terms"
        first = row["initial_total_loss"]
        if first is not None and not math.isclose(curve["total"][0], first, rel_tol=LOSS_TOLERANCE):
            yield f"{name}: begins at {curve['total'][0]:.7g}, its row says {first:.7g}"


def _layer_problems(part: str, ran: dict[str, Row], layers: Iterable[Row]) -> Iterator[str]:
    """Each trial that ran has every convolution once, and their mean is in its row."""
    of_trial: dict[str, list[Row]] = {}
    for layer in layers:
        of_trial.setdefault(layer["trial_id"], []).append(layer)
    if set(of_trial) != set(ran):
        yield f"layers/{part}: expected layers of each trial that ran"
    for key in of_trial.keys() & ran.keys():
        row, own = ran[key], of_trial[key]
        if [layer["layer"] for layer in own] != list(conv_layers(row["arch"])):
            yield f"layers of trial {row['trial_index']}: not every convolution once and in order"
        scores = dataclasses.asdict(transfer_scores([_distances(layer) for layer in own]))
        for column, value in scores.items():
            if row[column] != value:
                yield f"trial {row['trial_index']}: {column} is {row[column]}, its layers make {value}"
        for column in ("content_distance", "style_distance"):
            values = [layer[column] for layer in own if layer[column] is not None]
            mean = sum(values) / len(values) if values else None
            if (mean is None) != (row[column] is None) or (
                mean is not None and not math.isclose(mean, row[column], rel_tol=DISTANCE_TOLERANCE, abs_tol=1e-30)
            ):
                yield f"trial {row['trial_index']}: {column} is {row[column]}, its layers' mean is {mean}"


def _distances(layer: Row) -> LayerDistance:
    return LayerDistance(**{each.name: layer[each.name] for each in dataclasses.fields(LayerDistance)})


def _image_problem(run: RunDirectory, row: Row) -> str | None:
    path, key = row["image_path"], row["trial_id"]
    if not re.fullmatch(rf"images/{re.escape(key[:2])}/{re.escape(key)}\.(png|jpg|webp)", path):
        return f"trial {row['trial_index']}: image_path {path!r} is not the place of its picture"
    try:
        data = picture_bytes(run, path)
    except ImageError as error:
        return f"{path}: {'missing' if error.kind == 'missing' else error.message}"
    return None if sha256(data) == row["image_sha256"] else f"{path}: its content is not what was written"
