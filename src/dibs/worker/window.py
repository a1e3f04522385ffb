"""How much an executor may have at a time: its slots, and while its jobs are short some more ahead.

Holding ahead is what makes short jobs fast: the next one is there when the last one ends. It must not make anyone
wait (P5), so it is earned by a row of short jobs, never exceeds what is done within a moment, and ends with the
first job that is not short.
"""

from __future__ import annotations

#: Seconds between the ends of two jobs at which others may be held ahead behind them.
SHORT = 0.005
#: Seconds for which work may be held ahead, at the pace of late.
AHEAD = 0.02
#: Seconds without a job's end after which what is held ahead goes to others: half of the 50 ms that P5 allows.
RECALL_AFTER = 0.025
#: So many short ones in a row are the least that proves anything.
EVIDENCE = 8
#: Most jobs that an executor has at a time.
MOST = 256


class Window:
    """The size of one executor's share. Times are those of `time.monotonic()`."""

    def __init__(self, slots: int) -> None:
        #: How many jobs the executor may have.
        self.size = slots
        self._slots = slots
        self._row = 0
        self._pace = SHORT
        #: When a job ended last, or came to an executor that had none.
        self.progress = 0.0

    def begin(self, now: float) -> None:
        """Note that the executor, which had nothing, has a job."""
        self.progress = now

    def advance(self, now: float) -> None:
        """Note that a job ended: double while jobs end in quick succession, fall back when one did not."""
        gap = now - self.progress
        self.progress = now
        if gap > SHORT:
            self.fall_back()
            return
        self._pace += (gap - self._pace) / EVIDENCE
        self._row += 1
        if self._row >= max(self.size, EVIDENCE):
            most = min(MOST, self._slots + int(AHEAD / max(self._pace, 1e-6)))
            self.size, self._row = min(self.size * 2, most), 0

    def fall_back(self) -> None:
        """Hold nothing ahead until short jobs have proved anew that nobody waits for it."""
        self.size, self._row, self._pace = self._slots, 0, SHORT

    def is_stale(self, held: int, now: float) -> bool:
        """Tell whether an executor that has so many jobs holds some ahead of one that takes long after all."""
        return held > self._slots and now >= self.progress + RECALL_AFTER

    def patience(self, held: int, now: float) -> float | None:
        """Return in how many seconds that may become true; None: it can't."""
        return max(0.0, self.progress + RECALL_AFTER - now) if held > self._slots else None
