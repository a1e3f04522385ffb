"""Ready to running, and what came of it: the statements that a consumer's transactions are made of.

Each is fenced by its receipt, so who lost a job can't touch what its next holder does. Nothing here begins or
ends a transaction: a settle and the next claim may share one.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Sequence
from typing import Any, NamedTuple, assert_never

import msgspec

from dibs.brokers.sqlite import cancels, rows
from dibs.ledger import history, tables
from dibs.ledger.life import PRIVATE_NOTE, Note
from dibs.ledger.tally import Tally
from dibs.message import Delivery, Message, now_ms
from dibs.outcome import Cancelled, Dead, Done, Outcome, Released, RetryIn, Run

# Served by dibs_ready, dibs_delayed and the primary key of the queues, a look into each per queue.
_PEEK = """
SELECT value, EXISTS (SELECT 1 FROM dibs_jobs WHERE state = 0 AND queue = value),
       (SELECT min(due) FROM dibs_jobs WHERE state = 1 AND queue = value)
FROM json_each(?) WHERE NOT EXISTS (SELECT 1 FROM dibs_queues WHERE name = value AND paused = 1)
"""
# Served by dibs_delayed, the longest due first.
_PROMOTE = """
UPDATE dibs_jobs SET state = 0 WHERE seq IN (
    SELECT seq FROM dibs_jobs WHERE state = 1 AND queue = ? AND due <= ? ORDER BY due LIMIT ?)
"""
# Served by dibs_ready, in its order. Looks once more whether the queue is paused: no look before the transaction can
# tell.
_CLAIM = """
UPDATE dibs_jobs SET state = 2, receipt = ?1, started = ?4 WHERE seq IN (
    SELECT seq FROM dibs_jobs WHERE state = 0 AND queue = ?2
        AND NOT EXISTS (SELECT 1 FROM dibs_queues WHERE name = ?2 AND paused = 1)
    ORDER BY priority DESC, seq LIMIT ?3)
RETURNING id, priority, due, expires, attempt, crashes, suspect, enqueued, unknown_since, keep, private, task,
          content_type, headers, properties, error, body, seq, returns
"""

# Served by the primary key.
_HELD = "SELECT 1 FROM dibs_jobs WHERE seq = ? AND receipt = ?"
_REMOVE = "DELETE FROM dibs_jobs WHERE seq = ? AND receipt = ?"
_RELEASE = "UPDATE dibs_jobs SET state = 0, receipt = NULL, started = NULL WHERE seq = ? AND receipt = ?"
_FINISH = """
UPDATE dibs_jobs SET state = 4, receipt = NULL, started = ifnull(?, started), ended = ?, worker = ?, note = ?,
       result = ?
WHERE seq = ? AND receipt = ?
"""
_CANCEL = """
UPDATE dibs_jobs SET state = 5, receipt = NULL, started = ?, ended = ?, worker = ?, note = ?
WHERE seq = ? AND receipt = ?
"""
_BURY = """
UPDATE dibs_jobs SET state = 3, receipt = NULL, started = ?, ended = ?, worker = ?, reason = ?, death_error = ?,
       crashes = ifnull(?, crashes)
WHERE seq = ? AND receipt = ?
"""
# A private job is emptied before its outcome is recorded.
_EMPTY = "UPDATE dibs_jobs SET body = x'', error = NULL WHERE seq = ? AND receipt = ?"
_ADD_RUN = """
INSERT INTO dibs_runs (job, attempt, started, ended, worker, outcome, error) VALUES (?, ?, ?, ?, ?, 'retry', ?)
"""
_LOG = """
INSERT INTO dibs_notes (job, log) VALUES (?, ?) ON CONFLICT (job) DO UPDATE SET log = excluded.log
"""
_NOTE = """
INSERT INTO dibs_notes (job, progress, log)
SELECT ?, ?, ? WHERE EXISTS (SELECT 1 FROM dibs_jobs WHERE seq = ? AND receipt = ?)
ON CONFLICT (job) DO UPDATE SET progress = ifnull(excluded.progress, progress), log = ifnull(excluded.log, log)
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
    taken: list[Any] = connection.execute(_CLAIM, (receipt, queue, limit, now_ms())).fetchall()
    taken.sort(key=lambda row: (-row[1], row[17]))
    return [
        Delivery(message=rows.to_message(row, name), receipt=(row[17], receipt), returns=row[18]) for row in taken
    ]


def settle(connection: sqlite3.Connection, outcomes: Settled, *, prefix: str, worker: str) -> list[Delivery]:
    """Record outcomes. Returns the deliveries that are not held any more, for which nothing was changed.

    What would come again but is to be cancelled is cancelled.
    """
    connection.execute("SAVEPOINT settle")
    lost: list[Delivery] = []
    records = _Records(outcomes, prefix=prefix, worker=worker)
    if not records.write(connection):
        connection.execute("ROLLBACK TO settle")
        held, lost = _sieve(connection, outcomes)
        records = _Records(held, prefix=prefix, worker=worker)
        records.write(connection)
    connection.execute("RELEASE settle")
    return lost


def note(connection: sqlite3.Connection, notes: Sequence[tuple[Delivery, Note]]) -> None:
    """Keep what these jobs say of themselves, as far as they are held."""
    connection.executemany(
        _NOTE,
        [
            (
                each.message.id,
                None if said.progress is None else msgspec.json.encode(said.progress).decode(),
                None if said.log is None else _encode_log(said.log),
                *each.receipt,
            )
            for each, said in notes
        ],
    )


class _Records:
    """Outcomes of one batch, as parameters of the statements that record them."""

    def __init__(self, outcomes: Settled, *, prefix: str, worker: str) -> None:
        self._prefix = prefix
        self._worker = worker
        self._now = now_ms()
        self._count = len(outcomes)
        self._ids = [delivery.message.id for delivery, _ in outcomes]
        self._removed: list[Receipt] = []
        self._forgotten: list[str] = []
        self._finished: list[tuple[Any, ...]] = []
        self._cancelled: list[tuple[Any, ...]] = []
        self._buried: list[tuple[Any, ...]] = []
        self._released: list[Receipt] = []
        self._again: list[tuple[Any, ...]] = []
        self._runs: list[tuple[Any, ...]] = []
        self._emptied: list[Receipt] = []
        self._logs: list[tuple[str, str]] = []
        self._tally = Tally()
        self._tally.add_all(outcomes, prefix=prefix, now=self._now)
        finish = self._finished.append
        for delivery, outcome in outcomes:
            # Nearly all are like this.
            if isinstance(outcome, Done) and (run := outcome.run) is not None and not run.log:
                message = delivery.message
                if message.keep > 0 and not message.is_private:
                    finish((run.started, run.ended, worker, outcome.note, outcome.result, *delivery.receipt))
                    continue
            self._add(delivery, outcome)

    def write(self, connection: sqlite3.Connection) -> bool:
        """Record them; tell whether each found its delivery. If not, the caller rolls back."""
        if self._emptied:
            connection.executemany(_EMPTY, self._emptied)
        found = 0
        for statement, values in (
            (_FINISH, self._finished),
            (_REMOVE, self._removed),
            (_CANCEL, self._cancelled),
            (_BURY, self._buried),
            (_RELEASE, self._released),
        ):
            if values:
                found += connection.executemany(statement, values).rowcount
        if found < self._count:
            return False
        if self._again:
            connection.executemany(rows.INSERT_AGAIN, self._again)
        history.add(connection, self._tally)
        if self._runs:
            connection.executemany(_ADD_RUN, self._runs)
        if self._logs:
            connection.executemany(_LOG, self._logs)
        if self._forgotten:
            tables.forget_lives(connection, self._forgotten)
        if not cancels.asked(connection).isdisjoint(self._ids):
            cancels.carry_out(connection)
        return True

    def _add(self, delivery: Delivery, outcome: Outcome) -> None:
        match outcome:
            case Done(result, note, run):
                if self._is_kept(delivery, run):
                    if delivery.message.is_private:
                        result, note = None, PRIVATE_NOTE
                    self._finished.append((*self._times(run), note, result, *delivery.receipt))
            case Cancelled(run):
                if self._is_kept(delivery, run):
                    why = PRIVATE_NOTE if delivery.message.is_private else None
                    self._cancelled.append((*self._times(run), why, *delivery.receipt))
            case Dead(reason, error, crashes, run):
                self._keep_log(delivery, run)
                self._buried.append((*self._times(run), reason, error, crashes, *delivery.receipt))
            case RetryIn(delay, message, run):
                self._keep_log(delivery, run)
                self._retry(delivery, delay, message, run)
            case Released():
                self._released.append(delivery.receipt)
            case _:
                assert_never(outcome)

    def _is_kept(self, delivery: Delivery, run: Run | None) -> bool:
        """Tell whether a job that is over is remembered, and see to what is not kept of it."""
        message = delivery.message
        if message.keep <= 0:
            self._removed.append(delivery.receipt)
            self._forgotten.append(message.id)
            return False
        if message.is_private:
            self._emptied.append(delivery.receipt)
        if run is not None and run.log:
            self._keep_log(delivery, run)
        return True

    def _retry(self, delivery: Delivery, delay: float, message: Message, run: Run | None) -> None:
        self._removed.append(delivery.receipt)
        due = self._now + math.ceil(delay * 1000) if delay > 0 else message.due
        state = rows.DELAYED if delay > 0 else rows.READY
        row = rows.to_row(message, self._prefix + message.queue, state=state, due=due)
        if run is None:
            self._again.append((*row, None, None))
            return
        self._again.append((*row, run.started, self._worker))
        error = None if message.is_private else message.error
        self._runs.append((message.id, delivery.message.attempt, run.started, run.ended, self._worker, error))

    def _keep_log(self, delivery: Delivery, run: Run | None) -> None:
        if run is not None and run.log:
            self._logs.append((delivery.message.id, _encode_log(run.log)))

    def _times(self, run: Run | None) -> tuple[int | None, int, str]:
        """Return when it began, if anything ran, when it ended, and whose it was."""
        return (None, self._now, self._worker) if run is None else (run.started, run.ended, self._worker)


def _encode_log(lines: Sequence[str]) -> str:
    return msgspec.json.encode(list(lines)).decode()


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
