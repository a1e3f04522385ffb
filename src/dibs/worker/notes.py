"""What runs say of themselves while they last, on its way from an executor to its supervisor.

However often a run speaks, what is told of it is its last word, four times a second at the most and for all runs at
once. The log goes along once a second. A run that says nothing costs nothing.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Sequence

from dibs.ledger.life import Note, Progress
from dibs.outcome import LOG_LINES
from dibs.text import visible
from dibs.worker.alarms import Alarms
from dibs.worker.frames import Said
from dibs.worker.line import Line

#: Seconds between two times at which runs are told of.
_INTERVAL = 0.25
#: Seconds between two times at which the log of one run is told.
_LOG_INTERVAL = 1.0


class Notes:
    """Progress and log of one run. Several threads of it may speak at a time."""

    def __init__(self, number: int) -> None:
        self._number = number
        #: The last word that was not told yet. Taking it out is one step, so that none is lost.
        self._progress: deque[tuple[float, float | None, str]] = deque(maxlen=1)
        self._lines: deque[str] = deque(maxlen=LOG_LINES)
        self._has_lines = False
        self._log_due = time.monotonic() + _LOG_INTERVAL

    def progress(self, done: float, total: float | None, note: str) -> None:
        """Note how far it is."""
        self._progress.append((done, total, note))

    def log(self, lines: Sequence[str]) -> None:
        """Note what it logged."""
        self._lines.extend(lines)
        self._has_lines = True

    @property
    def lines(self) -> list[str]:
        """The last lines that it logged."""
        return list(self._lines)

    @property
    def has_news(self) -> bool:
        """Whether something was said that was not told yet."""
        return bool(self._progress) or self._has_lines

    def take(self, now: float) -> Said | None:
        """Return what there is to tell by now; None: nothing, or it is too early for it."""
        log = None
        if self._has_lines and now >= self._log_due:
            self._has_lines, self._log_due = False, now + _LOG_INTERVAL
            log = self.lines
        progress = self.take_progress()
        return None if log is None and progress is None else Said(self._number, Note(progress, log))

    def take_progress(self) -> Progress | None:
        """Return how far it said it is; None: nothing new."""
        try:
            done, total, note = self._progress.pop()
        except IndexError:
            return None
        return Progress(done, total, _one_line(note))


class Teller:
    """Tells the supervisor what all runs of an executor say, on the alarms' thread. Shared by threads."""

    def __init__(self, line: Line, alarms: Alarms) -> None:
        self._line = line
        self._alarms = alarms
        self._speaking: set[Notes] = set()
        self._is_planned = False
        self._told = 0.0
        #: Held by the thread that makes a run's notes.
        self.opening = threading.Lock()
        self._is_deaf = False
        os.register_at_fork(after_in_child=self._go_deaf)

    def _go_deaf(self) -> None:
        """In a process that a task forks: nobody here tells anything, and who held a lock is not here."""
        self._is_deaf, self.opening = True, threading.Lock()

    def hears(self, notes: Notes) -> bool:
        """Tell whether somebody will see to what this run says next, or nobody ever will."""
        return self._is_deaf or notes in self._speaking

    def hear(self, notes: Notes) -> None:
        """See to what a run has just said."""
        self._speaking.add(notes)
        if not self._is_planned:
            self._is_planned = True
            self._alarms.set(max(0.0, self._told + _INTERVAL - time.monotonic()), self._tell)

    def end(self, notes: Notes) -> Progress | None:
        """Let go of a run that is over, and return its last word, should it be untold."""
        self._speaking.discard(notes)
        return notes.take_progress()

    def _tell(self) -> None:
        self._is_planned = False  # first: whoever speaks from now on plans anew
        self._told = now = time.monotonic()
        speaking = list(self._speaking)
        told = [said for notes in speaking if (said := notes.take(now)) is not None]
        for notes in speaking:
            self._speaking.discard(notes)
            if notes.has_news:
                self.hear(notes)
        if told:
            self._line.send(*told)


def _one_line(text: str) -> str:
    return text if text.isprintable() else visible(text).replace("\n", "\\n").replace("\t", "\\t")
