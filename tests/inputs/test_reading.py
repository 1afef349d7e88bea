from __future__ import annotations

import hashlib
import http.server
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nst_batch.errors import ImageError
from nst_batch.inputs import fetching as reading
from nst_batch.inputs import images
from tests.pictures import file_of, gradient

PNG = file_of(gradient(), "PNG")


def test_reading_gives_the_bytes(tmp_path: Path) -> None:
    file = tmp_path / "naïve name 100%.png"
    file.write_bytes(PNG)
    assert images.read_bytes(str(file)) == PNG
    assert images.read_bytes(file.as_uri().replace("%20", " ").replace("%25", "%").replace("%C3%AF", "ï")) == PNG
    digest = hashlib.sha256(PNG).hexdigest()
    assert images.sha256(PNG) == digest
    assert images.read_bytes(str(file), expected_sha256=digest) == PNG


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
                images.read_bytes(f"{prefix}{tmp_path}/{name}", **options)
            assert caught.value.kind == kind, (name, caught.value)
            assert name in str(caught.value)
    assert images.read_bytes(str(tmp_path / "good.png"), limit_bytes=len(PNG)) == PNG


def test_a_forbidden_file_is_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    file = tmp_path / "a.png"
    file.write_bytes(PNG)
    monkeypatch.setattr(Path, "read_bytes", forbidden)
    with pytest.raises(ImageError, match="permission denied") as caught:
        images.read_bytes(str(file))
    assert caught.value.kind == "unreadable"


def test_a_changed_file_says_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(PNG)
    with pytest.raises(ImageError, match=r"changed after planning.*put the planned file back"):
        images.read_bytes(str(file), expected_sha256="0" * 64)


def test_a_name_that_no_table_can_hold_is_reported_in_one_that_can(tmp_path: Path) -> None:
    uri = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")
    found = images.inspect(uri)
    assert found.error_type == "unreadable"
    assert found.picture.uri.endswith("\\udcff.png")
    f"{found.picture.uri} {found.error_message}".encode()


def test_unknown_protocols_and_missing_packages_are_unreadable() -> None:
    with pytest.raises(ImageError) as caught:
        images.read_bytes("gopher://example.org/a.png")
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
    monkeypatch.setattr(reading, "RETRY_AFTER_SECONDS", (0.0, 0.0, 0.0))
    handler = type("Handler", (_Server,), {"script": [200], "requests": 0})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield handler, f"http://127.0.0.1:{running.server_address[1]}/a.png"
        running.shutdown()


def test_network_errors_are_retried(server: tuple[type[_Server], str]) -> None:
    handler, url = server
    handler.script = [503, 500, 200]
    assert images.read_bytes(url) == PNG
    assert handler.requests > 2
    with pytest.raises(ImageError) as caught:
        images.read_bytes(url, limit_bytes=len(PNG) - 1)
    assert caught.value.kind == "too_large"


def test_what_a_server_refuses_is_not_retried(server: tuple[type[_Server], str]) -> None:
    handler, url = server
    for status, kind in ((404, "missing"), (403, "unreadable")):
        handler.script, handler.requests = [status], 0
        with pytest.raises(ImageError) as caught:
            images.read_bytes(url)
        assert caught.value.kind == kind
        assert handler.requests <= 2


def test_a_dead_server_is_given_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("aiohttp")
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    with pytest.raises(ImageError, match="after 4 tries") as caught:
        images.read_bytes("http://127.0.0.1:9/a.png")
    assert caught.value.kind == "unreadable"
    assert [seconds for seconds in waited if seconds >= 0.5] == [0.5, 1.0, 2.0]
