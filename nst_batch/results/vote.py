"""A page on which people say which of two finished pictures is the better transfer, and that saves their votes.

The page needs nothing else and no network. It shows a content and a style picture, and two of the pair's finished
pictures, without names and in random order; those with the fewest votes come first. The file that it saves holds

    {"run": the study's name,
     "votes": [{"content_sha256": …, "style_sha256": …, "better": …, "worse": …, "at": …}, …]}

with the hashes of the pair as the table `trials` has them (`null` where the study has no such picture), the
identities of two configurations, and the time as ISO 8601 in UTC. `"tie": true` says that neither was better: then
the order of the two means nothing. `rank --votes FILE…` reads such files, see `votes`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nst_batch.errors import QueryError
from nst_batch.results.overview import Overview
from nst_batch.results.pages import data_url, page_folder, render
from nst_batch.store.rows import blend_sha256
from nst_batch.store.run_directory import RunDirectory

MAX_PAIRS, MAX_CONFIGURATIONS = 24, 16
_EDGE = 384
"""Pixels of a picture on the page, at most."""


def write_vote_page(run: RunDirectory, folder: Path | None = None, *, fetch: bool = False) -> str:
    """Writes `vote.html`, and returns where it is.

    At most 24 pairs and 16 configurations, evenly spread over the study's grid, are on it.

    Args:
        folder: Where to; by default `report/` in the run directory.
        fetch: Whether inputs that are named by a URL may be fetched.

    Raises:
        QueryError: No pair has two finished pictures to compare.
        RunDirectoryError: The run cannot be read, or the page not written.
    """
    overview = Overview(run, max_pairs=MAX_PAIRS, max_configurations=MAX_CONFIGURATIONS, fetch=fetch)
    pairs = [
        pair for number in range(len(overview.pairs)) if len((pair := _pair(overview, number))["pictures"]) > 1
    ]
    if not pairs:
        raise QueryError(
            "expected a pair with two finished pictures to compare, found none: the run goes on, or failed"
        )
    data = {"run": run.study["name"], "pairs": pairs}
    with page_folder(run, folder) as target:
        target.write("vote.html", render("vote", data, {"name": run.study["name"]}).encode())
    return target.url("vote.html")


def _pair(overview: Overview, number: int) -> dict[str, Any]:
    """A pair: its hashes, its inputs and its finished pictures by configuration, as data URLs."""
    pair = overview.pairs[number]
    tiles = {key: overview.result(number, key, _EDGE) for key in overview.configurations}
    names = (["content"] if pair.content else []) + ["style"] * len(pair.styles)
    originals = [(name, overview.input(each, _EDGE)) for name, each in zip(names, pair.pictures, strict=True)]
    return {
        "content_sha256": pair.content and blend_sha256((pair.content,)),
        "style_sha256": blend_sha256(pair.styles),
        "pictures": {key: data_url(tile.image, quality=85) for key, tile in tiles.items() if tile.image},
        "originals": [
            {"name": name, "picture": data_url(tile.image, quality=85)}
            if tile.image
            else {"name": f"{name}: {tile.text}", "picture": None}
            for name, tile in originals
        ],
    }
