"""Promises 2 and 8: pictures that moved or could not be read for a moment fail no trial for good."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nst_batch.inputs import fetching, weights
from nst_batch.inputs.finding import list_inputs
from nst_batch.store.committer import Committer
from nst_batch.store.run_directory import RunDirectory
from nst_batch.study.model import Study
from nst_batch.study.plan import make_plan
from tests import simulated, tiny
from tests.web_server import QuietFiles, serving_folder

NAMES = ("one", "two", "three", "four")


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
    moved = {"content": [str(tmp_path / "elsewhere")]}
    assert tiny.run(tmp_path, changes=moved, retry_failed=True).ok == 4
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
    changes = {"content": [str(listed)]}
    away = (photos / "two.png").rename(tmp_path / "away.png")
    first = tiny.run(tmp_path, changes=changes)
    assert (first.ok, first.failed) == (3, 1)
    assert tiny.run(tmp_path, changes=changes).ok == 3
    assert tiny.run(tmp_path, changes=changes, retry_failed=True).failed == 1
    away.rename(photos / "two.png")
    again = tiny.run(tmp_path, changes=changes)
    assert (again.num_trials, again.ok, again.failed) == (4, 4, 0)
    tiny.assert_whole(tmp_path / "out")


class _Site(QuietFiles):
    """A folder, but for what it holds a `.503` of: that is not to be had for the moment."""

    def do_GET(self) -> None:  # noqa: N802 (its name in the base class)
        if Path(f"{self.translate_path(self.path)}.503").exists():
            self.send_error(503)
        else:
            super().do_GET()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """The URL of the folder `photos`."""
    with serving_folder(tmp_path / "photos", _Site) as url:
        yield url


@pytest.mark.usefixtures("embedded_ray")
@pytest.mark.parametrize("passing", [True, False])
def test_what_planning_found_bad_is_looked_at_again(
    tmp_path: Path, site: str, passing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures that a list names on a server, where nothing but reading them tells that they are good by now.

    An error that may pass is never taken for the last word; that a picture itself was bad is, until one asks.
    """
    monkeypatch.setattr(fetching, "FIRST_WAIT_SECONDS", 0.0)
    photos = tiny.collection(tmp_path, NAMES)
    (tmp_path / "list.csv").write_text("uri\n" + "".join(f"{site}/{name}.png\n" for name in NAMES))
    changes = {"content": [str(tmp_path / "list.csv")]}
    good, refusal = (photos / "two.png").read_bytes(), photos / "two.png.503"
    (photos / "two.png").write_bytes(good if passing else good[:-30])
    if passing:
        refusal.touch()
    first = tiny.run(tmp_path, changes=changes)
    assert (first.ok, first.failed) == (3, 1)
    (photos / "two.png").write_bytes(good)
    refusal.unlink(missing_ok=True)
    assert tiny.run(tmp_path, changes=changes).failed == (0 if passing else 1)
    again = tiny.run(tmp_path, changes=changes, retry_failed=True)
    assert (again.num_trials, again.ok, again.failed) == (4, 4, 0)
    tiny.assert_whole(tmp_path / "out")
