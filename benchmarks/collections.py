"""Large collections: a million trials planned, started, resumed, extended and read on this machine.

    python -m benchmarks.collections [--photos 10000] [--configurations 100] [--folder DIR]

Each stage is a process of its own, so that its peak memory is its own. Workers are simulated: they
compute nothing. Results go to benchmarks/results/DATE-collections-NUMBER.json.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
from PIL import Image

from benchmarks.report import write
from nst_batch.cluster.options import WorkerOptions
from nst_batch.cluster.progress import Progress, Reporter
from nst_batch.errors import Interrupted
from nst_batch.records import Configuration, Outcome, Result, Trial
from nst_batch.results.query import query
from nst_batch.run import RunOptions, run_study
from nst_batch.store import tables
from nst_batch.store.rows import result_row, split
from nst_batch.store.run_directory import RunDirectory, part_name
from nst_batch.study.model import Study, study_from_dict
from tests import simulated

DONE = 0.9
IMAGE_BYTES = 60_000


class Announcing:
    """A worker that writes down when it got its first batch, and computes nothing."""

    def __init__(self, options: WorkerOptions) -> None:
        del options

    def setup(self, configuration: Configuration) -> None:
        """Is ready at once."""
        del configuration

    def run(self, trials: Sequence[Trial]) -> list[Result]:
        """Ends the run that it is part of: one batch is enough."""
        begun = Path(os.environ["NST_BENCH_BEGUN"])
        if not begun.exists():
            begun.write_text(str(time.time()))
        return [Result(trial=trial, outcome=Outcome(status="ok")) for trial in trials]


class Drawing:
    """A worker that needs no time: every trial gets a loss history of 300 steps and a picture of 60 kB."""

    def __init__(self, options: WorkerOptions) -> None:
        del options
        self._noise = np.random.default_rng(0).bytes(IMAGE_BYTES)

    def setup(self, configuration: Configuration) -> None:
        """Is ready at once."""
        del configuration

    def run(self, trials: Sequence[Trial]) -> list[Result]:
        """A result for each, of which no two pictures are alike."""
        made = [simulated.result(trial, steps=300) for trial in trials]
        head = [trial.trial_index.to_bytes(8, "big") for trial in trials]
        return [replace(each, image=first + self._noise) for each, first in zip(made, head, strict=True)]


def study(folder: Path, num_configurations: int) -> Study:
    """One style, and as many alphas as there are to be configurations."""
    return study_from_dict(
        {
            "name": "large",
            "content": [str(folder / "photos")],
            "style": [str(folder / "style.png")],
            "network": {"weights": "random:0", "pooling": "average"},
            "image": {"size": 64},
            "grid": {"alpha": [(index + 1) / 128 for index in range(num_configurations)]},
        }
    )


def make_photos(folder: Path, count: int) -> None:
    """Small JPEGs, no two alike, a thousand to a folder."""
    generator = np.random.default_rng(0)
    for index in range(count):
        file = folder / "photos" / f"{index // 1000:03d}" / f"{index:06d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        levels = generator.integers(0, 255, (9, 12, 3), dtype=np.uint8)
        Image.fromarray(levels).resize((320, 240), Image.Resampling.BICUBIC).save(file, quality=85)
    Image.new("RGB", (64, 64), "navy").save(folder / "style.png")


def until_the_first_batch(folder: Path, num_configurations: int) -> dict[str, Any]:
    """Runs the study as a person would, and interrupts it when a worker has its first batch."""
    begun = Path(os.environ["NST_BENCH_BEGUN"])
    begun.unlink(missing_ok=True)
    planned: list[float] = []

    def watch() -> None:
        while not begun.exists():
            if not planned and (folder / "run" / "study.json").exists():
                planned.append(time.time())
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=watch, daemon=True).start()
    started = time.time()
    options = RunOptions(out=str(folder / "run"), worker_class=Announcing, device="cpu", batch_size=16)
    with suppress(Interrupted):
        run_study(study(folder, num_configurations), options)
    return {
        "plan_seconds": planned[0] - started if planned else None,
        "first_batch_seconds": float(begun.read_text()) - started,
        "num_trials": RunDirectory(folder / "run").num_trials,
    }


def pretend(folder: Path) -> dict[str, Any]:
    """Publishes all but the last tenth of the plan, as runs that never happened would have."""
    run = RunDirectory(folder / "run")
    shutil.rmtree(folder / "run" / "staging", ignore_errors=True)
    rows = run.rows_per_part
    ids = run.plan(["trial_id"])["trial_id"].combine_chunks()
    some = [simulated.result(simulated.trial(index), steps=300) for index in range(rows)]
    segment = pa.Table.from_pylist([result_row("large", each) for each in some], tables.SEGMENT)
    position = segment.column_names.index
    for part in range(int(run.num_trials * DONE) // rows):
        first = part * rows
        numbered = segment.set_column(position("trial_index"), "trial_index", pa.array(range(first, first + rows)))
        named = numbered.set_column(position("trial_id"), "trial_id", ids[first : first + rows])
        for name in ("curves", "layers", "trials"):
            target = folder / "run" / name / part_name(part)
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(tables.parquet_bytes(split(named, name), name))
    return {"done": int(run.num_trials * DONE) // rows * rows}


def read(folder: Path) -> dict[str, Any]:
    """What `status` and `query` do."""
    run = RunDirectory(folder / "run")
    begun = time.perf_counter()
    counts = run.counts()
    counted = time.perf_counter()
    grouped = "SELECT alpha, count(*), avg(final_total_loss) FROM trials GROUP BY alpha ORDER BY alpha LIMIT 5"
    rows = query(RunDirectory(folder / "run"), grouped)
    asked = time.perf_counter()
    return {
        "counts": counts,
        "status_seconds": counted - begun,
        "query_seconds": asked - counted,
        "rows": str(rows)[:200],
    }


def throughput(folder: Path, num_configurations: int) -> dict[str, Any]:
    """A run whose workers take no time, from the first photos only: trials per second and memory as it goes on."""
    out = folder / "thrown"
    shutil.rmtree(out, ignore_errors=True)
    some = str(folder / "photos" / "000" / "0000*.jpg")
    chosen = study(folder, num_configurations).to_dict() | {"content": [some]}
    watched = Watching()
    options = RunOptions(out=str(out), worker_class=Drawing, device="cpu", batch_size=16)
    progress = run_study(study_from_dict(chosen), options, watched)
    (first, _, _), (last, ended, _) = watched.seen[0], watched.seen[-1]
    shutil.rmtree(out)
    return {
        "num_trials": progress.num_trials,
        "trials_per_second": (ended - watched.seen[0][1]) / (last - first),
        "megabytes": [megabytes for _, _, megabytes in watched.seen],
    }


class Watching(Reporter):
    """Notes how many trials have ended, and the memory of this process."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, int, int]] = []

    def progress(self, progress: Progress) -> None:
        """From the first result on."""
        ended = progress.num_trials - progress.pending
        if ended:
            megabytes = round(psutil.Process().memory_info().rss / 1e6)
            self.seen.append((time.perf_counter(), ended, megabytes))


STAGES: dict[str, Callable[[Path, int], dict[str, Any]]] = {
    "start": until_the_first_batch,
    "pretend": lambda folder, _: pretend(folder),
    "resume": until_the_first_batch,
    "read": lambda folder, _: read(folder),
    "throughput": throughput,
    "extend": lambda folder, configurations: until_the_first_batch(folder, configurations + 10),
}


def _stage(name: str, folder: Path, configurations: int) -> dict[str, Any]:
    """A stage in its own process: what it found, how long it took with Python's start, its own peak memory."""
    command = [sys.executable, "-m", "benchmarks.collections", "--folder", str(folder), "--stage", name]
    command += ["--configurations", str(configurations)]
    begun = time.perf_counter()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found | {"process_seconds": round(time.perf_counter() - begun, 2)}


def main() -> None:
    """Runs every stage, or one of them for `main` itself."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--photos", type=int, default=10_000)
    parser.add_argument("--configurations", type=int, default=100)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--stage", choices=list(STAGES), help="one stage, in this process")
    chosen = parser.parse_args()
    if chosen.stage:
        os.environ["NST_BENCH_BEGUN"] = str((chosen.folder / "begun").absolute())
        found = STAGES[chosen.stage](chosen.folder, chosen.configurations)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(found | {"peak_megabytes": round(peak)}))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.folder or Path(temporary)
        if not (folder / "style.png").exists():
            make_photos(folder, chosen.photos)
        shutil.rmtree(folder / "run", ignore_errors=True)
        stages = {name: _stage(name, folder, chosen.configurations) for name in STAGES}
    write("collections", {"photos": chosen.photos, "configurations": chosen.configurations} | stages)


if __name__ == "__main__":
    main()
