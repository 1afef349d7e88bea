"""The schemas of the tables that a run leaves behind, and their Parquet options.

Column types come from the annotations of the fields in `records`; names and order are fixed here, and a test pins
the result, so that neither changes by accident. Every file of a table has every column.

Scalars are never NaN or infinite but NULL: Parquet statistics with NaN make SQL filters wrong. Loss histories keep
what was measured; they are lists, which have no such statistics.
"""

from __future__ import annotations

import types
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq

from nst_batch.records import TERMS, Configuration, Outcome, Trial
from nst_batch.scores import LayerDistance, RegionScores

SCHEMA_VERSION = 3
"""Raised when a column is added, removed or changes its meaning; kept in every file's metadata."""

LOSS_COLUMNS = {f"{when}_{term}_loss": (when, term) for when in ("initial", "final") for term in TERMS}
"""The columns of `trials` that hold a term of `Outcome.initial` or `Outcome.final`."""

_TRIALS = f"""
    study trial_id trial_index attempt status error_type error_message
    content_uri content_mask_uri style_uri style_mask_uri content_sha256 style_sha256
    configuration arch weights weights_sha256 pooling normalization loss
    content_layers style_layers style_layer_weights alpha beta tv_weight style_scale
    size fit color init seed optimizer steps learning_rate pyramid plateau precision
    steps_done stop_reason precision_used width height {" ".join(LOSS_COLUMNS)} best_step
    content_kept style_taken transfer_score score_reason
    content_distance style_distance image_path image_sha256
    tile num_pairs pair_precision seconds peak_memory_bytes device node code_version started_at finished_at
""".split()
_PLAN = [
    "trial_index", "trial_id", "batch", "content_uri", "style_uris", "content_sha256", "style_sha256s",
    "content_mask_uri", "style_mask_uris", "content_mask_sha256", "style_mask_sha256s", "width", "height",
    "configuration", "error_type", "error_message",
]  # fmt: skip
_KEYS = ["trial_id", "trial_index", "configuration"]
_LISTS = ("style_uris", "style_sha256s", "style_mask_uris", "style_mask_sha256s")


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
    scalars = {
        str: pa.string(),
        bool: pa.bool_(),
        int: pa.int64(),
        float: pa.float64(),
        datetime: pa.timestamp("us", tz="UTC"),
    }
    return scalars[annotation]


_HINTS: dict[str, Any] = (
    get_type_hints(Trial) | get_type_hints(Outcome) | get_type_hints(Configuration)
    | dict.fromkeys(LOSS_COLUMNS, float) | dict.fromkeys(_LISTS, tuple[str, ...]) | {"configuration": str}
)  # fmt: skip
"""What columns hold that are not text."""
_CURVE = [("step", list_of(pa.int32())), *[(term, list_of(pa.float32())) for term in TERMS]]
_LAYER, _REGION = (
    [(name, arrow_type(hint)) for name, hint in get_type_hints(record).items()]
    for record in (LayerDistance, RegionScores)
)


def _schema(table: str, names: Iterable[str], *more: tuple[str, pa.DataType]) -> pa.Schema:
    columns = [(name, arrow_type(_HINTS.get(name, str))) for name in names]
    return pa.schema([*columns, *more], {"table": table, "schema_version": str(SCHEMA_VERSION)})


TRIALS = _schema("trials", _TRIALS)
"""One row per trial, scalars and short lists only: the authority on which trials have ended."""

CURVES = _schema("curves", [*_KEYS, "status"], *_CURVE)
"""One row per trial that ran: its loss history; step 0 is the initial image. float32 keeps 7 digits."""

LAYERS = _schema("layers", _KEYS, *_LAYER)
"""One row per trial and layer: the finished picture's relative distances from its targets, and their baselines."""

REGIONS = _schema("regions", _KEYS, *_REGION)
"""One row per trial and region, where its pictures have masks: how good the transfer is there."""

SCHEMAS = {"curves": CURVES, "layers": LAYERS, "regions": REGIONS, "trials": TRIALS}
"""The published tables, by name, in the order in which a part is published: `trials` decides."""

PLAN = _schema("plan", _PLAN)
"""One row per trial of the study, in the order of `trial_index`: what is to be computed."""

NAMES = _schema("names", ["sha256", "uri"])
"""Where pictures and weights are to be fetched, by the SHA-256 of what they hold."""

_NESTED = [("layers", list_of(pa.struct(_LAYER))), ("regions", list_of(pa.struct(_REGION)))]
FILES = SCHEMAS | {"plan": PLAN, "names": NAMES}
"""Everything that is kept as Parquet."""

SEGMENT = _schema("segment", _TRIALS, ("curve", pa.struct(_CURVE)), *_NESTED)
"""A row of `trials` with its curve, layers and regions nested: results before their part is published."""


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
    if "trial_index" in table.schema.names:
        options["sorting_columns"] = [pq.SortingColumn(table.schema.get_field_index("trial_index"))]
    pq.write_table(table, sink, compression="zstd", compression_level=3, write_page_index=True, **options)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]
