"""Handing over: concurrent sends of one process share a transaction, and so an fsync.

Whoever gets the turn stores what all others have lined up meanwhile; they find theirs done. A send that fails by
its own fault (a taken id) is undone alone.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path

from dibs.brokers.sqlite import rows
from dibs.brokers.sqlite.errors import is_uncertain
from dibs.brokers.sqlite.store import Store
from dibs.errors import BrokerBusy, BrokerError, DibsError, HandoverUncertain, JobExists, UsageError

#: What SQLite and its driver raise for the values of one row: it does not concern the rows of others.
FAULTS = (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.InterfaceError, OverflowError, UnicodeError)

ADD_QUEUE = "INSERT OR IGNORE INTO dibs_queues (name) VALUES (?)"
# Served by the unique index of dibs_jobs.id.
_TAKEN = "SELECT id FROM dibs_jobs WHERE id IN (SELECT value FROM json_each(?))"


class Handover:
    """What one call hands over, and what came of it."""

    __slots__ = ("error", "is_over", "queues", "rows", "size")

    def __init__(self, messages: Sequence[rows.Row], queues: set[str], size: int) -> None:
        self.rows = messages
        self.queues = queues
        self.size = size
        self.is_over = False
        self.error: DibsError | None = None


class Commits:
    """The sends of one process. Shared by its threads."""

    def __init__(self, store: Store, *, timeout: float) -> None:
        self._store = store
        self._timeout = timeout
        self._connection = store.connect(synchronous="FULL")
        self._turn = threading.Lock()
        self._waiting: deque[Handover] = deque()
        self._known_queues: set[str] = set()

    def send(self, handover: Handover) -> None:
        """Return when it is on disk, or raise what is wrong with it."""
        self._waiting.append(handover)
        if not self._turn.acquire(timeout=self._timeout):
            self._withdraw(handover)
        try:
            if not handover.is_over:
                self._store_all(handover)
        finally:
            self._turn.release()
        if handover.error is not None:
            raise handover.error

    def _withdraw(self, handover: Handover) -> None:
        try:
            self._waiting.remove(handover)
        except ValueError:
            raise HandoverUncertain(
                f"Another thread has been storing these jobs in {self._store.path} for {self._timeout:g} s and is "
                "not back yet. Hand them over again with the same ids.",
                ids=[row[0] for row in handover.rows],
            ) from None
        raise BrokerBusy(
            f"Other threads of this process kept {self._store.path} busy for {self._timeout:g} s: nothing was stored."
        )

    def _store_all(self, mine: Handover) -> None:
        """Store everything that waits, in one transaction."""
        batch = []
        while self._waiting:
            batch.append(self._waiting.popleft())
        if mine not in batch:  # the thread that had taken it along was interrupted
            batch.append(mine)
        try:
            queues = set().union(*(handover.queues for handover in batch)) - self._known_queues
            with self._store.write(self._connection, size=sum(handover.size for handover in batch)):
                for name in queues:
                    self._connection.execute(ADD_QUEUE, (name,))
                for handover in batch:
                    self._insert(handover, is_alone=len(batch) == 1)
            self._known_queues |= queues
        except DibsError as error:
            for handover in batch:
                handover.error = handover.error or _doubt(handover, self._store.path, error)
        for handover in batch:
            handover.is_over = True

    def _insert(self, handover: Handover, *, is_alone: bool) -> None:
        if is_alone and len(handover.rows) == 1:
            try:
                self._connection.execute(rows.INSERT, handover.rows[0])
            except FAULTS as error:
                raise _fault(self._connection, handover, self._store.path, error) from error
            return
        insert(self._connection, handover, path=self._store.path)
        if is_alone and handover.error is not None:
            raise handover.error


def insert(connection: sqlite3.Connection | sqlite3.Cursor, handover: Handover, *, path: Path) -> None:
    """Insert all of it, or nothing and note why. The transaction goes on either way."""
    connection.execute("SAVEPOINT handover")
    try:
        connection.executemany(rows.INSERT, handover.rows)
    except FAULTS as error:
        connection.execute("ROLLBACK TO handover")
        handover.error = _fault(connection, handover, path, error)
        handover.error.__cause__ = error
    connection.execute("RELEASE handover")


def _doubt(handover: Handover, path: Path, error: DibsError) -> DibsError:
    """Return the error, or the doubt in which it leaves those who hand over."""
    if not (isinstance(error, BrokerError) and is_uncertain(error)):
        return error
    doubt = HandoverUncertain(
        f"The disk of {path} failed while jobs were committed ({error.__cause__}): nobody can tell whether they "
        "are stored. Look at the system's log and at the space that is left; hand them over again with the same ids.",
        ids=[row[0] for row in handover.rows],
    )
    doubt.__cause__ = error.__cause__
    return doubt


def _fault(
    connection: sqlite3.Connection | sqlite3.Cursor, handover: Handover, path: Path, error: Exception
) -> DibsError:
    """Return what is wrong with the messages themselves."""
    if getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_CONSTRAINT_UNIQUE:
        return UsageError(f"A message has a field of a wrong type or size: {error}. Nothing of the call was stored.")
    ids = [row[0] for row in handover.rows]
    taken = {job_id for (job_id,) in connection.execute(_TAKEN, (json.dumps(ids),))}
    twice = {job_id for job_id, count in Counter(ids).items() if count > 1}
    names = sorted(taken | twice)
    listed = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    how = "in use already" if taken else "given twice in one call"
    return JobExists(f"Job ids {how} in {path}: {listed}. Nothing of the call was stored.", ids=names)
