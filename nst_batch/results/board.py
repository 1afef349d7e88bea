"""A run as a table of pairs × configurations: what is to be seen where, and what has become of it so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from nst_batch.errors import ImageError, RunDirectoryError
from nst_batch.inputs.decoding import decode
from nst_batch.inputs.images import read_bytes, resize
from nst_batch.records import Configuration, Picture
from nst_batch.results import labels
from nst_batch.store.run_directory import RunDirectory

_PLAN_COLUMNS = (
    "trial_index", "configuration", "content_uri", "content_sha256", "style_uris", "style_sha256s",
)  # fmt: skip
_TRIAL_COLUMNS = ("trial_index", "trial_id", "status", "error_type", "error_message", "image_path")


@dataclass(frozen=True, slots=True)
class Pair:
    """One content picture with one style, or with several that are blended."""

    content: Picture | None
    styles: tuple[Picture, ...]


class Board:
    """The pairs and configurations of a run's plan, in its order, and the trial of each.

    Args:
        run: Finished or in progress.
        max_pairs: The first so many are kept.
        max_configurations: So many are kept, evenly spread over the study's grid.
    """

    def __init__(
        self, run: RunDirectory, *, max_pairs: int | None = None, max_configurations: int | None = None
    ) -> None:
        self.run = run
        self.num_configurations = len(run.configurations)
        identities = _spread(list(run.configurations), max_configurations)
        self.configurations: dict[str, Configuration] = {key: run.configurations[key] for key in identities}
        self.pairs: list[Pair] = []
        self._planned: dict[tuple[int, str], int] = {}
        numbers: dict[Pair, int] = {}
        for row in run.plan(_PLAN_COLUMNS).to_pylist():
            pair = _pair(row)
            number = numbers.setdefault(pair, len(numbers))
            if max_pairs is None or number < max_pairs:
                if number == len(self.pairs):
                    self.pairs.append(pair)
                if row["configuration"] in self.configurations:
                    self._planned[number, row["configuration"]] = row["trial_index"]
        self.num_pairs = len(numbers)

    def trial_index(self, pair: int, configuration: str) -> int | None:
        """The trial of a pair, by its position, under a configuration; None if the plan has none."""
        return self._planned.get((pair, configuration))

    def places(self) -> dict[int, tuple[int, str]]:
        """The pair and the configuration of each trial, by `trial_index`."""
        return {index: place for place, index in self._planned.items()}

    @cached_property
    def trials(self) -> dict[int, dict[str, Any]]:
        """What has ended, by `trial_index`: its id, status, error and picture."""
        rows = self.run.table("trials", _TRIAL_COLUMNS)
        wanted = pa.array(sorted(self._planned.values()), pa.int64())
        rows = rows.filter(pc.is_in(rows["trial_index"], wanted))
        return {row["trial_index"]: row for row in rows.to_pylist()}

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


def finished_picture(run: RunDirectory, image_path: str) -> Image.Image:
    """The picture of a trial.

    Raises:
        ImageError: It is missing or damaged, or `image_path` is not among the run's images.
    """
    steps = image_path.split("/")
    if steps[0] != "images" or ".." in steps:
        raise ImageError("unreadable", image_path, "expected a path below images/")
    data = run.directory.find(image_path)
    if data is None:
        raise ImageError("missing", run.directory.url(image_path), "no such file")
    return decode(data, run.directory.url(image_path))


def input_picture(picture: Picture, configuration: Configuration, edge: int | None = None) -> Image.Image:
    """An input as the network saw it: in the study's shape, at its size or with `edge` pixels.

    Raises:
        ImageError: It cannot be read, or is not the file any more that the plan saw.
    """
    if picture.sha256 is None:
        raise ImageError("unreadable", picture.uri, "it could not be read when the study was planned")
    data = read_bytes(picture.uri, expected_sha256=picture.sha256)
    size = edge or configuration.size
    return resize(decode(data, picture.uri, target_edge=size), size, configuration.fit)


def existing(url: str) -> RunDirectory:
    """The run directory at `url`.

    Raises:
        RunDirectoryError: There is none.
    """
    run = RunDirectory(url)
    if not run.exists():
        raise RunDirectoryError(f"{run.directory.url()}: not a run directory: it has no study.json")
    return run


def _spread(keys: list[str], count: int | None) -> list[str]:
    if count is None or len(keys) <= count:
        return keys
    return [keys[position * len(keys) // count] for position in range(count)]


def _pair(row: dict[str, Any]) -> Pair:
    content = None
    if row["content_uri"] is not None:
        content = Picture(uri=row["content_uri"], sha256=row["content_sha256"])
    styles = zip(row["style_uris"], row["style_sha256s"], strict=True)
    return Pair(content, tuple(Picture(uri=uri, sha256=sha256) for uri, sha256 in styles))


def _pair_label(pair: Pair, names: dict[str, str], several_contents: bool, several_styles: bool) -> str:
    style = " + ".join(names[picture.uri] for picture in pair.styles)
    content = names[pair.content.uri] if pair.content else ""
    parts: Sequence[str] = [content, style]
    if several_contents != several_styles:
        parts = [content] if several_contents else [style]
    return " × ".join(filter(None, parts))
