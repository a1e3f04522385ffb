"""Functions called at a given time, on one thread of their own. It begins with the first alarm."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable


class Alarm:
    """One call that is due."""

    __slots__ = ("ring",)

    def __init__(self, ring: Callable[[], None]) -> None:
        self.ring: Callable[[], None] | None = ring

    def cancel(self) -> None:
        """Don't call it. One that is being called goes on."""
        self.ring = None


class Alarms:
    """What is due, in order. Shared by threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._due: list[tuple[float, int, Alarm]] = []
        self._numbers = itertools.count()
        self._thread: threading.Thread | None = None

    def set(self, delay: float, ring: Callable[[], None]) -> Alarm:
        """Have `ring` called in so many seconds. It must be quick: others wait behind it."""
        alarm = Alarm(ring)
        with self._changed:
            entry = (time.monotonic() + delay, next(self._numbers), alarm)
            heapq.heappush(self._due, entry)
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="dibs-alarms", daemon=True)
                self._thread.start()
            elif self._due[0] is entry:
                self._changed.notify()
        return alarm

    def _serve(self) -> None:
        while True:
            with self._changed:
                while (left := self._patience()) != 0.0:
                    self._changed.wait(left)
                _, _, alarm = heapq.heappop(self._due)
            if (ring := alarm.ring) is not None:
                ring()

    def _patience(self) -> float | None:
        """Return the seconds until the first alarm is due; None: there is none."""
        return max(0.0, self._due[0][0] - time.monotonic()) if self._due else None
