"""Promise 7: nothing that is read can run code or leave the run directory, and no secret of a URL is told.

Through the program. SQL that tries to get out is in `tests/results/test_query.py`, HTML in `test_report.py`, links
of a received run directory in `test_export.py`, protocols in `tests/inputs`.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nst_batch.cli import app
from nst_batch.errors import StudyError
from tests import tiny
from tests.driver import Driver


class Opens:
    """What opens a file as soon as it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.mkdir", "!!python/object/new:os.mkdir", "!!python/name:os.mkdir"]
)
def test_a_study_file_runs_nothing(tag: str, tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(f"content: {tag} [{tmp_path}/made]\nstyle: [b.png]\n")
    ended = CliRunner().invoke(app, ["plan", str(study)])
    assert isinstance(ended.exception, StudyError)
    assert "study.yaml:1: " in str(ended.exception)
    assert not (tmp_path / "made").exists()


def test_weights_run_nothing(tmp_path: Path, embedded_ray: str) -> None:
    tiny.collection(tmp_path, tiny.good(1))
    weights = tmp_path / "weights.pth"
    weights.write_bytes(pickle.dumps({"features.0.weight": Opens(tmp_path / "made")}))
    arguments = ["run", "demo", "--content", tmp_path / "photos", "--style", tmp_path / "style.png"]
    arguments += ["--weights", weights, "--out", tmp_path / "out", "--address", embedded_ray]
    command = [sys.executable, "-m", "nst_batch", *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)
    assert ended.returncode == 1
    assert "weights.pth" in ended.stderr
    assert not (tmp_path / "made").exists()


def test_no_secret_of_a_url_is_told(tmp_path: Path, embedded_ray: str) -> None:
    photos = tiny.collection(tmp_path, tiny.good(1))
    url = "http://me:hush-password@127.0.0.1:9/photo.png?X-Amz-Signature=hush-signature"
    running = Driver(tmp_path, "--content", url, "--content", str(photos), "--address", embedded_ray)
    shown = list(running.process.communicate(timeout=300))
    assert running.process.returncode == 3, shown
    assert "127.0.0.1:9/photo.png" in shown[1]
    out = running.out
    for command in (["query", str(out), "SELECT * FROM trials"], ["show", str(out), "0"]):
        shown.append(CliRunner().invoke(app, [*command, "--format", "json"]).output)
        assert "127.0.0.1:9/photo.png" in shown[-1]
    assert CliRunner().invoke(app, ["report", str(out)]).exit_code == 0
    shown += [path.read_text("latin-1") for path in (*out.glob("*.json"), *(out / "report").iterdir())]
    assert not [text for text in shown if "hush" in text]
    assert not [name for _, folders, files in os.walk(out) for name in (*folders, *files) if "hush" in name]
