"""Promises 4 and 8, pictures and results in object stores: exact rows and clear reasons whatever these do."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import fsspec.config
import pytest

from nst_batch.cluster.options import WorkerOptions
from nst_batch.cluster.worker import Worker
from nst_batch.inputs.decoding import decode
from nst_batch.inputs.fetching import sha256
from nst_batch.inputs.finding import list_inputs
from nst_batch.inputs.weights import resolve
from nst_batch.records import Outcome, Result
from nst_batch.store.committer import Committer
from nst_batch.store.run_directory import RunDirectory
from nst_batch.study.plan import BAD_INPUT_BATCH, make_plan
from nst_batch.study.reading import load_study
from tests.faulty_store import FaultyStore, faulty_store
from tests.pictures import file_of, gradient

GOOD, NUM_CONFIGURATIONS = 6, 2
BUCKET = "s3://unreliable"
STUDY = f"""
name: unreliable
content: ["{BUCKET}/lists/photos.csv"]
style: ["{BUCKET}/styles/*.png"]
image: {{size: 32}}
network: {{weights: "random:0", pooling: average}}
grid: {{content_layers: [block1_conv2, block2_conv1], style_layers: [[block1_conv1]]}}
optimizer: {{steps: 3, pyramid: "off"}}
output: {{format: webp}}
"""
BAD = {
    "secret.png": ("unreadable", "permission denied"),
    "absent.png": ("missing", "no such file"),
    "page.png": ("not_an_image", "HTML"),
    "cut.png": ("truncated", "ends too early"),
    "revoked.png": ("unreadable", "permission denied"),
}
"""What is wrong with some of the pictures; `revoked.png` becomes forbidden when the plan has been made."""


@pytest.fixture
def store() -> Iterator[FaultyStore]:
    """A store with photos and styles, which from now on fails."""
    with faulty_store(delay_seconds=1.0) as (store, environment), pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.setitem(fsspec.config.conf, "s3", {})
        fsspec.config.set_conf_env(fsspec.config.conf)
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        files = fsspec.filesystem("s3")
        files.mkdir(BUCKET)
        names = [f"good-{index}.png" for index in range(GOOD)] + list(BAD)
        files.pipe(f"{BUCKET}/lists/photos.csv", b"uri\n" + "".join(f"../photos/{n}\n" for n in names).encode())
        for index, name in enumerate(names):
            picture = file_of(gradient(40 + index, 40), "PNG")
            made = {"page.png": b"<html>", "cut.png": picture[:-30]}.get(name, picture)
            if name != "absent.png":
                files.pipe(f"{BUCKET}/photos/{name}", made)
        files.pipe(f"{BUCKET}/styles/style.png", file_of(gradient(64, 64).rotate(90), "PNG"))
        store.failing = True
        yield store
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        assert min(store.faults[kind] for kind in ("denied", "internal", "late")) > 0


def in_this_process(study_file: Path, out: str) -> None:
    study = load_study(str(study_file))
    found = resolve("random:0", "vgg16", "average")
    chosen = tuple(study.configurations(weights_sha256=found.sha256, normalization=found.normalization))
    listing = list_inputs(study.content, study.style, study.pairs)
    plan = make_plan(study, listing, configurations=chosen, batch_size=1)
    worker = Worker(WorkerOptions(device="cpu", format="webp"))
    with Committer(RunDirectory(out)) as committer:
        committer.write_plan(
            {"name": study.name, "fingerprint": "", "code_version": ""}, plan.trials(), plan.names()
        )
        for trial in committer.run.iter_plan():
            if trial.batch == BAD_INPUT_BATCH:
                refused = Outcome(status="failed", error_type=trial.error_type, error_message=trial.error_message)
                committer.commit(Result(trial=trial, outcome=refused))
            else:
                for result in worker.run([trial]):
                    committer.commit(result)
        assert committer.finish()


def by_the_command(study_file: Path, out: str) -> None:
    command = [sys.executable, "-m", "nst_batch", "run", str(study_file), "--out", out, "--max-workers", "1"]
    command += ["--cpus-per-worker", "1"]
    for _ in range(2):  # the second time there is nothing to do
        done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
        assert done.returncode == 3, done.stderr


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("run", [in_this_process, pytest.param(by_the_command, marks=pytest.mark.slow)])
def test_a_run_in_an_unreliable_store_ends_with_exact_rows_and_clear_reasons(
    run: Callable[[Path, str], None], tmp_path: Path
) -> None:
    (tmp_path / "study.yaml").write_text(STUDY)
    run(tmp_path / "study.yaml", f"{BUCKET}/run")
    directory = RunDirectory(f"{BUCKET}/run")
    rows = directory.table("trials").to_pylist()
    assert directory.is_complete()
    assert [row["trial_index"] for row in rows] == list(range((GOOD + len(BAD)) * NUM_CONFIGURATIONS))
    assert len({row["trial_id"] for row in rows}) == len(rows)
    for row in rows:
        name = row["content_uri"].rsplit("/", 1)[1]
        if name in BAD:
            kind, reason = BAD[name]
            assert (row["status"], row["error_type"]) == ("failed", kind), row
            assert reason in row["error_message"]
            assert name in row["error_message"]
        else:
            assert (row["status"], row["error_message"], row["steps_done"]) == ("ok", None, 3)
            picture = fsspec.filesystem("s3").cat_file(f"{BUCKET}/run/{row['image_path']}")
            assert sha256(picture) == row["image_sha256"]
            assert decode(picture, "finished").size == (32, 32)
    assert directory.counts() == {"ok": GOOD * 2, "failed": len(BAD) * 2, "diverged": 0, "pending": 0}
