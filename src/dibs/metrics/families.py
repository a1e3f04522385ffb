"""Workers' snapshots and queues' counts as metrics. Whoever serves them has asked for both."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dibs.broker import QueueInfo
from dibs.ledger.snapshot import Snapshot
from dibs.metrics.exposition import Family, Sample


def of_queues(queues: Sequence[QueueInfo]) -> list[Family]:
    """Return what queues hold; what this broker can't count is left out."""

    def gauge(name: str, text: str, count: Callable[[QueueInfo], int | None]) -> Family:
        counts = [(info.name, count(info)) for info in queues]
        samples = [Sample({"queue": queue}, number) for queue, number in counts if number is not None]
        return Family(f"dibs_queue_{name}", "gauge", text, samples)

    return [
        gauge("ready", "Messages that wait for a free slot.", lambda info: info.ready),
        gauge("running", "Messages in workers' hands.", lambda info: info.running),
        gauge("delayed", "Messages that are not due yet.", lambda info: info.delayed),
        gauge("dead", "Messages that were set aside.", lambda info: info.dead),
        gauge("consumers", "Consumers that are connected.", lambda info: info.consumers),
        gauge("paused", "1 while nothing of it is started.", lambda info: int(info.is_paused)),
    ]


def of_workers(snapshots: Sequence[Snapshot], *, is_own: bool = False) -> list[Family]:
    """Return how workers are, by what they last said.

    Args:
        is_own: it is the one worker that is asked, which the scraper knows by its address: no `worker` label.
    """

    def labels(snapshot: Snapshot) -> dict[str, str]:
        return {} if is_own else {"worker": snapshot.worker}

    def gauge(name: str, text: str, value: Callable[[Snapshot], float]) -> Family:
        samples = [Sample(labels(snapshot), value(snapshot)) for snapshot in snapshots]
        return Family(name, "gauge", text, samples)

    return [
        Family(
            "dibs_worker_info",
            "gauge",
            "1; who the worker is.",
            [
                Sample(
                    {"worker": one.worker, "host": one.host, "version": one.version, "app": one.app},
                    1,
                )
                for one in snapshots
            ],
        ),
        *([] if is_own else [_ended(snapshots)]),
        gauge("dibs_worker_start_time_seconds", "When it was started, since 1970.", lambda one: one.started / 1000),
        gauge("dibs_worker_ending", "1 while it takes nothing new on.", lambda one: int(one.is_ending)),
        gauge("dibs_worker_memory_bytes", "Resident memory of the supervisor.", lambda one: one.memory_bytes),
        gauge("dibs_slots", "How many jobs it can run at a time.", lambda one: one.slots),
        gauge("dibs_jobs_running", "How many it runs.", _running),
        gauge("dibs_executors", "Its executors.", lambda one: len(one.executors)),
        Family(
            "dibs_executor_memory_bytes",
            "gauge",
            "Resident memory of an executor, numbered from 0.",
            [
                Sample({**labels(one), "executor": str(number)}, executor.memory_bytes)
                for one in snapshots
                for number, executor in enumerate(one.executors)
            ],
        ),
    ]


def _ended(snapshots: Sequence[Snapshot]) -> Family:
    """Return how many jobs ended in each worker; of one that is asked itself `dibs_jobs_total` says it better."""
    return Family(
        "dibs_worker_jobs_total",
        "counter",
        "Runs that ended in a worker since it was started, by what came of them.",
        [
            Sample({"worker": one.worker, "outcome": outcome}, count)
            for one in snapshots
            for outcome, count in one.ended.items()
        ],
    )


def _running(snapshot: Snapshot) -> int:
    """Return how many jobs run: executors have some short ones ahead, which wait for a slot."""
    return min(snapshot.slots, sum(executor.held for executor in snapshot.executors))
