"""What people see: a page for votes between two finished pictures of a pair, and the strengths that follow.

The page needs nothing else and no network. It shows a content and a style picture, with their masks, and two of the
pair's finished pictures, without names and in random order; those with the fewest votes come first. The file that
it saves holds

    {"run": the study's name,
     "votes": [{"content_sha256": …, "style_sha256": …, "better": …, "worse": …, "at": …}, …]}

with the hashes of the pair as the table `trials` has them (`null` where the study has no such picture), the
identities of two configurations, and the time as ISO 8601 in UTC. `"tie": true` says that neither was better: then
the order of the two means nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pydantic
from scipy import optimize, special, stats
from scipy.sparse import csgraph

from nst_batch.errors import QueryError
from nst_batch.results.cells import Cells
from nst_batch.results.overview import Overview
from nst_batch.results.pages import data_url, render, write_page
from nst_batch.results.pictures import with_mask
from nst_batch.results.statistics import CONFIDENCE, Floats
from nst_batch.store.rows import blend_sha256
from nst_batch.store.run_directory import RunDirectory

MAX_PAIRS, MAX_CONFIGURATIONS = 24, 16
_EDGE = 384
"""Pixels of a picture on the page, at most."""
_CORRECTION = 0.5
"""Added to both sides of every two that were compared (Haldane, Anscombe), so that no strength is infinite."""


def write_vote_page(run: RunDirectory, folder: Path | None = None, *, fetch: bool = False) -> str:
    """Writes `vote.html` to `folder` or the run's `report/`, and returns where it is.

    At most 24 pairs and 16 configurations, evenly spread over the study's grid, are on it. Inputs that are named by
    a URL are fetched with `fetch` alone.

    Raises:
        QueryError: No pair has two finished pictures to compare.
        RunDirectoryError: The run cannot be read, or the page not written.
    """
    overview = Overview(run, max_pairs=MAX_PAIRS, max_configurations=MAX_CONFIGURATIONS, fetch=fetch)
    pairs = [
        each for each in map(partial(_pair, overview), range(len(overview.pairs))) if len(each["pictures"]) > 1
    ]
    if not pairs:
        raise QueryError(
            "expected a pair with two finished pictures to compare, found none: the run goes on, or failed"
        )
    data = {"run": run.study["name"], "pairs": pairs}
    return write_page(run, folder, "vote.html", render("vote", data))


def _pair(overview: Overview, number: int) -> dict[str, Any]:
    """A pair: its hashes, its inputs and its finished pictures by configuration, as data URLs."""
    content, styles = pair = overview.pairs[number]
    results = {key: overview.result(number, key, _EDGE).image for key in overview.configurations}
    names = (["content"] if content else []) + ["style"] * len(styles)
    originals = [(name, overview.input(each, _EDGE)) for name, each in zip(names, pair.pictures, strict=True)]
    return {
        "content_sha256": content and blend_sha256((content,)),
        "style_sha256": blend_sha256(styles),
        "pictures": {key: data_url(image, quality=85) for key, image in results.items() if image},
        "originals": [
            {
                "name": name if tile.image else f"{name}: {tile.text}",
                "picture": tile.image and data_url(with_mask(tile.image, tile.mask), quality=85),
            }
            for name, tile in originals
        ],
    }


# Votes


class Vote(pydantic.BaseModel):
    """One choice between two configurations on one pair."""

    content_sha256: str | None
    style_sha256: str | None
    better: str
    worse: str
    tie: bool = False

    @pydantic.model_validator(mode="after")
    def _two(self) -> Self:
        if self.better == self.worse:
            raise ValueError(f"a vote between {self.better} and itself")
        return self


class _File(pydantic.BaseModel):
    votes: list[Vote]


def read_votes(paths: Sequence[Path], configurations: Collection[str]) -> list[Vote]:
    """The votes in files.

    Raises:
        QueryError: A file is not one of votes, or of votes on other configurations than these.
    """
    votes: list[Vote] = []
    for path in paths:
        try:
            own = _File.model_validate_json(path.read_bytes()).votes
        except OSError as error:
            raise QueryError(f"{path}: cannot be read: {error.strerror}") from error
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            expected = "expected a file of votes as `nst-batch vote` saves them"
            raise QueryError(f"{path}: {expected}: {where or 'the file'}: {first['msg']}") from error
        if unknown := {each for vote in own for each in (vote.better, vote.worse)} - set(configurations):
            raise QueryError(f"{path}: a vote on configuration {min(unknown)}, which this run does not have")
        votes += own
    return votes


def with_votes(
    table: pa.Table, votes: Sequence[Vote], cells: Cells, judges: Mapping[str, str]
) -> tuple[pa.Table, list[str]]:
    """A ranking in the order of votes, with each configuration's strength; and notes of who agrees with them.

    Args:
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
    notes = [f"Ordered by {won.sum():,.0f} votes: strengths are logarithms of odds (Bradley and Terry)."]
    known = ~np.isnan(strengths)
    if not known.all():
        notes.append(f"No votes connect {(~known).sum():,} configurations with the others.")
    if known.sum() > 1 and np.isfinite(tau := stats.kendalltau(-strengths[known], ranks[known]).statistic):
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
        if {vote.better, vote.worse} <= position.keys():
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
        row = rows.get((vote.content_sha256, vote.style_sha256))
        if row is not None and not vote.tie and {vote.better, vote.worse} <= columns.keys():
            better, worse = cells.measures[name][row, [columns[vote.better], columns[vote.worse]]]
            if not np.isnan([better, worse]).any():
                agreed.append(0.5 if better == worse else float(better > worse))
    if not agreed:
        return None
    interval = stats.binomtest(int(sum(agreed)), len(agreed)).proportion_ci(CONFIDENCE, method="wilson")
    return sum(agreed) / len(agreed), len(agreed), interval.low, interval.high
