"""A run for other programs: a Hugging Face image folder, CSV, one row per step, pictures under readable names.

Everything is written below one new or empty local folder.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from string import Formatter
from typing import Any, get_args

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from nst_batch.errors import QueryError
from nst_batch.records import TERMS
from nst_batch.results import labels
from nst_batch.results.pictures import picture_bytes
from nst_batch.results.query import Session, condition
from nst_batch.store import tables
from nst_batch.store.run_directory import RunDirectory
from nst_batch.vocabulary import ExportKind

_UNSAFE = re.compile(r"[^\w.+=-]+")
_MAX_NAME_BYTES = 180
"""Of 255 that file systems allow; the rest is room for what makes names distinct."""
NAMES = "{content}__{style}__{configuration}"
"""How exported pictures are called, unless a template says otherwise."""

_WITH_REGIONS = """LEFT JOIN (
    SELECT trial_id, list(each ORDER BY label) AS regions
    FROM (SELECT * EXCLUDE (trial_index, configuration) FROM regions) each GROUP BY trial_id
) USING (trial_id)"""
Row = dict[str, Any]


def export(
    run: RunDirectory, kind: ExportKind, to: str | Path, *, where: str | None = None, names: str = NAMES
) -> list[Path]:
    """Writes a run, or the trials that `where` chooses, and returns the files that hold tables, or the folder.

    - `hf`: `train/metadata.jsonl` and the pictures beside it: `datasets.load_dataset(FOLDER)` shows them.
    - `csv`: `trials.csv`, `layers.csv` and, where pictures have masks, `regions.csv`; lists are joined with ` + `.
    - `long`: `curves_long.parquet`, one row per trial and step, and `regions.parquet` where there are any; a
      region's colour is `region_color` there if the study varies `color`.
    - `images`: the finished pictures as `CONTENT__STYLE__CONFIGURATION.png`.

    Args:
        names: How pictures are called, without the suffix: `{content}`, `{style}`, `{configuration}`, and columns
            of `trials` such as `{alpha}` or `{trial_id}`. Where two would be the same, an id is added.

    Raises:
        QueryError: `kind`, `where` or `names` is wrong, or the folder is not empty or cannot be written.
    """
    fields = _fields(names)
    if kind not in get_args(ExportKind):
        raise QueryError(f"expected one of {', '.join(get_args(ExportKind))}, found {kind!r}")
    folder = Path(to)
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise QueryError(f"{folder}: expected a new or an empty folder")
        folder.mkdir(parents=True, exist_ok=True)
        return _exported(run, kind, folder, condition(where), names, fields)
    except OSError as error:
        raise QueryError(f"{folder}: cannot be written: {error.strerror}") from error


def _exported(
    run: RunDirectory, kind: ExportKind, folder: Path, chosen: str, names: str, fields: Sequence[str]
) -> list[Path]:
    with Session(run) as session:
        own = f"trial_index IN (SELECT trial_index FROM trials WHERE {chosen})"
        regions = ["regions"] if session.query(f"SELECT 1 FROM regions WHERE {own} LIMIT 1").num_rows else []
        if kind == "csv":
            return [_write_csv(session, folder, name, own) for name in ("trials", "layers", *regions)]
        if kind == "long":
            return [_write_long(run, session, folder, name, chosen) for name in ("curves", *regions)]
        more = _WITH_REGIONS if regions else ""
        trials = session.query(
            f"SELECT * FROM trials {more} WHERE image_path IS NOT NULL AND {chosen} ORDER BY trial_index"
        )
    pictures = _named_pictures(run, trials, names, fields)
    return [_write_pictures(run, pictures, folder) if kind == "images" else _write_hf(run, pictures, folder)]


def plain_columns(table: pa.Table) -> pa.Table:
    """`table` with its lists as text, as CSV needs: layers joined with ` + `, numbers with spaces."""
    for number, field in enumerate(table.schema):
        if pa.types.is_nested(field.type):
            between = " + " if pa.types.is_list(field.type) and pa.types.is_string(field.type.value_type) else " "
            texts = [_joined(value, between) for value in table[field.name].to_pylist()]
            table = table.set_column(number, field.name, pa.array(texts, pa.string()))
    return table


def _joined(value: Any, between: str) -> str | None:
    if isinstance(value, list):
        return between.join(map(str, value))
    return value if isinstance(value, str | None) else json.dumps(value, default=str)


def _write_csv(session: Session, folder: Path, name: str, where: str) -> Path:
    table = session.query(f"SELECT * FROM {name} WHERE {where} ORDER BY trial_index")
    pyarrow.csv.write_csv(plain_columns(table), folder / f"{name}.csv")
    return folder / f"{name}.csv"


def _write_long(run: RunDirectory, session: Session, folder: Path, name: str, where: str) -> Path:
    """Written as it is read: 100,000 trials of 300 steps are 30 million rows."""
    own = ["content_uri", "style_uri", *labels.varying(run.configurations.values())]
    known = ", ".join(f"chosen.{each}" for each in own)
    columns, path = [f"unnest({each}) AS {each}" for each in ("step", *TERMS)], folder / "curves_long.parquet"
    if name == "regions":  # which have a colour, as configurations may
        measured = [
            each for each in tables.REGIONS.names if each not in ("trial_id", "trial_index", "configuration")
        ]
        columns = [f"{each} AS region_{each}" if each in own else each for each in measured]
        columns, path = [f"regions.{each}" for each in columns], folder / "regions.parquet"
    batches = session.batches(
        f"SELECT trial_id, trial_index, {name}.configuration, {known}, {', '.join(columns)} FROM {name} "
        f"JOIN (SELECT trial_index, {', '.join(own)} FROM trials WHERE {where}) chosen USING (trial_index)"
    )
    with pq.ParquetWriter(path, batches.schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch)
    return path


# Pictures


def _write_pictures(run: RunDirectory, pictures: Iterable[tuple[str, Row]], folder: Path) -> Path:
    for name, row in pictures:
        (folder / name).write_bytes(picture_bytes(run, row["image_path"]))
    return folder


def _write_hf(run: RunDirectory, pictures: Iterable[tuple[str, Row]], folder: Path) -> Path:
    path = folder / "train" / "metadata.jsonl"
    path.parent.mkdir()
    with path.open("w", encoding="utf-8") as lines:
        for name, row in pictures:
            _write_pictures(run, [(name, row)], path.parent)
            fields = {"file_name": name, **row}
            lines.write(json.dumps(fields, default=str, allow_nan=False, ensure_ascii=False) + "\n")
    return path


def _named_pictures(
    run: RunDirectory, trials: pa.Table, names: str, fields: Sequence[str]
) -> Iterator[tuple[str, Row]]:
    """Trials, each with a readable file name that no other has, whatever the case of letters."""
    uris = [uri or "" for side in ("content_uri", "style_uri") for uri in trials[side].unique().to_pylist()]
    short = labels.short_names(sorted({part for uri in uris for part in uri.split(" + ")}))
    varying = labels.varying(run.configurations.values())

    def name_of(uri: str | None) -> str:
        """Of a picture, or of several that are blended."""
        return " + ".join(short[part] for part in (uri or "").split(" + "))

    taken: set[str] = set()
    for batch in trials.to_batches(max_chunksize=1_000):
        for row in batch.to_pylist():
            configuration = run.configurations[row["configuration"]]
            known = row | {
                "content": name_of(row["content_uri"]),
                "style": name_of(row["style_uri"]),
                "configuration": labels.configuration_label(configuration, varying),
            }
            texts = {name: _joined(known[name], "+") or "" for name in fields}
            stem = _safe(names.format_map({name: _safe(text.replace(" · ", "_")) for name, text in texts.items()}))
            stem = stem.encode()[:_MAX_NAME_BYTES].decode(errors="ignore") or "picture"
            if stem.casefold() in taken:
                stem = f"{stem}__{row['trial_id'][:12]}"
            taken.add(stem.casefold())
            yield f"{stem}{PurePosixPath(row['image_path']).suffix}", row


def _safe(text: str) -> str:
    """`text` in letters that every file system takes."""
    return re.sub("_{3,}", "__", _UNSAFE.sub("-", text)).strip("-._")


def _fields(names: str) -> list[str]:
    """The fields of a template. They must be plain: one that reached into objects could read what it should not."""
    try:
        parts = [part[1:] for part in Formatter().parse(names) if part[1] is not None]
    except ValueError as error:
        raise QueryError(f"names {names!r}: {error}") from error
    for field, spec, conversion in parts:
        if field not in ("content", "style", *tables.TRIALS.names) or spec or conversion:
            known = "{content}, {style}, {configuration} and columns of trials such as {alpha}"
            raise QueryError(f"names {names!r}: expected {known}, found {{{field}}}")
    if not names.strip():
        raise QueryError("names: expected a template such as {content}-{style}-{configuration}, found nothing")
    return [str(field) for field, _, _ in parts]
