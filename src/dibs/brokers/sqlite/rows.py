"""A message as a row of `dibs_jobs`, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from dibs.message import Message
from dibs.outcome import DeadLetter

#: States as they are stored. In SQL they stand as numbers: SQLite uses a partial index only where the query
#: repeats its condition literally.
READY, DELAYED = 0, 1

#: Takes what `to_row` returns. `seq` is given by SQLite: one more than the largest there is.
INSERT = """
INSERT INTO dibs_jobs (id, queue, state, priority, due, expires, attempt, crashes, suspect, enqueued, unknown_since,
                       task, content_type, headers, properties, error, body)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""

#: A row as `to_row` made it, in its order. `INSERT` and this differ in nothing but the state.
Row = tuple[Any, ...]


def to_row(message: Message, queue: str, *, state: int, due: int | None) -> Row:
    """Return the values for INSERT. `queue` has the namespace."""
    return (
        message.id,
        queue,
        state,
        message.priority,
        due,
        message.expires,
        message.attempt,
        message.crashes,
        message.is_suspect,
        message.enqueued,
        message.unknown_since,
        message.task,
        message.content_type,
        msgspec.json.encode(message.headers).decode() if message.headers else None,
        msgspec.json.encode(message.properties).decode() if message.properties else None,
        message.error,
        message.body,
    )


def to_message(values: Sequence[Any], queue: str) -> Message:
    """Return the message of these columns: id, priority, due … as `claims` and `dead` select them."""
    (job_id, priority, due, expires, attempt, crashes, suspect, enqueued, unknown_since) = values[:9]
    (task, content_type, headers, properties, error, body) = values[9:15]
    return Message(
        body=body,
        queue=queue,
        id=job_id,
        task=task,
        content_type=content_type,
        headers=msgspec.json.decode(headers) if headers else {},
        properties=msgspec.json.decode(properties) if properties else {},
        priority=priority,
        attempt=attempt,
        crashes=crashes,
        is_suspect=bool(suspect),
        enqueued=enqueued,
        due=due,
        expires=expires,
        unknown_since=unknown_since,
        error=error,
    )


def to_letter(values: Sequence[Any], queue: str) -> DeadLetter:
    """Return the dead letter of a message's columns with reason, death_error, died and worker behind them."""
    reason, death_error, died, worker = values[15:19]
    return DeadLetter(message=to_message(values, queue), reason=reason, error=death_error, died=died, worker=worker)
