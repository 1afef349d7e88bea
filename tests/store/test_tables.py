"""Schemas, rows and Parquet options."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import math
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from nst_batch import vocabulary
from nst_batch.records import TERMS, Configuration, Curve, Losses, Outcome, Picture, Result, Trial
from nst_batch.scores import LayerDistance
from nst_batch.store import rows, tables
from tests import simulated

GOLDEN = """
study: string, trial_id: string, trial_index: int64, attempt: int64, status: string, error_type: string,
error_message: string, content_uri: string, content_mask_uri: string, style_uri: string, style_mask_uri: string,
content_sha256: string, style_sha256: string,
configuration: string, arch: string, weights: string, weights_sha256: string, pooling: string,
normalization: string, loss: string, content_layers: list<element: string>, style_layers: list<element: string>,
style_layer_weights: list<element: double>, alpha: double, beta: double, tv_weight: double, style_scale: double,
size: int64, fit: string, color: string, init: string, seed: int64, optimizer: string, steps: int64,
learning_rate: double, pyramid: string, plateau: double, precision: string, steps_done: int64, stop_reason: string,
precision_used: string,
width: int64, height: int64, initial_content_loss: double, initial_style_loss: double, initial_tv_loss: double,
initial_total_loss: double, final_content_loss: double, final_style_loss: double, final_tv_loss: double,
final_total_loss: double, best_step: int64, content_kept: double, style_taken: double,
transfer_score: double, score_reason: string, content_distance: double, style_distance: double, image_path: string,
image_sha256: string, tile: int64, num_pairs: int64, pair_precision: string, seconds: double,
peak_memory_bytes: int64, device: string, node: string, code_version: string,
started_at: timestamp[us, tz=UTC], finished_at: timestamp[us, tz=UTC]
"""


def spelled(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name}: {field.type}" for field in schema)


def test_the_schemas_change_only_on_purpose() -> None:
    assert spelled(tables.TRIALS) == " ".join(GOLDEN.split())
    assert spelled(tables.CURVES) == (
        "trial_id: string, trial_index: int64, configuration: string, status: string, step: list<element: int32>, "
        "content: list<element: float>, style: list<element: float>, tv: list<element: float>, "
        "total: list<element: float>"
    )
    assert spelled(tables.LAYERS) == (
        "trial_id: string, trial_index: int64, configuration: string, layer: string, content_distance: double, "
        "style_distance: double, content_baseline: double, style_baseline: double"
    )
    assert spelled(tables.REGIONS) == (
        "trial_id: string, trial_index: int64, configuration: string, label: int64, color: string, "
        "protected: bool, area: double, content_distance: double, style_distance: double, content_kept: double, "
        "style_taken: double, transfer_score: double"
    )
    assert spelled(tables.PLAN) == (
        "trial_index: int64, trial_id: string, batch: int64, content_uri: string, "
        "style_uris: list<element: string>, content_sha256: string, style_sha256s: list<element: string>, "
        "content_mask_uri: string, style_mask_uris: list<element: string>, content_mask_sha256: string, "
        "style_mask_sha256s: list<element: string>, width: int64, height: int64, "
        "configuration: string, error_type: string, error_message: string"
    )
    assert tables.TRIALS.metadata[b"schema_version"] == b"3"


def test_every_field_of_the_records_is_a_column() -> None:
    names = set(tables.TRIALS.names)
    assert set(Configuration.__slots__) <= names
    assert set(Outcome.__slots__) - {"initial", "final"} <= names


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
scalar = st.floats(width=64)
optional_text = st.none() | text
picture = st.builds(Picture, uri=text, sha256=optional_text)
losses = st.builds(Losses, content=scalar, style=scalar, tv=scalar, total=scalar)
moment = st.datetimes(datetime(1970, 1, 2), datetime(2100, 1, 1), timezones=st.just(UTC))
count = st.integers(0, 2**40)


@st.composite
def configurations(draw: st.DrawFn) -> Configuration:
    finite = st.floats(allow_nan=False, allow_infinity=False)
    whole = st.integers(-(2**63), 2**63 - 1)
    fixed: dict[Any, st.SearchStrategy[Any]] = {str: text, int: whole, float: finite}
    fields: dict[str, Any] = {}
    for name, hint in get_type_hints(Configuration).items():
        if get_origin(hint) is tuple:
            fields[name] = tuple(draw(st.lists(fixed[get_args(hint)[0]], max_size=3)))
        else:
            fields[name] = draw(fixed[hint] if hint in fixed else st.sampled_from(get_args(hint)))
    return Configuration(**fields)


planned_trials = st.builds(
    Trial, trial_id=text, trial_index=st.just(0), batch=count, content=st.none() | picture,
    styles=st.lists(picture, max_size=3).map(tuple), width=count, height=count, configuration=configurations(),
    error_type=optional_text, error_message=optional_text,
)  # fmt: skip

outcomes = st.builds(
    Outcome, status=st.sampled_from(get_args(vocabulary.Status)), error_type=optional_text,
    error_message=optional_text, attempt=st.integers(1, 100), steps_done=st.none() | count,
    stop_reason=optional_text, precision_used=optional_text, initial=st.none() | losses, final=st.none() | losses,
    best_step=st.none() | count, content_kept=st.none() | scalar, style_taken=st.none() | scalar,
    transfer_score=st.none() | scalar, score_reason=optional_text, content_distance=st.none() | scalar,
    style_distance=st.none() | scalar, image_path=optional_text, image_sha256=optional_text, seconds=scalar,
    tile=st.none() | count, num_pairs=st.none() | count, pair_precision=optional_text,
    peak_memory_bytes=st.none() | count, device=optional_text, node=optional_text, code_version=optional_text,
    started_at=st.none() | moment, finished_at=st.none() | moment,
)  # fmt: skip


@st.composite
def curves(draw: st.DrawFn) -> Curve:
    length = draw(st.integers(0, 5))
    terms = {term: tuple(draw(st.lists(scalar, min_size=length, max_size=length))) for term in TERMS}
    return Curve(step=tuple(range(length)), **terms)


distances = st.builds(
    LayerDistance,
    layer=text,
    content_distance=st.none() | scalar,
    style_distance=st.none() | scalar,
    content_baseline=st.none() | scalar,
    style_baseline=st.none() | scalar,
)
results = st.builds(
    Result, trial=planned_trials, outcome=outcomes, curve=st.none() | curves(),
    layers=st.lists(distances, max_size=3).map(tuple),
)  # fmt: skip


def finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def written_and_read(result: Result, name: str) -> list[dict[str, Any]]:
    segment = pa.Table.from_pylist([rows.result_row("study", result)], tables.SEGMENT)
    data = tables.parquet_bytes(rows.split(segment, name), name)
    return pq.read_table(io.BytesIO(data)).cast(tables.SCHEMAS[name]).to_pylist()  # type: ignore[no-any-return]


@settings(deadline=None, max_examples=100)
@given(results)
def test_results_survive_being_written_and_read(result: Result) -> None:
    (row,) = written_and_read(result, "trials")
    for name in Outcome.__slots__:
        if name not in ("initial", "final"):
            assert row[name] == finite(getattr(result.outcome, name))
    for name in Configuration.__slots__:
        value = getattr(result.trial.configuration, name)
        assert row[name] == (list(value) if isinstance(value, tuple) else value)
    for when, at in (("initial", result.outcome.initial), ("final", result.outcome.final)):
        for term in TERMS:
            assert row[f"{when}_{term}_loss"] == (finite(getattr(at, term)) if at else None)
    read = written_and_read(result, "curves")
    assert len(read) == (result.curve is not None)
    with np.errstate(over="ignore"):
        for row, curve in zip(read, filter(None, [result.curve]), strict=True):
            for term in TERMS:
                expected = np.array(getattr(curve, term), np.float32)
                np.testing.assert_array_equal(np.array(row[term], np.float32), expected)
    read = written_and_read(result, "layers")
    fields = [field.name for field in dataclasses.fields(LayerDistance)]
    kept = [{name: row[name] for name in fields} for row in read]
    assert kept == [{name: finite(getattr(at, name)) for name in fields} for at in result.layers]


@settings(deadline=None, max_examples=100)
@given(planned_trials)
def test_plans_survive_being_written_and_read(trial: Trial) -> None:
    table = pa.Table.from_pylist([rows.plan_row(trial)], tables.PLAN)
    (row,) = pq.read_table(io.BytesIO(tables.parquet_bytes(table, "plan"))).to_pylist()
    known = {trial.configuration.identity(): trial.configuration}
    assert rows.planned_trial(row, known) == trial


def test_what_no_table_holds_becomes_null_or_is_escaped() -> None:
    result = simulated.result(simulated.trial(0), seconds=math.inf, final=simulated.losses(math.nan))
    named = replace(simulated.trial(0), content=Picture(uri="caf\udce9.jpg", sha256=None))
    (row,) = written_and_read(replace(result, trial=named), "trials")
    assert row["seconds"] is None
    assert row["final_total_loss"] is None
    assert row["content_uri"] == "caf\\udce9.jpg"


def test_a_blend_names_all_its_styles() -> None:
    styles = (simulated.picture("a"), simulated.picture("b"))
    row = rows.result_row("study", simulated.result(simulated.trial(0, styles=styles)))
    assert row["style_uri"] == "photos/a.jpg + photos/b.jpg"
    joined = "".join(hashlib.sha256(name.encode()).hexdigest() for name in "ab")
    assert row["style_sha256"] == hashlib.sha256(joined.encode()).hexdigest()
    assert rows.blend_sha256(styles[:1]) == styles[0].sha256
    assert rows.blend_sha256(()) is None
    assert rows.blend_sha256((styles[0], Picture(uri="unread", sha256=None))) is None


def test_curves_are_packed_and_trials_can_be_looked_up() -> None:
    made = [rows.result_row("study", simulated.result(simulated.trial(index))) for index in range(1500)]
    segment = pa.Table.from_pylist(made, tables.SEGMENT)
    curves = pq.ParquetFile(io.BytesIO(tables.parquet_bytes(rows.split(segment, "curves"), "curves"))).metadata
    assert (curves.num_row_groups, curves.num_rows) == (2, 1500)
    columns = [curves.row_group(0).column(index) for index in range(curves.num_columns)]
    packed = {column.path_in_schema for column in columns if "BYTE_STREAM_SPLIT" in column.encodings}
    assert packed == {f"{term}.list.element" for term in TERMS}
    assert {column.compression for column in columns} == {"ZSTD"}
    trials = pq.ParquetFile(io.BytesIO(tables.parquet_bytes(rows.split(segment, "trials"), "trials"))).metadata
    statistics = trials.row_group(0).column(tables.TRIALS.names.index("trial_index")).statistics
    assert (statistics.min, statistics.max) == (0, 1499)
    assert trials.row_group(0).sorting_columns[0].column_index == tables.TRIALS.names.index("trial_index")
