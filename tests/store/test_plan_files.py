"""Plans that are written again: names that follow the pictures, trials that take the place of others, secrets."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from nst_batch.errors import RunDirectoryError
from nst_batch.records import Picture, Trial, trial_id
from nst_batch.store import plan_files
from nst_batch.store.committer import Committer
from nst_batch.store.files import Directory
from nst_batch.store.run_directory import RunDirectory
from tests import simulated

SIGNED = "https://me:hunter2@host/{name}.jpg?size=1&X-Amz-Signature=5ec4e7"


def named(index: int, pattern: str, weights: str = "/old/vgg.pth") -> Trial:
    """The simulated trial with pictures and weights at other places."""
    made = simulated.trial(index)
    assert made.content is not None
    content = replace(made.content, uri=pattern.format(name=f"content-{index // 3}"))
    styles = tuple(replace(style, uri=pattern.format(name="style")) for style in made.styles)
    return replace(made, content=content, styles=styles, configuration=replace(made.configuration, weights=weights))


def names(trials: list[Trial]) -> dict[str, str]:
    pictures = [each for trial in trials for each in (trial.content, *trial.styles) if each]
    found = {picture.sha256: picture.uri for picture in pictures if picture.sha256}
    return found | {trial.configuration.weights_sha256: trial.configuration.weights for trial in trials}


def uris(trial: Trial) -> list[str]:
    return [each.uri for each in (trial.content, *trial.styles) if each]


@pytest.fixture(autouse=True)
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_files, "ROWS_PER_FILE", 7)


def test_names_of_what_is_not_finished_follow_the_pictures(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    old, new = ([named(index, f"/{where}/{{name}}.jpg", f"/{where}/vgg.pth") for index in range(20)]
                for where in ("old", "new"))  # fmt: skip
    with Committer(run) as committer:
        committer.write_plan(simulated.STUDY, old, names(old))
        for trial in old[:6]:
            committer.commit(simulated.failure(trial) if trial.trial_index == 2 else simulated.result(trial))
    with Committer(run) as committer:
        committer.write_plan(simulated.STUDY, [], names(new))
        assert committer.counts() == {"pending": 14, "ok": 5, "failed": 1, "diverged": 0}
    planned = list(run.iter_plan())
    assert [trial.trial_id for trial in planned] == [trial.trial_id for trial in old]
    finished = {0, 1, 3, 4, 5}
    for trial, before, after in zip(planned, old, new, strict=True):
        assert uris(trial) == uris(before if trial.trial_index in finished else after)
        assert trial.configuration.weights == "/new/vgg.pth"


def test_a_kill_between_two_files_leaves_a_plan_that_can_be_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDirectory(tmp_path)
    old, new = ([named(index, f"/{where}/{{name}}.jpg") for index in range(20)] for where in ("old", "new"))
    with Committer(run) as committer:
        committer.write_plan(simulated.STUDY, old, names(old))
    real = Directory.move

    def dying(self: Directory, staged: str, path: str) -> None:
        if path == "plan/part-00001.parquet":
            raise RunDirectoryError("killed")
        real(self, staged, path)

    with monkeypatch.context() as patch, Committer(run) as committer:
        patch.setattr(Directory, "move", dying)
        with pytest.raises(RunDirectoryError, match="killed"):
            committer.write_plan(simulated.STUDY, [], names(new))
    assert [uris(trial)[0].split("/")[1] for trial in run.iter_plan()] == ["new"] * 7 + ["old"] * 13
    with Committer(run) as committer:
        committer.write_plan(simulated.STUDY, [], names(new))
    assert [uris(trial) for trial in run.iter_plan()] == [uris(trial) for trial in new]


def test_what_fetching_needs_is_kept_apart_and_nothing_else_holds_a_secret(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    trials = [named(index, SIGNED, SIGNED.format(name="vgg16")) for index in range(20)]
    study = simulated.STUDY | {"study": {"content": [SIGNED.format(name="*")]}}
    with Committer(run) as committer:
        committer.write_plan(study, trials, names(trials))
        assert [uris(trial) for trial in run.iter_plan()] == [uris(trial) for trial in trials]
        assert next(run.iter_plan()).configuration.weights == SIGNED.format(name="vgg16")
        for trial in run.iter_plan():
            message = f"{uris(trial)[0]}: cannot be read"
            failed = trial.trial_index % 5 == 0
            committer.commit(simulated.failure(trial, message) if failed else simulated.result(trial))
        assert committer.finish()
    public = "https://***@host/content-0.jpg?size=1&X-Amz-Signature=***"
    assert run.plan(["content_uri"])["content_uri"][0].as_py() == public
    row = run.table("trials").to_pylist()[0]
    assert row["content_uri"] == public
    assert row["error_message"].startswith(public)
    assert "***" in row["weights"]
    private = tmp_path / "private" / "names.parquet"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    whole = {name: run.table(name) for name in ("trials", "curves", "layers")} | {"plan": run.plan()}
    texts = [*(str(table.to_pylist()) for table in whole.values()), (tmp_path / "study.json").read_text()]
    assert not any("hunter2" in text or "5ec4e7" in text for text in texts)


def test_renewed_signatures_reach_the_pending_trials(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    for signature in ("5ec4e7", "4e4e3d"):
        trials = [named(index, SIGNED.replace("5ec4e7", signature)) for index in range(20)]
        with Committer(run) as committer:
            committer.write_plan(simulated.STUDY, trials if not run.exists() else [], names(trials))
        assert [uris(trial) for trial in run.iter_plan()] == [uris(trial) for trial in trials]


def unread(index: int) -> Trial:
    """The simulated trial as it is planned when its content picture cannot be read."""
    made = simulated.trial(index)
    assert made.content is not None
    picture = Picture(uri=made.content.uri, sha256=None)
    key = trial_id(picture, made.styles, made.configuration.identity())
    return replace(made, trial_id=key, content=picture, batch=-1, error_type="unreadable", error_message="503")


@pytest.mark.parametrize("recorded", [False, True])
def test_a_trial_that_can_run_at_last_takes_the_place_of_the_one_that_could_not(
    tmp_path: Path, recorded: bool
) -> None:
    run = RunDirectory(tmp_path)
    bad = {4, 5, 9}
    planned = [unread(index) if index in bad else simulated.trial(index) for index in range(20)]
    with Committer(run) as committer:
        committer.write_plan(simulated.STUDY, planned)
        for trial in planned:
            if recorded or trial.trial_index not in bad:
                committer.commit(simulated.failure(trial) if trial.trial_index in bad else simulated.result(trial))
        assert committer.finish() == recorded
    with Committer(run) as committer:
        committer.write_plan(simulated.STUDY, _fresh(bad))
        assert committer.counts()["pending"] == 3
        assert not run.is_complete()
    with Committer(run) as committer:  # as after a kill: what the plan says now is what counts
        pending = list(run.iter_plan(skip=committer.ended))
        assert pending == [simulated.trial(index) for index in sorted(bad)]
        for trial in pending:
            committer.commit(simulated.result(trial))
        assert committer.finish()
    rows = run.table("trials").to_pylist()
    assert [row["trial_id"] for row in rows] == [trial.trial_id for trial in simulated.trials(20)]
    assert [row["attempt"] for row in rows] == [2 if recorded and i in bad else 1 for i in range(20)]
    assert {row["status"] for row in rows} == {"ok"}


def _fresh(indexes: set[int]) -> Iterator[Trial]:
    return (simulated.trial(index) for index in sorted(indexes))
