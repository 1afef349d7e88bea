"""doctor says what there is, and fails where a run would."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nst_batch.cli import app
from nst_batch.cli.care import examine


def test_everything_is_named_and_fine(tmp_path: Path, embedded_ray: str) -> None:
    assert embedded_ray
    findings = {finding.name: finding for finding in examine(str(tmp_path / "not" / "there" / "yet"))}
    assert {"Python", "torch", "ray", "weights", "write access", "disk", "Ray"} <= set(findings)
    assert any(name.startswith("GPU") for name in findings)
    assert findings["write access"].found == str(tmp_path)
    assert not list(tmp_path.iterdir())
    assert "worker" in findings["Ray"].found
    assert {finding.state for finding in findings.values()} <= {"ok", "note"}


def test_json_is_for_programs() -> None:
    ended = CliRunner().invoke(app, ["doctor", "--no-ray", "--json"])
    assert ended.exit_code == 0
    assert {entry["state"] for entry in json.loads(ended.stdout)} <= {"ok", "note"}


def test_a_directory_that_cannot_be_written_is_bad() -> None:
    ended = CliRunner().invoke(app, ["doctor", "--no-ray", "--out", "/proc/nothing"])
    assert ended.exit_code == 1
    assert "bad   write access" in ended.stdout


def test_a_store_that_cannot_be_reached_is_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    findings = {finding.name: finding for finding in examine("s3://nowhere/run", start_ray=False)}
    assert findings["write access"].state == "bad"
