"""How much an executor may have at a time: its slots, and while its jobs are short some more ahead.

Holding ahead is what makes short jobs fast: the next one is there when the last one ends. It must not make anyone
wait (P5), so it is earned by a row of jobs that end in quick succession, never exceeds what is done within a
moment at the pace of late, and ends with the first job that takes long.
"""

from __future__ import annotations

#: Seconds for which work may be held ahead.
AHEAD = 0.02
#: Seconds between the ends of two jobs that are expected of an executor of which nothing is known.
_FIRST_PACE = 0.005
#: Seconds without a job's end after which what is held ahead goes to others: half of the 50 ms that P5 allows.
RECALL_AFTER = 0.025
#: So many jobs in a row are the least that proves anything; the pace is their mean, older ones fading.
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
        self._pace = _FIRST_PACE
        #: When a job ended last, or came to an executor that had none.
        self.progress = 0.0

    def begin(self, now: float) -> None:
        """Note that the executor, which had nothing, has a job."""
        self.progress = now

    def advance(self, now: float) -> None:
        """Note that a job ended: double while the pace allows it, fall back where one took long."""
        gap = now - self.progress
        self.progress = now
        if gap >= RECALL_AFTER:
            self.fall_back()
            return
        # A gap of some milliseconds may as well be the machine's as the job's: it slows the pace, no more.
        self._pace += (gap - self._pace) / EVIDENCE
        self._row += 1
        if (self.size - self._slots) * self._pace > AHEAD:
            self.size, self._row = self._most, 0
        elif self._row >= EVIDENCE and self._row >= self.size:
            self.size, self._row = min(self.size * 2, self._most), 0

    @property
    def _most(self) -> int:
        """What is done within a moment at the pace of late, beside what fills the slots."""
        return max(self._slots, min(MOST, self._slots + int(AHEAD / max(self._pace, 1e-6))))

    def fall_back(self) -> None:
        """Hold nothing ahead until short jobs have proved anew that nobody waits for it."""
        self.size, self._row, self._pace = self._slots, 0, _FIRST_PACE

    def is_stale(self, held: int, now: float) -> bool:
        """Tell whether an executor that has so many jobs holds some ahead of one that takes long after all."""
        return held > self._slots and now >= self.progress + RECALL_AFTER

    def patience(self, held: int, now: float) -> float | None:
        """Return in how many seconds that may become true; None: it can't."""
        return max(0.0, self.progress + RECALL_AFTER - now) if held > self._slots else None
