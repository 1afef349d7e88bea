"""Intervals, Pareto fronts, shares won: plain arrays, one row per pair and one column per configuration."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import stats

MIN_PAIRS = 5
"""With fewer there is no interval: too few to tell chance from merit."""
CONFIDENCE = 0.95

_MAX_RESAMPLES, _MIN_RESAMPLES, _RESAMPLED_CELLS = 9_999, 199, 50_000_000
_CHUNK_CELLS = 4_000_000

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


def bootstrap_interval(values: Floats, spread: float) -> tuple[Floats, Floats]:
    """The 95% interval of each column's mean, low and high: rows are drawn anew from a fixed seed.

    Plain percentiles are too narrow for few rows, in two ways. They use n where n - 1 is due and the normal
    distribution where Student's is: their levels are widened by as much (Hesterberg, "What teachers should know
    about the bootstrap", The American Statistician 2015, section 5.3). And a column that is first in each of few
    rows would be certain to be first: two imaginary rows are added, `spread` above and below the mean (after
    Agresti and Coull, The American Statistician 1998, who add two successes and two failures).

    Args:
        values: One row per pair, one column per configuration; with fewer than `MIN_PAIRS` rows the result is NaN.
        spread: 1 for ranks; 0 adds no rows.
    """
    rows, columns = values.shape
    if rows < MIN_PAIRS:
        return np.full(columns, np.nan), np.full(columns, np.nan)
    imaginary = values.mean(axis=0) + spread * np.array([[-1.0], [1.0]])
    widened = np.concatenate([values, imaginary.clip(values.min(), values.max())]) if spread else values
    total = len(widened)
    width = stats.t.ppf((1 + CONFIDENCE) / 2, rows - 1) * total / math.sqrt(rows * (total - 1))
    found = stats.bootstrap(
        (widened,),
        np.mean,
        n_resamples=int(np.clip(_RESAMPLED_CELLS // widened.size, _MIN_RESAMPLES, _MAX_RESAMPLES)),
        batch=max(_CHUNK_CELLS // widened.size, 1),
        confidence_level=1 - 2 * stats.norm.cdf(-width),
        method="percentile",
        random_state=np.random.default_rng(0),
    ).confidence_interval
    return np.asarray(found.low), np.asarray(found.high)


def pareto_front(content: Floats, style: Floats) -> Flags:
    """Which points no other point beats: none is at least as good (as low) in both and better in one."""
    points = zip(content, style, strict=True)
    beaten = [((content <= c) & (style <= s) & ((content < c) | (style < s))).any() for c, s in points]
    return ~np.array(beaten, np.bool_)


def shares_won(scores: Floats) -> Floats:
    """The share of rows in which each column is the smallest; columns that tie share the row."""
    first = scores == scores.min(axis=1, keepdims=True)
    return np.asarray((first / first.sum(axis=1, keepdims=True)).mean(axis=0), np.float64)
