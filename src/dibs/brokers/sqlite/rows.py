"""A message as a row of `dibs_jobs`, and back. Reading never fails, whichever program wrote the row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from dibs.ledger.tables import LAST_MS, read_time
from dibs.message import Message
from dibs.outcome import DeadLetter

#: States as they are stored. In SQL they stand as numbers: SQLite uses a partial index only where the query
#: repeats its condition literally.
READY, DELAYED = 0, 1

#: Takes what `to_new_row` returns: most jobs by far are handed over like this, and each value that is bound costs.
INSERT_NEW = """
INSERT INTO dibs_jobs (id, queue, state, priority, attempt, crashes, suspect, enqueued, keep, private, task,
                       content_type, body)
VALUES (?, ?, 0, ?, 1, 0, 0, ?, ?, ?, ?, ?, ?)
"""
#: Takes what `to_row` returns. `seq` is given by SQLite: one more than the largest there is.
INSERT = """
INSERT INTO dibs_jobs (id, queue, state, priority, due, expires, attempt, crashes, suspect, enqueued, unknown_since,
                       keep, private, task, content_type, headers, properties, error, body)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
#: Takes what `to_row` returns, with when the last run began and whose it was behind it.
INSERT_AGAIN = """
INSERT INTO dibs_jobs (id, queue, state, priority, due, expires, attempt, crashes, suspect, enqueued, unknown_since,
                       keep, private, task, content_type, headers, properties, error, body, started, worker)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""

#: Headers may be nested so deep: what was read is written again, from wherever the stack stands then.
_DEEPEST = 64
_OBJECT = msgspec.json.Decoder(dict[str, Any])

#: A row as `to_row` made it, in its order. `INSERT` and this differ in nothing but the state.
Row = tuple[Any, ...]


def to_new_row(message: Message, queue: str) -> Row | None:
    """Return the values for INSERT_NEW; None: there is more to the message. `queue` has the namespace."""
    if message.due is not None or message.expires is not None or message.unknown_since is not None:
        return None
    if message.attempt != 1 or message.crashes or message.is_suspect or message.error is not None:
        return None
    if message.headers or message.properties:
        return None
    return (
        message.id,
        queue,
        message.priority,
        message.enqueued,
        round(message.keep * 1000),
        message.is_private,
        message.task,
        message.content_type,
        message.body,
    )


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
        round(message.keep * 1000),
        message.is_private,
        message.task,
        message.content_type,
        msgspec.json.encode(message.headers).decode() if message.headers else None,
        msgspec.json.encode(message.properties).decode() if message.properties else None,
        message.error,
        message.body,
    )


def to_message(values: Sequence[Any], queue: str) -> Message:
    """Return the message of these columns: id, priority, due … as `claims` and `dead` select them."""
    (job_id, priority, due, expires, attempt, crashes, suspect, enqueued, unknown_since, keep, private) = values[:11]
    (task, content_type, headers, properties, error, body) = values[11:17]
    return Message(
        body=body,
        queue=queue,
        id=job_id,
        task=task,
        content_type=content_type,
        headers=_read_object(headers) if headers else {},
        properties=_read_object(properties) if properties else {},
        priority=priority,
        attempt=max(1, attempt),
        crashes=max(0, crashes),
        is_suspect=bool(suspect),
        enqueued=read_time(enqueued),
        due=read_time(due),
        expires=read_time(expires),
        unknown_since=read_time(unknown_since),
        error=error,
        keep=(keep if 0 <= keep <= LAST_MS else max(0, min(keep, LAST_MS))) / 1000,
        is_private=bool(private),
    )


def to_letter(values: Sequence[Any], queue: str) -> DeadLetter:
    """Return the dead letter of a message's columns with reason, death_error, ended and worker behind them."""
    reason, death_error, died, worker = values[17:21]
    return DeadLetter(
        message=to_message(values, queue),
        reason=reason or "",
        error=death_error or "",
        died=read_time(died),
        worker=worker,
    )


def _read_object(text: str) -> dict[str, Any]:
    """Return what JSON says; the text itself, under a name that tells so, where it is no object to go on with."""
    try:
        value = _OBJECT.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return {"dibs-unreadable": text}
    return {"dibs-unreadable": text} if _is_deep(value) else value


def _is_deep(value: Any) -> bool:
    """Tell whether values lie in values more often than all that pass them on can follow."""
    level = [value]
    for _ in range(_DEEPEST):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return True
