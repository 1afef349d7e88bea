"""A page on which people say which of two finished pictures is the better transfer, and that saves their votes.

The page needs nothing else and no network. It shows a content and a style picture, and two of the pair's finished
pictures, without names and in random order; those with the fewest votes come first. The file that it saves holds

    {"run": the study's name,
     "votes": [{"content_sha256": …, "style_sha256": …, "better": …, "worse": …, "at": …}, …]}

with the hashes of the pair as the table `trials` has them (`null` where the study has no such picture), the
identities of two configurations, and the time as ISO 8601 in UTC. `"tie": true` says that neither was better: then
the order of the two means nothing. `rank --votes FILE…` reads such files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from nst_batch.errors import ImageError, QueryError
from nst_batch.results.overview import Overview
from nst_batch.results.pages import data_url, render
from nst_batch.results.pictures import finished_picture, input_picture
from nst_batch.store.files import Directory
from nst_batch.store.run_directory import RunDirectory

MAX_PAIRS, MAX_CONFIGURATIONS = 24, 16
_EDGE = 384
"""Pixels of a picture on the page, at most."""

Pair = dict[str, Any]


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
    columns = ("image_path", "content_sha256", "style_sha256")
    overview = Overview(run, max_pairs=MAX_PAIRS, max_configurations=MAX_CONFIGURATIONS, columns=columns)
    pairs = [pair for number in range(len(overview.pairs)) if (pair := _pair(overview, number, fetch))]
    if not pairs:
        raise QueryError(
            "expected a pair with two finished pictures to compare, found none: the run goes on, or failed"
        )
    target = Directory(folder if folder is not None else run.directory.url("report"))
    data = {"run": run.study["name"], "pairs": pairs}
    target.write("vote.html", render("vote", data, {"name": run.study["name"]}).encode())
    return target.url("vote.html")


def _pair(overview: Overview, number: int, fetch: bool) -> Pair | None:
    """The pictures of a pair as data URLs; None with fewer than two to compare."""
    pair, any_configuration = overview.pairs[number], next(iter(overview.configurations.values()))
    pictures: dict[str, str] = {}
    hashes: dict[str, Any] = {}
    for identity in overview.configurations:
        trial = overview.trials.get((number, identity))
        if trial is None or trial["image_path"] is None:
            continue
        hashes = {name: trial[name] for name in ("content_sha256", "style_sha256")}
        try:
            pictures[identity] = _small(finished_picture(overview.run, trial["image_path"]))
        except ImageError:
            continue
    if len(pictures) < 2:
        return None
    originals = [("content", pair.content)] if pair.content else []
    shown: list[dict[str, str | None]] = []
    for name, picture in [*originals, *(("style", style) for style in pair.styles)]:
        try:
            image = input_picture(picture, any_configuration, edge=min(_EDGE, any_configuration.size), fetch=fetch)
            shown.append({"name": name, "picture": _small(image)})
        except ImageError as error:
            shown.append({"name": f"{name}: {error}", "picture": None})
    return {**hashes, "originals": shown, "pictures": pictures}


def _small(image: Image.Image) -> str:
    return data_url(image, _EDGE, quality=85)
