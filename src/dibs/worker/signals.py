"""Signals, as something that a selector can wait for."""

from __future__ import annotations

import signal
import socket
from types import FrameType, TracebackType


class Signals:
    """Keeps what is asked for by signals, and makes a descriptor readable at every signal. Use it as a context."""

    def __init__(self) -> None:
        #: How often SIGTERM or SIGINT came.
        self.stops = 0
        self._changes: list[int] = []
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    def __enter__(self) -> Signals:
        self._former = {
            signal.SIGTERM: signal.signal(signal.SIGTERM, self._stop),
            signal.SIGINT: signal.signal(signal.SIGINT, self._stop),
            signal.SIGTTIN: signal.signal(signal.SIGTTIN, self._grow),
            signal.SIGTTOU: signal.signal(signal.SIGTTOU, self._shrink),
            signal.SIGCHLD: signal.signal(signal.SIGCHLD, self._ignore),
        }
        self._former_descriptor = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.set_wakeup_fd(self._former_descriptor)
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._reader.close()
        self._writer.close()

    def fileno(self) -> int:
        """Readable when a signal came."""
        return self._reader.fileno()

    def clear(self) -> None:
        """Make the descriptor unreadable until the next signal."""
        try:
            self._reader.recv(4096)
        except BlockingIOError:
            return  # read already

    def take_changes(self) -> list[int]:
        """Return what was asked for since the last call: 1 for an executor more, -1 for one fewer."""
        changes, self._changes = self._changes, []
        return changes

    def _grow(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._changes.append(1)

    def _shrink(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._changes.append(-1)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.stops += 1

    def _ignore(self, number: int, frame: FrameType | None) -> None:
        """Exist: only a signal with a handler writes to the wake-up descriptor."""
