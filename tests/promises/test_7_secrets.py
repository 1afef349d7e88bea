"""No secret of a URL is shown or stored: only the plan's private names keep what fetching a picture needs."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nst_batch.cluster.options import WorkerOptions
from nst_batch.cluster.worker import Worker
from nst_batch.errors import StudyChangedError
from nst_batch.inputs import fetching
from nst_batch.inputs.finding import list_inputs
from nst_batch.inputs.weights import resolve
from nst_batch.records import Outcome, Result
from nst_batch.store.committer import Committer
from nst_batch.store.run_directory import RunDirectory
from nst_batch.study.estimate import estimate
from nst_batch.study.extension import extension
from nst_batch.study.model import Study, study_from_dict
from nst_batch.study.plan import BAD_INPUT_BATCH, Plan, make_plan
from tests import tiny

SECRETS = ("hunter2", "s1gn4ture")


class _Guarded(http.server.BaseHTTPRequestHandler):
    """A picture for whoever comes with the signature; /forbidden is for nobody."""

    def do_GET(self) -> None:
        allowed = "sig=s1gn4ture" in self.path and "forbidden" not in self.path
        body = tiny.picture(len(self.path)) if allowed else b""
        self.send_response(200 if allowed else 403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> Iterator[Study]:
    """Of pictures behind a signed URL with a password."""
    monkeypatch.setattr(fetching, "FIRST_WAIT_SECONDS", 0.0)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Guarded) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://me:hunter2@127.0.0.1:{server.server_address[1]}"
        content = [f"{url}/{name}.png?sig=s1gn4ture" for name in ("a", "a-copy", "forbidden")]
        yield study_from_dict(
            {
                "name": "secret", "content": content, "style": f"{url}/style.png?sig=s1gn4ture",
                "image": {"size": 32}, "network": {"weights": "random:0", "pooling": "average"},
                "grid": {"content_layers": "block1_conv1", "style_layers": "block1_conv1"},
                "optimizer": {"steps": 2},
            }
        )  # fmt: skip
        server.shutdown()
        thread.join()


def plan_of(study: Study) -> Plan:
    found = resolve("random:0", "vgg16", "average")
    chosen = tuple(study.configurations(weights_sha256=found.sha256, normalization=found.normalization))
    return make_plan(
        study, list_inputs(study.content, study.style, study.pairs), configurations=chosen, batch_size=1
    )


def test_tables_study_json_and_what_planning_says_hold_no_secret(study: Study, tmp_path: Path) -> None:
    plan = plan_of(study)
    worker = Worker(WorkerOptions(device="cpu"))
    with Committer(RunDirectory(str(tmp_path / "run"))) as committer:
        written = {"name": "secret", "fingerprint": "", "code_version": "", "study": study.shown()}
        committer.write_plan(written, plan.trials())
        for trial in committer.run.iter_plan():
            refused = Outcome(status="failed", error_type=trial.error_type, error_message=trial.error_message)
            results = (
                [Result(trial=trial, outcome=refused)] if trial.batch == BAD_INPUT_BATCH else worker.run([trial])
            )
            committer.commit(*results)
        assert committer.finish()
    run = RunDirectory(str(tmp_path / "run"))
    rows = run.table("trials").to_pylist()
    assert sorted(row["status"] for row in rows) == ["failed", "ok", "ok"]
    assert all("***@" in row["content_uri"] and "sig=***" in row["content_uri"] for row in rows)
    shown = [str(rows), (tmp_path / "run/study.json").read_text()]
    shown += [str(estimate(study, device="cpu").to_dict()), str(plan.duplicates)]
    for text in shown:
        assert not any(secret in text for secret in SECRETS), text


def test_a_refused_change_names_pictures_without_their_secrets(study: Study, tmp_path: Path) -> None:
    plan = plan_of(study)
    with Committer(RunDirectory(str(tmp_path / "run"))) as committer:
        written = {"name": "secret", "fingerprint": "", "code_version": "", "study": study.shown()}
        committer.write_plan(written, plan.trials())
        fewer = study_from_dict(study.to_dict() | {"content": [study.content[0].replace("/a.", "/other-name.")]})
        with pytest.raises(StudyChangedError, match="changed or gone") as caught:
            list(extension(plan_of(fewer), where="run", study=study.shown(), planned=committer.run.plan))
    assert "***@127.0.0.1" in str(caught.value)
    assert not any(secret in str(caught.value) for secret in SECRETS)
