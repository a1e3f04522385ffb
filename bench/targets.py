"""What dibs set itself to reach, and whether it did. Figures are medians of one run, but for a worst case."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.results import Results
from bench.system import Kind, Store
from bench.systems import SYSTEMS

#: Looks the measured value up; None where it was not measured.
Look = Callable[[Results], float | None]

_DIBS = {Store.SQLITE: "dibs", Store.RABBITMQ: "dibs-rabbitmq"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A bound for one of dibs' figures."""

    store: Store
    what: str
    goal: float
    unit: str
    look: Look
    more_is_better: bool = True

    def is_reached(self, value: float) -> bool:
        """Tell whether a value is good enough."""
        return value >= self.goal if self.more_is_better else value <= self.goal

    def verdict(self, value: float) -> str:
        """Say whether a value is good enough, and how far from the goal it is."""
        bound = "goal" if self.more_is_better else "limit"
        return f"{'reached' if self.is_reached(value) else 'missed'}: {value / self.goal:.2f} × the {bound}"


def targets() -> list[Target]:
    """Return all of them, in the order of the table."""
    found: list[Target] = []
    for store, goals in _GOALS.items():
        for what, goal, unit, look in goals:
            target = Target(
                store=store, what=what, goal=goal, unit=unit, look=look, more_is_better=not unit.endswith("at most")
            )
            found.append(target)
    return found


def _own(store: Store, metric: str) -> Look:
    """Look up a figure of dibs."""
    return lambda results: results.median(metric, _DIBS[store])


def _worst(store: Store, metric: str) -> Look:
    """Look up the largest reading of dibs: a bound that holds in the middle only is none."""
    return lambda results: results.highest(metric, _DIBS[store])


def _against(store: Store, metric: str, other: str) -> Look:
    """Compare a figure of dibs with another system's."""
    return lambda results: _ratio(results.median(metric, _DIBS[store]), results.median(metric, other))


def _within(store: Store, metric: str, base: str) -> Look:
    """Compare a figure of dibs with another one of its own."""
    return lambda results: _ratio(results.median(metric, _DIBS[store]), results.median(base, _DIBS[store]))


def _against_best(store: Store, metric: str) -> Look:
    """Compare a figure of dibs with that of the best peer on the same store that lost nothing."""

    def look(results: Results) -> float | None:
        peers = [
            median
            for system in SYSTEMS.values()
            if system.kind is Kind.PEER and system.store is store and not results.lost(system.name)
            if (median := results.median(metric, system.name)) is not None
        ]
        return _ratio(results.median(metric, _DIBS[store]), max(peers, default=None))

    return look


def _ratio(value: float | None, base: float | None) -> float | None:
    return None if value is None or not base else value / base


_S, _R = Store.SQLITE, Store.RABBITMQ
_AT_MOST = ", at most"
_LEAST = "× the best peer that lost nothing"
_UNRECORDED = "× without the ledger"
_GOALS: dict[Store, list[tuple[str, float, str, Look]]] = {
    _S: [
        ("enqueue, one by one", 0.8, "× bare sqlite3", _against(_S, "enqueue.one", "sqlite3")),
        ("enqueue, 16 threads", 4, "× one thread", _within(_S, "enqueue.threads", "enqueue.one")),
        ("enqueue in bulk", 100_000, "jobs/s", _own(_S, "enqueue.bulk")),
        ("drain, `-p 1 -c 1`", 15_000, "jobs/s", _own(_S, "drain.slot")),
        ("drain, `-p 1 -c 8`", 40_000, "jobs/s", _own(_S, "drain.slots")),
        ("drain, `-p 1 -c 8`", 10, _LEAST, _against_best(_S, "drain.slots")),
        ("latency, p50", 1, f"ms{_AT_MOST}", _own(_S, "latency.p50")),
        ("latency, p99", 5, f"ms{_AT_MOST}", _own(_S, "latency.p99")),
        ("idle worker tree", 0.2, f"% of a core{_AT_MOST}", _own(_S, "latency.cpu")),
        ("memory of the tree", 35, f"MB{_AT_MOST}", _own(_S, "latency.memory")),
        ("fair dispatch", 1.03, f"× the ideal{_AT_MOST}", _own(_S, "fairness.makespan")),
        ("redelivery, median", 0.2, f"s{_AT_MOST}", _own(_S, "redelivery.median")),
        ("redelivery, worst", 0.5, f"s{_AT_MOST}", _worst(_S, "redelivery.worst")),
        ("enqueue, a million deep", 0.9, "× empty", _within(_S, "depth.enqueue-many", "depth.enqueue-none")),
        ("drain, a million deep", 0.9, "× empty", _within(_S, "depth.drain-many", "depth.drain-none")),
        ("memory after 1 M jobs", 1.05, f"× after a tenth{_AT_MOST}", _own(_S, "growth.memory")),
        ("file after 1 M jobs", 1.05, f"× after a tenth{_AT_MOST}", _own(_S, "growth.file")),
        ("`import dibs`", 40, f"ms{_AT_MOST}", _own(_S, "startup.import")),
        ("`dibs --help`", 150, f"ms{_AT_MOST}", _own(_S, "startup.help")),
        ("worker to first job", 300, f"ms{_AT_MOST}", _own(_S, "startup.first")),
    ],
    _R: [
        ("enqueue, one by one", 0.85, "× plain pika", _against(_R, "enqueue.one", "pika-1")),
        ("enqueue, 16 threads", 4, "× one thread", _within(_R, "enqueue.threads", "enqueue.one")),
        ("enqueue in bulk", 20_000, "jobs/s", _own(_R, "enqueue.bulk")),
        ("drain, `-p 1 -c 1`", 10_000, "jobs/s", _own(_R, "drain.slot")),
        ("drain, `-p 1 -c 8`", 15_000, "jobs/s", _own(_R, "drain.slots")),
        ("drain, `-p 1 -c 8`", 4, _LEAST, _against_best(_R, "drain.slots")),
        ("drain, `-p 1 -c 8`", 0.9, "× plain pika at prefetch 100", _against(_R, "drain.slots", "pika-100")),
        ("drain, `-p 1 -c 1`", 0.85, _UNRECORDED, _against(_R, "drain.slot", "dibs-no-ledger")),
        ("drain, `-p 1 -c 8`", 0.85, _UNRECORDED, _against(_R, "drain.slots", "dibs-no-ledger")),
        ("latency, p50", 2, f"ms{_AT_MOST}", _own(_R, "latency.p50")),
        ("latency, p99", 6, f"ms{_AT_MOST}", _own(_R, "latency.p99")),
        ("idle worker tree", 0.2, f"% of a core{_AT_MOST}", _own(_R, "latency.cpu")),
        ("memory of the tree", 40, f"MB{_AT_MOST}", _own(_R, "latency.memory")),
        ("fair dispatch", 1.03, f"× the ideal{_AT_MOST}", _own(_R, "fairness.makespan")),
        ("redelivery, worst", 0.2, f"s{_AT_MOST}", _worst(_R, "redelivery.worst")),
        ("enqueue, a million deep", 0.8, "× empty", _within(_R, "depth.enqueue-many", "depth.enqueue-none")),
        ("drain, a million deep", 0.8, "× empty", _within(_R, "depth.drain-many", "depth.drain-none")),
        ("memory after 1 M jobs", 1.05, f"× after a tenth{_AT_MOST}", _own(_R, "growth.memory")),
        ("worker to first job", 400, f"ms{_AT_MOST}", _own(_R, "startup.first")),
    ],
}
