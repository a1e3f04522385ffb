"""Which of an executor's threads takes the next job.

Threads of Python run one at a time, and changing over costs more than a short job does. So while jobs are short, one
thread runs them all, one after the other, with the baton in its hand. Another one watches it, and takes the baton
from a thread that is in the same job a millisecond later: from then on each thread takes one job and passes it on.
"""

from __future__ import annotations

import math
import threading
import time

from dibs.worker.frames import Start
from dibs.worker.line import Line

#: Seconds below which a job is short: what eight threads could do meanwhile is less than what changing over costs.
_SHORT = 0.0002
#: So many short jobs in a row make it likely that the next one is short, too. Where every tenth is long none waits.
_EVIDENCE = 32
#: Seconds that all wait for a job that turns out to be long.
_PATIENCE = 0.001


class Relay:
    """Hands out the jobs of a line to threads."""

    def __init__(self, line: Line) -> None:
        self.line = line
        #: Held by the one who takes a job. He may keep it while he runs it.
        self.baton = threading.Lock()
        #: Held by the one who waits for the baton; the others wait for this.
        self._watching = threading.Lock()
        #: Who kept the baton last.
        self.keeper: Runner | None = None
        #: How many short jobs have ended in a row.
        self.short = 0
        #: Who has the baton waits for jobs. He passes it on before he runs the next one.
        self.is_idle = False

    def wait_for_baton(self) -> None:
        """Return with the baton."""
        with self._watching:
            while not self.baton.acquire(timeout=-1 if self.is_idle else _PATIENCE):
                keeper = self.keeper
                if keeper is not None and time.monotonic() - keeper.begun >= _PATIENCE and keeper.let_go():
                    self.short = 0
                    return


class Runner:
    """One thread's part in it."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        #: When it began its job, as `time.monotonic()` says.
        self.begun = -math.inf
        #: Holds one thing while it runs a job with the baton kept. Taking it out is one step, so either the thread
        #: goes on with the baton or the watcher has it, never both.
        self._kept: list[None] = []

    def take(self) -> Start | None:
        """Wait for the next job to run on this thread; None: no job will follow. It runs until the next call."""
        relay = self._relay
        now = time.monotonic()
        relay.short = relay.short + 1 if now - self.begun < _SHORT else 0
        if not self.let_go():
            relay.wait_for_baton()
        while not relay.line.is_stopped:
            if (start := relay.line.take()) is not None:
                self.begun = time.monotonic()
                if relay.is_idle or relay.short < _EVIDENCE:
                    relay.is_idle = False
                    relay.baton.release()
                else:
                    relay.keeper = self
                    self._kept.append(None)
                return start
            relay.is_idle = True
            relay.line.wait()
        relay.baton.release()
        return None

    def let_go(self) -> bool:
        """Take the baton from this thread, if it has kept it; tell whether it had."""
        try:
            self._kept.pop()
        except IndexError:
            return False
        return True
