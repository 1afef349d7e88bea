"""An S3 on this machine that fails as real ones do: now and then, for a while, and for some keys for good."""

from __future__ import annotations

import logging
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

_INTERNAL = b"<Error><Code>InternalError</Code><Message>We encountered an internal error.</Message></Error>"
_DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


class FaultyStore:
    """Moto behind a gate that fails on purpose, once `failing` is set.

    - Every 13th request is answered with a 500, every 29th only after `delay_seconds`.
    - A key that contains `secret` is answered with 403; one that contains `revoked`, once a study.json was written.
    """

    def __init__(self, delay_seconds: float) -> None:
        self.failing = False
        self.faults: Counter[str] = Counter()
        self._delay_seconds = delay_seconds
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._lock = threading.Lock()
        self._count = 0
        self._planned = False

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        fault = self._fault(environ["REQUEST_METHOD"], environ["PATH_INFO"]) if self.failing else None
        if fault == "late":
            time.sleep(self._delay_seconds)
        elif fault is not None:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            status, body = (
                ("403 Forbidden", _DENIED) if fault == "denied" else ("500 Internal Server Error", _INTERNAL)
            )
            start(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
            return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]
        answer: Iterable[bytes] = self._moto(environ, start)
        return answer

    def _fault(self, method: str, path: str) -> str | None:
        with self._lock:
            self._count += 1
            self._planned |= method == "PUT" and path.endswith("study.json")
            fault = None
            if "secret" in path or ("revoked" in path and self._planned):
                fault = "denied"
            elif self._count % 13 == 0:
                fault = "internal"
            elif self._count % 29 == 0:
                fault = "late"
            self.faults[str(fault)] += 1
            return fault


@contextmanager
def faulty_store(delay_seconds: float) -> Iterator[tuple[FaultyStore, dict[str, str]]]:
    """A running store, and the environment that makes every process use it."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    store = FaultyStore(delay_seconds)
    server = make_server("127.0.0.1", 0, store, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/moto-api/reset", data=b"").close()
    try:
        yield (
            store,
            {
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
                "AWS_ACCESS_KEY_ID": "testing",
                "AWS_SECRET_ACCESS_KEY": "testing",
                "AWS_DEFAULT_REGION": "us-east-1",
                "FSSPEC_S3": f'{{"config_kwargs": {{"read_timeout": {delay_seconds / 2}}}}}',
            },
        )
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
