"""A run as a table of pairs × configurations, of a bounded size: which trials there are, and how they ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from nst_batch.records import Configuration, Picture
from nst_batch.results import labels
from nst_batch.results.query import Session, sql_list
from nst_batch.store.rows import planned_pictures
from nst_batch.store.run_directory import RunDirectory

PLAN_COLUMNS = (
    "trial_index", "configuration", "content_uri", "content_sha256", "style_uris", "style_sha256s",
)  # fmt: skip
"""What tells pairs and configurations apart."""

_PAIRS = """
WITH begun AS (
    SELECT *, min(trial_index) OVER (PARTITION BY content, styles) AS begin
    FROM (
        SELECT *, coalesce(content_sha256, content_uri) AS content,
            list_transform(list_zip(style_sha256s, style_uris), lambda each: coalesce(each[1], each[2])) AS styles
        FROM plan
    )
)
SELECT *, dense_rank() OVER (ORDER BY begin) - 1 AS pair FROM begun
"""
"""Pairs are numbered in the order of the plan. Pictures are told apart by what they hold: names may change."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One content picture with one style, or with several that are blended."""

    content: Picture | None
    styles: tuple[Picture, ...]

    @classmethod
    def planned(cls, row: Mapping[str, Any]) -> Pair:
        """The pair of a row with the plan's columns of the pictures."""
        return cls(*planned_pictures(row))


class Overview:
    """The first pairs of a run's plan, its configurations, and the trial of each pair under each configuration.

    Args:
        run: Finished or in progress.
        max_pairs: The first so many are kept.
        max_configurations: So many are kept, evenly spread over the study's grid.
        columns: Of `trials`, to be had for each trial.
    """

    pairs: list[Pair]
    configurations: dict[str, Configuration]
    """By identity."""
    trials: dict[tuple[int, str], dict[str, Any]]
    """By pair and configuration, as planned: `trial_index`, `status` and the columns asked for.

    A trial that has not ended has the status `pending` and no other values."""

    def __init__(
        self, run: RunDirectory, *, max_pairs: int, max_configurations: int, columns: Sequence[str] = ()
    ) -> None:
        self.run = run
        self.num_configurations = len(run.configurations)
        identities = _spread(list(run.configurations), max_configurations)
        self.configurations = {key: run.configurations[key] for key in identities}
        wanted = ", ".join(f"t.{name}" for name in columns if name not in ("trial_index", "status"))
        found = f"p.*, coalesce(t.status, 'pending') AS status, {wanted}"
        kept = f"pair < {max_pairs} AND p.configuration IN {sql_list(identities)}"
        plan = run.plan(PLAN_COLUMNS)
        with Session(run, plan=plan) as session:
            first = f"SELECT * FROM ({_PAIRS}) WHERE trial_index = begin ORDER BY pair"
            pairs = session.query(first)
            rows = session.query(
                f"SELECT {found} FROM ({_PAIRS}) p LEFT JOIN trials t USING (trial_index) "
                f"WHERE {kept} ORDER BY trial_index"
            )
        self.num_pairs = pairs.num_rows
        self.pairs = [Pair.planned(row) for row in pairs.slice(0, max_pairs).to_pylist()]
        self.trials = {(row["pair"], row["configuration"]): row for row in rows.to_pylist()}

    @property
    def num_ended(self) -> int:
        """How many of `trials` have ended."""
        return sum(trial["status"] != "pending" for trial in self.trials.values())

    @cached_property
    def varying(self) -> tuple[str, ...]:
        """The fields in which the study's configurations differ."""
        return labels.varying(self.run.configurations.values())

    @cached_property
    def configuration_labels(self) -> list[str]:
        """What distinguishes each configuration."""
        return [labels.configuration_label(each, self.varying) for each in self.configurations.values()]

    @cached_property
    def pair_labels(self) -> list[str]:
        """`photo × painting`, with only as much of the paths as tells the pictures apart."""
        pictures = [[*([pair.content] if pair.content else []), *pair.styles] for pair in self.pairs]
        names = labels.short_names(picture.uri for each in pictures for picture in each)
        several_styles = len({pair.styles for pair in self.pairs}) > 1
        several_contents = len({pair.content for pair in self.pairs}) > 1
        return [_pair_label(pair, names, several_contents, several_styles) for pair in self.pairs]


def _spread(keys: list[str], count: int) -> list[str]:
    if len(keys) <= count:
        return keys
    return [keys[position * len(keys) // count] for position in range(count)]


def _pair_label(pair: Pair, names: dict[str, str], several_contents: bool, several_styles: bool) -> str:
    style = " + ".join(names[picture.uri] for picture in pair.styles)
    content = names[pair.content.uri] if pair.content else ""
    parts: Sequence[str] = [content, style]
    if several_contents != several_styles:
        parts = [content] if several_contents else [style]
    return " × ".join(filter(None, parts))
