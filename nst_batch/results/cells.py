"""Pairs × configurations: the measures of a run's trials as arrays that can be compared pair by pair."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nst_batch.errors import QueryError
from nst_batch.records import Configuration
from nst_batch.results import labels
from nst_batch.results.query import Session, condition
from nst_batch.results.statistics import Flags, Floats, bootstrap_interval, shares_won
from nst_batch.store import tables
from nst_batch.store.run_directory import RunDirectory

_COLUMNS = (
    "trial_index", "configuration", "status", "image_path", "content_sha256", "style_sha256",
    "content_kept", "style_taken", "transfer_score", "content_distance", "style_distance",
)  # fmt: skip


def ended_trials(run: RunDirectory, where: str | None = None) -> pa.Table:
    """The ended trials that `where` chooses: what they are judged by, and in `pair` the number of their pair.

    Pictures and their masks are told apart by what they hold: names may change. Those that nobody could read have
    a name only.
    """
    sides = "coalesce(content_sha256, content_uri), coalesce(style_sha256, style_uri)"
    pair = f"dense_rank() OVER (ORDER BY {sides}) - 1 AS pair"
    with Session(run) as session:
        return session.query(f"SELECT {', '.join(_COLUMNS)}, {pair} FROM trials WHERE {condition(where)}")


def numbers(column: pa.ChunkedArray) -> Floats:
    """A column as an array, NaN for NULL."""
    return np.asarray(pc.fill_null(column, math.nan).to_numpy(), np.float64)


@dataclass(frozen=True, slots=True)
class Cells:
    """The measures of each pair under each configuration; higher is better, NaN has not ended, -infinity failed."""

    configurations: list[str]
    """Identities, of the columns."""
    pictures: list[tuple[str | None, str | None]]
    """The SHA-256 of content and style, of the rows."""
    measures: dict[str, Floats]
    """By name. The first one decides which trials have failed."""

    @classmethod
    def of(cls, trials: pa.Table, measures: Mapping[str, Floats], order: Sequence[str]) -> Cells:
        """The cells of trials from `ended_trials`, of which each has one number per measure.

        Measures that no trial has are left out. Raises QueryError where there is nothing to compare.
        """
        present = set(pc.unique(trials["configuration"]).to_pylist())
        configurations = [identity for identity in order if identity in present]
        columns = pc.index_in(trials["configuration"], pa.array(configurations, pa.string())).to_numpy()
        rows, ok = trials["pair"].to_numpy(), pc.equal(trials["status"], "ok").to_numpy()
        first = np.unique(rows, return_index=True)[1]
        pictures = [trials[name].take(first).to_pylist() for name in ("content_sha256", "style_sha256")]
        found = {}
        for name, values in measures.items():
            known = ok & np.isfinite(values)
            if known.any():
                found[name] = np.full((len(first), len(configurations)), np.nan)
                found[name][rows, columns] = np.where(known, values, -np.inf)
        if not found:
            raise QueryError("no trial to rank: none has ended well yet, or none fits --where")
        return cls(configurations, list(zip(*pictures, strict=True)), found)

    def compared(self) -> tuple[Cells, list[str]]:
        """The pairs and configurations of which every trial has ended, and a note of what is left out."""
        values = next(iter(self.measures.values()))
        some_ok: Flags = np.asarray(np.isfinite(values).any(axis=1), np.bool_)
        ended: Flags = np.asarray(~np.isnan(values) & some_ok[:, None], np.bool_)
        rows, columns = _largest_block(ended)
        kept = Cells(
            [name for name, keep in zip(self.configurations, columns, strict=True) if keep],
            [each for each, keep in zip(self.pictures, rows, strict=True) if keep],
            {name: each[np.ix_(rows, columns)] for name, each in self.measures.items()},
        )
        if rows.sum() == some_ok.sum() and columns.all():
            return kept, []
        compares = f"Compares {columns.sum():,} of {len(columns):,} configurations on {rows.sum():,} of"
        return kept, [f"{compares} {some_ok.sum():,} pairs: the other trials have not ended."]

    def means(self, name: str) -> Floats:
        """A measure's mean over the pairs that did not fail, for each configuration; NaN if all did."""
        values = self.measures[name]
        finite = np.isfinite(values)
        with np.errstate(invalid="ignore"):
            return np.asarray(np.where(finite, values, 0).sum(axis=0) / finite.sum(axis=0), np.float64)

    def failed(self, name: str) -> Floats:
        """The failed trials of each configuration."""
        return np.asarray(np.isneginf(self.measures[name]).sum(axis=0))


def _largest_block(ended: Flags) -> tuple[Flags, Flags]:
    """The rows and columns of the largest all-true block, among three candidates."""
    full = np.asarray(ended[ended.any(axis=1)].all(axis=0), np.bool_)
    blocks = [
        (np.asarray(ended[:, columns].all(axis=1), np.bool_), columns)
        for columns in (np.ones_like(full), full, ended[ended.sum(axis=1).argmax()])
    ]
    return max(blocks, key=lambda block: int(block[0].sum()) * int(block[1].sum()))


# Columns of a ranking


def labelled(chosen: Sequence[Configuration], ranks: Floats, scores: Mapping[str, Any]) -> dict[str, Any]:
    """The first columns of a ranking: what differs, `scores`, and the mean rank with its interval."""
    mean = ranks.mean(axis=0).round(9)
    values: dict[str, Any] = {"rank": np.searchsorted(np.sort(mean), mean) + 1}
    for name in dict.fromkeys((*labels.varying(chosen), "weights")):
        kind = tables.TRIALS.field(name).type
        values[name] = pa.array([getattr(each, name) for each in chosen], kind)
    low, high = bootstrap_interval(ranks, spread=1.0)
    return (
        values
        | dict(scores)
        | {"mean_rank": ranks.mean(axis=0), "low": low, "high": high, "won": shares_won(ranks)}
    )


def ordered(values: Mapping[str, Any], keys: Floats) -> pa.Table:
    """The columns as a table, the smallest of `keys` first, NaN last."""
    columns = {name: pa.array(value, from_pandas=True) for name, value in values.items()}
    return pa.table(columns).take(pa.array(np.argsort(keys.round(9), kind="stable")))
