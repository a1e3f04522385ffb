"""What jobs wrote of themselves: which were done, when each began and ended, and how many were lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.job import RECORD, WARM_UP

_LOOK_EVERY = 0.005


class Record(NamedTuple):
    """One line of a job about itself. Times are nanoseconds of the clock that all processes share."""

    number: int
    start: int
    #: 0: it had only begun.
    end: int
    pid: int


class Drain(NamedTuple):
    """What came of waiting for jobs to be done."""

    #: Jobs that were done, each counted once.
    done: int
    #: From the first one's start to the last one's end.
    seconds: float
    #: Jobs that nobody will do: the workers had nothing to do any more.
    lost: int
    #: Whether the time was up while work was still being done.
    is_cut: bool

    @property
    def rate(self) -> float:
        """Jobs per second."""
        return self.done / self.seconds if self.seconds else 0.0


class Records:
    """The file that jobs append to. Read it while they do."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch(mode=0o600)

    def read(self) -> list[Record]:
        """Return all records of counted jobs, in the order in which they were written."""
        return [record for record in self._all() if record.number < WARM_UP]

    def warm_ups(self) -> list[Record]:
        """Return the records of jobs that were not to be counted."""
        return [record for record in self._all() if record.number >= WARM_UP]

    def wait(self, condition: Callable[[], bool], limit: float) -> bool:
        """Look at each change of the file until the condition holds; return whether it came to that."""
        deadline = time.monotonic() + limit
        size = -1
        while time.monotonic() < deadline:
            if size != (size := self.path.stat().st_size) and condition():
                return True
            time.sleep(_LOOK_EVERY)
        return condition()

    def drain(self, count: int, *, limit: float, quiet: float) -> Drain:
        """Wait until `count` jobs are done.

        Args:
            count: how many were handed over.
            limit: seconds after which a slow system is cut short.
            quiet: seconds without any news after which what is missing counts as lost.
        """
        deadline = time.monotonic() + limit
        size, changed = 0, time.monotonic()
        while (now := time.monotonic()) < deadline and now - changed < quiet:
            if size != (found := self.path.stat().st_size):
                size, changed = found, now
                # Reading is left until there can be enough: it would cost the system that is measured.
                if size >= count * RECORD.size and len(_done(self.read())) >= count:
                    break
            time.sleep(_LOOK_EVERY)
        return summary(self.read(), count, is_cut=time.monotonic() >= deadline)

    def _all(self) -> list[Record]:
        data = self.path.read_bytes()
        whole = len(data) - len(data) % RECORD.size
        return [Record(*fields) for fields in RECORD.iter_unpack(data[:whole])]


def summary(records: Sequence[Record], count: int, *, is_cut: bool) -> Drain:
    """Say what came of `count` jobs, given what they wrote."""
    done = _done(records)
    missing = max(count - len(done), 0)  # more may wait than are asked for
    if not done:
        return Drain(0, 0.0, 0 if is_cut else missing, is_cut)
    first = min(record.start for record in records)
    last = max(record.end for record in done.values())
    was_cut = is_cut and missing > 0
    return Drain(len(done), (last - first) / 1e9, 0 if was_cut else missing, was_cut)


def _done(records: Sequence[Record]) -> dict[int, Record]:
    """Return the first finished run of each job."""
    finished: dict[int, Record] = {}
    for record in records:
        if record.end:
            finished.setdefault(record.number, record)
    return finished
