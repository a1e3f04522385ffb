"""From version 1 of the tables to version 2: what done jobs leave behind has no place in the former.

Everything happens in the caller's write transaction, so that others see the old tables or the new ones, and a crash
leaves the old ones. A copy of the file as it was is made first.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from pathlib import Path

from dibs.ledger import tables

#: The version that can be brought to this one's.
OLDER = 1

_COPY = "VACUUM INTO ?"
_MOVE_AWAY = (
    "DROP INDEX dibs_ready",
    "DROP INDEX dibs_delayed",
    "DROP INDEX dibs_running",
    "DROP INDEX dibs_dead",
    "ALTER TABLE dibs_jobs RENAME TO dibs_jobs_1",
    "ALTER TABLE dibs_queues RENAME TO dibs_queues_1",
    "DROP TABLE dibs_meta",
)
#: It is as it was; the workers of the old version stay in it until their locks are free.
_STAYS = "CREATE TABLE dibs_workers"
# A job of version 1 is kept for a day when it is done, as one of version 2 that says nothing else.
_BRING = (
    "INSERT INTO dibs_queues (name) SELECT name FROM dibs_queues_1",
    """
    INSERT INTO dibs_jobs (seq, id, queue, state, priority, due, expires, receipt, returns, attempt, crashes, suspect,
                           enqueued, unknown_since, keep, private, task, content_type, headers, properties, error,
                           reason, death_error, ended, worker, body)
    SELECT seq, id, queue, state, priority, due, expires, receipt, returns, attempt, crashes, suspect,
           enqueued, unknown_since, 86400000, 0, task, content_type, headers, properties, error,
           reason, death_error, died, worker, body
    FROM dibs_jobs_1 ORDER BY seq
    """,
    "DROP TABLE dibs_jobs_1",
    "DROP TABLE dibs_queues_1",
)


def migrate(connection: sqlite3.Connection, reader: sqlite3.Connection, path: Path) -> None:
    """Bring the tables to this version.

    Args:
        connection: in a write transaction.
        reader: another one to the same file, which sees it as it was.
        path: of the file. The copy stands beside it, its name ending in `.v1`.
    """
    _keep_copy(reader, path.with_name(f"{path.name}.v{OLDER}"))
    for statement in _MOVE_AWAY:
        connection.execute(statement)
    for statement in tables.statements():
        if _STAYS not in statement:
            connection.execute(statement)
    for statement in _BRING:
        connection.execute(statement)


def _keep_copy(reader: sqlite3.Connection, copy: Path) -> None:
    """Make a copy of the database under that name, whole and on the disk, or none."""
    unfinished = copy.with_name(f"{copy.name}.part")
    unfinished.unlink(missing_ok=True)
    # Made first, with the database's own mode: SQLite takes an empty file, and would make one that all may read.
    descriptor = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        reader.execute(_COPY, (str(unfinished),))
        os.fsync(descriptor)
        unfinished.rename(copy)
    except BaseException:
        with suppress(OSError):
            unfinished.unlink()
        raise
    finally:
        os.close(descriptor)
