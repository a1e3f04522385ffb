"""Asking the ledger, and doing what an owner does that is asked to cancel: what several of these tests need."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Sequence

from dibs.broker import Broker, Consumer
from dibs.ledger.life import JobInfo, JobSelection
from dibs.ledger.snapshot import ExecutorInfo, Running, Snapshot
from dibs.message import Delivery, now_ms
from dibs.outcome import Cancelled, Run
from tests.waiting import PATIENCE, receive, until


def status(broker: Broker, job_id: str) -> str | None:
    """Return where the ledger says a job is; None: it does not know it."""
    found = broker.ledger.job(job_id)
    return None if found is None else found.status


def life(broker: Broker, job_id: str, condition: Callable[[JobInfo], bool]) -> JobInfo:
    """Return what the ledger says of a job, once that fits."""
    found: list[JobInfo | None] = []

    def fits() -> bool:
        found.append(broker.ledger.job(job_id))
        return found[-1] is not None and condition(found[-1])

    try:
        until(fits)
    except AssertionError as error:
        raise AssertionError(f"the ledger says {found[-1]}") from error
    assert found[-1] is not None
    return found[-1]


def listed(broker: Broker, *, limit: int = 100, **fields: object) -> list[str]:
    """Return the ids that the ledger lists for a selection."""
    selection = JobSelection(**fields)  # type: ignore[arg-type]  # a test's own keyword arguments
    return [each.id for each in broker.ledger.jobs(selection, limit=limit).jobs]


def a_run(*log: str, seconds: float = 1.0) -> Run:
    """Return a run that ended just now."""
    return Run(now_ms() - int(seconds * 1000), now_ms(), list(log))


def snapshot(worker: str, *held: Delivery) -> Snapshot:
    """Return what a worker would say of itself that runs these jobs."""
    now = now_ms()
    running = [
        Running(
            id=each.message.id,
            task=each.message.task,
            queue=each.message.queue,
            attempt=each.message.attempt,
            since=now,
        )
        for each in held
    ]
    executor = ExecutorInfo(
        pid=7, started=now, memory_bytes=4096, finished=3, state="ready", running=running, held=len(running)
    )
    host, _, pid = worker.partition(":")
    return Snapshot(
        worker=worker,
        host=host,
        pid=int(pid),
        version="0",
        app="tests:app",
        started=now,
        at=now,
        queues=["a"],
        slots=4,
        executors=[executor],
        ended={"done": 2},
    )


def cancel_what_is_asked(consumer: Consumer, held: Sequence[Delivery] = (), *, within: float = 0.0) -> list[str]:
    """Wait until the owner is told to cancel one of its jobs, and do it. Return the ids of those cancelled."""
    deadline = time.monotonic() + within
    while not (told := consumer.cancelled()):
        left = deadline - time.monotonic()
        if left <= 0:
            return []
        patience = consumer.timeout()
        select.select([consumer], [], [], min(left, 0.2 if patience is None else max(0.01, patience)))
        consumer.receive(0)
    mine = [each for each in told if not held or each in held]
    consumer.settle([(each, Cancelled()) for each in mine])
    return [each.message.id for each in mine]


def see_cancelled(broker: Broker, consumer: Consumer, job_id: str, *, within: float = PATIENCE) -> list[str]:
    """Receive, cancelling what is asked for, until that job is cancelled. Return what came and was not cancelled.

    Where the broker cancels what waits by itself nothing needs to be received for that.
    """
    came: list[Delivery] = []

    def is_cancelled() -> bool:
        # Waiting as an owner does: what lies untaken for 50 ms goes back (P5), and asking the ledger may take longer.
        came.extend(receive(consumer, 10, within=0.1))
        cancelled = cancel_what_is_asked(consumer)
        came[:] = [each for each in came if each.message.id not in cancelled]
        return status(broker, job_id) == "cancelled"

    until(is_cancelled, within=within)
    return [each.message.id for each in came]
