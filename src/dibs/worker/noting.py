"""What running jobs say of themselves, on its way from the executors to the ledger: twice a second at the most."""

from __future__ import annotations

import time

from dibs.ledger.life import Note, Progress
from dibs.message import Delivery
from dibs.worker.child import Child
from dibs.worker.supply import Supply

#: Seconds between two times that the ledger is told of running jobs; the same for those that end.
_INTERVAL = 1.0


class Noting:
    """Collects the last word of each run. Numbers of runs are a worker's own, so executors need not be told apart."""

    def __init__(self, supply: Supply) -> None:
        self._supply = supply
        self._news: dict[int, tuple[Delivery, Note]] = {}
        #: Last words of runs that have ended and are not recorded yet.
        self._last: list[tuple[Delivery, Note]] = []
        self._due = self._last_due = 0.0
        #: How far those said they are that run now.
        self.progress: dict[int, Progress] = {}

    def hear(self, child: Child, number: int, note: Note) -> None:
        """Note what a run says."""
        if (delivery := child.running.get(number)) is None:
            return  # it came late
        if note.progress is not None:
            self.progress[number] = note.progress
        if number in self._news:
            former = self._news[number][1]
            note = Note(note.progress or former.progress, former.log if note.log is None else note.log)
        self._news[number] = delivery, note

    def end(self, number: int) -> None:
        """Note that a run has ended. Its log comes along with its outcome."""
        if self.progress and self.progress.pop(number, None) is not None:
            news = self._news.pop(number, None)
            if news is not None and news[1].progress is not None:
                self._last.append((news[0], Note(news[1].progress)))
        elif self._news:
            self._news.pop(number, None)

    def tell(self) -> None:
        """Tell the ledger what is due. Call it before outcomes are recorded: behind them it is too late."""
        if not self._news and not self._last:
            return
        now = time.monotonic()
        told: list[tuple[Delivery, Note]] = []
        if self._last and now >= self._last_due:
            self._last_due = now + _INTERVAL
            told += self._last
        self._last.clear()
        if self._news and now >= self._due:
            self._due = now + _INTERVAL
            told += self._news.values()
            self._news.clear()
        if told:
            self._supply.note(told)

    def patience(self, now: float) -> float | None:
        """Return in how many seconds there is something to tell; None: nothing is foreseen."""
        return max(0.0, self._due - now) if self._news else None
