"""The last hour in numbers: what the ledger counted by minute and queue, as series that charts can draw."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from dibs.ledger.statistics import MINUTE, Minute

_MINUTES = 60


class Totals(NamedTuple):
    """What happened in the hour."""

    done: int
    retried: int
    dead: int
    cancelled: int
    #: Mean and longest waiting time in ms; None: nothing began.
    wait: float | None
    longest: int | None
    #: Mean running time in ms; None: nothing ended.
    run: float | None

    @property
    def outcomes(self) -> int:
        """How many runs came to something."""
        return self.done + self.retried + self.dead + self.cancelled

    @property
    def failures(self) -> int:
        """How many runs failed."""
        return self.retried + self.dead


class Hour:
    """Sixty minutes up to the present one, of some queues."""

    def __init__(self, minutes: Iterable[Minute], now: int) -> None:
        first = now - now % MINUTE - (_MINUTES - 1) * MINUTE
        self.starts = [first + place * MINUTE for place in range(_MINUTES)]
        self._minutes = [minute for minute in minutes if first <= minute.start <= now]
        self._places: list[list[Minute]] = [[] for _ in self.starts]
        for minute in self._minutes:
            self._places[(minute.start - first) // MINUTE].append(minute)

    def of(self, queue: str) -> Hour:
        """Return the hour of one queue."""
        return Hour([minute for minute in self._minutes if minute.queue == queue], self.starts[-1])

    def by_queue(self) -> dict[str, Hour]:
        """Return the hour of each queue of which anything was recorded."""
        parted: dict[str, list[Minute]] = {}
        for minute in self._minutes:
            parted.setdefault(minute.queue, []).append(minute)
        return {queue: Hour(minutes, self.starts[-1]) for queue, minutes in parted.items()}

    def counts(self, kind: str) -> list[int]:
        """Return how often an outcome was recorded in each minute: a field of `Minute`."""
        return [sum(getattr(minute, kind) for minute in place) for place in self._places]

    def ended(self) -> list[int]:
        """Return how many runs came to anything in each minute."""
        kinds = [self.counts(kind) for kind in ("done", "retried", "dead", "cancelled")]
        return [sum(column) for column in zip(*kinds, strict=True)]

    def waits(self) -> list[float | None]:
        """Return the mean waiting time in ms; None: nothing began."""
        return [_mean(place, "waited", "waits") for place in self._places]

    def longest(self) -> list[float | None]:
        """Return the longest waiting time in ms; None: nothing began."""
        return [
            max(minute.longest for minute in place) if any(minute.waits for minute in place) else None
            for place in self._places
        ]

    def depths(self) -> list[float | None]:
        """Return how many jobs waited; None: nobody counted."""
        return [
            sum(minute.depth or 0 for minute in place) if any(minute.depth is not None for minute in place) else None
            for place in self._places
        ]

    def totals(self) -> Totals:
        """Return what happened in all of it."""
        minutes = self._minutes
        done, retried, dead, cancelled = (sum(self.counts(kind)) for kind in ("done", "retried", "dead", "cancelled"))
        return Totals(
            done,
            retried,
            dead,
            cancelled,
            _mean(minutes, "waited", "waits"),
            max((minute.longest for minute in minutes if minute.waits), default=None),
            _mean(minutes, "ran", "runs"),
        )


def _mean(minutes: Sequence[Minute], total: str, count: str) -> float | None:
    counted: int = sum(getattr(minute, count) for minute in minutes)
    return sum(getattr(minute, total) for minute in minutes) / counted if counted else None
