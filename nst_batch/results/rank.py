"""Which configurations are best: ranked pair by pair, on distances that are comparable between configurations.

Losses of different layers cannot be compared with each other, so trials are judged by what the network's 13
convolutions say of the finished picture, whatever was optimised: `content_distance` (how much of the content is
lost) and `style_distance` (how far the style is missed). Within each pair the configurations get ranks, 1 for the
best and the average where they tie; the mean of these over pairs is what they are ordered by. Distances of easy and
hard pictures are thereby never mixed (Demšar, "Statistical comparisons of classifiers over multiple data sets",
JMLR 2006, section 3.2.2).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy.stats import rankdata

from nst_batch.errors import QueryError
from nst_batch.records import Configuration
from nst_batch.results import labels
from nst_batch.results.query import Session, condition
from nst_batch.results.rank_statistics import (
    MIN_PAIRS,
    Flags,
    Floats,
    bootstrap_interval,
    pareto_front,
    shares_won,
)
from nst_batch.store import tables
from nst_batch.store.run_directory import RunDirectory
from nst_batch.vocabulary import RankBy

_HIGHER_IS_BETTER = ("ssim",)
_COLUMNS = {"content": "content_distance", "style": "style_distance", "ssim": "ssim", "color": "color_distance"}


def rank(run: RunDirectory, by: RankBy = "both", *, where: str | None = None, metrics: bool = False) -> pa.Table:
    """The configurations of a run, best first; a run in progress is ranked on what has ended.

    Columns: `rank` (equal where `mean_rank` is), what differs between the configurations, `weights`, `mean_rank`
    with its interval from `low` to `high` (95%, bootstrap over pairs; NULL with fewer than 5 pairs), `won` (the
    share of pairs in which it is first; ties count in parts), `pareto` (no other has both distances smaller), the
    mean ranks and mean distances, `pairs`, `failed`, `configuration`. A failed trial is last in its pair. What a
    reader must know beside the numbers is in `notes(table)`.

    Args:
        by: What the order follows; both: the mean of the content and style ranks; ssim and color: the measures of
            `results.metrics`.
        where: An SQL condition on `trials`: only these are ranked.
        metrics: Also measure the pictures: `ssim` to the content, `color_distance` to the style. Reads them all.

    Raises:
        QueryError: `by` or `where` is wrong, no trial has ended, or a package for the measures is missing.
    """
    if by not in get_args(RankBy):
        raise QueryError(
            f"expected to rank by {', '.join(get_args(RankBy))}, found {by!r}; training losses of different layers "
            f"cannot be compared, so nothing is ranked by them"
        )
    with Session(run) as session:
        trials = session.query(f"SELECT {', '.join(_TRIAL_COLUMNS)} FROM trials WHERE {condition(where)}")
    if metrics or by in ("ssim", "color"):
        from nst_batch.results.metrics import measure

        trials = measure(run, trials)
    cells = _Cells.of(trials, list(run.configurations)).compared()
    table = _table(cells, run.configurations, by)
    return table.replace_schema_metadata({"notes": json.dumps(cells.notes, ensure_ascii=False)})


def notes(ranking: pa.Table) -> list[str]:
    """What must be known to read a table from `rank`: small samples, trials that are missing, random weights."""
    found: list[str] = json.loads((ranking.schema.metadata or {}).get(b"notes", b"[]"))
    return found


_TRIAL_COLUMNS = (
    "trial_index", "configuration", "content_uri", "style_uri", "status", "content_distance", "style_distance",
)  # fmt: skip


@dataclass(slots=True)
class _Cells:
    """Pairs × configurations: the measures of each trial; NaN has not ended, infinity failed."""

    configurations: list[str]
    measures: dict[str, Floats]
    """RankBy short name; lower is better."""
    contents: npt.NDArray[np.int64]
    styles: npt.NDArray[np.int64]
    """The pictures of each pair, by number."""
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, trials: pa.Table, order: list[str]) -> _Cells:
        """The cells of the trials that have ended; configurations in the given order."""
        present = set(pc.unique(trials["configuration"]).to_pylist())
        configurations = [identity for identity in order if identity in present]
        columns = pc.index_in(trials["configuration"], pa.array(configurations, pa.string())).to_numpy()
        contents, styles = _codes(trials["content_uri"]), _codes(trials["style_uri"])
        first_seen, rows = _numbered(contents * (styles.max(initial=0) + 1) + styles)
        ok = pc.equal(trials["status"], "ok").to_numpy()
        measures = {}
        for name, column in _COLUMNS.items():
            if column in trials.schema.names:
                values = pc.fill_null(trials[column], math.nan).to_numpy().astype(np.float64)
                if name in _HIGHER_IS_BETTER:
                    values = -values
                if not np.isfinite(values[ok]).any():
                    continue  # a study without content or style pictures
                values = np.where(ok & np.isfinite(values), values, np.inf)
                measures[name] = np.full((len(first_seen), len(configurations)), np.nan)
                measures[name][rows, columns] = values
        if not measures:
            raise QueryError("no trial to rank: none has ended well yet, or none fits --where")
        return cls(configurations, measures, contents[first_seen], styles[first_seen])

    def compared(self) -> _Cells:
        """The pairs and configurations of which every trial has ended: the largest such block there is."""
        values = next(iter(self.measures.values()))
        some_ok: Flags = np.asarray(np.isfinite(values).any(axis=1), np.bool_)
        ended: Flags = np.asarray(~np.isnan(values) & some_ok[:, None], np.bool_)
        rows, columns = _largest_block(ended)
        kept = _Cells(
            [name for name, keep in zip(self.configurations, columns, strict=True) if keep],
            {name: each[np.ix_(rows, columns)] for name, each in self.measures.items()},
            self.contents[rows],
            self.styles[rows],
        )
        if rows.sum() < some_ok.sum() or not columns.all():
            kept.notes.append(
                f"Compares {columns.sum():,} of {len(columns):,} configurations on {rows.sum():,} of "
                f"{some_ok.sum():,} pairs: the other trials have not ended."
            )
        return kept

    @property
    def num_pairs(self) -> int:
        return len(self.contents)

    @property
    def failed(self) -> npt.NDArray[np.int64]:
        """The failed trials of each configuration."""
        return np.asarray(np.isinf(next(iter(self.measures.values()))).sum(axis=0), np.int64)


def _table(cells: _Cells, configurations: Mapping[str, Configuration], by: RankBy) -> pa.Table:
    chosen = [configurations[identity] for identity in cells.configurations]
    ranks = {name: rankdata(values, axis=1) for name, values in cells.measures.items()}
    score = _score(ranks, by)
    low, high = bootstrap_interval(score, spread=1.0)
    mean = score.mean(axis=0)
    order = np.argsort(mean.round(9), kind="stable")
    content, style = (_means(cells.measures.get(name), len(chosen)) for name in ("content", "style"))
    values: dict[str, Any] = {"rank": np.searchsorted(np.sort(mean.round(9)), mean.round(9)) + 1}
    for name in dict.fromkeys((*labels.varying(chosen), "weights")):
        kind = tables.TRIALS.field(name).type
        values[name] = pa.array([getattr(each, name) for each in chosen], kind)
    values |= {"mean_rank": mean, "low": low, "high": high, "won": shares_won(score)}
    values["pareto"] = pareto_front(*(np.nan_to_num(each, nan=np.inf) for each in (content, style)))
    values |= {f"{name}_rank": each.mean(axis=0) for name, each in ranks.items()}
    values |= {
        _COLUMNS[name]: (-1 if name in _HIGHER_IS_BETTER else 1) * _means(each, len(chosen))
        for name, each in cells.measures.items()
    }
    values |= {"pairs": np.full(len(chosen), cells.num_pairs), "failed": cells.failed}
    values["configuration"] = cells.configurations
    _note(cells, chosen, by)
    columns = {name: pa.array(value, from_pandas=True) for name, value in values.items()}
    return pa.table(columns).take(pa.array(order))


def _score(ranks: Mapping[str, Floats], by: RankBy) -> Floats:
    """What the order follows: the ranks by one measure, or the mean of those by content and style."""
    if by != "both":
        if by not in ranks:
            raise QueryError(f"cannot rank by {by}: this study has no such pictures, or they cannot be read")
        return ranks[by]
    chosen = [ranks[name] for name in ("content", "style") if name in ranks]
    return np.asarray(np.mean(chosen, axis=0), np.float64)


def _note(cells: _Cells, chosen: list[Configuration], by: RankBy) -> None:
    pairs, contents, styles = cells.num_pairs, len(set(cells.contents)), len(set(cells.styles))
    if pairs < MIN_PAIRS:
        few = "1 pair" if pairs == 1 else f"{pairs} pairs"
        cells.notes.append(f"Only {few}: too few for an interval; the order may be chance.")
    elif max(contents, styles) < pairs:
        cells.notes.append(
            f"The {pairs:,} pairs share pictures ({contents:,} contents, {styles:,} styles); the interval takes "
            f"them as independent and is rather too narrow."
        )
    if len(chosen) == 1:
        cells.notes.append("There is one configuration only: nothing to compare.")
    if failed := int(cells.failed.sum()):
        cells.notes.append(f"{failed:,} failed trials count as last in their pairs.")
    if by == "both" and not {"content", "style"} <= cells.measures.keys():
        only = "content" if "content" in cells.measures else "style"
        cells.notes.append(f"Ranked by {only} alone: the study has no other pictures.")
    if any(each.weights.startswith("random") for each in chosen):
        cells.notes.append("RANDOM weights: the network is untrained, and so are the features that judge here.")


def _largest_block(ended: Flags) -> tuple[Flags, Flags]:
    """The rows and columns of the largest all-true block, among three candidates."""
    rows: Flags = np.asarray(ended.any(axis=1), np.bool_)
    fullest = ended[ended.sum(axis=1).argmax()]
    candidates: list[tuple[Flags, Flags]] = [
        (np.asarray(ended.all(axis=1), np.bool_), np.ones(ended.shape[1], np.bool_)),
        (rows, np.asarray(ended[rows].all(axis=0), np.bool_)),
        (np.asarray(ended[:, fullest].all(axis=1), np.bool_), fullest),
    ]
    return max(candidates, key=lambda block: int(block[0].sum()) * int(block[1].sum()))


def _means(values: Floats | None, columns: int) -> Floats:
    """The mean of each column over the trials that did not fail; NaN if all did."""
    if values is None:
        return np.full(columns, np.nan)
    finite = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(finite, values, 0).sum(axis=0) / finite.sum(axis=0), np.float64)


def _codes(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Equal numbers for equal texts; NULL is a text of its own."""
    encoded = pc.fill_null(column, "").combine_chunks().dictionary_encode()
    return np.asarray(encoded.indices.to_numpy(zero_copy_only=False), np.int64)


def _numbered(codes: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Where each distinct code is first, and each code's number among them."""
    _, first_seen, numbers = np.unique(codes, return_index=True, return_inverse=True)
    return first_seen.astype(np.int64), numbers.astype(np.int64)
