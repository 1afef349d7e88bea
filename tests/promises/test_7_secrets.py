"""No secret of a URL is shown or stored: only the plan's private names keep what fetching a picture needs."""

from __future__ import annotations

import http.server
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from nst_batch.api import open_run
from nst_batch.cli import app
from nst_batch.cluster.options import ClusterOptions, WorkerOptions
from nst_batch.cluster.progress import Reporter
from nst_batch.cluster.worker import Worker
from nst_batch.errors import StudyChangedError, without_secrets
from nst_batch.inputs import fetching
from nst_batch.inputs.finding import list_inputs
from nst_batch.inputs.weights import resolve
from nst_batch.records import Outcome, Result
from nst_batch.run import RunOptions, run_study
from nst_batch.store.committer import Committer
from nst_batch.store.run_directory import RunDirectory
from nst_batch.study.estimate import estimate
from nst_batch.study.extension import extension
from nst_batch.study.model import Study, study_from_dict
from nst_batch.study.plan import BAD_INPUT_BATCH, Plan, make_plan
from nst_batch.transfer.vgg import conv_shapes
from tests import small_run, tiny, workers
from tests.pictures import file_of
from tests.web_server import serving

SECRETS = ("hunter2", "s1gn4ture", "hunter3")
"""The last one is what `tests.workers` print before they come to harm."""


def weights_file() -> bytes:
    """VGG-11 in torchvision's format, with nothing in it."""
    shapes = zip(conv_shapes("vgg11").values(), (0, 3, 6, 8, 11, 13, 16, 18), strict=True)
    state: dict[str, torch.Tensor] = {}
    for (out_channels, in_channels), position in shapes:
        state[f"features.{position}.weight"] = torch.zeros(1).expand(out_channels, in_channels, 3, 3)
        state[f"features.{position}.bias"] = torch.zeros(out_channels)
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


class _Guarded(http.server.BaseHTTPRequestHandler):
    """A picture, or weights, for whoever comes with the signature; /forbidden is for nobody."""

    def do_GET(self) -> None:
        allowed = "sig=s1gn4ture" in self.path and "forbidden" not in self.path
        body = b""
        if allowed and "mask" in self.path:
            body = file_of(Image.new("RGB", (24, 20)), "PNG")
        elif allowed:
            body = weights_file() if ".pth" in self.path else tiny.picture(sum(self.path.encode()))
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
    with serving(_Guarded) as plain:
        url = plain.replace("http://", "http://me:hunter2@")
        content = [f"{url}/{name}.png?sig=s1gn4ture" for name in ("a", "copy-of-a", "forbidden")]
        yield study_from_dict(
            {
                "name": "secret", "content": content, "style": f"{url}/style.png?sig=s1gn4ture",
                "image": {"size": 32}, "network": {"weights": "random:0", "pooling": "average"},
                "grid": {"content_layers": "block1_conv1", "style_layers": "block1_conv1"},
                "optimizer": {"steps": 2},
            }
        )  # fmt: skip


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
        committer.write_plan(written, plan.trials(), plan.names())
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
        committer.write_plan(written, plan.trials(), plan.names())
        fewer = study_from_dict(study.to_dict() | {"content": [study.content[0].replace("/a.", "/other-name.")]})
        with pytest.raises(StudyChangedError, match="changed or gone") as caught:
            list(extension(plan_of(fewer), committer.run, study.shown(), "run"))
    assert "***@127.0.0.1" in str(caught.value)
    assert not any(secret in str(caught.value) for secret in SECRETS)


class Notes(Reporter):
    """What a person is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def readable(folder: Path) -> Iterator[tuple[str, str]]:
    """Name and content of every file of a run directory but the private ones."""
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_file() and not name.startswith("private/"):
            if path.suffix == ".parquet":
                yield name, str(pq.read_table(path).to_pylist())
            elif path.suffix == ".arrow":
                yield name, str(feather.read_table(path).to_pylist())
            else:
                yield name, path.read_bytes().decode(errors="replace")


@pytest.mark.usefixtures("embedded_ray")
def test_nothing_that_a_run_leaves_or_says_holds_a_secret(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    names = ("good-a", "good-b", "raise-1", "kill-1", "forbidden")
    content = [study.content[0].replace("/a.png", f"/{name}.png") for name in names]
    mask, pairs = study.content[0].replace("/a.png", "/mask.png"), tmp_path / "pairs.csv"
    listed = ["content,style,content_mask", *(f"{uri},{study.style[0]},{mask}" for uri in content)]
    pairs.write_text("\n".join(listed))
    network = {"arch": "vgg11", "weights": study.content[0].replace("/a.png", "/weights.pth")}
    told, out = Notes(), tmp_path / "out"
    cluster = ClusterOptions(cpus_per_worker=1, max_workers=2)
    options = RunOptions(out=str(out), cluster=cluster, worker_class=workers.SimulatedWorker, batch_size=1)
    values = study.to_dict() | {"content": [], "style": [], "pairs": str(pairs), "network": network}
    assert run_study(study_from_dict(values), options, told).failed == 3
    run = open_run(out)
    assert run.report(fetch=False)
    shown = dict(readable(out)) | {"notes": str(told.notes)}
    for command in ("status", "show", "verify"):
        shown[command] = CliRunner().invoke(app, [command, str(out)]).output
    assert {"study.json", "plan/part-00000.parquet", "report/index.html"} <= shown.keys()
    assert any(name.startswith("logs/") for name in shown)
    assert "mask.png?sig=***" in shown["plan/part-00000.parquet"]
    assert "weights.pth?sig=***" in shown["trials/part-00000.parquet"]
    for name, text in shown.items():
        assert not [secret for secret in SECRETS if secret in text], name
    assert "hunter2" in str(pq.read_table(out / "private" / "names.parquet").to_pylist()), "fetching needs it"


def test_a_run_directory_that_needs_a_password_is_named_without_it(tmp_path: Path) -> None:
    pictures = small_run.inputs(tmp_path, ["a.png", "b.png"])
    trials = list(small_run.plan(pictures[:1], [pictures[1:]], small_run.configurations({})))
    small_run.write(place := f"memory://me:hunter2@{tmp_path.name}/run", trials)
    run = open_run(place)
    page = Path(run.report(tmp_path / "report")).read_text()
    said = CliRunner().invoke(app, ["doctor", "--no-ray", "--json", "--out", place]).stdout
    for text in (repr(run), page, said):
        assert without_secrets(place) in text
        assert "hunter2" not in text


@pytest.mark.parametrize("out", ["s3://me:hunter2@bucket/run", "https://host/run?sig=s1gn4ture"])
def test_a_job_whose_command_would_show_a_secret_is_not_submitted(out: str) -> None:
    ended = CliRunner().invoke(app, ["submit", "demo", "--out", out, "--address", "http://127.0.0.1:9"])
    assert ended.exit_code == 2
    assert f"{without_secrets(out)}: expected a place without user, password or signature" in ended.output
    assert not any(secret in ended.output for secret in SECRETS)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://host/a.png?sig=0f3: forbidden", "https://host/a.png?sig=***: forbidden"),
        ("https://host/a.png?size=3&token=a:b:c: gone", "https://host/a.png?size=3&token=***: gone"),
        ("(https://me:p@ss@host/a?sig=0f3), not read.", "(https://***@host/a?sig=***), not read."),
        ("url='s3://me:pw@bucket/a'", "url='s3://***@bucket/a'"),
        ("abfs://photos@account/a.png", "abfs://photos@account/a.png"),
        ("abfs://me:pw@account/a.png", "abfs://***@account/a.png"),
    ],
)
def test_only_what_is_secret_is_hidden(text: str, shown: str) -> None:
    """Azure's container@account names no user, and a message goes on after its URL."""
    assert without_secrets(text) == without_secrets(shown) == shown
