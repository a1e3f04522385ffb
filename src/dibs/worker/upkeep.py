"""Executors that are to make room for new ones: they have grown too large, or a run in them does not end."""

from __future__ import annotations

import logging
import time

from dibs.outcome import Cancelled
from dibs.worker.child import Child
from dibs.worker.crashes import judge_overtime
from dibs.worker.frames import Began
from dibs.worker.options import TIMEOUT_PATIENCE, WorkerOptions

log = logging.getLogger("dibs.worker")

#: Seconds between two looks at how much memory an executor has in use.
_INTERVAL = 0.25
#: Seconds after which an executor that should have told of an overdue run is taken for silent: something in it
#: holds the interpreter.
_SILENCE = 2.0


class Upkeep:
    """Sees which executors are worn, and kills those that only hold up what ignores its time limit."""

    def __init__(self, options: WorkerOptions) -> None:
        self._max_bytes = options.max_memory * 1_000_000 if options.max_memory else None
        self._max_jobs = options.max_jobs
        self._looked = 0.0
        self._is_stale = False

    def note_end(self, child: Child) -> None:
        """See whether an executor in which a job has ended is worn."""
        self._is_stale = self._max_bytes is not None
        if self._max_jobs is not None and child.finished >= self._max_jobs:
            self.note_wear(child, f"{child.finished} jobs")

    def note_wear(self, child: Child, cause: str) -> None:
        """Have an executor replaced; it goes on until the new one is there."""
        if not child.worn_by and not child.is_retired:
            child.worn_by = cause
            log.info("executor is to be replaced pid=%d cause=%s", child.pid, cause)

    def look(self, children: list[Child], now: float) -> None:
        """See how much memory they have in use; rarely enough to cost nothing."""
        if self._max_bytes is None or not self._is_stale or now - self._looked < _INTERVAL:
            return
        self._looked, self._is_stale = now, False
        for child in children:
            used = child.memory_bytes
            if used > self._max_bytes and child.finished:
                self.note_wear(child, f"{used / 1e6:.0f} MB in use")

    def patience(self, children: list[Child], now: float) -> float | None:
        """Return in how many seconds there is something to see; None: nothing is foreseen."""
        waits = [
            deadline - now
            for child in children
            if child.limited and child.verdicts is None
            for number, (deadline, _) in child.limited.items()
            if number not in child.overdue
        ]
        if self._is_stale:
            waits.append(self._looked + _INTERVAL - now)
        return max(0.0, min(waits)) if waits else None

    @staticmethod
    def begin(child: Child, began: Began) -> None:
        """Note that a run with a time limit has begun."""
        if began.number in child.running:
            deadline = time.monotonic() + began.timeout + TIMEOUT_PATIENCE + _SILENCE
            child.limited[began.number] = deadline, began

    @staticmethod
    def condemn(child: Child, now: float) -> bool:
        """Kill an executor if all that it still runs ignores its time limit, or one of them keeps it silent.

        The same at once if one of them ignores that it is cancelled. Returns whether it was killed. What becomes of
        its jobs then is decided: the others are innocent.
        """
        if child.verdicts is not None or not (child.limited or child.cancelled):
            return False
        guilty = {number for number, (deadline, _) in child.limited.items() if now >= deadline} - child.overdue
        is_ignored = any(now >= deadline for deadline in child.cancelled.values())
        if not guilty and not is_ignored and not (child.overdue and child.overdue == set(child.running)):
            return False
        child.verdicts = {
            number: judge_overtime(child.running[number], child.limited[number][1], child.run_of(number))
            for number in guilty | child.overdue
        }
        child.verdicts |= {number: Cancelled(child.run_of(number)) for number in child.cancelled}
        what = "that a job is cancelled" if is_ignored else "a time limit"
        log.warning("executor killed: it ignores %s pid=%d", what, child.pid)
        child.kill()
        return True
