"""Is a run directory what it says it is? Every row against its plan, its picture and its own numbers.

Nothing is written, and nothing that a kill may leave behind is held against a run: what is staged, pictures without
a row, a part of `curves` or `layers` whose part of `trials` was about to follow, a last part that an extension of
the study is about to fill.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields
from itertools import groupby, islice
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from nst_batch.errors import ImageError, RunDirectoryError
from nst_batch.inputs.fetching import sha256
from nst_batch.records import TERMS, Outcome, Result, Trial, trial_id
from nst_batch.results.pictures import picture_bytes
from nst_batch.scores import LayerDistance, transfer_scores
from nst_batch.store import tables
from nst_batch.store.rows import identity, result_row
from nst_batch.store.run_directory import SUCCESS, RunDirectory, part_name
from nst_batch.vocabulary import conv_layers, is_weights_file

LOSS_TOLERANCE = 1e-4
"""Relative: losses are sums of millions of float32 numbers, and curves are stored as float32."""
DISTANCE_TOLERANCE = 1e-6

_PART = re.compile(r"part-(\d{5,})\.parquet")
_IMAGES_AT_ONCE = 8


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


def verify(run: RunDirectory, *, images: bool = True) -> Verification:
    """Checks a run directory, finished or not; one that a run is writing to may be told of too early.

    Args:
        images: Whether pictures are read and hashed.

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
                found.problems += [line for table in tables.SCHEMAS for line in _schema_problems(run, table, part)]
                _check_part(run, part, planned, found, complete=complete, images=images)
            except (RunDirectoryError, pa.ArrowException, duckdb.Error, OSError) as error:
                found.problems.append(f"{part}: cannot be read: {error}")
        elif complete:
            found.problems.append(f"trials/{part}: missing, although {SUCCESS} exists")
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


def _schema_problems(run: RunDirectory, table: str, part: str) -> Iterator[str]:
    path, expected = f"{table}/{part}", tables.SCHEMAS[table]
    with run.directory.open_input(path) as source:
        schema = pq.read_schema(source)
    metadata = schema.metadata or {}
    if not schema.equals(expected):
        yield f"{path}: its columns are not those of {table}"
    elif metadata.get(b"schema_version") != (expected.metadata or {})[b"schema_version"]:
        yield f"{path}: schema version {metadata.get(b'schema_version')!r}"


# One part


def _check_part(
    run: RunDirectory, part: str, planned: Sequence[Trial], found: Verification, *, complete: bool, images: bool
) -> None:
    trials, curves, layers = (run.read_part(f"{table}/{part}") for table in ("trials", "curves", "layers"))
    rows, made = trials.to_pylist(), list(_made_by_layers(layers.to_pylist()))
    found.num_rows += len(rows)
    indexes, expected = [row["trial_index"] for row in rows], [trial.trial_index for trial in planned]
    if indexes != (expected if complete else expected[: len(indexes)]):
        found.problems.append(f"trials/{part}: its trials are not those of the plan, each once and in order")
    ran = sorted(row["trial_id"] for row in rows if row["status"] != "failed")
    coming = set() if complete else {trial.trial_id for trial in planned}.difference(ran)
    for name, ids in (("curves", curves["trial_id"].to_pylist()), ("layers", [each["trial_id"] for each in made])):
        if sorted(each for each in ids if each not in coming) != ran:
            found.problems.append(f"{name}/{part}: expected the {name} of each trial that ran, once")
    found.problems += _trial_problems(str(run.study["name"]), planned, trials, curves, made)
    if images:
        pictured = [row for row in rows if row["image_path"] is not None]
        found.num_images += len(pictured)
        with ThreadPoolExecutor(_IMAGES_AT_ONCE, "verify") as pool:
            found.problems += filter(None, pool.map(lambda row: _image_problem(run, row), pictured))


def _made_by_layers(layers: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What the rows of each trial's layers, which stand together, make in the table `trials`."""
    for key, rows in groupby(layers, lambda row: row["trial_id"]):
        own = [LayerDistance(**{each.name: row[each.name] for each in fields(LayerDistance)}) for row in rows]
        made = {"trial_id": key, "layers_names": [each.layer for each in own]}
        made |= {f"layers_{name}": value for name, value in asdict(transfer_scores(own)).items()}
        for name in _DISTANCES:
            values = [value for each in own if (value := getattr(each, name)) is not None]
            made[f"layers_{name}"] = sum(values) / len(values) if values else None
        yield made


def _trial_problems(
    study: str, planned: Sequence[Trial], trials: pa.Table, curves: pa.Table, made: Sequence[dict[str, Any]]
) -> Iterator[str]:
    """What is wrong with the trials of a part, by `_checks`."""
    expected = [result_row(study, Result(trial=trial, outcome=Outcome(status="ok"))) for trial in planned]
    plan = pa.Table.from_pylist(expected, tables.TRIALS).select(_PLANNED)
    plan = plan.rename_columns([f"planned_{name}" for name in _PLANNED])
    convolutions = [list(conv_layers(trial.configuration.arch)) for trial in planned]
    plan = plan.append_column("planned_layers", pa.array(convolutions, pa.list_(pa.string())))
    checks = dict(_checks())
    with duckdb.connect() as connection:
        connection.create_function("is_file", is_weights_file, ["VARCHAR"], "BOOLEAN")
        connection.execute(_NEAR)
        for name, table in (("trials", trials), ("plan", plan), ("curves", curves)):
            connection.register(name, table)
        connection.register("made", pa.Table.from_pylist(made, _MADE))
        wrong = ", ".join(f"coalesce({condition}, false)" for condition in checks.values())
        found = f"SELECT * FROM (SELECT *, [{wrong}] AS wrong FROM ({_ROWS})) WHERE list_contains(wrong, true)"
        rows = connection.sql(f"{found} ORDER BY trial_index").to_arrow_table().to_pylist()
    for row in rows:
        for problem, is_so in zip(checks, row["wrong"], strict=True):
            if is_so:
                yield f"trial {row['trial_index']} ({row['trial_id']}): {problem.format(**row)}"


def _image_problem(run: RunDirectory, row: dict[str, Any]) -> str | None:
    path, key = row["image_path"], row["trial_id"]
    if not re.fullmatch(rf"images/{re.escape(key[:2])}/{re.escape(key)}\.(png|jpg|webp)", path):
        return f"trial {row['trial_index']}: image_path {path!r} is not the place of its picture"
    try:
        data = picture_bytes(run, path)
    except ImageError as error:
        return f"{path}: {'missing' if error.kind == 'missing' else error.message}"
    return None if sha256(data) == row["image_sha256"] else f"{path}: its content is not what was written"


# What is wrong with a trial, and when: SQL over its row, its curve, what was planned and what its layers make

_DISTANCES = ("content_distance", "style_distance")
_SCORES = ("content_kept", "style_taken", "transfer_score", "score_reason")
_MEASURED = {each.name for each in fields(Outcome)} | set(tables.LOSS_COLUMNS)
_PLANNED = [name for name in tables.TRIALS.names if name not in _MEASURED]
_MADE = pa.schema(
    [("trial_id", pa.string()), ("layers_names", pa.list_(pa.string()))]
    + [(f"layers_{name}", tables.TRIALS.field(name).type) for name in (*_SCORES, *_DISTANCES)]
)
_NEAR = """CREATE MACRO near(one, other, tolerance) AS
    abs(one - other) <= greatest(tolerance * greatest(abs(one), abs(other)), 1e-30)"""
_ROWS = """
    SELECT *,
        alpha * initial_content_loss + beta * initial_style_loss + tv_weight * initial_tv_loss AS initial_sum,
        alpha * final_content_loss + beta * final_style_loss + tv_weight * final_tv_loss AS final_sum,
        list_zip(content, style, tv, total) AS points
    FROM trials JOIN plan ON trial_index = planned_trial_index
    LEFT JOIN (SELECT * EXCLUDE (trial_index, configuration, status) FROM curves) USING (trial_id)
    LEFT JOIN made USING (trial_id)
"""
_REPLANNED = """status = 'failed' AND (content_sha256 IS NULL OR style_sha256 IS NULL)
    AND trial_id != planned_trial_id"""
"""Its picture has been read since it failed: it is as good as pending."""
_NAMES = ("content_uri", "content_mask_uri", "style_uri", "style_mask_uri")
_RENAMED = dict.fromkeys(_NAMES, "status = 'failed'")
_RENAMED |= {"weights": "is_file(weights) AND is_file(planned_weights)"}
"""When the plan may know a newer name of the same thing; the hashes are compared in any case."""


def _checks() -> Iterator[tuple[str, str]]:
    for name in _PLANNED:
        excused = f"({_REPLANNED}) OR ({_RENAMED.get(name, 'false')})"
        differs = f"{name} IS DISTINCT FROM planned_{name} AND NOT ({excused})"
        yield f"{name} is {{{name}}}, planned was {{planned_{name}}}", differs
    yield "unknown status {status!r}", "status NOT IN ('ok', 'failed', 'diverged')"
    yield "status {status} with error_type {error_type}", "(error_type IS NULL) != (status = 'ok')"
    unfinished = "status = 'ok' AND (image_path IS NULL OR final_total_loss IS NULL)"
    yield "ok, but without a picture or a final loss", unfinished
    numbers = [each.name for each in tables.TRIALS if pa.types.is_floating(each.type)]
    unbounded = " OR ".join(f"NOT isfinite({name})" for name in numbers)
    yield "a number that is not finite, which makes filters wrong", unbounded
    for when in ("initial", "final"):
        differs = f"NOT near({when}_total_loss, {when}_sum, {LOSS_TOLERANCE})"
        yield f"{when} total loss is {{{when}_total_loss:.7g}}, its terms make {{{when}_sum:.7g}}", differs
    lengths = " OR ".join(f"len({term}) != len(step)" for term in TERMS)
    steps = "step != list_sort(list_distinct(step)) OR NOT list_contains(step, 0)"
    yield "its curve: its lists do not belong together", f"{lengths} OR {steps}"
    total = f"near(alpha * p[1] + beta * p[2] + tv_weight * p[3], p[4], {LOSS_TOLERANCE})"
    wrong = f"list_filter(points, lambda p: isfinite(p[1] + p[2] + p[3] + p[4]) AND NOT {total})"
    yield "its curve: totals that are not the sum of their terms", f"len({wrong}) > 0"
    begins = f"NOT near(total[1], initial_total_loss, {LOSS_TOLERANCE})"
    yield "its curve begins at {total[0]:.7g}, its row says {initial_total_loss:.7g}", begins
    yield "its layers are {layers_names}: not every convolution once and in order", "layers_names != planned_layers"
    for name in (*_SCORES, *_DISTANCES):
        differs = f"layers_names IS NOT NULL AND {name} IS DISTINCT FROM layers_{name}"
        if name in _DISTANCES:
            differs += f" AND near({name}, layers_{name}, {DISTANCE_TOLERANCE}) IS NOT true"
        made = "its layers' mean is" if name in _DISTANCES else "its layers make"
        yield f"{name} is {{{name}}}, {made} {{layers_{name}}}", differs
