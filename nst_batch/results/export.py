"""A run for other programs: a Hugging Face image folder, CSV, one row per step, pictures under readable names.

Everything is written below one new or empty local folder.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import partial
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


def export(
    run: RunDirectory, kind: ExportKind, to: str | Path, *, where: str | None = None, names: str = NAMES
) -> list[Path]:
    """Writes a run, or the trials that `where` chooses, and returns the files that hold tables, or the folder.

    - `hf`: `train/metadata.jsonl` and the pictures beside it: `datasets.load_dataset(FOLDER)` shows them.
    - `csv`: `trials.csv` and `layers.csv`; lists are joined with ` + `.
    - `long`: `curves_long.parquet`, one row per trial and step.
    - `images`: the finished pictures as `CONTENT__STYLE__CONFIGURATION.png`.

    Args:
        names: How pictures are called, without the suffix: `{content}`, `{style}`, `{configuration}`, and columns
            of `trials` such as `{alpha}` or `{trial_id}`. Where two would be the same, an id is added.

    Raises:
        QueryError: `kind`, `where` or `names` is wrong, or the folder is not empty.
    """
    _check_names(names)
    if kind not in get_args(ExportKind):
        raise QueryError(f"expected one of {', '.join(get_args(ExportKind))}, found {kind!r}")
    folder = Path(to)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise QueryError(f"{folder}: expected a new or an empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    writers: dict[ExportKind, Callable[[RunDirectory, Session, Path, str], list[Path]]] = {
        "hf": partial(_write_hf, names=names), "images": partial(_write_images, names=names),
        "csv": _write_csv, "long": _write_long,
    }  # fmt: skip
    with Session(run) as session:
        return writers[kind](run, session, folder, condition(where))


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
    if isinstance(value, str) or value is None:
        return value
    return json.dumps(value, default=str)


def _write_csv(run: RunDirectory, session: Session, folder: Path, where: str) -> list[Path]:  # noqa: ARG001
    chosen = f"trial_index IN (SELECT trial_index FROM trials WHERE {where})"
    paths = []
    for name in ("trials", "layers"):
        table = session.query(f"SELECT * FROM {name} WHERE {chosen} ORDER BY trial_index")
        paths.append(folder / f"{name}.csv")
        pyarrow.csv.write_csv(plain_columns(table), paths[-1])
    return paths


def _write_long(run: RunDirectory, session: Session, folder: Path, where: str) -> list[Path]:
    """Written as it is read: 100,000 trials of 300 steps are 30 million rows."""
    path = folder / "curves_long.parquet"
    pictures = ", ".join(("content_uri", "style_uri", *labels.varying(run.configurations.values())))
    steps = ", ".join(f"unnest({name}) AS {name}" for name in ("step", *TERMS))
    sql = (
        f"SELECT trial_id, trial_index, configuration, {pictures}, {steps} FROM curves "
        f"JOIN (SELECT trial_index, {pictures} FROM trials WHERE {where}) USING (trial_index)"
    )
    batches = session.batches(sql)
    with pq.ParquetWriter(path, batches.schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch)
    return [path]


def _write_images(run: RunDirectory, session: Session, folder: Path, where: str, names: str) -> list[Path]:
    for name, row in _named_pictures(run, session, where, names):
        (folder / name).write_bytes(picture_bytes(run, row["image_path"]))
    return [folder]


def _write_hf(run: RunDirectory, session: Session, folder: Path, where: str, names: str) -> list[Path]:
    train = folder / "train"
    train.mkdir()
    path = train / "metadata.jsonl"
    with path.open("w", encoding="utf-8") as lines:
        for name, row in _named_pictures(run, session, where, names):
            (train / name).write_bytes(picture_bytes(run, row["image_path"]))
            fields = {"file_name": name, **row}
            lines.write(json.dumps(fields, default=str, allow_nan=False, ensure_ascii=False) + "\n")
    return [path]


def _named_pictures(
    run: RunDirectory, session: Session, where: str, names: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The trials that have a picture, each with a readable name that no other has, whatever the case of letters."""
    chosen = f"image_path IS NOT NULL AND {where}"
    trials = session.query(f"SELECT * FROM trials WHERE {chosen} ORDER BY trial_index")
    uris = {uri for column in ("content_uri", "style_uri") for uri in trials[column].unique().to_pylist() if uri}
    short, fields = labels.short_names(sorted(uris)), labels.varying(run.configurations.values())
    taken: set[str] = set()
    for batch in trials.to_batches(max_chunksize=1_000):
        for row in batch.to_pylist():
            content, style = (short.get(row[column], "") for column in ("content_uri", "style_uri"))
            label = labels.configuration_label(run.configurations[row["configuration"]], fields)
            stem = _stem(names, row | {"content": content, "style": style, "configuration": label})
            if stem.casefold() in taken:
                stem = f"{stem}__{row['trial_id'][:12]}"
            taken.add(stem.casefold())
            yield f"{stem}{PurePosixPath(row['image_path']).suffix}", row


def _check_names(names: str) -> None:
    """Only plain fields: a template that could reach into objects could read what it should not."""
    allowed = {"content", "style", *tables.TRIALS.names}
    try:
        parts = [(field, spec, conversion) for _, field, spec, conversion in Formatter().parse(names)]
    except ValueError as error:
        raise QueryError(f"names {names!r}: {error}") from error
    for field, spec, conversion in parts:
        if field is not None and (field not in allowed or spec or conversion):
            known = "{content}, {style}, {configuration} and columns of trials such as {alpha}"
            raise QueryError(f"names {names!r}: expected {known}, found {{{field}}}")
    if not names.strip():
        raise QueryError("names: expected a template such as {content}-{style}-{configuration}, found nothing")


def _stem(names: str, fields: dict[str, Any]) -> str:
    """A file's name without suffix: what the template says, of letters that every file system takes."""
    parts = (
        literal + ("" if field is None else _file_name(_joined(fields[field], "+") or ""))
        for literal, field, _, _ in Formatter().parse(names)
    )
    whole = re.sub("_{3,}", "__", _UNSAFE.sub("-", "".join(parts))).strip("-._") or "picture"
    return whole.encode()[:_MAX_NAME_BYTES].decode(errors="ignore")


def _file_name(text: str) -> str:
    return _UNSAFE.sub("-", text.replace(" · ", "_")).strip("-.")
