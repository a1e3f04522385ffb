"""Ready to running, and what came of it: the statements that a consumer's transactions are made of.

Each is fenced by its receipt, so who lost a job can't touch what its next holder does. Nothing here begins or
ends a transaction: a settle and the next claim may share one.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Sequence
from typing import Any, NamedTuple, assert_never

from dibs.brokers.sqlite import rows
from dibs.message import Delivery, now_ms
from dibs.outcome import Dead, Done, Outcome, Released, RetryIn

# Served by dibs_ready and dibs_delayed, a look into each per queue.
_PEEK = """
SELECT value, EXISTS (SELECT 1 FROM dibs_jobs WHERE state = 0 AND queue = value),
       (SELECT min(due) FROM dibs_jobs WHERE state = 1 AND queue = value)
FROM json_each(?)
"""
# Served by dibs_delayed, the longest due first.
_PROMOTE = """
UPDATE dibs_jobs SET state = 0 WHERE seq IN (
    SELECT seq FROM dibs_jobs WHERE state = 1 AND queue = ? AND due <= ? ORDER BY due LIMIT ?)
"""
# Served by dibs_ready, in its order.
_CLAIM = """
UPDATE dibs_jobs SET state = 2, receipt = ? WHERE seq IN (
    SELECT seq FROM dibs_jobs WHERE state = 0 AND queue = ? ORDER BY priority DESC, seq LIMIT ?)
RETURNING id, priority, due, expires, attempt, crashes, suspect, enqueued, unknown_since, task, content_type,
          headers, properties, error, body, seq, returns
"""

# Served by the primary key.
_HELD = "SELECT 1 FROM dibs_jobs WHERE seq = ? AND receipt = ?"
_REMOVE = "DELETE FROM dibs_jobs WHERE seq = ? AND receipt = ?"
_RELEASE = "UPDATE dibs_jobs SET state = 0, receipt = NULL WHERE seq = ? AND receipt = ?"
_BURY = """
UPDATE dibs_jobs SET state = 3, receipt = NULL, reason = ?, death_error = ?, crashes = ifnull(?, crashes), died = ?,
       worker = ?
WHERE seq = ? AND receipt = ?
"""

#: What a delivery is settled by: its place and the proof of this hold.
Receipt = tuple[int, int]
Settled = Sequence[tuple[Delivery, Outcome]]


class Glance(NamedTuple):
    """What is to be had from one queue."""

    queue: str
    has_ready: int
    #: When the first delayed job is due, in ms since 1970.
    due: int | None


def peek(connection: sqlite3.Connection, queues_json: str) -> list[Glance]:
    """Look into these queues, without a write transaction."""
    return [Glance(*row) for row in connection.execute(_PEEK, (queues_json,))]


def promote(connection: sqlite3.Connection, queue: str, now: int, *, limit: int) -> None:
    """Make ready at most `limit` jobs that are due."""
    connection.execute(_PROMOTE, (queue, now, limit))


def claim(connection: sqlite3.Connection, queue: str, *, name: str, receipt: int, limit: int) -> list[Delivery]:
    """Take at most `limit` jobs, in order. `name` is the queue's without the namespace."""
    # RETURNING promises no order: sort by priority, then place.
    taken: list[Any] = connection.execute(_CLAIM, (receipt, queue, limit)).fetchall()
    taken.sort(key=lambda row: (-row[1], row[15]))
    return [
        Delivery(message=rows.to_message(row, name), receipt=(row[15], receipt), returns=row[16]) for row in taken
    ]


def settle(connection: sqlite3.Connection, outcomes: Settled, *, prefix: str, worker: str) -> list[Delivery]:
    """Record outcomes. Returns the deliveries that are not held any more, for which nothing was changed."""
    connection.execute("SAVEPOINT settle")
    lost: list[Delivery] = []
    if not _apply(connection, outcomes, prefix=prefix, worker=worker):
        connection.execute("ROLLBACK TO settle")
        held, lost = _sieve(connection, outcomes)
        _apply(connection, held, prefix=prefix, worker=worker)
    connection.execute("RELEASE settle")
    return lost


def _apply(connection: sqlite3.Connection, outcomes: Settled, *, prefix: str, worker: str) -> bool:
    """Record outcomes; tell whether each of them found its delivery."""
    removed: list[Receipt] = []
    released: list[Receipt] = []
    again: list[rows.Row] = []
    buried: list[tuple[Any, ...]] = []
    now = now_ms()
    for delivery, outcome in outcomes:
        match outcome:
            case Done():
                removed.append(delivery.receipt)
            case RetryIn(delay, message):
                removed.append(delivery.receipt)
                due = now + math.ceil(delay * 1000) if delay > 0 else message.due
                state = rows.DELAYED if delay > 0 else rows.READY
                again.append(rows.to_row(message, prefix + message.queue, state=state, due=due))
            case Dead(reason, error, crashes):
                buried.append((reason, error, crashes, now, worker, *delivery.receipt))
            case Released():
                released.append(delivery.receipt)
            case _:
                assert_never(outcome)
    found = 0
    for statement, values in ((_REMOVE, removed), (_BURY, buried), (_RELEASE, released)):
        if values:
            found += connection.executemany(statement, values).rowcount
    if found < len(outcomes):
        return False
    if again:
        connection.executemany(rows.INSERT, again)
    return True


def _sieve(connection: sqlite3.Connection, outcomes: Settled) -> tuple[Settled, list[Delivery]]:
    """Part the outcomes whose delivery is held from the deliveries that are lost. The first of two for one wins."""
    held, lost, seen = [], [], set()
    for delivery, outcome in outcomes:
        if delivery.receipt in seen or connection.execute(_HELD, delivery.receipt).fetchone() is None:
            lost.append(delivery)
        else:
            held.append((delivery, outcome))
            seen.add(delivery.receipt)
    return held, lost
