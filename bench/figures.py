"""Figures: one reading, and what a number of them come to. Pure values that go to and from JSON."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Metric:
    """Something that a scenario measures."""

    key: str
    title: str
    unit: str
    #: Whether a larger value is the better one.
    more_is_better: bool = True
    digits: int = 0


@dataclass(frozen=True, slots=True)
class Reading:
    """What one measurement gave. Without a value, the note says why."""

    value: float | None
    #: Jobs that were handed over and never done.
    lost: int = 0
    note: str = ""


@dataclass(slots=True)
class Figure:
    """All readings of one metric for one system."""

    readings: list[Reading] = field(default_factory=list)

    @property
    def values(self) -> list[float]:
        """The readings that have a value."""
        return [reading.value for reading in self.readings if reading.value is not None]

    @property
    def median(self) -> float | None:
        """The middle value; None where there is none."""
        return statistics.median(self.values) if self.values else None

    @property
    def lowest(self) -> float:
        """The smallest value."""
        return min(self.values)

    @property
    def highest(self) -> float:
        """The largest value."""
        return max(self.values)

    @property
    def lost(self) -> int:
        """Jobs lost in all rounds together."""
        return sum(reading.lost for reading in self.readings)

    @property
    def notes(self) -> list[str]:
        """What was noted, each once, in order."""
        return list(dict.fromkeys(reading.note for reading in self.readings if reading.note))


def in_turn(things: Sequence[T], turn: int) -> list[T]:
    """Return the order of one round: each begins one further on, so that nobody always runs after the same one."""
    if not things:
        return []
    start = turn % len(things)
    return [*things[start:], *things[:start]]


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that so many percent of all do not exceed.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("There is no percentile of nothing.")
    ordered = sorted(values)
    rank = -(-len(ordered) * percent // 100)  # rounded up: nearest rank
    return ordered[max(int(rank), 1) - 1]
