"""Is a run directory what it says it is? Every row against its plan, its picture and its own numbers.

Nothing is written, and nothing that a kill may leave behind is held against a run: what is staged, pictures without
a row, a part of `curves` or `layers` whose part of `trials` was about to follow, a last part that an extension of
the study is about to fill.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields
from itertools import chain, groupby, islice
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from nst_batch.errors import ImageError, RunDirectoryError
from nst_batch.inputs.fetching import sha256
from nst_batch.records import ALGORITHM, TERMS, Outcome, Result, Trial, trial_id
from nst_batch.results.pictures import picture_bytes
from nst_batch.scores import LayerDistance, transfer_scores
from nst_batch.store import tables
from nst_batch.store.rows import identity, result_row
from nst_batch.store.run_directory import IMAGE_PATH, SUCCESS, RunDirectory, part_name
from nst_batch.vocabulary import Status, conv_layers, is_weights_file

LOSS_TOLERANCE = 1e-4
"""Relative: losses are sums of millions of float32 numbers, and curves are stored as float32."""
DISTANCE_TOLERANCE = 1e-6

Row = dict[str, Any]

_MEASURED = {each.name for each in fields(Outcome)} | set(tables.LOSS_COLUMNS)
_PLANNED = [name for name in tables.TRIALS.names if name not in _MEASURED]
_NAMES = ("content_uri", "content_mask_uri", "style_uri", "style_mask_uri")
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
        RunDirectoryError: It is no run directory, or another version's; or its plan cannot be read.
    """
    if (algorithm := run.study.get("algorithm")) != ALGORITHM:
        raise RunDirectoryError(
            f"{run.directory.url()}: its trials were planned for algorithm {algorithm}, this nst-batch verifies "
            f"those of algorithm {ALGORITHM}; use nst-batch {run.study.get('code_version', 'of that time')}"
        )
    found, complete = Verification(num_trials=run.num_trials), run.is_complete()
    for key, configuration in run.configurations.items():
        if configuration.identity() != key:
            changed = f"configuration {key} was changed: it is {configuration.identity()} now"
            found.problems.append(f"study.json: {changed}")
    num_parts = math.ceil(run.num_trials / run.rows_per_part)
    found.problems += _foreign_files(run, num_parts)
    published, trials, seen = set(run.parts()), run.iter_plan(), set[str]()
    for number in range(num_parts):
        planned, part = list(islice(trials, run.rows_per_part)), part_name(number)
        found.problems += _plan_problems(planned, number * run.rows_per_part, seen)
        if part in published:
            try:
                foreign = [line for table in tables.SCHEMAS for line in _schema_problems(run, table, part)]
                found.problems += foreign
                if not foreign:
                    _check_part(run, part, planned, found, complete=complete, images=images)
            except (RunDirectoryError, pa.ArrowException, OSError) as error:
                found.problems.append(f"{part}: cannot be read: {error}")
        elif complete:
            found.problems.append(f"trials/{part}: missing, although {SUCCESS} exists")
    if len(seen) != run.num_trials:
        found.problems.append(f"plan: {len(seen)} different trials, study.json says {run.num_trials}")
    if complete and run.segment_paths():
        found.problems.append(f"staging: holds results that are not published, although {SUCCESS} exists")
    return found


def _plan_problems(planned: Sequence[Trial], first: int, seen: set[str]) -> Iterator[str]:
    """Adds the ids of a stretch of the plan, which begins at `first`, to those `seen`."""
    for index, trial in enumerate(planned, first):
        seen.add(trial.trial_id)
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
    rows, curves, layers = (
        run.read(table, [f"{table}/{part}"]).to_pylist() for table in ("trials", "curves", "layers")
    )
    by_trial = {key: list(own) for key, own in groupby(layers, lambda row: row["trial_id"])}
    found.num_rows += len(rows)
    indexes, expected = [row["trial_index"] for row in rows], [trial.trial_index for trial in planned]
    if indexes != (expected if complete else expected[: len(indexes)]):
        found.problems.append(f"trials/{part}: its trials are not those of the plan, each once and in order")
    ran = Counter(row["trial_id"] for row in rows if row["status"] != "failed")
    coming = set() if complete else {trial.trial_id for trial in planned}.difference(ran)
    for name, ids in (("curves", [curve["trial_id"] for curve in curves]), ("layers", list(by_trial))):
        if Counter(each for each in ids if each not in coming) != ran:
            found.problems.append(f"{name}/{part}: expected the {name} of each trial that ran, once")
    trials, histories = {each.trial_index: each for each in planned}, {each["trial_id"]: each for each in curves}
    for row in rows:
        if trial := trials.get(row["trial_index"]):
            key = row["trial_id"]
            wrong = chain(
                _row_problems(row, trial, str(run.study["name"])),
                _curve_problems(row, trial, histories[key]) if key in histories else (),
                _layer_problems(row, trial, by_trial[key]) if key in by_trial else (),
            )
            found.problems += (f"trial {row['trial_index']} ({key}): {problem}" for problem in wrong)
    if images:
        pictured = [row for row in rows if row["image_path"] is not None]
        found.num_images += len(pictured)
        with ThreadPoolExecutor(_IMAGES_AT_ONCE, "verify") as pool:
            found.problems += filter(None, pool.map(lambda row: _image_problem(run, row), pictured))


def _row_problems(row: Row, trial: Trial, study: str) -> Iterator[str]:
    """What is wrong with a row of `trials`, by its plan and by itself."""
    planned = result_row(study, Result(trial=trial, outcome=Outcome(status="ok")))
    if not _is_replanned(row, trial):
        for name in _PLANNED:
            if row[name] != planned[name] and not _may_be_renamed(name, row, planned):
                yield f"{name} is {row[name]}, planned was {planned[name]}"
    status = row["status"]
    if status not in get_args(Status):
        yield f"unknown status {status!r}"
    if (row["error_type"] is None) != (status == "ok"):
        yield f"status {status} with error_type {row['error_type']}"
    if status == "ok" and None in (row["image_path"], *(row[name] for name in tables.LOSS_COLUMNS)):
        yield "ok, but without a picture or a loss"
    if not all(math.isfinite(value) for value in row.values() if isinstance(value, float)):
        yield "a number that is not finite, which makes filters wrong"
    for when in ("initial", "final"):
        losses = [row[f"{when}_{term}_loss"] for term in TERMS]
        if None not in losses and not _near(made := _sum(trial, *losses[:-1]), losses[-1]):
            yield f"{when} total loss is {losses[-1]:.7g}, its terms make {made:.7g}"


def _is_replanned(row: Row, trial: Trial) -> bool:
    """Whether a picture could be read by a later plan only: the row is as good as pending."""
    unread = row["content_sha256"] is None or row["style_sha256"] is None
    return row["status"] == "failed" and unread and row["trial_id"] != trial.trial_id


def _may_be_renamed(name: str, row: Row, planned: Row) -> bool:
    """Whether the plan may know a newer name of the same thing; the hashes are compared in any case."""
    if name == "weights":
        return is_weights_file(row[name]) and is_weights_file(planned[name])
    return name in _NAMES and row["status"] == "failed"


def _curve_problems(row: Row, trial: Trial, curve: Row) -> Iterator[str]:
    step, *terms = (curve[name] or [] for name in ("step", *TERMS))
    if (
        any(len(term) != len(step) or None in term for term in (step, *terms))
        or step != sorted(set(step))
        or 0 not in step
    ):
        yield "its curve: its lists do not belong together"
        return
    for *parts, total in zip(*terms, strict=False):
        if math.isfinite(sum(parts) + total) and not _near(_sum(trial, *parts), total):
            yield "its curve: totals that are not the sum of their terms"
            break
    begin, told = curve["total"][0], row["initial_total_loss"]
    if told is not None and not _near(begin, told):
        yield f"its curve begins at {begin:.7g}, its row says {told:.7g}"


def _layer_problems(row: Row, trial: Trial, layers: Sequence[Row]) -> Iterator[str]:
    own = [LayerDistance(**{each.name: layer[each.name] for each in fields(LayerDistance)}) for layer in layers]
    names = [each.layer for each in own]
    if names != list(conv_layers(trial.configuration.arch)):
        yield f"its layers are {names}: not every convolution once and in order"
    for name, made in asdict(transfer_scores(own)).items():
        if row[name] != made:
            yield f"{name} is {row[name]}, its layers make {made}"
    for name in ("content_distance", "style_distance"):
        values = [value for each in own if (value := getattr(each, name)) is not None]
        mean: Any = sum(values) / len(values) if values else None
        if row[name] != mean and (None in (row[name], mean) or not _near(row[name], mean, DISTANCE_TOLERANCE)):
            yield f"{name} is {row[name]}, its layers' mean is {mean}"


def _sum(trial: Trial, content: float, style: float, tv: float) -> float:
    """The total loss, by the weights of the plan."""
    chosen = trial.configuration
    return chosen.alpha * content + chosen.beta * style + chosen.tv_weight * tv


def _near(one: float, other: float, tolerance: float = LOSS_TOLERANCE) -> bool:
    return math.isclose(one, other, rel_tol=tolerance, abs_tol=1e-30)


def _image_problem(run: RunDirectory, row: dict[str, Any]) -> str | None:
    path, key = row["image_path"], str(row["trial_id"])
    place = IMAGE_PATH.fullmatch(path)
    if place is None or place["trial_id"] != key:
        return f"trial {row['trial_index']}: image_path {path!r} is not the place of its picture"
    try:
        data = picture_bytes(run, path)
    except ImageError as error:
        return f"{path}: {'missing' if error.kind == 'missing' else error.message}"
    return None if sha256(data) == row["image_sha256"] else f"{path}: its content is not what was written"
