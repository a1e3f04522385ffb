"""What each queue holds, and purging it."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter

from dibs.broker import QueueInfo, State
from dibs.brokers.sqlite.dead import BATCH
from dibs.brokers.sqlite.liveness import Standing, Worker, examine
from dibs.brokers.sqlite.store import Store
from dibs.brokers.sqlite.waiting import Waiters
from dibs.ledger import tables

NAMES = "SELECT name, paused FROM dibs_queues ORDER BY name"
# Each is served by its state's own index alone, but for the few that are running.
_READY = "SELECT queue, count(*) FROM dibs_jobs WHERE state = 0 GROUP BY queue"
_DELAYED = "SELECT queue, count(*) FROM dibs_jobs WHERE state = 1 GROUP BY queue"
_RUNNING = "SELECT queue, count(*) FROM dibs_jobs WHERE state = 2 GROUP BY queue"
_DEAD = "SELECT queue, count(*) FROM dibs_jobs WHERE state = 3 GROUP BY queue"
WORKERS = "SELECT id, host, pid, boot, lock, queues FROM dibs_workers"

# Served by the same indexes.
_PURGE = {
    "ready": """
        DELETE FROM dibs_jobs WHERE seq IN (SELECT seq FROM dibs_jobs WHERE state = 0 AND queue = ? LIMIT ?)
        RETURNING id""",
    "delayed": """
        DELETE FROM dibs_jobs WHERE seq IN (SELECT seq FROM dibs_jobs WHERE state = 1 AND queue = ? LIMIT ?)
        RETURNING id""",
}


def queues(store: Store, connection: sqlite3.Connection, *, prefix: str) -> list[QueueInfo]:
    """Return all queues whose name begins with `prefix`, without it."""
    names = [(name, paused) for name, paused in connection.execute(NAMES) if name.startswith(prefix)]
    ready, delayed, running, dead = (
        dict(connection.execute(statement).fetchall()) for statement in (_READY, _DELAYED, _RUNNING, _DEAD)
    )
    consumers = _count_consumers(store, connection)
    return [
        QueueInfo(
            name=name.removeprefix(prefix),
            ready=ready.get(name, 0),
            running=running.get(name, 0),
            delayed=delayed.get(name, 0),
            dead=dead.get(name, 0),
            consumers=consumers[name],
            is_paused=bool(paused),
        )
        for name, paused in names
    ]


def purge(store: Store, connection: sqlite3.Connection, waiters: Waiters, queue: str, state: State) -> int:
    """Delete all messages of `queue` in that state; returns how many."""
    count = 0
    while True:
        with store.write(connection, size=BATCH * 512):
            deleted = [job_id for (job_id,) in connection.execute(_PURGE[state], (queue, BATCH)).fetchall()]
            tables.forget_lives(connection, deleted)
        waiters.wake(deleted)
        count += len(deleted)
        if len(deleted) < BATCH:
            return count


def _count_consumers(store: Store, connection: sqlite3.Connection) -> Counter[str]:
    """Count the workers of each queue. One that died has a row until others take over, and is not counted."""
    counted: Counter[str] = Counter()
    for worker in (Worker(*row) for row in connection.execute(WORKERS).fetchall()):
        with examine(store.directory, worker) as standing:
            if standing is not Standing.DEAD:
                counted.update(json.loads(worker.queues))
    return counted
