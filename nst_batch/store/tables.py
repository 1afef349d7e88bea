"""The tables that a run leaves behind: their Arrow schemas, rows from records, and the Parquet options.

Column types come from the annotations of the fields in `records`; names and order are fixed here, and a test pins
the result, so that neither changes by accident. Every file of a table has every column.

Scalars are never NaN or infinite but NULL: Parquet statistics with NaN make SQL filters wrong. Loss histories keep
what was measured; they are lists, which have no such statistics.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
import types
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from nst_batch.records import Configuration, Outcome, Picture, Result, Trial

SCHEMA_VERSION = 1
"""Raised when a column is added, removed or changes its meaning; kept in every file's metadata."""

TERMS = ("content", "style", "tv", "total")
_LOSSES = tuple(f"{when}_{term}_loss" for when in ("initial", "final") for term in TERMS)
_TRIALS = """
    study trial_id trial_index attempt status error_type error_message
    content_uri style_uri content_sha256 style_sha256
    configuration arch weights weights_sha256 pooling normalization loss
    content_layers style_layers style_layer_weights alpha beta tv_weight style_scale
    size fit color init seed optimizer steps learning_rate pyramid plateau precision
    steps_done stop_reason width height
    initial_content_loss initial_style_loss initial_tv_loss initial_total_loss
    final_content_loss final_style_loss final_tv_loss final_total_loss best_step
    content_distance style_distance image_path image_sha256
    seconds peak_memory_bytes device node code_version started_at finished_at
""".split()  # noqa: SIM905 (one line per kind of column)


def list_of(kind: pa.DataType) -> pa.ListType:
    """A list type whose item is named as Parquet names it, so that it survives being written and read."""
    return pa.list_(pa.field("element", kind))


def arrow_type(annotation: Any) -> pa.DataType:
    """The Arrow type of a record's field: `tuple[str, ...]` is list<string>, `float | None` is double."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return arrow_type(next(argument for argument in arguments if argument is not type(None)))
    if origin is Literal:
        return pa.string()
    if origin is tuple:
        return list_of(arrow_type(arguments[0]))
    scalars = {str: pa.string(), int: pa.int64(), float: pa.float64(), datetime: pa.timestamp("us", tz="UTC")}
    return scalars[annotation]


def _annotated(*records: type) -> dict[str, Any]:
    return {name: hint for record in records for name, hint in get_type_hints(record).items()}


def _schema(table: str, fields: Iterable[tuple[str, pa.DataType]]) -> pa.Schema:
    return pa.schema(list(fields), metadata={"table": table, "schema_version": str(SCHEMA_VERSION)})


def _trials_schema() -> pa.Schema:
    hints = _annotated(Trial, Outcome, Configuration) | dict.fromkeys(_LOSSES, float)
    hints |= dict.fromkeys(("study", "configuration"), str)
    hints |= dict.fromkeys(("content_uri", "style_uri", "content_sha256", "style_sha256"), str)
    return _schema("trials", [(name, arrow_type(hints[name])) for name in _TRIALS])


_KEYS = [("trial_id", pa.string()), ("trial_index", pa.int64()), ("configuration", pa.string())]
_CURVE = [("step", list_of(pa.int32())), *[(term, list_of(pa.float32())) for term in TERMS]]
_LAYER = [("layer", pa.string()), ("content_distance", pa.float64()), ("style_distance", pa.float64())]

TRIALS = _trials_schema()
"""One row per trial, scalars and short lists only: the authority on which trials have ended."""

CURVES = _schema("curves", [*_KEYS, ("status", pa.string()), *_CURVE])
"""One row per trial that ran: its loss history; step 0 is the initial image. float32 keeps 7 digits."""

LAYERS = _schema("layers", [*_KEYS, *_LAYER])
"""One row per trial and layer: the finished picture's relative distances from its targets."""

PLAN = _schema(
    "plan",
    [
        ("trial_index", pa.int64()),
        ("trial_id", pa.string()),
        ("batch", pa.int64()),
        ("content_uri", pa.string()),
        ("style_uris", list_of(pa.string())),
        ("content_sha256", pa.string()),
        ("style_sha256s", list_of(pa.string())),
        ("width", pa.int64()),
        ("height", pa.int64()),
        ("configuration", pa.string()),
        ("error_type", pa.string()),
        ("error_message", pa.string()),
    ],
)
"""One row per trial of the study, in the order of `trial_index`: what is to be computed."""

SEGMENT = _schema(
    "segment",
    [
        *((field.name, field.type) for field in TRIALS),
        ("curve", pa.struct(_CURVE)),
        ("layers", list_of(pa.struct(_LAYER))),
    ],
)
"""A row of `trials` with its curve and its layers nested: results before their part is published."""

SCHEMAS = {"trials": TRIALS, "curves": CURVES, "layers": LAYERS}
"""The published tables, by name."""


@functools.lru_cache(maxsize=4096)
def identity(configuration: Configuration) -> str:
    """`configuration.identity()`, computed once for each of a study's configurations, not once per trial."""
    return configuration.identity()


def result_row(study: str, result: Result) -> dict[str, Any]:
    """The SEGMENT row of a result."""
    trial, outcome = result.trial, result.outcome
    row: dict[str, Any] = {name: getattr(trial.configuration, name) for name in _CONFIGURATION_COLUMNS}
    row |= {name: getattr(outcome, name) for name in _OUTCOME_COLUMNS}
    row |= {
        "study": study,
        "trial_id": trial.trial_id,
        "trial_index": trial.trial_index,
        "configuration": identity(trial.configuration),
        "content_uri": trial.content and trial.content.uri,
        "content_sha256": trial.content and trial.content.sha256,
        "style_uri": " + ".join(style.uri for style in trial.styles) or None,
        "style_sha256": blend_sha256(trial.styles),
        "width": trial.width,
        "height": trial.height,
    }
    for when, losses in (("initial", outcome.initial), ("final", outcome.final)):
        row |= {f"{when}_{term}_loss": losses and getattr(losses, term) for term in TERMS}
    row = {name: storable(value) for name, value in row.items()}
    row["curve"] = result.curve and {name: getattr(result.curve, name) for name, _ in _CURVE}
    row["layers"] = [{name: storable(getattr(layer, name)) for name, _ in _LAYER} for layer in result.layers]
    return row


_CONFIGURATION_COLUMNS = [field.name for field in dataclasses.fields(Configuration)]
_OUTCOME_COLUMNS = [field.name for field in dataclasses.fields(Outcome) if field.name not in ("initial", "final")]


def blend_sha256(styles: tuple[Picture, ...]) -> str | None:
    """One style's own hash; for a blend, the SHA-256 of its styles' hashes joined; None if one is unread."""
    hashes = [style.sha256 for style in styles if style.sha256 is not None]
    if not hashes or len(hashes) < len(styles):
        return None
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def plan_row(trial: Trial) -> dict[str, Any]:
    """The PLAN row of a trial."""
    row = {
        "trial_index": trial.trial_index,
        "trial_id": trial.trial_id,
        "batch": trial.batch,
        "content_uri": trial.content and trial.content.uri,
        "style_uris": [style.uri for style in trial.styles],
        "content_sha256": trial.content and trial.content.sha256,
        "style_sha256s": [style.sha256 for style in trial.styles],
        "width": trial.width,
        "height": trial.height,
        "configuration": identity(trial.configuration),
        "error_type": trial.error_type,
        "error_message": trial.error_message,
    }
    return {name: storable(value) for name, value in row.items()}


def planned_trial(row: dict[str, Any], configurations: dict[str, Configuration]) -> Trial:
    """The trial of a PLAN row: the inverse of `plan_row`."""
    content = None
    if row["content_uri"] is not None:
        content = Picture(uri=row["content_uri"], sha256=row["content_sha256"])
    styles = zip(row["style_uris"], row["style_sha256s"], strict=True)
    return Trial(
        trial_id=row["trial_id"],
        trial_index=row["trial_index"],
        batch=row["batch"],
        content=content,
        styles=tuple(Picture(uri=uri, sha256=sha256) for uri, sha256 in styles),
        width=row["width"],
        height=row["height"],
        configuration=configurations[row["configuration"]],
        error_type=row["error_type"],
        error_message=row["error_message"],
    )


def configuration_from_json(fields: dict[str, Any]) -> Configuration:
    """The inverse of `dataclasses.asdict` after JSON, which has lists where the record has tuples."""
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()
    }
    return Configuration(**values)


def storable(value: Any) -> Any:
    """`value` as a table can hold it: no non-finite scalars, and only text that is valid UTF-8.

    File names may hold bytes that no text encodes, which Python carries as lone surrogates; they become visible
    escapes (`\\udcff`).
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, (list, tuple)):
        return [storable(item) for item in value]
    return value


def split(segment: pa.Table, table: str) -> pa.Table:
    """The rows that the results in `segment` (SEGMENT) contribute to `trials`, `curves` or `layers`."""
    if table == "trials":
        return segment.select(TRIALS.names).cast(TRIALS)
    if table == "curves":
        ran = segment.filter(pc.is_valid(segment["curve"])).combine_chunks()
        rows, columns = ran, {name: pc.struct_field(ran["curve"], name) for name, _ in _CURVE}
    else:
        items = pc.list_flatten(segment["layers"])
        rows = segment.take(pc.list_parent_indices(segment["layers"]))
        columns = {name: pc.struct_field(items, name) for name, _ in _LAYER}
    schema = SCHEMAS[table]
    return pa.table([columns[name] if name in columns else rows[name] for name in schema.names], schema)


def parquet_bytes(table: pa.Table, name: str) -> bytes:
    """`table` as one Parquet file.

    Measured on 100,000 trials of 300 steps: curves with BYTE_STREAM_SPLIT, zstd-3 and no dictionary take 0.67 of
    their raw size; with pyarrow's defaults 1.01, and longer. Short row groups and page indexes make look-ups of one
    trial quick: rows are sorted by `trial_index`.
    """
    sink = pa.BufferOutputStream()
    strings = [field.name for field in table.schema if field.type == pa.string()]
    options: dict[str, Any] = {"use_dictionary": strings, "row_group_size": 10_000}
    if name == "curves":
        encodings = {f"{term}.list.element": "BYTE_STREAM_SPLIT" for term in TERMS}
        options = {"use_dictionary": ["configuration", "status"], "row_group_size": 1_000}
        options["column_encoding"] = encodings
    options["sorting_columns"] = [pq.SortingColumn(table.schema.get_field_index("trial_index"))]
    pq.write_table(table, sink, compression="zstd", compression_level=3, write_page_index=True, **options)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]
