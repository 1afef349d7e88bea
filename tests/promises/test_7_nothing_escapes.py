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

from tests import tiny


class Opens:
    """What opens a file as soon as it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


def program(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nst_batch", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.mkdir", "!!python/object/new:os.mkdir", "!!python/name:os.mkdir"]
)
def test_a_study_file_runs_nothing(tag: str, tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(f"content: {tag} [{tmp_path}/made]\nstyle: [b.png]\n")
    ended = program("plan", study)
    assert ended.returncode == 2
    assert "study.yaml:1: " in ended.stderr
    assert not (tmp_path / "made").exists()


def test_weights_run_nothing(tmp_path: Path, embedded_ray: str) -> None:
    tiny.collection(tmp_path, tiny.good(1))
    weights = tmp_path / "weights.pth"
    weights.write_bytes(pickle.dumps({"features.0.weight": Opens(tmp_path / "made")}))
    ended = program(
        "run", "demo", "--content", tmp_path / "photos", "--style", tmp_path / "style.png",
        "--weights", weights, "--out", tmp_path / "out", "--address", embedded_ray,
    )  # fmt: skip
    assert ended.returncode == 1
    assert "weights.pth" in ended.stderr
    assert not (tmp_path / "made").exists()


def test_no_secret_of_a_url_is_told(tmp_path: Path, embedded_ray: str) -> None:
    tiny.collection(tmp_path, tiny.good(1))
    url = "http://me:hush-password@127.0.0.1:9/photo.png?X-Amz-Signature=hush-signature"
    out = tmp_path / "out"
    ended = program(
        "run", "demo", "--content", url, "--content", tmp_path / "photos", "--style", tmp_path / "style.png",
        "--set", "grid.content_layers=[block1_conv1]", "--size", 32, "--steps", 1,
        "--address", embedded_ray, "--out", out,
    )  # fmt: skip
    assert ended.returncode == 3, ended.stderr
    assert "127.0.0.1:9/photo.png" in ended.stderr
    asked = [
        program("query", out, "SELECT * FROM trials", "--format", "json"),
        program("show", out, "0", "--format", "json"),
    ]
    shown = [ended.stdout, ended.stderr, *(each.stdout for each in asked)]
    shown += [path.read_text("latin-1") for path in out.glob("*.json")]
    assert program("report", out).returncode == 0
    shown += [path.read_text("latin-1") for path in (out / "report").rglob("*") if path.is_file()]
    assert "127.0.0.1:9/photo.png" in asked[0].stdout
    assert not [text for text in shown if "hush" in text]
    assert not [name for _, folders, files in os.walk(out) for name in (*folders, *files) if "hush" in name]
