"""Layer apart from strength: curves of content kept against style taken along one axis of the grid, compared.

At one alpha a shallow content layer is simply a stronger content weight. So for each value of the other axes the
points along the axis make a curve, and curves are compared, pair by pair, at their best point (the transfer score),
by the content kept at equal style taken, and by the area under the curve.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from scipy import stats

from nst_batch.errors import QueryError
from nst_batch.records import Configuration
from nst_batch.results.cells import Cells, labelled, ordered
from nst_batch.results.statistics import Floats
from nst_batch.vocabulary import RankBy

_LEVELS = np.arange(101) / 100
"""Of style taken."""
_COMPARED_AT = {"kept_at_0.3": 30, "kept_at_0.5": 50, "kept_at_0.7": 70}
"""Positions in `_LEVELS`."""
CRITERIA = ("score", *_COMPARED_AT, "area")


def table(cells: Cells, configurations: Mapping[str, Configuration], axis: str, by: RankBy) -> pa.Table:
    """The curves along `axis`, best first.

    Columns: `rank`, what differs apart from the axis, `weights`, `mean_rank` with its interval, `won`; then the
    means over pairs of `transfer_score` at the curve's best point, `best_AXIS` (where its mean is best),
    `kept_at_0.3` … (0 where so much style is never taken) and `area`, each with its mean rank; `points` of the
    curve, `pairs`, `failed`, `configuration` (of the best point).
    """
    if "score" not in cells.measures:
        raise QueryError("--over needs content and style pictures: without both there is no trade-off")
    chosen = [configurations[identity] for identity in cells.configurations]
    groups = _groups(chosen, axis)
    curves = ([cells.measures[name][:, members] for name in ("content", "style", "score")] for members in groups)
    criteria = np.array([[_criteria(*own) for own in zip(*curve, strict=True)] for curve in curves])
    found = {name: criteria[:, :, number].T for number, name in enumerate(CRITERIA)}
    best = [members[int(np.argmax(np.nan_to_num(cells.means("score")[members], nan=-1)))] for members in groups]
    others = [dataclasses.replace(chosen[at], **{axis: _ANY}) for at in best]
    ranks = {name: stats.rankdata(-values, axis=1) for name, values in found.items()}
    means = {name: np.where(np.isfinite(measured), measured, 0).mean(axis=0) for name, measured in found.items()}
    scores: dict[str, Any] = {"transfer_score": means.pop("score")}
    along = [getattr(chosen[at], axis) for at in best]
    scores[f"best_{axis}"] = [list(value) if isinstance(value, tuple) else value for value in along]
    values = labelled(others, ranks[by], scores | means)
    values |= {f"{name}_rank": each.mean(axis=0) for name, each in ranks.items()}
    values |= {"points": list(map(len, groups)), "pairs": np.full(len(groups), len(cells.pictures))}
    values["failed"] = [int(cells.failed("score")[members].sum()) for members in groups]
    values["configuration"] = [cells.configurations[at] for at in best]
    return ordered(values, ranks[by].mean(axis=0))


_ANY: Any = None
"""Stands for the axis, so that it does not count as a difference."""


def _groups(chosen: Sequence[Configuration], axis: str) -> list[list[int]]:
    """The positions of the configurations that differ in `axis` alone, along it."""
    names = [field.name for field in dataclasses.fields(Configuration)]
    if axis not in names:
        raise QueryError(f"--over {axis}: expected a field of the configurations, one of {', '.join(names)}")
    groups: dict[Configuration, list[int]] = {}
    for position, configuration in enumerate(chosen):
        groups.setdefault(dataclasses.replace(configuration, **{axis: _ANY}), []).append(position)
    if all(len(members) == 1 for members in groups.values()):
        raise QueryError(f"--over {axis}: the run has one value of it only, so there are no curves along it")
    if all(isinstance(getattr(configuration, axis), int | float) for configuration in chosen):
        for members in groups.values():
            members.sort(key=lambda position: float(getattr(chosen[position], axis)))
    return list(groups.values())


def _criteria(kept: Floats, taken: Floats, score: Floats) -> list[float]:
    """What one curve on one pair is compared by, as in `CRITERIA`; -infinity where every point failed."""
    ok = np.isfinite(score)
    if not ok.any():
        return [-np.inf] * len(CRITERIA)
    reached = kept_at(kept[ok], taken[ok])
    area = np.trapezoid(reached, _LEVELS)
    return [float(score[ok].max()), *reached[list(_COMPARED_AT.values())], float(area)]


def kept_at(kept: Floats, taken: Floats) -> Floats:
    """The most content that a curve keeps with at least so much style taken, at style taken 0, 0.01 … 1.

    Of the points in their order along the axis; between neighbours the curve is a straight line, and style that is
    never taken gives 0.
    """
    found = np.max(np.where(taken[:, None] >= _LEVELS, kept[:, None], 0.0), axis=0)
    for left in range(len(kept) - 1):
        two = slice(left, left + 2)
        order = np.argsort(taken[two], kind="stable")
        low, high = taken[two][order]
        between = (low < _LEVELS) & (high > _LEVELS)
        line = np.interp(_LEVELS, taken[two][order], kept[two][order])
        found = np.where(between, np.maximum(found, line), found)
    return np.asarray(np.maximum.accumulate(found[::-1])[::-1])
