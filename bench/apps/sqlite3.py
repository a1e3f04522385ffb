"""The bare `sqlite3` module: what a file can do at all.

A hand-over is an insert and a commit with `synchronous=FULL`. The worker, with NORMAL as dibs' has it, deletes what
was done and claims the next in one commit; it polls, and it recovers nothing.

    python -m bench.apps.sqlite3
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Sequence

from bench import job

_LOCAL = threading.local()  # a connection belongs to one thread
_SCHEMA = """
CREATE TABLE IF NOT EXISTS job (id INTEGER PRIMARY KEY, body BLOB NOT NULL, claimed INTEGER NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS ready ON job (id) WHERE claimed = 0;
"""
_INSERT = "INSERT INTO job (body) VALUES (?)"
_CLAIM = """
UPDATE job SET claimed = 1 WHERE id = (SELECT id FROM job WHERE claimed = 0 ORDER BY id LIMIT 1) RETURNING id, body
"""
_DELETE = "DELETE FROM job WHERE id = ?"


def enqueue(number: int, seconds: float, padding: str) -> None:
    """Insert one row and commit."""
    _connection("FULL").execute(_INSERT, (_body(number, seconds, padding),))


def enqueue_many(calls: Sequence[tuple[int, float, str]]) -> None:
    """Insert many rows in one transaction."""
    connection = _connection("FULL")
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(_INSERT, [(_body(*call),) for call in calls])
    connection.execute("COMMIT")


def work() -> None:
    """Do one row after the other, for ever."""
    connection = _connection("NORMAL")
    done: int | None = None
    while True:
        connection.execute("BEGIN IMMEDIATE")
        if done is not None:
            connection.execute(_DELETE, (done,))
        row = connection.execute(_CLAIM).fetchone()
        connection.execute("COMMIT")
        done = row[0] if row else None
        if row:
            job.run(*json.loads(row[1]))
        else:
            time.sleep(0.002)


def _body(number: int, seconds: float, padding: str) -> bytes:
    return json.dumps([number, seconds, padding]).encode()


def _connection(synchronous: str) -> sqlite3.Connection:
    if not hasattr(_LOCAL, "connection"):
        connection = sqlite3.connect(os.environ["BENCH_URL"], isolation_level=None, timeout=30)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={synchronous}")
        connection.executescript(_SCHEMA)
        _LOCAL.connection = connection
    found: sqlite3.Connection = _LOCAL.connection
    return found


if __name__ == "__main__":
    work()
