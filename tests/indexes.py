"""What stands in an index of RabbitMQ's ledger."""

from __future__ import annotations

import sqlite3
from pathlib import Path

_ASKED = {
    "dibs_jobs": "id, queue, state, priority, due, attempt, crashes, enqueued, keep, started, ended, worker, task, "
    "content_type, error, reason, death_error, note, result, body",
    "dibs_runs": "job, attempt, started, ended, worker, outcome, error",
    "dibs_notes": "job, progress, log",
    "dibs_queues": "name",
}


def content(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Return what stands in the tables that are asked, without places in the line."""
    connection = sqlite3.connect(path)
    found = {
        table: sorted(connection.execute(f"SELECT {columns} FROM {table}").fetchall(), key=repr)
        for table, columns in _ASKED.items()
    }
    connection.close()
    return found
