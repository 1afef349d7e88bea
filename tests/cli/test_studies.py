"""The commands about a study: what init and schema write, and who is asked before a large study."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from nst_batch.cli import app
from nst_batch.cli.options import seconds
from nst_batch.cli.studies import confirmed, num_trials
from nst_batch.study.model import Study, json_schema, study_from_dict
from nst_batch.study.reading import load_study, preset_names


def study(content: list[str], num_alphas: int = 1) -> Study:
    grid = {"content_layers": ["block2_conv2"], "alpha": list(range(1, num_alphas + 1))}
    return study_from_dict({"name": "large", "content": content, "style": content[:1], "grid": grid})


@pytest.mark.parametrize("preset", [None, *preset_names()])
def test_what_init_writes_is_a_study(preset: str | None, tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    arguments = ["init", str(file), *(["--preset", preset] if preset else [])]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert load_study(str(file), content=["a.png"], style=["b.png"])
    assert CliRunner().invoke(app, arguments).exit_code == 2  # it exists
    assert CliRunner().invoke(app, [*arguments, "--force"]).exit_code == 0


def test_editors_find_the_schema() -> None:
    written = CliRunner().invoke(app, ["init", "-"]).stdout
    assert written.startswith("# yaml-language-server: $schema=study.schema.json\n")
    assert json.loads(CliRunner().invoke(app, ["schema"]).stdout) == json_schema()


def test_a_time_is_read_as_it_is_written() -> None:
    assert [seconds(text) for text in ("45s", "90 min", "6h", "1.5 d")] == [45, 5400, 21600, 129600]
    for wrong in ("6", "h", "6 hours", "-1h", "nan h"):
        with pytest.raises(ValueError, match="expected a time"):
            seconds(wrong)


@pytest.mark.parametrize(
    ("terminal", "yes", "num_alphas", "asked"),
    [(True, False, 400, True), (True, True, 400, False), (False, False, 400, False), (True, False, 3, False)],
)
def test_only_a_person_is_asked_and_only_before_a_large_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, terminal: bool, yes: bool, num_alphas: int, asked: bool
) -> None:
    photos = [tmp_path / f"{number}.png" for number in range(3)]
    for photo in photos:
        photo.touch()
    questions: list[Any] = []
    monkeypatch.setattr("sys.stdin.isatty", lambda: terminal)
    monkeypatch.setattr("typer.confirm", lambda text, **_: questions.append(text))
    made = study([str(photo) for photo in photos], num_alphas)
    (tmp_path / "study.json").write_text(json.dumps(made.to_dict()))
    confirmed(str(tmp_path / "study.json"), {"yes": yes})
    assert bool(questions) == asked


def test_pictures_that_are_not_here_cannot_be_asked_about(tmp_path: Path) -> None:
    assert num_trials(study([str(tmp_path / "elsewhere")])) == 0
