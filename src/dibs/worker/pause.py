"""A pause that grows while something keeps failing."""

from __future__ import annotations

import time

#: Seconds of the first pause and of the longest.
_FIRST, _LONGEST = 0.5, 10.0


class Pause:
    """Doubles with each failure in a row; a success resets it."""

    def __init__(self) -> None:
        #: How long the last pause was.
        self.seconds = 0.0
        self._end: float | None = None

    def begin(self) -> None:
        """Begin a pause, twice as long as the last one."""
        self.seconds = min(_LONGEST, max(_FIRST, self.seconds * 2))
        self._end = time.monotonic() + self.seconds

    def reset(self) -> None:
        """End the pause: all is well again."""
        self._end, self.seconds = None, 0.0

    @property
    def is_on(self) -> bool:
        """Whether it lasts."""
        return self._end is not None and time.monotonic() < self._end

    @property
    def left(self) -> float | None:
        """How many seconds are left of a pause that lasts; None: it does not."""
        return max(0.0, self._end - time.monotonic()) if self.is_on and self._end is not None else None
