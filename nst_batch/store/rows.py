"""Rows of the tables from records and back, and what is done with rows that are not yet published.

Results wait in segments (`tables.SEGMENT`): rows with their curves and layers nested.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Mapping
from itertools import chain, repeat
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from nst_batch.records import Configuration, Picture, Result, Trial, storable
from nst_batch.store.tables import LOSS_COLUMNS, PLAN, SCHEMAS, SEGMENT, TRIALS


def result_row(study: str, result: Result) -> dict[str, Any]:
    """The SEGMENT row of a result: names as they may be shown, without the secrets of URLs."""
    trial, outcome = result.trial, result.outcome
    row = _fields(trial.configuration) | _fields(trial) | _fields(outcome)
    row |= {
        "study": study,
        "configuration": identity(trial.configuration),
        "content_uri": trial.content and trial.content.uri,
        "content_mask_uri": trial.content and trial.content.mask and trial.content.mask.uri,
        "content_sha256": trial.content and blend_sha256((trial.content,)),
        "style_uri": " + ".join(style.uri for style in trial.styles) or None,
        "style_mask_uri": " + ".join(style.mask.uri for style in trial.styles if style.mask) or None,
        "style_sha256": blend_sha256(trial.styles),
    }
    for column, (when, term) in LOSS_COLUMNS.items():
        row[column] = row[when] and getattr(row[when], term)
    row = {name: storable(row[name]) for name in TRIALS.names}
    row |= {name: [stored(each) for each in getattr(result, name)] for name in ("layers", "regions")}
    return row | {"curve": result.curve and _fields(result.curve)}


def plan_row(trial: Trial) -> dict[str, Any]:
    """The PLAN row of a trial: names as they may be shown."""
    row = _fields(trial) | {"configuration": identity(trial.configuration)}
    for kind, file in (("content", trial.content), ("content_mask", trial.content and trial.content.mask)):
        row |= {f"{kind}_uri": file and file.uri, f"{kind}_sha256": file and file.sha256}
    masks = [style.mask for style in trial.styles] if any(style.mask for style in trial.styles) else []
    for kind, files in (("style", trial.styles), ("style_mask", masks)):
        row[f"{kind}_uris"] = [file and file.uri for file in files]
        row[f"{kind}_sha256s"] = [file and file.sha256 for file in files]
    return {name: storable(row[name]) for name in PLAN.names}


def renamed(row: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """A PLAN row with the names that `names` has for its pictures, by the SHA-256 of what they hold."""
    if not names:
        return row
    found = dict(row)
    for kind in ("content", "content_mask"):
        found[f"{kind}_uri"] = names.get(row[f"{kind}_sha256"], row[f"{kind}_uri"])
    for kind in ("style", "style_mask"):
        pictures = zip(row[f"{kind}_uris"] or (), row[f"{kind}_sha256s"] or (), strict=True)
        found[f"{kind}_uris"] = [names.get(digest, uri) for uri, digest in pictures]
    return found


def planned_trial(row: Mapping[str, Any], configurations: Mapping[str, Configuration]) -> Trial:
    """The trial of a PLAN row: the inverse of `plan_row`."""
    content, styles = planned_pictures(row)
    own = {name: row[name] for name in Trial.__slots__ if name in row}
    own["configuration"] = configurations[row["configuration"]]
    return Trial(**own, content=content, styles=styles)


def planned_pictures(row: Mapping[str, Any]) -> tuple[Picture | None, tuple[Picture, ...]]:
    """The content picture and the styles of a PLAN row."""
    mask = _picture(row["content_mask_uri"], row["content_mask_sha256"])
    content = _picture(row["content_uri"], row["content_sha256"], mask)
    masks = map(_picture, row["style_mask_uris"] or (), row["style_mask_sha256s"] or ())
    styles = map(_picture, row["style_uris"], row["style_sha256s"], chain(masks, repeat(None)))
    return content, tuple(style for style in styles if style)


def _picture(uri: str | None, sha256: str | None, mask: Picture | None = None) -> Picture | None:
    return None if uri is None else Picture(uri=uri, sha256=sha256, mask=mask)


def stored(record: Any) -> dict[str, Any]:
    """The fields of a record as JSON and tables hold them."""
    return {name: storable(value) for name, value in _fields(record).items()}


def configuration_from_json(fields: Mapping[str, Any]) -> Configuration:
    """The inverse of `stored` for a configuration; JSON has lists where the record has tuples."""
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
    }
    return Configuration(**values)


@functools.lru_cache(maxsize=4096)
def identity(configuration: Configuration) -> str:
    """`configuration.identity()`, computed once for each of a study's configurations, not once per trial."""
    return configuration.identity()


def blend_sha256(styles: tuple[Picture, ...]) -> str | None:
    """One picture's own identity; for a blend, the SHA-256 of its styles' joined; None if one is unread."""
    hashes = [style.identity for style in styles if style.was_read]
    if not hashes or len(hashes) < len(styles):
        return None
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


def _fields(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__slots__}


# Rows that are not yet published


def joined(segments: Iterable[pa.Table]) -> pa.Table:
    """The last attempt of each trial in any of `segments`, in order of `trial_index`."""
    rows = pa.concat_tables([SEGMENT.empty_table(), *segments], promote_options="default")
    rows = rows.sort_by([("trial_index", "ascending"), ("attempt", "descending")])
    index = rows["trial_index"].to_numpy()
    return rows.filter(pa.array(np.diff(index, prepend=-1) > 0))


def newer(segment: pa.Table, attempts: npt.NDArray[np.integer]) -> pa.Table:
    """The rows of `segment` with a later attempt than `attempts` has at their `trial_index`."""
    return segment.filter(pa.array(segment["attempt"].to_numpy() > attempts[segment["trial_index"].to_numpy()]))


def split(segment: pa.Table, table: str) -> pa.Table:
    """The rows that the results in `segment` (SEGMENT) contribute to one of the tables."""
    schema = SCHEMAS[table]
    if table == "trials":
        return segment.select(schema.names).cast(schema)
    if table == "curves":
        rows = segment.filter(pc.is_valid(segment["curve"])).combine_chunks()
        nested = rows["curve"]
    else:
        rows = segment.take(pc.list_parent_indices(segment[table]))
        nested = pc.list_flatten(segment[table])
    own = {field.name for field in nested.type}
    columns = [pc.struct_field(nested, name) if name in own else rows[name] for name in schema.names]
    return pa.table(columns, schema)


def replaced(published: pa.Table, trial_index: pa.ChunkedArray, rows: pa.Table) -> pa.Table:
    """`rows` in place of what `published` has of the trials in `trial_index`, in order of `trial_index`."""
    kept = published.filter(pc.invert(pc.is_in(published["trial_index"], trial_index.combine_chunks())))
    return pa.concat_tables([kept.cast(rows.schema), rows]).sort_by("trial_index")
