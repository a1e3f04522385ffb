"""Being ended early: the first signal is noted and takes effect where nothing is half done, a second one at once."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType


class Interrupted(Exception):
    """The user ended it."""


class Interruption:
    """Notes SIGINT, SIGTERM and SIGHUP. Use it as a context. What nohup ignores stays ignored."""

    def __init__(self) -> None:
        #: The signal that came first.
        self.number: int | None = None

    def __enter__(self) -> Interruption:
        asked = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        heeded = [number for number in asked if signal.getsignal(number) is not signal.SIG_IGN]
        self._former = {number: signal.signal(number, self._note) for number in heeded}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raise if a signal came.

        Raises:
            Interrupted: one did.
        """
        if self.number is not None:
            raise Interrupted

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.number is not None:
            raise KeyboardInterrupt
        self.number = number
