"""SIGINT and SIGTERM: an exception while nothing is at stake, a request while results are being recorded.

Python runs a signal's handler only when the main thread comes back to Python, which may take a minute inside a
library. So a thread listens as well: whatever the main thread does, a second SIGINT ends the process at once, and
so does patience that runs out. That is safe at any moment: a kill loses nothing that is on disk.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Sequence
from types import FrameType
from typing import Any, Self

from nst_batch.errors import Interrupted

GRACE_SECONDS = 9.0
"""From the first signal to the end of the process, whether it is ready or not."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _Stopped(BaseException):
    """Raised in whatever the main thread is doing; like KeyboardInterrupt, no error that a library could handle."""


class Interrupts:
    """Handles SIGINT and SIGTERM for the length of a `with` block, which may be inside another one.

    Before `hold` the first signal raises, and the block ends with `Interrupted`; after it the signal is only noted
    in `received`. Outside of the main thread, where Python allows no handlers, nothing is done.

    Raises:
        Interrupted: At the end of the block, if a signal ended it.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._held = self._raised = False

    def __enter__(self) -> Self:
        self._installed = threading.current_thread() is threading.main_thread()
        if self._installed:
            self._read, self._write = socket.socketpair()
            self._write.setblocking(False)
            threading.Thread(target=self._listen, name="nst-batch signals", daemon=True).start()
            self._previous: dict[signal.Signals, Any] = {number: signal.getsignal(number) for number in _SIGNALS}
            self._previous_fd = signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
            self.reinstall()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not self._installed:
            return
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._previous_fd)
        self._write.close()  # ends the thread
        ours = self._raised or isinstance(error, SystemExit)  # whatever a library has made of it
        if self.received is not None and ours and error is not None and not isinstance(error, Interrupted):
            raise Interrupted(self.received, f"{ended_by(self.received)}; run the same command again to go on")

    def reinstall(self) -> None:
        """Takes the signals back from a library that took them (Ray does when it starts)."""
        if self._installed:
            for number in _SIGNALS:
                signal.signal(number, self._receive)

    def hold(self) -> None:
        """From now on a signal raises nothing; look at `received` now and then."""
        self._held = True

    def _receive(self, number: int, _: FrameType | None) -> None:
        self.received = self.received or number
        if not self._held and not self._raised:
            self._raised = True
            raise _Stopped

    def _listen(self) -> None:
        """In its own thread: ends the process at a second SIGINT, or when the first signal is long ago."""
        with self._read:
            if not (number := self._heard(_SIGNALS)):
                return
            self.received = self.received or number  # also while a library has our handlers' place
            self._read.settimeout(GRACE_SECONDS)
            with contextlib.suppress(TimeoutError):
                number = self._heard((signal.SIGINT,))
            if number:
                os.write(2, f"{ended_by(number)} at once; run the same command again to go on\n".encode())
                os._exit(128 + number)

    def _heard(self, awaited: Sequence[int]) -> int:
        """The first of these signals to arrive; 0 when the block has been left."""
        while byte := self._read.recv(1):
            if byte[0] in awaited:
                return byte[0]
        return 0


def ended_by(number: int) -> str:
    """`stopped by SIGTERM`."""
    return f"stopped by {signal.Signals(number).name}"
