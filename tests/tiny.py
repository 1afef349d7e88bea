"""Small collections and studies, and what became of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
from PIL import Image

from nst_batch.cluster.options import ClusterOptions
from nst_batch.cluster.progress import Progress, Reporter
from nst_batch.records import Result
from nst_batch.run import RunOptions, run_study
from nst_batch.store.run_directory import RunDirectory
from nst_batch.study.model import Study, study_from_dict
from tests.pictures import file_of, gradient
from tests.workers import CALLS, SECONDS, SimulatedWorker

SIZE = 32
"""Pixels: the fifth block still has two rows."""


def picture(number: int) -> bytes:
    """A PNG that no other number gives."""
    image = gradient(24, 20).copy()
    image.putpixel((0, 0), (number % 256, number // 256 % 256, 7))
    return file_of(image, "PNG")


def collection(folder: Path, names: Iterable[str], *, seconds: float = 0.0) -> Path:
    """A folder `photos` of pictures, of which the names say what happens to their workers."""
    photos = folder / "photos"
    (photos / CALLS).mkdir(parents=True, exist_ok=True)
    (photos / SECONDS).write_text(str(seconds))
    for name in names:
        path = photos / f"{name}.png"
        path.write_bytes(picture(sum(map(ord, name)) * 251 + len(list(photos.iterdir()))))
    (folder / "style.png").write_bytes(file_of(gradient(40, 40).transpose(Image.Transpose.ROTATE_90), "PNG"))
    return photos


def study(folder: Path, **changes: Any) -> Study:
    """The study of a `collection` in `folder`: one configuration, unless `changes` to its keys say otherwise."""
    values: dict[str, Any] = {
        "name": "tiny",
        "content": [str(folder / "photos")],
        "style": [str(folder / "style.png")],
        "image": {"size": SIZE},
        "network": {"weights": "random:0", "pooling": "average"},
        "optimizer": {"steps": 2},
    }
    return study_from_dict(values | changes)


def rows(out: Path) -> list[dict[str, Any]]:
    """The rows of `trials` as a plain glob sees them, by name of the content picture."""
    found: list[dict[str, Any]] = ds.dataset(str(out / "trials")).to_table().to_pylist()
    return sorted(found, key=lambda row: (row["content_uri"], row["trial_index"]))


def assert_whole(out: Path) -> None:
    """Every planned trial has exactly one row, nothing is left in staging, and `_SUCCESS` is there."""
    run = RunDirectory(out)
    planned = sorted(trial.trial_id for trial in run.iter_plan())
    assert sorted(row["trial_id"] for row in rows(out)) == planned
    assert run.is_complete()
    assert run.directory.list("staging") == []


def num_recorded(out: Path) -> int:
    """Trials that are on disk, staged or published."""
    return RunDirectory(out).table("trials", ["trial_index"]).num_rows if (out / "study.json").exists() else 0


def wait_until(condition: Callable[[], object], seconds: float) -> None:
    """Returns when `condition` holds; fails when it has not for so long."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not so after {seconds} s"
        time.sleep(0.05)


def run(
    folder: Path,
    worker_class: type = SimulatedWorker,
    *,
    changes: dict[str, Any] | None = None,
    out: str | Path | None = None,
    reporter: Reporter | None = None,
    cluster: dict[str, Any] | None = None,
    **options: Any,
) -> Progress:
    """Runs the collection in `folder`, on two workers of one core each unless `cluster` says otherwise."""
    chosen = RunOptions(
        out=str(out or folder / "out"),
        cluster=ClusterOptions(**{"cpus_per_worker": 1, "max_workers": 2} | (cluster or {})),
        worker_class=worker_class,
        **options,
    )
    return run_study(study(folder, **(changes or {})), chosen, reporter)


def good(count: int, first: int = 0) -> list[str]:
    return [f"good-{number:02d}" for number in range(first, first + count)]


class After(Reporter):
    """Does something when so many trials have ended."""

    def __init__(self, count: int, action: Callable[[], object]) -> None:
        self._left, self._action = count, action

    def ended(self, result: Result) -> None:  # noqa: ARG002
        self._left -= 1
        if self._left == 0:
            self._action()
