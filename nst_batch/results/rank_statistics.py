"""Ranks, their intervals, Pareto fronts: plain arrays, one row per pair and one column per configuration."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

MIN_PAIRS = 5
"""With fewer there is no interval: too few to tell chance from merit."""
CONFIDENCE = 0.95

_MAX_RESAMPLES, _MIN_RESAMPLES, _RESAMPLED_CELLS = 10_000, 1_000, 20_000_000
_CHUNK_CELLS = 4_000_000

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


def average_ranks(values: Floats) -> Floats:
    """Ranks within each row, 1 for the smallest; equal values share the mean of their ranks; NaN is not allowed."""
    rows, columns = values.shape
    order = np.argsort(values, axis=1, kind="stable")
    ordered = np.take_along_axis(values, order, axis=1)
    positions = np.broadcast_to(np.arange(columns), values.shape)
    begins = np.ones((rows, columns), np.bool_)
    begins[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    ends = np.ones((rows, columns), np.bool_)
    ends[:, :-1] = begins[:, 1:]
    first = np.maximum.accumulate(np.where(begins, positions, 0), axis=1)
    last = np.minimum.accumulate(np.where(ends, positions, columns)[:, ::-1], axis=1)[:, ::-1]
    ranks = np.empty(values.shape)
    np.put_along_axis(ranks, order, (first + last) / 2 + 1, axis=1)
    return ranks


def bootstrap_interval(ranks: Floats) -> tuple[Floats, Floats]:
    """The 95% interval of each column's mean rank: rows are drawn anew, with replacement, from a fixed seed.

    Plain percentiles are too narrow for few rows, in two ways. They use n where n - 1 is due and the normal
    distribution where Student's is: their levels are widened by as much (Hesterberg, "What teachers should know
    about the bootstrap", The American Statistician 2015, section 5.3). And a column that is first in each of few
    rows would be certain to be first: two imaginary rows are added, in which each column is a rank better and a
    rank worse than its mean (after Agresti and Coull, The American Statistician 1998, who add two successes and
    two failures). Measured on simulated ranks of 2 to 8 columns: 5 rows are covered at 91 to 100%, 20 at 95 to 97%;
    without the two rows 5 are covered at 86 to 92%.

    Args:
        ranks: One row per pair, one column per configuration.

    Returns:
        Low and high, NaN with fewer than `MIN_PAIRS` rows.
    """
    rows, columns = ranks.shape
    if rows < MIN_PAIRS:
        return np.full(columns, np.nan), np.full(columns, np.nan)
    imaginary = ranks.mean(axis=0) + np.array([[-1.0], [1.0]])
    widened = np.concatenate([ranks, imaginary.clip(1, columns)])
    total = rows + len(imaginary)
    resamples = int(np.clip(_RESAMPLED_CELLS // max(total, columns), _MIN_RESAMPLES, _MAX_RESAMPLES))
    generator = np.random.default_rng(0)
    chunk = max(_CHUNK_CELLS // total, 1)
    means = []
    for start in range(0, resamples, chunk):
        count = min(chunk, resamples - start)
        weights = generator.multinomial(total, np.full(total, 1 / total), size=count)
        means.append(weights.astype(np.float64) @ widened / total)
    width = _student(rows - 1) * total / math.sqrt(rows * (total - 1))
    tail = NormalDist().cdf(-width)
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail], axis=0)
    return low, high


def _student(freedom: int) -> float:
    """The upper (1 - CONFIDENCE)/2 point of Student's t, from 4 degrees of freedom on to three digits.

    Cornish and Fisher's expansion (Abramowitz and Stegun 26.7.5).
    """
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return float(z + sum(term / freedom ** (power + 1) for power, term in enumerate(terms)))


def pareto_front(content: Floats, style: Floats) -> Flags:
    """Which points no other point beats: none is at least as good in both and better in one."""
    if np.isnan(content).all() or np.isnan(style).all():
        content = style = np.where(np.isnan(content), style, content)
    order = np.lexsort((style, content))
    front = np.zeros(len(content), np.bool_)
    best, at = math.inf, math.nan
    for index in order:
        if style[index] < best or (style[index] == best and content[index] == at):
            front[index] = True
            best, at = style[index], content[index]
    return front


def shares_won(scores: Floats) -> Floats:
    """The share of rows in which each column is the smallest; columns that tie share the row."""
    first = scores == scores.min(axis=1, keepdims=True)
    return np.asarray((first / first.sum(axis=1, keepdims=True)).mean(axis=0), np.float64)
