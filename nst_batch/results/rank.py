"""Which configurations are best: ranked pair by pair, by measures that are comparable between configurations.

Losses of different layers cannot be compared with each other, so trials are judged by their transfer score: what
all the network's convolutions say of the finished picture, whatever was optimised. Within each pair the
configurations get ranks, 1 for the best and the average where they tie; the mean of these over pairs is what they
are ordered by, so no pair outvotes the others (Demšar, "Statistical comparisons of classifiers over multiple data
sets", JMLR 2006, section 3.2.2). Ranks by content and by style are never averaged: along a trade-off they cancel.

Columns of a ranking: `rank` (equal where `mean_rank` is), what differs between the configurations, `weights`; the
means of `transfer_score` (with its interval `score_low` to `score_high`), `content_kept` and `style_taken`;
`mean_rank` with its interval `low` to `high` (95%, bootstrap over pairs; NULL with fewer than 5 pairs); `won` (the
share of pairs in which it is first; ties count in parts); `pareto` (no other keeps more and takes more); the mean
ranks by content and style alone and the mean distances; `pairs`, `failed`, `configuration`. A failed trial is last
in its pair. Curves have columns of their own, see `tradeoff.table`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import get_args

import numpy as np
import pyarrow as pa
from scipy import stats

from nst_batch.errors import QueryError
from nst_batch.records import Configuration
from nst_batch.results import tradeoff
from nst_batch.results.cells import Cells, ended_trials, labelled, numbers, ordered
from nst_batch.results.statistics import MIN_PAIRS, Floats, bootstrap_interval, pareto_front
from nst_batch.results.votes import read_votes, with_votes
from nst_batch.store.run_directory import RunDirectory
from nst_batch.vocabulary import RankBy

OWN = "own"
"""The judge that is the run's own network, with the distances that it measured then."""

_MEASURES = {"score": "transfer_score", "content": "content_kept", "style": "style_taken"}
_DISTANCES = {"content": "content_distance", "style": "style_distance"}
_SHOWN_PAIRS = 8


def rank(
    run: RunDirectory,
    by: RankBy = "score",
    *,
    where: str | None = None,
    judges: Sequence[str] = (),
    over: str | None = None,
    votes: Sequence[Path] = (),
    fetch: bool = False,
) -> pa.Table:
    """The configurations of a run, best first; a run in progress is ranked on what has ended.

    What a reader must know beside the numbers is in `notes(table)`.

    Args:
        by: What the order follows; content, kept_at_… and area as they make sense.
        where: An SQL condition on `trials`: only these are ranked.
        judges: Who measures the pictures: own, pixels, or weights, see `judges.judged`. The first one decides; of
            each further one, and of `own`, there is the mean rank, and the notes say how far they agree.
        over: A field of the configuration, such as alpha: what is ranked are the curves along it, see `tradeoff`.
        votes: Files of people's votes: the order follows these, and the notes say how far the measures agree.
        fetch: Whether a judge may fetch inputs that the plan names by URLs.

    Raises:
        QueryError: Something asked for is wrong, or no trial has ended.
        WeightsError: A judge's weights cannot be had.
    """
    _check(by, over)
    trials = ended_trials(run, where)
    names = list(dict.fromkeys((*judges, OWN)))
    everything = Cells.of(trials, _measures(run, trials, names, fetch), list(run.configurations))
    cells, found = everything.compared()
    if names[0] != OWN:
        found.insert(0, f"Scores are those of the judge {names[0]}, not of the run's own network.")
    if over:
        table = tradeoff.table(cells, run.configurations, over, by)
    else:
        table = _table(cells, run.configurations, by, names[1:])
        found += _agreement(cells, names)
    if votes:
        called = {_named(name, names): name for name in names}
        table, seen = with_votes(table, read_votes(votes, run.configurations), everything, called)
        found += seen
    found += _small_print(cells, run.configurations, by)
    return table.replace_schema_metadata({"notes": json.dumps(found, ensure_ascii=False)})


def notes(ranking: pa.Table) -> list[str]:
    """What must be known to read a table from `rank`: small samples, missing trials, random weights, judges."""
    found: list[str] = json.loads((ranking.schema.metadata or {}).get(b"notes", b"[]"))
    return found


def _check(by: RankBy, over: str | None) -> None:
    allowed = tradeoff.CRITERIA if over else tuple(_MEASURES)
    if by not in allowed:
        more = "; the others need --over" if by in get_args(RankBy) and not over else ""
        raise QueryError(
            f"expected to rank {'curves ' if over else ''}by {', '.join(allowed)}, found {by!r}{more}; "
            f"training losses of different layers cannot be compared, so nothing is ranked by them"
        )


def _named(judge: str, judges: Sequence[str]) -> str:
    """The measure that is a judge's score; the first judge's is the score."""
    return "score" if judge == judges[0] else f"score by {judge}"


def _measures(run: RunDirectory, trials: pa.Table, judges: Sequence[str], fetch: bool) -> dict[str, Floats]:
    """The scores of the first judge, the score of each other one, and the distances; higher is better."""
    first, *others = (_judged(run, trials, judge, fetch) for judge in judges)
    measures = {name: first[column] for name, column in _MEASURES.items()}
    for judge, own in zip(judges[1:], others, strict=True):
        measures[_named(judge, judges)] = own["transfer_score"]
    distances = {name: -numbers(trials[column]) for name, column in _DISTANCES.items()}
    if not np.isfinite(measures["score"]).any():
        measures |= distances  # without content or style pictures, the distance from those that there are
    return measures | {_DISTANCES[name]: values for name, values in distances.items()}


def _judged(run: RunDirectory, trials: pa.Table, judge: str, fetch: bool) -> Mapping[str, Floats]:
    if judge == OWN:
        return {column: numbers(trials[column]) for column in _MEASURES.values()}
    from nst_batch.results.judges import judged

    return judged(run, trials, judge, fetch=fetch)


def _table(
    cells: Cells, configurations: Mapping[str, Configuration], by: RankBy, others: Sequence[str]
) -> pa.Table:
    order = _order(cells, by)
    chosen = [configurations[identity] for identity in cells.configurations]
    ranks = {name: stats.rankdata(-values, axis=1) for name, values in cells.measures.items()}
    values = labelled(chosen, ranks[order], _scores(cells) if "score" in ranks else {})
    sides = [name for name in ("content", "style") if name in ranks]
    means = [np.nan_to_num(-cells.means(name), nan=np.inf) for name in sides]
    values["pareto"] = pareto_front(means[0], means[-1])
    values |= {f"{name}_rank": ranks[name].mean(axis=0) for name in sides}
    values |= {column: -cells.means(column) for column in _DISTANCES.values() if column in ranks}
    seen = [(judge, ranks[measure]) for judge in others if (measure := f"score by {judge}") in ranks]
    values |= {f"rank_by_{judge}": own.mean(axis=0) for judge, own in seen}
    values |= {"pairs": np.full(len(chosen), len(cells.pictures)), "failed": cells.failed(order)}
    values["configuration"] = cells.configurations
    return ordered(values, ranks[order].mean(axis=0))


def _scores(cells: Cells) -> dict[str, Floats]:
    """The columns of means; a failed trial scores nothing in the interval."""
    values = cells.measures["score"]
    low, high = bootstrap_interval(np.where(np.isfinite(values), values, 0.0), spread=0.0)
    score, *parts = ((column, cells.means(name)) for name, column in _MEASURES.items())
    return dict([score, ("score_low", low), ("score_high", high), *parts])


def _order(cells: Cells, by: RankBy) -> str:
    """The measure that the order follows: the one asked for; without scores, the one that there is."""
    if by == "score" and by not in cells.measures:
        return next(name for name in ("content", "style") if name in cells.measures)
    if by not in cells.measures:
        raise QueryError(f"cannot rank by {by}: this study has no such pictures, or they cannot be read")
    return by


# Notes


def _agreement(cells: Cells, judges: Sequence[str]) -> Iterator[str]:
    """How far judges agree: Kendall's tau between their mean ranks, and within each pair."""
    if len(cells.configurations) < 2:
        return
    scores = {judge: cells.measures.get(_named(judge, judges)) for judge in judges}
    known = {judge: values for judge, values in scores.items() if values is not None}
    for (one, first), (other, second) in combinations(known.items(), 2):
        means = [stats.rankdata(-each, axis=1).mean(axis=0) for each in (first, second)]
        overall = stats.kendalltau(*means).statistic
        taus = np.array([stats.kendalltau(*each).statistic for each in zip(first, second, strict=True)])
        if not np.isfinite(overall) or not np.isfinite(taus).any():
            yield f"{one} and {other}: one of them sees no difference anywhere."
            continue
        shown = ", ".join(f"{tau:.2f}" for tau in taus[:_SHOWN_PAIRS]) + (", …" if len(taus) > _SHOWN_PAIRS else "")
        within = f"within pairs {np.nanmean(taus):.2f} on average ({shown})"
        yield f"{one} and {other}: Kendall's tau {overall:.2f} between their orders; {within}."


def _small_print(cells: Cells, configurations: Mapping[str, Configuration], by: RankBy) -> Iterator[str]:
    """What missing scores, few pairs, shared pictures, failures and random weights mean for the numbers."""
    if by == "score" and by not in cells.measures:
        yield f"Ranked by {_order(cells, by)} alone: the study has no other pictures."
    pairs = len(cells.pictures)
    contents, styles = (len({each[side] for each in cells.pictures}) for side in (0, 1))
    if pairs < MIN_PAIRS:
        few = "1 pair" if pairs == 1 else f"{pairs} pairs"
        yield f"Only {few}: too few for an interval; the order may be chance."
    elif max(contents, styles) < pairs:
        shared = f"The {pairs:,} pairs share pictures ({contents:,} contents, {styles:,} styles)"
        yield f"{shared}; the interval takes them as independent and is rather too narrow."
    if len(cells.configurations) == 1:
        yield "There is one configuration only: nothing to compare."
    if failed := int(cells.failed(next(iter(cells.measures))).sum()):
        yield f"{failed:,} failed trials count as last in their pairs."
    if any(configurations[identity].weights.startswith("random") for identity in cells.configurations):
        yield "RANDOM weights: the network is untrained, and so are the features that judge here."
