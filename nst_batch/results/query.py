"""SQL over the tables of a run, finished or in progress, local or in an object store: read-only and locked down.

The views `trials`, `curves`, `layers` and `regions` show each trial once, as of the moment the session was opened.
`trials` has two columns more than its files: `content_layer` and `style_layer`, the layer lists as text, so that
`content_layer = 'block4_conv1'` is all a filter needs.

DuckDB is given the files of these tables and no others: with `enable_external_access` off and the configuration
locked, a query can read nothing else, and only SELECT statements are accepted, which write nothing.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Self

import duckdb
import pyarrow as pa
from pyarrow import dataset

from nst_batch.errors import QueryError, RunDirectoryError
from nst_batch.records import TERMS
from nst_batch.results import labels
from nst_batch.store import tables
from nst_batch.store.run_directory import RunDirectory

_DERIVED = {
    "content_layer": "nullif(array_to_string(content_layers, ' + '), '')",
    "style_layer": "nullif(array_to_string(style_layers, ' + '), '')",
}
"""Columns that the view `trials` adds."""

_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "python_enable_replacements": "false",
    "temp_directory": "",
    "enable_external_access": "false",
}
_NUMBERS_OF_MASKS = """
    SELECT max(content) AS content_mask_uri, max(style) AS style_mask_uri FROM (
        SELECT count(DISTINCT coalesce(content_mask_uri, '')) AS content,
            count(DISTINCT coalesce(style_mask_uri, '')) AS style
        FROM trials GROUP BY content_uri, style_uri)
"""
"""With how many masks, at most, trials of the same pictures were run."""
_INDEX_DIGITS = 7
"""A number of more digits is the beginning of a trial_id."""


def query(run: RunDirectory, sql: str) -> pa.Table:
    """The answer to one SELECT over `trials`, `curves`, `layers` and `regions`.

    Raises:
        QueryError: It cannot be answered; the message shows the tables and their columns.
        RunDirectoryError: The run cannot be read.
    """
    with Session(run) as session:
        return session.query(sql)


def listed(run: RunDirectory, where: str | None = None) -> pa.Table:
    """The trials that `where` chooses: their names, what distinguishes their configurations, and how they ended.

    Masks are named where trials of the same pictures differ in them.
    """
    fields = dict.fromkeys((*labels.varying(run.configurations.values()), "weights"))  # random is always said
    with Session(run) as session:
        [numbers_of_masks] = session.query(_NUMBERS_OF_MASKS).to_pylist()
        masks = [name for name, number in numbers_of_masks.items() if number and number > 1]
        columns = ["trial_index", "trial_id", "status", "content_uri", "style_uri", *masks, *fields]
        columns += [*labels.SCORES, "steps_done", "seconds", "error_message"]
        return session.query(
            f"SELECT {', '.join(columns)} FROM trials WHERE {condition(where)} ORDER BY trial_index"
        )


def trial_row(run: RunDirectory, trial: str, where: str | None = None) -> pa.Table:
    """One row: the trial's columns, its distances at each layer and its loss history.

    Args:
        trial: Its trial_id, or as much of its beginning as no other shares; or its trial_index.

    Raises:
        QueryError: No trial that has ended fits, or several do.
    """
    name = trial.strip().lower()
    if not (name.isascii() and name.isalnum()):
        raise QueryError(f"expected a trial_id or a trial_index, found {trial!r}")
    is_index = name.isdecimal() and len(name) <= _INDEX_DIGITS
    fits = f"trial_index = {int(name)}" if is_index else f"starts_with(trial_id, '{name}')"
    with Session(run) as session:
        rows = session.query(
            f"SELECT * FROM trials WHERE ({fits}) AND {condition(where)} ORDER BY trial_index LIMIT 4"
        )
        found = rows["trial_id"].to_pylist()
        if not found:
            raise QueryError(f"{trial}: no such trial has ended; `nst-batch show DIR` lists those that have")
        if len(found) > 1:
            raise QueryError(f"{trial}: several trials begin so: {', '.join(found)}")
        own = f"WHERE trial_id = '{found[0]}'"
        parts = {
            name: session.query(f"SELECT * EXCLUDE (trial_id, trial_index, configuration) FROM {name} {own}")
            for name in ("layers", "regions")
        }
        curves = session.query(f"SELECT {', '.join(('step', *TERMS))} FROM curves {own}").to_pylist()
    for name, part in parts.items():
        rows = rows.append_column(name, pa.array([part.to_pylist()], pa.list_(pa.struct(part.schema))))
    if logs := run.worker_logs(found[0]):
        rows = rows.append_column("worker_logs", pa.array(["\n\n".join(logs)]))
    return rows.append_column("curve", pa.array([curves[0] if curves else None]))


class Session:
    """The tables of a run at one moment, and `more` by name, for any number of queries; for a `with` block."""

    def __init__(self, run: RunDirectory, **more: pa.Table) -> None:
        _ = run.study  # says what is wrong if this is no run directory
        self._connection = duckdb.connect(config=_CONFIG)
        self._connection.execute("SET TimeZone = 'UTC'; SET lock_configuration = true")
        snapshot = run.snapshot()
        for name in tables.SCHEMAS:
            table = _dataset(run, name, snapshot.paths(name), snapshot.rest(name))
            columns = [f", {sql} AS {column}" for column, sql in _DERIVED.items() if name == "trials"]
            self._connection.register(f"all_{name}", table)
            self._connection.execute(f"CREATE VIEW {name} AS SELECT *{''.join(columns)} FROM all_{name}")
        for name, table in more.items():
            self._connection.register(name, table)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def query(self, sql: str) -> pa.Table:
        """The answer to one SELECT; QueryError where it cannot be answered."""
        with _explained():
            return self._select(sql).to_arrow_table()

    def batches(self, sql: str) -> pa.RecordBatchReader:
        """The same, computed as it is read."""
        with _explained():
            return pa.RecordBatchReader.from_stream(self._select(sql))

    def _select(self, sql: str) -> duckdb.DuckDBPyRelation:
        statements = self._connection.extract_statements(sql)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            found = ", ".join(statement.type.name for statement in statements) or "nothing"
            raise QueryError(f"expected one SELECT, found {found}: a run is only ever read")
        return self._connection.sql(sql)


def _dataset(run: RunDirectory, name: str, paths: Sequence[str], rest: pa.Table) -> dataset.Dataset:
    """A table: its published files, and the rows that are not in them."""
    for path in paths:
        if run.directory.leads_outside(path):
            reason = "a link that leads out of the run directory; put the file itself there"
            raise RunDirectoryError(f"{run.directory.url(path)}: {reason}")
    if not paths:
        return dataset.dataset(rest)
    keys = [run.directory.key(path) for path in paths]
    try:
        published = dataset.dataset(keys, format="parquet", filesystem=run.directory.filesystem)
        return dataset.dataset([published.replace_schema(rest.schema), dataset.dataset(rest)])
    except (pa.ArrowException, OSError) as error:
        raise RunDirectoryError(f"{run.directory.url()}: {name} cannot be read: {error}") from error


def describe() -> dict[str, list[str]]:
    """The columns of each table, as queries see them."""
    return {
        name: [*schema.names, *(_DERIVED if name == "trials" else ())] for name, schema in tables.SCHEMAS.items()
    }


def condition(where: str | None) -> str:
    """A user's condition as part of a larger one; the line break ends a comment that it may end with."""
    return f"({where}\n)" if where else "true"


@contextmanager
def _explained() -> Iterator[None]:
    """Turns what DuckDB and Arrow raise into a QueryError that shows what could be asked."""
    try:
        yield
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        available = [
            textwrap.fill(", ".join(columns), 110, initial_indent=f"  {name}: ", subsequent_indent="    ")
            for name, columns in describe().items()
        ]
        text = "\n".join([_reason(error), "", "The tables and their columns:", *available])
        raise QueryError(text) from error


def _reason(error: Exception) -> str:
    """DuckDB's message without its suggestions, which name internal tables."""
    lines = str(error).split("\n")
    kept = [line for line in lines if not line.startswith(("Did you mean", "Candidate bindings"))]
    return "\n".join(kept).strip()
