from __future__ import annotations

import contextlib
import hashlib
import http.server
import os
import pickle
import socket
import sys
import time
import types
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pytest

from nst_batch.errors import ImageError, StudyError, WeightsError, is_transient, network_errors
from nst_batch.inputs import fetching, inspecting
from tests.object_store import bucket
from tests.pictures import file_of, gradient
from tests.web_server import serving

__all__ = ["bucket"]

PNG = file_of(gradient(), "PNG")


def test_reading_gives_the_bytes(tmp_path: Path) -> None:
    file = tmp_path / "naïve name 100%.png"
    file.write_bytes(PNG)
    assert fetching.read_bytes(str(file)) == PNG
    assert fetching.read_bytes(file.as_uri().replace("%20", " ").replace("%25", "%").replace("%C3%AF", "ï")) == PNG
    digest = hashlib.sha256(PNG).hexdigest()
    assert fetching.sha256(PNG) == digest
    assert fetching.read_bytes(str(file), expected_sha256=digest) == PNG


def test_what_cannot_be_read_has_a_reason(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "good.png").write_bytes(PNG)
    os.mkfifo(tmp_path / "pipe")
    cases: list[tuple[str, str, dict[str, Any]]] = [
        ("absent.png", "missing", {}),
        ("good.png/within.png", "missing", {}),
        ("empty.png", "empty", {}),
        (".", "unreadable", {}),
        ("pipe", "unreadable", {}),
        ("n" * 300, "unreadable", {}),
        ("null\0byte", "unreadable", {}),
        ("good.png", "too_large", {"limit_bytes": len(PNG) - 1}),
        ("good.png", "changed", {"expected_sha256": "0" * 64}),
    ]
    for prefix in ("", "file://"):
        for name, kind, options in cases:
            if prefix and name in ("pipe", "."):
                continue
            with pytest.raises(ImageError) as caught:
                fetching.read_bytes(f"{prefix}{tmp_path}/{name}", **options)
            assert caught.value.kind == kind, (name, caught.value)
            assert name in str(caught.value)
    assert fetching.read_bytes(str(tmp_path / "good.png"), limit_bytes=len(PNG)) == PNG


def test_a_forbidden_file_is_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    file = tmp_path / "a.png"
    file.write_bytes(PNG)
    monkeypatch.setattr(Path, "read_bytes", forbidden)
    with pytest.raises(ImageError, match="permission denied") as caught:
        fetching.read_bytes(str(file))
    assert caught.value.kind == "unreadable"


def test_a_changed_file_says_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(PNG)
    with pytest.raises(ImageError, match=r"changed after planning.*put the planned file back"):
        fetching.read_bytes(str(file), expected_sha256="0" * 64)


def test_a_name_that_no_table_can_hold_is_reported_in_one_that_can(tmp_path: Path) -> None:
    uri = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")
    found = inspecting.inspect(uri)
    assert found.error_type == "unreadable"
    assert found.picture.uri.endswith("\\udcff.png")
    f"{found.picture.uri} {found.error_message}".encode()


def test_unknown_protocols_and_missing_packages_are_unreadable() -> None:
    with pytest.raises(ImageError) as caught:
        fetching.read_bytes("gopher://example.org/a.png")
    assert caught.value.kind == "unreadable"


class _Server(http.server.BaseHTTPRequestHandler):
    """Answers with the next status of its script; 200 comes with a picture."""

    script: list[int]
    requests = 0

    def do_GET(self) -> None:
        type(self).requests += 1
        status = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        self.send_response(status)
        body = PNG if status == 200 else b""
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[type[_Server], str]]:
    pytest.importorskip("aiohttp")
    monkeypatch.setattr(fetching, "FIRST_WAIT_SECONDS", 0.0)
    handler = type("Handler", (_Server,), {"script": [200], "requests": 0})
    with serving(handler) as url:
        yield handler, f"{url}/a.png"


def test_network_errors_are_retried(server: tuple[type[_Server], str]) -> None:
    handler, url = server
    handler.script = [503, 500, 200]
    assert fetching.read_bytes(url) == PNG
    assert handler.requests > 2
    with pytest.raises(ImageError) as caught:
        fetching.read_bytes(url, limit_bytes=len(PNG) - 1)
    assert caught.value.kind == "too_large"


def test_what_a_server_refuses_is_not_retried(server: tuple[type[_Server], str]) -> None:
    handler, url = server
    for status, kind in ((404, "missing"), (403, "unreadable")):
        handler.script, handler.requests = [status], 0
        with pytest.raises(ImageError) as caught:
            fetching.read_bytes(url)
        assert caught.value.kind == kind
        assert handler.requests <= 2


def test_a_dead_server_is_given_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("aiohttp")
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    with pytest.raises(ImageError, match="after 4 tries") as caught:
        fetching.read_bytes("http://127.0.0.1:9/a.png")
    assert caught.value.kind == "unreadable"
    assert [seconds for seconds in waited if seconds >= 0.5] == [0.5, 1.0, 2.0]


def test_a_server_that_never_answers_is_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "TIMEOUT_SECONDS", 0.3)
    monkeypatch.setattr(fetching, "FIRST_WAIT_SECONDS", 0.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begun = time.monotonic()
        with pytest.raises(ImageError, match="did not answer in time") as caught:
            fetching.read_bytes(f"http://127.0.0.1:{silent.getsockname()[1]}/a.png")
    assert caught.value.kind == "timeout"
    assert time.monotonic() - begun < 30


class _Drips(_Server):
    """Sends one byte after the other, each soon enough for a client that waits for the next."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        with contextlib.suppress(OSError):  # nobody listens any more
            for byte in PNG * 1000:
                self.wfile.write(bytes([byte]))
                time.sleep(0.05)


def test_a_server_that_drips_is_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("aiohttp")
    monkeypatch.setattr(fetching, "TIMEOUT_SECONDS", 1.0)
    begun = time.monotonic()
    with serving(_Drips) as url, pytest.raises(ImageError, match=r"sent only \d+ bytes in 1 s") as caught:
        fetching.read_bytes(f"{url}/a.png")
    assert caught.value.kind == "timeout"
    assert time.monotonic() - begun < 20


@pytest.mark.parametrize(
    "url",
    [
        "simplecache::file://{file}",
        "filecache::file://{file}",
        "file://{file}::zip://a.png",
        "reference://{file}",
        "zip://a.png",
        "data:image/png;base64,AAAA://",
        "github://o:r@/a.png",
    ],
)
def test_only_plain_urls_of_known_protocols_are_read(url: str, tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(PNG)
    with pytest.raises(ImageError, match=r"chains of URLs|expected one of http, https") as caught:
        fetching.read_bytes(url.format(file=file))
    assert caught.value.kind == "unreadable"


def test_no_secret_of_a_url_is_in_what_is_said_of_it(server: tuple[type[_Server], str]) -> None:
    handler, url = server
    handler.script = [403]
    secret = url.replace("http://", "http://me:hunter2@") + "?size=3&X-Amz-Signature=0f3a&token=t0k"
    found = inspecting.inspect(secret)
    assert found.error_type == "unreadable"
    assert f"***@{url.removeprefix('http://')}?size=3&X-Amz-Signature=***&token=***" in (found.error_message or "")
    for word in ("hunter2", "0f3a", "t0k"):
        assert word not in (found.error_message or "")
    assert found.picture.uri == secret, "the plan needs it to fetch the picture"
    for error in (StudyError([secret]), WeightsError(secret), ImageError("missing", secret, secret)):
        assert "hunter2" not in str(error)
        assert "hunter2" not in repr(error)
        assert "hunter2" not in str(pickle.loads(pickle.dumps(error)))


@pytest.mark.parametrize(
    ("module", "names", "status", "transient"),
    [
        ("azure.core.exceptions", "AzureError", None, True),
        ("azure.core.exceptions", "AzureError", 403, False),
        ("azure.core.exceptions", "AzureError ClientAuthenticationError", None, False),
        ("azure.core.exceptions", "AzureError ClientAuthenticationError CredentialUnavailableError", None, False),
        ("gcsfs.retry", "HttpError", 503, True),
    ],
)
def test_errors_of_clients_that_are_no_oserrors_are_known(
    module: str, names: str, status: int | None, transient: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each name a subclass of the one before. By name, as these libraries are not installed here."""
    root, *below = names.split()
    kind = first = type(root, (Exception,), {"status_code": status})
    for name in below:
        kind = type(name, (kind,), {})
    monkeypatch.setitem(sys.modules, module, types.SimpleNamespace(**{root: first}))
    assert issubclass(kind, network_errors())
    assert is_transient(kind("no answer")) == transient


def test_googles_own_errors_are_known() -> None:
    login, answers = map(pytest.importorskip, ("google.auth.exceptions", "google.api_core.exceptions"))
    passing = login.TransportError("no answer"), answers.ServiceUnavailable("later")
    final = login.DefaultCredentialsError("none found"), answers.Forbidden("no")
    assert all(isinstance(error, network_errors()) for error in (*passing, *final))
    assert [is_transient(error) for error in (*passing, *final)] == [True, True, False, False]


def test_what_s3_refuses_is_not_asked_again(bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Through s3fs and botocore; `test_4_unreliable_stores` has the errors that pass."""
    waited: list[float] = []
    monkeypatch.setattr(fetching, "FIRST_WAIT_SECONDS", 9.0)
    monkeypatch.setattr(time, "sleep", waited.append)
    for url in (f"{bucket}/absent.png", "s3://no-such-bucket/a.png"):
        with pytest.raises(ImageError, match="no such file"):
            fetching.read_bytes(url)
    for name in [name for name in os.environ if name.startswith("AWS_") and name != "AWS_ENDPOINT_URL"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    store = fsspec.get_filesystem_class("s3")
    store.clear_instance_cache()
    with pytest.raises(ImageError, match="credentials") as caught:
        fetching.read_bytes(f"{bucket}/a.png")
    store.clear_instance_cache()
    assert caught.value.kind == "unreadable"
    assert [seconds for seconds in waited if seconds >= 9] == []


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "a.png"
    os.mkfifo(pipe)
    for uri in (str(pipe), f"file://{pipe}", f"local://{pipe}"):
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(fetching.read_bytes, uri)
            try:
                error = reading.exception(timeout=10)
            finally:
                os.close(os.open(pipe, os.O_RDWR | os.O_NONBLOCK))  # ends a wait
            assert isinstance(error, ImageError)
            assert "found not a regular file" in str(error)
