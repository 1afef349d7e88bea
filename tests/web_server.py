"""A web server on loopback for as long as a `with` block."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class QuietFiles(SimpleHTTPRequestHandler):
    """The files of a folder, and no line on stderr for each."""

    def log_message(self, *_: Any) -> None: ...


@contextmanager
def serving(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    """The URL of a server that answers by `handler`."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def serving_folder(
    folder: Path, handler: type[SimpleHTTPRequestHandler] = QuietFiles
) -> AbstractContextManager[str]:
    """A server of the files below `folder`, for a `with` block: its URL."""
    return serving(partial(handler, directory=str(folder)))
