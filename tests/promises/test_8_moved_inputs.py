"""Promises 2 and 8: pictures that moved or could not be read for a moment fail no trial for good."""

from __future__ import annotations

from pathlib import Path

import pytest

from nst_batch.cluster.options import ClusterOptions
from nst_batch.cluster.progress import Progress
from nst_batch.inputs import weights
from nst_batch.inputs.finding import list_inputs
from nst_batch.run import RunOptions, run_study
from nst_batch.store.committer import Committer
from nst_batch.store.run_directory import RunDirectory
from nst_batch.study.model import Study
from nst_batch.study.plan import make_plan
from tests import simulated, tiny

NAMES = ("one", "two", "three", "four")


def run(study: Study, out: Path, *, retry_failed: bool = False) -> Progress:
    cluster = ClusterOptions(cpus_per_worker=1, max_workers=1)
    return run_study(study, RunOptions(out=str(out), cluster=cluster, device="cpu", retry_failed=retry_failed))


def interrupted(study: Study, out: Path) -> list[str]:
    """Plans a study and ends two of its trials, one of them badly; the ids of its trials."""
    found = weights.resolve("random:0", "vgg16", "average")
    chosen = tuple(study.configurations(weights_sha256=found.sha256, normalization=found.normalization))
    listing = list_inputs(study.content, study.style, study.pairs)
    with Committer(RunDirectory(out)) as committer:
        plan = make_plan(study, listing, configurations=chosen, batch_size=1)
        written = {"name": study.name, "study": study.shown(), "fingerprint": "", "code_version": ""}
        committer.write_plan(written, plan.trials(), plan.names())
        trials = list(committer.run.iter_plan())
        committer.commit(simulated.result(trials[0]))
        committer.commit(simulated.failure(trials[1]))
    return [trial.trial_id for trial in trials]


@pytest.mark.usefixtures("embedded_ray")
def test_a_run_goes_on_with_pictures_that_moved(tmp_path: Path) -> None:
    photos = tiny.collection(tmp_path, NAMES)
    ids = interrupted(tiny.study(tmp_path), tmp_path / "out")
    photos.rename(tmp_path / "elsewhere")
    moved = tiny.study(tmp_path, content=[str(tmp_path / "elsewhere")])
    assert run(moved, tmp_path / "out", retry_failed=True).ok == 4
    rows = RunDirectory(tmp_path / "out").table("trials", ["trial_id", "content_uri"]).to_pylist()
    assert [row["trial_id"] for row in rows] == ids
    folders = [Path(row["content_uri"]).parent.name for row in rows]
    assert folders == ["photos", "elsewhere", "elsewhere", "elsewhere"], "the first had ended where it was"
    tiny.assert_whole(tmp_path / "out")


@pytest.mark.usefixtures("embedded_ray")
def test_a_picture_that_could_not_be_read_for_a_moment_is_read_again(tmp_path: Path) -> None:
    photos = tiny.collection(tmp_path, NAMES)
    listed = tmp_path / "list.csv"
    listed.write_text("uri\n" + "".join(f"{photos}/{name}.png\n" for name in NAMES))
    study, out = tiny.study(tmp_path, content=[str(listed)]), tmp_path / "out"
    away = (photos / "two.png").rename(tmp_path / "away.png")
    first = run(study, out)
    assert (first.ok, first.failed) == (3, 1)
    assert (run(study, out).ok, run(study, out, retry_failed=True).failed) == (3, 1)
    away.rename(photos / "two.png")
    again = run(study, out)
    assert (again.num_trials, again.ok, again.failed) == (4, 4, 0)
    tiny.assert_whole(out)
