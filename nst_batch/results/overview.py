"""A run as a table of pairs × configurations, of a bounded size: which trials there are, and how they ended."""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

from nst_batch.records import Picture
from nst_batch.results import labels
from nst_batch.results.pictures import Tile, finished_picture, input_picture
from nst_batch.results.query import Session, sql_list
from nst_batch.store.rows import planned_pictures
from nst_batch.store.run_directory import RunDirectory

_PLAN_COLUMNS = (
    "trial_index", "configuration", "content_uri", "content_sha256", "style_uris", "style_sha256s",
    "content_mask_uri", "content_mask_sha256", "style_mask_uris", "style_mask_sha256s",
)  # fmt: skip
_PAIRS = """
WITH begun AS (
    SELECT *, min(trial_index) OVER (PARTITION BY content, styles, content_mask_sha256, style_mask_sha256s) AS begin
    FROM (
        SELECT *, coalesce(content_sha256, content_uri) AS content,
            list_transform(list_zip(style_sha256s, style_uris), lambda each: coalesce(each[1], each[2])) AS styles
        FROM plan
    )
)
SELECT *, dense_rank() OVER (ORDER BY begin) - 1 AS pair FROM begun
"""
"""Pairs are numbered in the order of the plan. Pictures are told apart by what they hold: names may change."""


class Pair(NamedTuple):
    """One content picture with one style, or with several that are blended."""

    content: Picture | None
    styles: tuple[Picture, ...]

    @property
    def pictures(self) -> list[Picture]:
        """All of them."""
        return [each for each in (self.content, *self.styles) if each]


class Overview:
    """The first pairs of a run's plan, its configurations, and the trial of each pair under each configuration.

    Args:
        run: Finished or in progress.
        max_pairs: The first so many are kept.
        max_configurations: So many are kept, evenly spread over the study's grid.
        fetch: Whether inputs that are named by a URL may be fetched.

    Attributes:
        configurations: By identity.
        trials: By pair and configuration, as planned: the row of the table `trials`. One that has not ended has the
            status `pending` and no other values.
    """

    def __init__(self, run: RunDirectory, *, max_pairs: int, max_configurations: int, fetch: bool = False) -> None:
        self.run, self._fetch = run, fetch
        identities = _spread(list(run.configurations), max_configurations)
        self.configurations = {key: run.configurations[key] for key in identities}
        with Session(run, plan=run.plan(_PLAN_COLUMNS)) as session:
            pairs = session.query(f"SELECT * FROM ({_PAIRS}) WHERE trial_index = begin ORDER BY pair")
            rows = session.query(
                "SELECT t.* EXCLUDE (trial_index, configuration, status), "
                "p.pair, p.trial_index, p.configuration, coalesce(t.status, 'pending') AS status "
                f"FROM ({_PAIRS}) p LEFT JOIN trials t USING (trial_index) "
                f"WHERE pair < {max_pairs} AND p.configuration IN {sql_list(identities)} ORDER BY p.trial_index"
            )
        self.num_pairs = pairs.num_rows
        self.pairs = [Pair(*planned_pictures(row)) for row in pairs.slice(0, max_pairs).to_pylist()]
        self.trials: dict[tuple[int, str], dict[str, Any]] = {
            (row["pair"], row["configuration"]): row for row in rows.to_pylist()
        }
        self._inputs: dict[tuple[Picture, int], Tile] = {}

    def result(self, pair: int, configuration: str, edge: int) -> Tile:
        """What became of a pair under a configuration: the picture, in `edge` pixels at most, with its scores."""
        trial = self.trials.get((pair, configuration))
        if trial is None:
            return Tile(None, "not in the plan")
        if trial["image_path"] is None:
            return Tile(None, trial["error_message"] or trial["status"])
        return Tile.of(lambda: finished_picture(self.run, trial["image_path"]), edge, labels.scores_text(trial))

    def input(self, picture: Picture, edge: int) -> Tile:
        """An input as the network saw it, in `edge` pixels at most; read once."""
        if (picture, edge) not in self._inputs:
            shape = next(iter(self.run.configurations.values()))
            size = min(edge, shape.size)
            self._inputs[picture, edge] = Tile.of(
                lambda: input_picture(picture, shape, size, fetch=self._fetch), edge
            )
        return self._inputs[picture, edge]

    @property
    def inputs(self) -> list[Picture]:
        """The pictures of all pairs, each once."""
        return list(dict.fromkeys(picture for pair in self.pairs for picture in pair.pictures))

    @property
    def limits(self) -> list[str]:
        """What is left out, if anything."""
        pairs, all_pairs = len(self.pairs), self.num_pairs
        shown, planned = len(self.configurations), len(self.run.configurations)
        found = [f"the first {pairs:,} of {all_pairs:,} pairs"] if pairs < all_pairs else []
        return found + ([f"{shown:,} of {planned:,} configurations, evenly spread"] if shown < planned else [])

    @cached_property
    def varying(self) -> tuple[str, ...]:
        """The fields in which the study's configurations differ."""
        return labels.varying(self.run.configurations.values())

    @cached_property
    def configuration_labels(self) -> dict[str, str]:
        """What distinguishes each configuration, by identity."""
        return {key: labels.configuration_label(each, self.varying) for key, each in self.configurations.items()}

    @cached_property
    def pair_labels(self) -> list[str]:
        """`photo × painting`, with only as much of the paths as tells the pictures apart."""
        names = labels.short_names(picture.uri for picture in self.inputs)
        contents = [names[content.uri] if content else "" for content, _ in self.pairs]
        styles = [" + ".join(names[style.uri] for style in styles) for _, styles in self.pairs]
        sides = [side for side in (contents, styles) if len(set(side)) > 1] or [contents, styles]
        return [" × ".join(filter(None, parts)) for parts in zip(*sides, strict=True)]


def _spread(keys: list[str], count: int) -> list[str]:
    count = min(len(keys), count)
    return [keys[position * len(keys) // count] for position in range(count)]
