"""What really runs in a worker: an executor may hold short jobs ahead, and those wait like any other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from dibs.ledger.snapshot import Running, Snapshot


def running(worker: Snapshot) -> Iterator[Running]:
    """Yield the jobs that a worker's slots are busy with: of each executor those that it has had for longest."""
    each = max(worker.slots // max(len(worker.executors), 1), 1)
    for executor in worker.executors:
        yield from executor.running[:each]


def busy(worker: Snapshot) -> int:
    """Return how many slots of a worker are busy."""
    return min(sum(executor.held for executor in worker.executors), worker.slots)


def busy_of_all(workers: Iterable[Snapshot]) -> int:
    """Return how many slots of these workers are busy."""
    return sum(map(busy, workers))
