"""What was set aside: seen page by page, replayed, dropped. Costs by the page, not by how many there are."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection

from dibs.brokers.sqlite import rows
from dibs.brokers.sqlite.store import Store
from dibs.outcome import DeadLetter

#: Rows per transaction, so that others get their turns in between.
BATCH = 1000

# Both served by dibs_dead, in its order.
_PAGE = """
SELECT id, priority, due, expires, attempt, crashes, suspect, enqueued, unknown_since, task, content_type, headers,
       properties, error, body, reason, death_error, died, worker
FROM dibs_jobs WHERE state = 3 AND queue = ? AND (died, seq) > (?, ?) ORDER BY died, seq LIMIT ?
"""
_OLDEST = """
SELECT seq FROM dibs_jobs WHERE state = 3 AND queue = ? AND seq <= ? ORDER BY died, seq LIMIT ?
"""
# Served by the index of the ids; the plus signs keep SQLite from going through all the dead instead.
_PLACE = "SELECT died, seq FROM dibs_jobs WHERE id = ? AND queue = ? AND state = 3"
_NAMED = """
SELECT seq FROM dibs_jobs WHERE id IN (SELECT value FROM json_each(?)) AND +state = 3 AND +queue = ?
ORDER BY died, seq
"""
_LAST = "SELECT ifnull(max(seq), 0) FROM dibs_jobs"
# Moves the row to the end of the line.
_REPLAY = """
UPDATE dibs_jobs SET seq = (SELECT max(seq) + 1 FROM dibs_jobs), state = 0, due = NULL, expires = NULL, returns = 0,
       attempt = 1, crashes = 0, suspect = 0, unknown_since = NULL, error = NULL, reason = NULL,
       death_error = NULL, died = NULL, worker = NULL
WHERE seq = ? AND state = 3
"""
_DROP = "DELETE FROM dibs_jobs WHERE seq = ? AND state = 3"


def page(connection: sqlite3.Connection, queue: str, *, name: str, limit: int, after: str | None) -> list[DeadLetter]:
    """Return the dead letters behind `after`; from the first one if `after` is not there any more."""
    place = connection.execute(_PLACE, (after, queue)).fetchone() or (-1, -1)
    found = connection.execute(_PAGE, (queue, *place, limit))
    return [rows.to_letter(row, name) for row in found]


def replay(store: Store, connection: sqlite3.Connection, queue: str, ids: Collection[str] | None) -> int:
    """Put dead letters back to the end of the line; returns how many."""
    if ids is not None:
        return _change_named(store, connection, _REPLAY, queue, ids)
    with store.read():
        (last,) = connection.execute(_LAST).fetchone()
    count = 0
    while True:  # those that die again meanwhile are behind `last`
        with store.write(connection, size=BATCH * 512):
            seqs = connection.execute(_OLDEST, (queue, last, BATCH)).fetchall()
            connection.executemany(_REPLAY, seqs)
        count += len(seqs)
        if len(seqs) < BATCH:
            return count


def drop(store: Store, connection: sqlite3.Connection, queue: str, ids: Collection[str]) -> int:
    """Delete dead letters for good; returns how many."""
    return _change_named(store, connection, _DROP, queue, ids)


def _change_named(
    store: Store, connection: sqlite3.Connection, statement: str, queue: str, ids: Collection[str]
) -> int:
    listed = list(ids)
    count = 0
    for start in range(0, len(listed), BATCH):
        part = json.dumps(listed[start : start + BATCH])
        with store.write(connection, size=BATCH * 512):
            seqs = connection.execute(_NAMED, (part, queue)).fetchall()
            connection.executemany(statement, seqs)
        count += len(seqs)
    return count
