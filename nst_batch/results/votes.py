"""What people saw: votes between two finished pictures of one pair, and the strengths that follow from them.

`vote` says what a file of votes holds.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from scipy import optimize, special, stats
from scipy.sparse import csgraph

from nst_batch.errors import QueryError
from nst_batch.results.cells import Cells
from nst_batch.results.statistics import CONFIDENCE, Floats

_CORRECTION = 0.5
"""Added to both sides of every two that were compared (Haldane, Anscombe), so that no strength is infinite."""


@dataclass(frozen=True, slots=True)
class Vote:
    """One choice between two configurations on one pair."""

    pictures: tuple[str | None, str | None]
    """The SHA-256 of content and style."""
    better: str
    worse: str
    tie: bool


def read_votes(paths: Sequence[Path], configurations: Collection[str]) -> list[Vote]:
    """The votes in files.

    Raises:
        QueryError: A file is not one of votes, or of votes on other configurations than these.
    """
    votes: list[Vote] = []
    for path in paths:
        try:
            own = [_vote(entry) for entry in json.loads(path.read_bytes())["votes"]]
        except OSError as error:
            raise QueryError(f"{path}: cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            expected = "a file of votes as `nst-batch vote` saves them"
            raise QueryError(f"{path}: expected {expected}: {type(error).__name__}: {error}") from error
        if unknown := {each for vote in own for each in (vote.better, vote.worse)} - set(configurations):
            raise QueryError(f"{path}: a vote on configuration {min(unknown)}, which this run does not have")
        votes += own
    return votes


def _vote(entry: dict[str, Any]) -> Vote:
    better, worse = str(entry["better"]), str(entry["worse"])
    if better == worse:
        raise ValueError(f"a vote between {better} and itself")
    pictures = (entry["content_sha256"], entry["style_sha256"])
    return Vote(pictures, better, worse, tie=entry.get("tie") is True)


def with_votes(
    table: pa.Table, votes: Sequence[Vote], cells: Cells, judges: Mapping[str, str]
) -> tuple[pa.Table, list[str]]:
    """A ranking in the order of votes, with each configuration's strength; and notes of who agrees with them.

    Args:
        table: With `configuration` and `mean_rank`.
        cells: Measures of the trials that were voted on.
        judges: The names of measures in `cells`, each with what it is called.
    """
    identities, ranks = table["configuration"].to_pylist(), table["mean_rank"].to_numpy()
    won = wins(votes, identities)
    strengths, low, high = bradley_terry(won)
    columns = {
        "votes": (won + won.T).sum(axis=1),
        "strength": strengths,
        "strength_low": low,
        "strength_high": high,
    }
    for position, (name, values) in enumerate(columns.items(), 1):
        table = table.add_column(position, name, pa.array(values, from_pandas=True))
    notes = [f"Ordered by {len(votes):,} votes: strengths are logarithms of odds (Bradley and Terry)."]
    known = ~np.isnan(strengths)
    if not known.all():
        notes.append(f"No votes connect {(~known).sum():,} configurations with the others.")
    if known.sum() > 1:
        tau = stats.kendalltau(-strengths[known], ranks[known]).statistic
        notes.append(f"Votes and mean_rank: Kendall's tau {tau:.2f} between their orders.")
    for name, shown in {**judges, "content": "content kept", "style": "style taken"}.items():
        if name in cells.measures and (found := agreement(cells, name, votes)):
            share, count, at_least, at_most = found
            notes.append(f"{shown} agrees with {share:.0%} of {count:,} votes ({at_least:.0%} to {at_most:.0%}).")
    return table.take(pa.array(np.argsort(-strengths, kind="stable"))), notes


def wins(votes: Sequence[Vote], configurations: Sequence[str]) -> Floats:
    """How often each configuration (row) was preferred to each other one (column); a tie is half a win for both."""
    position = {identity: number for number, identity in enumerate(configurations)}
    found = np.zeros((len(configurations), len(configurations)))
    for vote in votes:
        if vote.better in position and vote.worse in position:
            better, worse = position[vote.better], position[vote.worse]
            found[better, worse] += 0.5 if vote.tie else 1.0
            found[worse, better] += 0.5 if vote.tie else 0.0
    return found


def bradley_terry(won: Floats) -> tuple[Floats, Floats, Floats]:
    """Strengths with their 95% intervals: configuration i is preferred to j with the odds exp(strength i − j).

    Maximum likelihood (Bradley and Terry, Biometrika 1952); strengths have mean 0. With two configurations the
    difference of strengths is the logarithm of w1 + ½ over w2 + ½, with the variance 1/(w1 + ½) + 1/(w2 + ½).

    Args:
        won: See `wins`.

    Returns:
        Strengths, low and high; NaN for those that were not compared, if only by way of others, with most.
    """
    compared = won + won.T > 0
    _, groups = csgraph.connected_components(compared.astype(np.int64), directed=False)
    together = groups == np.bincount(groups).argmax()
    if together.sum() < 2:
        return tuple(np.full((3, len(won)), np.nan))  # type: ignore[return-value]
    counts = np.where(compared, won + _CORRECTION, 0.0)[np.ix_(together, together)]
    total = counts + counts.T

    def loss(strengths: Floats) -> tuple[float, Floats]:
        differences = strengths[:, None] - strengths
        gradient = (total * special.expit(differences) - counts).sum(axis=1)
        return -float((counts * special.log_expit(differences)).sum()), np.asarray(gradient)

    strengths = optimize.minimize(loss, np.zeros(len(total)), jac=True, method="BFGS", options={"gtol": 1e-9}).x
    strengths -= strengths.mean()
    odds = special.expit(strengths[:, None] - strengths)
    information = -total * odds * (1 - odds)
    np.fill_diagonal(information, -(information.sum(axis=1) - np.diag(information)))
    width = stats.norm.ppf((1 + CONFIDENCE) / 2) * np.sqrt(np.diag(np.linalg.pinv(information)))
    found = np.full((3, len(won)), np.nan)
    found[:, together] = strengths, strengths - width, strengths + width
    return found[0], found[1], found[2]


def agreement(cells: Cells, name: str, votes: Sequence[Vote]) -> tuple[float, int, float, float] | None:
    """With how many of the votes a measure agrees, ties left out: the share, of how many, and its 95% interval."""
    columns = {identity: number for number, identity in enumerate(cells.configurations)}
    rows = {pictures: number for number, pictures in enumerate(cells.pictures)}
    agreed = []
    for vote in votes:
        if not vote.tie and vote.pictures in rows and {vote.better, vote.worse} <= columns.keys():
            values = cells.measures[name][rows[vote.pictures]]
            better, worse = values[columns[vote.better]], values[columns[vote.worse]]
            if not np.isnan([better, worse]).any():
                agreed.append(0.5 if better == worse else float(better > worse))
    if not agreed:
        return None
    interval = stats.binomtest(int(sum(agreed)), len(agreed)).proportion_ci(CONFIDENCE, method="wilson")
    return sum(agreed) / len(agreed), len(agreed), interval.low, interval.high
