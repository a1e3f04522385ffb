"""Jobs that are to be cancelled: those that wait at once; those that run when their worker ends them.

A request stands in `dibs_cancels` while its job runs. Whatever sends the job back into its line carries it out in the
same transaction, so that a job that is to be cancelled is never started again. Nothing here begins or ends one.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from dibs.broker import CancelAnswer
from dibs.ledger import tables
from dibs.ledger.life import PRIVATE_NOTE
from dibs.message import now_ms

#: States, as `dibs_jobs` has them.
_RUNNING, _DEAD = 2, 3

# Served by the index of the ids.
_FIND = """
SELECT id, state, ifnull(receipt, 0) FROM dibs_jobs
WHERE id IN (SELECT value FROM json_each(?)) AND substr(queue, 1, length(?2)) = ?2
"""
_ASK = "INSERT OR IGNORE INTO dibs_cancels (job, asked) VALUES (?, ?)"
_ASKED = "SELECT job FROM dibs_cancels"
# Each is served by the index of the ids: there are few requests. The plus signs keep SQLite from the states' indexes.
_CANCEL = """
UPDATE dibs_jobs SET state = 5, started = NULL, ended = ?1, worker = NULL,
       note = iif(private, ?2, NULL), error = iif(private, NULL, error), body = iif(private, x'', body)
WHERE id IN (SELECT job FROM dibs_cancels) AND +state IN (0, 1) AND keep > 0 RETURNING id
"""
_FORGET = """
DELETE FROM dibs_jobs WHERE id IN (SELECT job FROM dibs_cancels) AND +state IN (0, 1) AND keep <= 0 RETURNING id
"""
_END = "DELETE FROM dibs_cancels WHERE NOT EXISTS (SELECT 1 FROM dibs_jobs WHERE id = job AND +state = 2)"
_HELD = """
SELECT seq, receipt FROM dibs_jobs
WHERE id IN (SELECT job FROM dibs_cancels) AND +state = 2 AND +receipt BETWEEN ? AND ?
"""


class Requested(NamedTuple):
    """What came of a request."""

    answers: dict[str, CancelAnswer]
    #: Ids of those that are cancelled now.
    cancelled: list[str]
    #: Receipts of those that run.
    receipts: list[int]


def request(connection: sqlite3.Connection, ids: Sequence[str], *, prefix: str) -> Requested:
    """Have these jobs cancelled."""
    now = now_ms()
    answers: dict[str, CancelAnswer] = dict.fromkeys(ids, "unknown")
    receipts: list[int] = []
    for job_id, state, receipt in connection.execute(_FIND, (json.dumps(list(ids)), prefix)).fetchall():
        if state >= _DEAD:
            answers[job_id] = "over"
            continue
        answers[job_id] = "requested" if state == _RUNNING else "cancelled"
        connection.execute(_ASK, (job_id, now))
        if state == _RUNNING:
            receipts.append(receipt)
    return Requested(answers, carry_out(connection), receipts)


def asked(connection: sqlite3.Connection) -> set[str]:
    """Return the jobs that are to be cancelled."""
    return {job_id for (job_id,) in connection.execute(_ASKED)}


def carry_out(connection: sqlite3.Connection) -> list[str]:
    """Cancel those that wait, and strike out every request whose job does not run. Returns the ids of the former."""
    kept = [job_id for (job_id,) in connection.execute(_CANCEL, (now_ms(), PRIVATE_NOTE)).fetchall()]
    forgotten = [job_id for (job_id,) in connection.execute(_FORGET).fetchall()]
    if forgotten:
        tables.forget_lives(connection, forgotten)
    connection.execute(_END)
    return kept + forgotten


def held(connection: sqlite3.Connection, first: int, last: int) -> list[tuple[int, int]]:
    """Return place and receipt of the jobs to be cancelled that are held by receipts of this range."""
    return connection.execute(_HELD, (first, last)).fetchall()
