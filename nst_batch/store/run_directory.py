"""The run directory: what it says about itself, its plan, and reading its tables, finished or in progress.

    DIR/study.json   the study, its configurations, and how many trials the plan has: written last, so that a plan
                     counts only once it is whole
    DIR/plan/        the trials, in order of `trial_index`
    DIR/trials/      published parts: part k holds every trial of the plan with index in [k·R, (k+1)·R), where
    DIR/curves/      R is `rows_per_part` in study.json; a part appears when all its trials have ended
    DIR/layers/
    DIR/regions/
    DIR/images/      one picture per trial, named by trial_id
    DIR/private/     names of pictures and weights that hold secrets, where there are such; nothing shows them
    DIR/staging/     results of parts that are not yet whole ("segments"), and half-written files

Nothing here writes results: that is `committer.Committer`. Reading needs no lock and may go on while a run writes.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq

from nst_batch.errors import RunDirectoryError
from nst_batch.records import Configuration, Trial
from nst_batch.store import rows, tables
from nst_batch.store.files import STAGING, Directory
from nst_batch.store.snapshot import Mask, Snapshot, take_snapshot

STUDY, PROGRESS, SUCCESS = "study.json", "progress.json", "_SUCCESS"
LOGS = "logs"
"""What workers printed before they failed, a file each; its first lines name the worker and the trials."""
PRIVATE_NAMES = "private/names.parquet"
FORMAT: dict[str, Any] = {"format": "nst-batch run directory", "format_version": 2}
SEGMENT = re.compile(rf"{STAGING}/segment-[0-9a-f]+-\d+\.arrow")

_PART = re.compile(r"part-\d+\.parquet")
_KEYS = {"format_version", "name", "num_trials", "num_plan_files", "rows_per_part", "configurations"}
"""That study.json has in any case."""
_PLAN_BATCH_ROWS = 4_096
_NO_ROW = dict.fromkeys(tables.PLAN.names)

IMAGE_PATH = re.compile(r"images/([0-9a-f]{2})/(?P<trial_id>\1[0-9a-f]{30})\.(png|jpg|webp|tif)")
"""Where the trials' pictures are."""


def part_name(part: int) -> str:
    """The file name of a published part, and of a file of the plan."""
    return f"part-{part:05d}.parquet"


def image_path(trial_id: str, image: bytes) -> str:
    """Where a trial's picture goes; a PNG unless its first bytes say that it is a JPEG, a WebP or a TIFF."""
    suffix = {b"\xff\xd8": "jpg", b"RI": "webp", b"II": "tif", b"MM": "tif"}.get(image[:2], "png")
    return f"images/{trial_id[:2]}/{trial_id}.{suffix}"


def rows_per_part(num_trials: int) -> int:
    """How many trials a new run directory publishes together: 64 parts, of 16 to 1,000 trials, and 256 at most.

    Whoever reads a run opens every part, which costs about a millisecond each.
    """
    return max(16, min(1000, num_trials // 64), num_trials // 256)


class RunDirectory:
    """A run directory for reading, on a local disk or in an object store.

    Args:
        url: A path, or a URL that fsspec understands. It need not exist yet.
    """

    def __init__(self, url: str | os.PathLike[str]) -> None:
        self.directory = Directory(url)

    @classmethod
    def existing(cls, url: str | os.PathLike[str]) -> Self:
        """The run directory at `url`; a RunDirectoryError if there is none."""
        run = cls(url)
        _ = run.study
        return run

    # What it says about itself

    def exists(self) -> bool:
        """Whether it holds a study, with its whole plan."""
        return self.directory.exists(STUDY)

    @cached_property
    def study(self) -> dict[str, Any]:
        """The content of study.json: what `Committer.write_plan` was given, and the plan's size and shape."""
        data = self.directory.find(STUDY)
        if data is None:
            raise RunDirectoryError(f"{self.directory.url()}: not a run directory: it has no {STUDY}")
        study = self._json(STUDY, data)
        if study.get("format") != FORMAT["format"]:
            raise RunDirectoryError(f"{self.directory.url(STUDY)}: not written by nst-batch; choose another --out")
        if lacking := _KEYS - study.keys():
            raise self._damaged(STUDY, f"it has no {min(lacking)}")
        found, expected = study["format_version"], FORMAT["format_version"]
        if found != expected:
            older = "run the study into another --out, or read it with the nst-batch that wrote it"
            raise RunDirectoryError(
                f"{self.directory.url(STUDY)}: expected format {expected}, found {found}; "
                f"{older if found < expected else 'upgrade nst-batch'}"
            )
        return study

    @property
    def num_trials(self) -> int:
        """How many trials the plan has."""
        return int(self.study["num_trials"])

    @property
    def rows_per_part(self) -> int:
        """How many consecutive trials are published together; fixed when the run directory is made."""
        return int(self.study["rows_per_part"])

    @cached_property
    def configurations(self) -> dict[str, Configuration]:
        """The plan's configurations by identity."""
        stored = self.study["configurations"]
        return {identity: rows.configuration_from_json(fields) for identity, fields in stored.items()}

    def forget(self) -> None:
        """Reads study.json again when it is next needed."""
        for name in ("study", "configurations"):
            self.__dict__.pop(name, None)

    def progress(self) -> dict[str, Any] | None:
        """What the driver last said of itself; None if it has not."""
        data = self.directory.find(PROGRESS)
        return None if data is None else self._json(PROGRESS, data)

    def worker_logs(self, trial_id: str) -> list[str]:
        """What those workers printed that failed while they ran this trial."""
        paths = [path for path in self.directory.list(LOGS) if not self.directory.leads_outside(path)]
        texts = (self.directory.read(path).decode(errors="replace") for path in paths)
        return [text for text in texts if trial_id in text]

    def is_complete(self) -> bool:
        """Whether every trial of the plan has ended."""
        return self.directory.exists(SUCCESS)

    # The plan

    def iter_plan(self, *, skip: Mask | None = None) -> Iterator[Trial]:
        """The planned trials in order, with all that fetching needs, but for those at which `skip` is true."""
        names = self.private_names()
        configurations = {
            key: replace(each, weights=names.get(each.weights_sha256, each.weights))
            for key, each in self.configurations.items()
        }
        for path in self.plan_files():
            with self._parquet(path) as file:
                for batch in file.iter_batches(_PLAN_BATCH_ROWS):
                    if skip is not None:
                        batch = batch.filter(pa.array(~skip[batch["trial_index"].to_numpy()]))
                    for row in batch.to_pylist():
                        yield rows.planned_trial(rows.renamed(_NO_ROW | row, names), configurations)

    def private_names(self) -> dict[str, str]:
        """Names that hold secrets, by the SHA-256 of what is there; only fetching may see them."""
        if not self.directory.exists(PRIVATE_NAMES):
            return {}
        names = self.read("names", [PRIVATE_NAMES])
        return dict(zip(names["sha256"].to_pylist(), names["uri"].to_pylist(), strict=True))

    def plan(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The plan as a table."""
        return self.read("plan", self.plan_files(), columns)

    def plan_files(self) -> list[str]:
        """The relative paths of the plan's files, in order."""
        return [f"plan/{part_name(number)}" for number in range(int(self.study["num_plan_files"]))]

    # The tables

    def counts(self) -> dict[str, int]:
        """The trials by status, `ok`, `failed` and `diverged`, and as `pending` those that have not ended."""
        counted = self.table("trials", ["status"])["status"].value_counts().to_pylist()
        counts = {"ok": 0, "failed": 0, "diverged": 0} | {entry["values"]: entry["counts"] for entry in counted}
        return counts | {"pending": self.num_trials - sum(counts.values())}

    def table(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """What is known so far of one of the tables, in order of `trial_index`, each trial once."""
        return self.snapshot().table(name, columns)

    def snapshot(self) -> Snapshot:
        """What is published and what is staged at one moment, without duplicates, even while a run writes."""
        return take_snapshot(self)

    def part_of(self, rows: pa.Table) -> npt.NDArray[np.int64]:
        """The number of the part that each row belongs to, by its `trial_index`."""
        return np.asarray(rows["trial_index"]) // self.rows_per_part

    def part_names(self, rows: pa.Table) -> set[str]:
        """The file names of the parts that rows belong to."""
        return {part_name(part) for part in self.part_of(rows).tolist()}

    def trials_of(self, part: int) -> slice:
        """The `trial_index` of a part's trials."""
        return slice(part * self.rows_per_part, (part + 1) * self.rows_per_part)

    def parts(self) -> list[str]:
        """The file names of the published parts; every table has the same ones."""
        paths = (path.removeprefix("trials/") for path in self.directory.list("trials"))
        return [path for path in paths if _PART.fullmatch(path)]

    def read(self, table: str, paths: Iterable[str], columns: Sequence[str] | None = None) -> pa.Table:
        """Some columns of some files of a table, in the order asked for.

        A column is NULL in files that were written before the program had it.
        """
        schema = tables.FILES[table]
        names = list(columns or schema.names)
        empty = pa.schema([schema.field(name) for name in names]).empty_table().replace_schema_metadata()
        found = [empty]
        for path in paths:
            with self._parquet(path) as file:
                part = file.read(columns=names).replace_schema_metadata()
                found.append(pa.concat_tables([empty, part], promote_options="default"))
        return pa.concat_tables(found)

    def segment_paths(self) -> list[str]:
        """The relative paths of the staged segments."""
        return [path for path in self.directory.list(STAGING) if SEGMENT.fullmatch(path)]

    def read_segment(self, path: str) -> pa.Table:
        """A staged segment (SEGMENT)."""
        segment = self.find_segment(path)
        if segment is None:
            raise RunDirectoryError(f"{self.directory.url(path)}: it has vanished; run again to resume")
        return segment

    def find_segment(self, path: str) -> pa.Table | None:
        """The same, or None if it is no longer there."""
        data = self.directory.find(path)
        with self._undamaged(path):
            segment = None if data is None else feather.read_table(pa.BufferReader(data))
            if segment is not None:
                segment.validate(full=True)  # damaged offsets would lead out of its memory
        return segment

    @contextmanager
    def _parquet(self, path: str) -> Iterator[pq.ParquetFile]:
        with self._undamaged(path), self.directory.open_input(path) as source, pq.ParquetFile(source) as file:
            yield file

    @contextmanager
    def _undamaged(self, path: str) -> Iterator[None]:
        """Says which file it is that cannot be understood."""
        try:
            yield
        except (pa.ArrowException, OSError, ValueError) as error:
            raise self._damaged(path, error) from error

    def _damaged(self, path: str, reason: object) -> RunDirectoryError:
        url = self.directory.url(path)
        return RunDirectoryError(f"{url}: damaged: {reason}; restore it, or choose another --out")

    def _json(self, path: str, data: bytes) -> dict[str, Any]:
        with self._undamaged(path):
            value = json.loads(data)
            if not isinstance(value, dict):
                raise ValueError(f"expected an object, found {type(value).__name__}")
        return value
