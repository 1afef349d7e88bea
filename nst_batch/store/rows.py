"""Rows of the tables from records and back, and what is done with rows that are not yet published.

Results wait in segments (`tables.SEGMENT`): Arrow streams of rows with their curves and layers nested.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from nst_batch.errors import without_secrets
from nst_batch.records import Configuration, Picture, Result, Trial
from nst_batch.store.status import Mask
from nst_batch.store.tables import LOSS_COLUMNS, NAMES, PLAN, SCHEMAS, SEGMENT

# Records and rows


def result_row(study: str, result: Result) -> dict[str, Any]:
    """The SEGMENT row of a result: names as they may be shown, without the secrets of URLs."""
    trial, outcome = result.trial, result.outcome
    row = _fields(trial.configuration) | _fields(outcome) | _fields(trial)
    row |= {
        "study": study,
        "configuration": identity(trial.configuration),
        "content_uri": trial.content and trial.content.uri,
        "content_sha256": trial.content and trial.content.sha256,
        "style_uri": " + ".join(style.uri for style in trial.styles) or None,
        "style_sha256": blend_sha256(trial.styles),
        "error_type": outcome.error_type,
        "error_message": outcome.error_message,
    }
    for column, (when, term) in LOSS_COLUMNS.items():
        row[column] = row[when] and getattr(row[when], term)
    row |= {"curve": None, "layers": [_storable_fields(layer) for layer in result.layers]}
    row = {name: storable(row[name]) for name in SEGMENT.names}
    row["curve"] = result.curve and _fields(result.curve)
    return row


def plan_row(trial: Trial) -> dict[str, Any]:
    """The PLAN row of a trial: names as they may be shown."""
    row = _fields(trial) | {
        "content_uri": trial.content and trial.content.uri,
        "content_sha256": trial.content and trial.content.sha256,
        "style_uris": [style.uri for style in trial.styles],
        "style_sha256s": [style.sha256 for style in trial.styles],
        "configuration": identity(trial.configuration),
    }
    return {name: storable(row[name]) for name in PLAN.names}


def plan_rows(
    trials: Iterable[Trial], first: int, configurations: dict[str, Any], replaced: dict[int, dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """The PLAN rows of the trials from number `first`.

    Args:
        trials: With `trial_index` from `first` without gaps; those that replace earlier ones may be among them.
        configurations: Takes up every configuration met, as JSON fields by identity.
        replaced: Takes up the rows of trials before `first`, by `trial_index`.

    Raises:
        ValueError: If `trial_index` has a gap.
    """
    expected = first
    for trial in trials:
        if (key := identity(trial.configuration)) not in configurations:
            configurations[key] = json_fields(trial.configuration)
        if trial.trial_index < first:
            replaced[trial.trial_index] = plan_row(trial)
            continue
        if trial.trial_index != expected:
            raise ValueError(f"expected trial_index {expected}, found {trial.trial_index}: a plan has no gaps")
        expected += 1
        yield plan_row(trial)


def names_table(names: Mapping[str, str]) -> pa.Table:
    """Where pictures and weights are, by the SHA-256 of what they hold (NAMES)."""
    return pa.table([list(names), list(names.values())], NAMES)


def renamed(plan: pa.Table, names: pa.Table, chosen: Mask | None = None) -> pa.Table:
    """`plan` (PLAN) with the names that `names` (NAMES) has for the contents of its pictures.

    Args:
        chosen: True for the rows to be renamed; None renames all.
    """
    if not (names.num_rows and plan.num_rows):
        return plan
    kept = np.zeros(plan.num_rows, np.bool_) if chosen is None else ~chosen
    lengths = pc.list_value_length(plan["style_uris"]).to_numpy()
    uris, hashes = (pc.list_flatten(plan[name]) for name in ("style_uris", "style_sha256s"))
    styles = pa.ListArray.from_arrays(
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32),
        _names_of(uris, hashes, names, np.repeat(kept, lengths)),
        type=plan.schema.field("style_uris").type,
    )
    content = _names_of(plan["content_uri"], plan["content_sha256"], names, kept)
    plan = plan.set_column(plan.schema.get_field_index("content_uri"), "content_uri", content)
    return plan.set_column(plan.schema.get_field_index("style_uris"), "style_uris", styles)


def _names_of(uris: pa.ChunkedArray, hashes: pa.ChunkedArray, names: pa.Table, kept: Mask) -> pa.Array:
    found = pc.index_in(hashes, names["sha256"].combine_chunks())
    found = pc.if_else(pa.array(kept), None, found)
    named = pc.coalesce(names["uri"].take(found), uris)
    return named.combine_chunks() if isinstance(named, pa.ChunkedArray) else named


def planned_trial(row: Mapping[str, Any], configurations: Mapping[str, Configuration]) -> Trial:
    """The trial of a PLAN row: the inverse of `plan_row`."""
    content, styles = planned_pictures(row)
    own = {name: row[name] for name in Trial.__slots__ if name in row}
    own["configuration"] = configurations[row["configuration"]]
    return Trial(**own, content=content, styles=styles)


def planned_pictures(row: Mapping[str, Any]) -> tuple[Picture | None, tuple[Picture, ...]]:
    """The content picture and the styles of a PLAN row."""
    content = None
    if row["content_uri"] is not None:
        content = Picture(uri=row["content_uri"], sha256=row["content_sha256"])
    styles = zip(row["style_uris"], row["style_sha256s"], strict=True)
    return content, tuple(Picture(uri=uri, sha256=sha256) for uri, sha256 in styles)


def with_weights(configurations: Mapping[str, Configuration], names: Mapping[str, str]) -> dict[str, Configuration]:
    """`configurations` with the names that `names` has for their weights, by SHA-256."""
    return {
        key: dataclasses.replace(each, weights=names.get(each.weights_sha256, each.weights))
        for key, each in configurations.items()
    }


def json_fields(configuration: Configuration) -> dict[str, Any]:
    """A configuration as study.json holds it."""
    return _storable_fields(configuration)


def configuration_from_json(stored: Mapping[str, Any]) -> Configuration:
    """The inverse of `json_fields`; JSON has lists where the record has tuples."""
    values: dict[str, Any] = {}
    for key, value in stored.items():
        values[key] = tuple(value) if isinstance(value, list) else value
    return Configuration(**values)


@functools.lru_cache(maxsize=4096)
def identity(configuration: Configuration) -> str:
    """`configuration.identity()`, computed once for each of a study's configurations, not once per trial."""
    return configuration.identity()


def blend_sha256(styles: tuple[Picture, ...]) -> str | None:
    """One style's own hash; for a blend, the SHA-256 of its styles' hashes joined; None if one is unread."""
    hashes = [style.sha256 for style in styles if style.sha256 is not None]
    if not hashes or len(hashes) < len(styles):
        return None
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def storable(value: Any) -> Any:
    """`value` as a table can hold it: no non-finite scalars, no secret of a URL, only text that is valid UTF-8.

    File names may hold bytes that no text encodes, which Python carries as lone surrogates; they become visible
    escapes (`\\udcff`).
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        value = without_secrets(value)
        return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, list | tuple):
        return [storable(item) for item in value]
    if isinstance(value, dict):
        return {key: storable(item) for key, item in value.items()}
    return value


def _fields(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__slots__}


def _storable_fields(record: Any) -> dict[str, Any]:
    return {name: storable(value) for name, value in _fields(record).items()}


# Segments


def segment_to_bytes(segment: pa.Table) -> bytes:
    """A segment as a file: an Arrow stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, segment.schema) as writer:
        writer.write_table(segment)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def segment_from_bytes(data: bytes) -> pa.Table:
    """The inverse of `segment_to_bytes`. Raises pyarrow.ArrowInvalid if the data is damaged."""
    return pa.ipc.open_stream(data).read_all()


def joined(segments: Iterable[pa.Table]) -> pa.Table:
    """The last attempt of each trial in any of `segments`, in order of `trial_index`."""
    rows = pa.concat_tables([SEGMENT.empty_table(), *segments])
    rows = rows.sort_by([("trial_index", "ascending"), ("attempt", "descending")])
    index = rows["trial_index"].to_numpy()
    return rows.filter(pa.array(np.diff(index, prepend=-1) > 0))


def newer(segment: pa.Table, attempts: npt.NDArray[np.integer]) -> pa.Table:
    """The rows of `segment` with a later attempt than `attempts` has at their `trial_index`."""
    return segment.filter(pa.array(segment["attempt"].to_numpy() > attempts[segment["trial_index"].to_numpy()]))


def split(segment: pa.Table, table: str) -> pa.Table:
    """The rows that the results in `segment` (SEGMENT) contribute to `trials`, `curves` or `layers`."""
    schema = SCHEMAS[table]
    if table == "trials":
        return segment.select(schema.names).cast(schema)
    if table == "curves":
        rows = segment.filter(pc.is_valid(segment["curve"])).combine_chunks()
        nested = rows["curve"]
    else:
        rows = segment.take(pc.list_parent_indices(segment["layers"]))
        nested = pc.list_flatten(segment["layers"])
    own = {field.name for field in nested.type}
    columns = [pc.struct_field(nested, name) if name in own else rows[name] for name in schema.names]
    return pa.table(columns, schema)


def replaced(published: pa.Table, trial_index: pa.ChunkedArray, rows: pa.Table) -> pa.Table:
    """`rows` in place of what `published` has of the trials in `trial_index`, in order of `trial_index`."""
    kept = published.filter(pc.invert(pc.is_in(published["trial_index"], trial_index.combine_chunks())))
    return pa.concat_tables([kept.cast(rows.schema), rows]).sort_by("trial_index")
