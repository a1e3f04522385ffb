"""Whether a worker is coming to its end, and when it is there."""

from __future__ import annotations

import logging
import time

from dibs.worker.child import Child
from dibs.worker.signals import Signals

log = logging.getLogger("dibs.worker")

#: Seconds that executors get for their stop hooks.
STOP_PATIENCE = 5.0


class Ending:
    """Begins with a signal, the end of a burst or a changed file; a second signal ends the waiting for jobs."""

    def __init__(self, signals: Signals, grace: float) -> None:
        self._signals = signals
        self._grace = grace
        self._deadline: float | None = None
        self._is_asked = False
        #: Nothing new is taken on.
        self.is_begun = False
        #: The worker is to start anew afterwards.
        self.is_to_restart = False

    def begin(self, *, grace: float | None, is_to_restart: bool = False) -> None:
        """Take nothing new on; running jobs have so many seconds to finish, None: as long as they take."""
        self.is_begun = True
        self.is_to_restart = is_to_restart
        self._deadline = None if grace is None else time.monotonic() + grace

    def heed_signals(self) -> bool:
        """Begin if a signal asks for it; tell whether it did so now."""
        if self._is_asked or not self._signals.stops:
            return False
        self._is_asked = True
        self.begin(grace=self._grace)
        return True

    @property
    def left(self) -> float | None:
        """Seconds until the grace is over; None: it has no end."""
        return None if self._deadline is None else self._deadline - time.monotonic()

    def is_there(self, *, is_idle: bool) -> bool:
        """Tell whether the worker is to end now: all is done, the grace is over, or it was asked once more."""
        if not self.is_begun:
            return False
        return is_idle or self._signals.stops > 1 or (self.left is not None and self.left <= 0)


def end_executors(children: list[Child]) -> None:
    """Let executors run their stop hooks and end; kill those that take too long."""
    for child in children:
        if child.is_ready:
            child.stop()
        else:
            child.kill()  # it is still importing, and nobody waits for that
    deadline = time.monotonic() + STOP_PATIENCE
    while children:
        children = [child for child in children if child.reap() is None]
        if children and time.monotonic() > deadline:
            log.warning("executors did not end in time and were killed pids=%s", [child.pid for child in children])
            for child in children:
                child.kill()
                child.reap(is_waiting=True)
            return
        if children:
            time.sleep(0.005)
