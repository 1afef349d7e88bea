"""A run as a table of pairs × configurations, of a bounded size: which trials there are, and how they ended."""

from __future__ import annotations

from collections import Counter
from itertools import chain
from typing import Any, NamedTuple

import pyarrow as pa
from PIL import Image

from nst_batch.errors import ImageError, RunDirectoryError
from nst_batch.records import Picture
from nst_batch.results import labels
from nst_batch.results.pictures import Tile, finished_picture, input_tile
from nst_batch.results.query import Session
from nst_batch.store.rows import planned_pictures
from nst_batch.store.run_directory import RunDirectory

_PLAN_COLUMNS = (
    "trial_index", "configuration", "content_uri", "content_sha256", "style_uris", "style_sha256s",
    "content_mask_uri", "content_mask_sha256", "style_mask_uris", "style_mask_sha256s",
)  # fmt: skip
_EACH = "list_transform(list_zip({0}_sha256s, {0}_uris), lambda each: coalesce(each[1], each[2]))"
_PAIRS = f"""
WITH begun AS (
    SELECT *, min(trial_index) OVER (PARTITION BY
        coalesce(content_sha256, content_uri), coalesce(content_mask_sha256, content_mask_uri),
        {_EACH.format("style")}, {_EACH.format("style_mask")}
    ) AS begin FROM plan
)
SELECT *, dense_rank() OVER (ORDER BY begin) - 1 AS pair FROM begun
"""
"""Pairs are numbered in the order of the plan. Files are told apart by what they hold: names may change."""


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

    Configurations are evenly spread over the study's grid. Inputs that are named by a URL are fetched with `fetch`.

    Attributes:
        configurations: By identity.
        trials: By pair and configuration, as planned: the row of the table `trials`. One that has not ended has the
            status `pending` and no other values.
        settings: A configuration, for what no grid varies: network, optimiser, size and shape.
        varying: The fields in which the study's configurations differ.
        configuration_labels: What distinguishes each configuration, by identity.

    Raises:
        RunDirectoryError: The run cannot be read, or nothing was planned.
    """

    def __init__(self, run: RunDirectory, *, max_pairs: int, max_configurations: int, fetch: bool = False) -> None:
        self.run, self._fetch = run, fetch
        if not (keys := list(run.configurations)):
            raise RunDirectoryError(f"{run.directory.url()}: its plan holds no trial, so there is nothing to show")
        count = min(len(keys), max_configurations)
        identities = [keys[position * len(keys) // count] for position in range(count)]
        self.configurations = {key: run.configurations[key] for key in identities}
        chosen = pa.table({"configuration": pa.array(identities, pa.string())})
        with Session(run, plan=run.plan(_PLAN_COLUMNS), chosen=chosen) as session:
            pairs = session.query(f"SELECT * FROM ({_PAIRS}) WHERE trial_index = begin ORDER BY pair")
            rows = session.query(
                "SELECT t.* EXCLUDE (trial_index, configuration, status), "
                "p.pair, p.trial_index, p.configuration, coalesce(t.status, 'pending') AS status "
                f"FROM ({_PAIRS}) p SEMI JOIN chosen USING (configuration) LEFT JOIN trials t USING (trial_index) "
                f"WHERE pair < {max_pairs} ORDER BY p.trial_index"
            )
        self.num_pairs = pairs.num_rows
        self.pairs = [Pair(*planned_pictures(row)) for row in pairs.slice(0, max_pairs).to_pylist()]
        self.trials: dict[tuple[int, str], dict[str, Any]] = {
            (row["pair"], row["configuration"]): row for row in rows.to_pylist()
        }
        self.settings = next(iter(run.configurations.values()))
        self.varying = labels.varying(run.configurations.values())
        self.configuration_labels = {
            key: labels.configuration_label(each, self.varying) for key, each in self.configurations.items()
        }
        self._inputs: dict[tuple[Picture, int], Tile] = {}

    def result(self, pair: int, configuration: str, edge: int) -> Tile:
        """What became of a pair under a configuration: the picture, in `edge` pixels at most, with its scores."""
        trial = self.trials.get((pair, configuration))
        if trial is None:
            return Tile(None, "not in the plan")
        if trial["image_path"] is None:
            return Tile(None, trial["error_message"] or trial["status"])
        try:
            image = finished_picture(self.run, trial["image_path"])
        except ImageError as error:
            return Tile(None, str(error))
        image.thumbnail((edge, edge), Image.Resampling.LANCZOS, reducing_gap=3.0)
        return Tile(image, labels.scores_text(trial))

    def input(self, picture: Picture, edge: int) -> Tile:
        """An input as the network saw it, in `edge` pixels at most; read once."""
        if (picture, edge) not in self._inputs:
            edge_at_most = min(edge, self.settings.size)
            self._inputs[picture, edge] = input_tile(picture, self.settings.fit, edge_at_most, fetch=self._fetch)
        return self._inputs[picture, edge]

    @property
    def inputs(self) -> list[Picture]:
        """The pictures of all pairs, each once."""
        return list(dict.fromkeys(picture for pair in self.pairs for picture in pair.pictures))

    @property
    def limits(self) -> list[str]:
        """What is left out, if anything."""
        pairs, shown, planned = len(self.pairs), len(self.configurations), len(self.run.configurations)
        found = [f"the first {pairs:,} of {self.num_pairs:,} pairs"] if pairs < self.num_pairs else []
        return found + ([f"{shown:,} of {planned:,} configurations, evenly spread"] if shown < planned else [])

    @property
    def pair_labels(self) -> list[str]:
        """`photo × painting`, with only as much of the paths as tells the pictures apart.

        Pairs that differ in their masks alone are told apart by the masks that not all of them have:
        `photo × painting (mask)`.
        """
        names = labels.short_names(picture.uri for picture in self.inputs)
        contents = [names[content.uri] if content else "" for content, _ in self.pairs]
        styles = [" + ".join(names[style.uri] for style in styles) for _, styles in self.pairs]
        sides = [side for side in (contents, styles) if len(set(side)) > 1] or [contents, styles]
        found = [" × ".join(filter(None, parts)) for parts in zip(*sides, strict=True)]
        masks = [[each.mask.uri for each in pair.pictures if each.mask] for pair in self.pairs]
        short, count, shared = labels.short_names(chain(*masks)), Counter(found), dict[str, set[str]]()
        for label, own in zip(found, masks, strict=True):
            shared[label] = shared.get(label, set(own)).intersection(own)
        told = [
            [short[uri] for uri in own if uri not in shared[label]] for label, own in zip(found, masks, strict=True)
        ]
        return [
            f"{label} ({' + '.join(own) or 'no mask'})" if count[label] > 1 else label
            for label, own in zip(found, told, strict=True)
        ]
