"""A TCP proxy on loopback whose connections break when a test says so."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator


class Proxy:
    """Passes on to `target_port` what comes to `port`.

    Args:
        target_port: On loopback.
        lost: The answer to the first request that begins so is lost, and its connection with it.
    """

    def __init__(self, target_port: int, lost: bytes = b"") -> None:
        self._target_port, self.lost = target_port, lost
        self._sockets: set[socket.socket] = set()
        self._answers_lost: set[socket.socket] = set()
        self.port = 0
        self.open()

    def open(self) -> None:
        """Takes connections."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def close(self) -> None:
        """Breaks every connection."""
        for each in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self._sockets.clear()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target_port))
                self._sockets |= {near, far}
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while (data := source.recv(65_536)) and source not in self._answers_lost:
                if self.lost and data.startswith(self.lost):
                    self.lost = b""
                    self._answers_lost.add(sink)
                sink.sendall(data)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def proxy(target_port: int, lost: bytes = b"") -> Iterator[Proxy]:
    """A proxy that is open."""
    made = Proxy(target_port, lost)
    try:
        yield made
    finally:
        made.close()
