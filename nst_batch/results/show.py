"""One trial with everything that is known of it, and lists of trials to choose from."""

from __future__ import annotations

import pyarrow as pa

from nst_batch.errors import QueryError
from nst_batch.results import labels
from nst_batch.results.query import Session
from nst_batch.store.run_directory import RunDirectory

_INDEX_DIGITS = 7
"""A number of more digits is the beginning of a trial_id."""


def listed(run: RunDirectory, where: str | None = None) -> pa.Table:
    """The trials that `where` chooses: their names, what distinguishes their configurations, and how they ended."""
    fields = [name for name in labels.varying(run.configurations.values()) if name != "weights_sha256"]
    columns = ["trial_index", "trial_id", "status", "content_uri", "style_uri"]
    columns += dict.fromkeys((*fields, "weights"))  # that they are random is always said
    columns += ["content_distance", "style_distance", "steps_done", "seconds", "error_message"]
    with Session(run) as session:
        return session.query(f"SELECT {', '.join(columns)} FROM trials {_condition(where)} ORDER BY trial_index")


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
    fits = f"trial_index = {int(name)}" if _is_index(name) else f"starts_with(trial_id, '{name}')"
    with Session(run) as session:
        ids = f"SELECT trial_id FROM trials WHERE ({fits}) AND ({where or 'true'}\n) ORDER BY trial_index LIMIT 4"
        found = session.query(ids)["trial_id"].to_pylist()
        if not found:
            raise QueryError(f"{trial}: no such trial has ended; `nst-batch show DIR` lists those that have")
        if len(found) > 1:
            raise QueryError(f"{trial}: several trials begin so: {', '.join(found)}")
        row = session.query(f"SELECT * FROM trials WHERE trial_id = '{found[0]}'")
        distances = "layer, content_distance, style_distance"
        layers = session.query(f"SELECT {distances} FROM layers WHERE trial_id = '{found[0]}'").to_pylist()
        curve = "step, content, style, tv, total"
        curves = session.query(f"SELECT {curve} FROM curves WHERE trial_id = '{found[0]}'").to_pylist()
    row = row.append_column("layers", pa.array([layers]))
    return row.append_column("curve", pa.array([curves[0] if curves else None]))


def _is_index(name: str) -> bool:
    return name.isdecimal() and len(name) <= _INDEX_DIGITS


def _condition(where: str | None) -> str:
    return f"WHERE ({where}\n)" if where else ""
