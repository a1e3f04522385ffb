"""Handing over: concurrent sends of one process share a transaction, and so an fsync.

Whoever gets the turn stores what all others have lined up meanwhile, and wakes them; one who has just stored along
with others waits a moment for them to come back. A send that fails by its own fault (a taken id) is undone alone.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter
from pathlib import Path

from dibs.brokers.sqlite import rows
from dibs.brokers.sqlite.errors import is_uncertain
from dibs.brokers.sqlite.store import Store
from dibs.errors import BrokerBusy, BrokerError, DibsError, HandoverUncertain, JobExists, UsageError

#: What SQLite and its driver raise for the values of one row: it does not concern the rows of others.
FAULTS = (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.InterfaceError, OverflowError, UnicodeError)

#: Seconds for which one who stores waits for each of those who stored a moment ago. They need a third of that to come
#: back, one after the other; a commit takes twice as long.
_PATIENCE = 0.0001
#: Seconds after which one who waits looks by himself: an interrupt may have hit the one who was to wake him.
_LOOK_EVERY = 0.1

ADD_QUEUE = "INSERT OR IGNORE INTO dibs_queues (name) VALUES (?)"
# Served by the unique index of dibs_jobs.id.
_TAKEN = "SELECT id FROM dibs_jobs WHERE id IN (SELECT value FROM json_each(?))"


class Handover:
    """What one call hands over, and what came of it."""

    __slots__ = ("bell", "error", "is_over", "queues", "rows", "size", "statement")

    def __init__(self, statement: str, messages: Sequence[rows.Row], queues: set[str], size: int) -> None:
        #: One of `rows`' INSERTs, and the values that it takes.
        self.statement = statement
        self.rows = messages
        self.queues = queues
        self.size = size
        self.is_over = False
        self.error: DibsError | None = None
        #: While its thread waits: released to wake it.
        self.bell: threading.Lock | None = None


class Commits:
    """The sends of one process. Shared by its threads."""

    def __init__(self, store: Store, *, timeout: float) -> None:
        self._store = store
        self._timeout = timeout
        self._connection = store.connect(synchronous="FULL")
        #: Held by the thread that stores.
        self._turn = threading.Lock()
        self._waiting: deque[Handover] = deque()
        #: How many there were at the last commit: those that were stored, and those that had come meanwhile.
        self._crowd = 1
        #: Released when as many wait as that; held at other times.
        self._gathered = threading.Lock()
        self._gathered.acquire()
        self._known_queues: set[str] = set()

    def send(self, handover: Handover) -> None:
        """Return when it is on disk, or raise what is wrong with it."""
        if self._turn.acquire(blocking=False) or self._wait(handover):
            try:
                if not handover.is_over:
                    self._store_all(handover)
            finally:
                self._turn.release()
                if self._waiting:  # those that came meanwhile; who comes from now on finds the turn free
                    self._call_next()
        if handover.error is not None:
            raise handover.error

    def _wait(self, handover: Handover) -> bool:
        """Wait for others to store this; True: it is this thread's turn to do so."""
        deadline = time.monotonic() + self._timeout
        handover.bell = threading.Lock()
        handover.bell.acquire()
        self._waiting.append(handover)
        if len(self._waiting) >= self._crowd - 1:
            _ring(self._gathered)
        while not handover.is_over:
            if self._turn.acquire(blocking=False):
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                self._withdraw(handover)
            handover.bell.acquire(timeout=min(left, _LOOK_EVERY))
        return False

    def _call_next(self) -> None:
        """Wake the first of those that wait, whose turn it may be."""
        try:
            bell = self._waiting[0].bell
        except IndexError:
            return
        if bell is not None:
            _ring(bell)

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
        batch = self._gather(mine)
        try:
            queues = set().union(*(handover.queues for handover in batch)) - self._known_queues
            with self._store.write(self._connection, size=sum(handover.size for handover in batch)):
                for name in queues:
                    self._connection.execute(ADD_QUEUE, (name,))
                self._insert(batch)
            self._known_queues |= queues
        except DibsError as error:
            for handover in batch:
                handover.error = handover.error or _doubt(handover, self._store.path, error)
        self._crowd = len(batch) + len(self._waiting)
        for handover in batch:
            handover.is_over = True
            if handover.bell is not None:
                _ring(handover.bell)

    def _gather(self, mine: Handover) -> list[Handover]:
        """Take what waits. Where others were about a moment ago they are waited for: they come back just now."""
        if self._crowd > 1:
            self._gathered.acquire(blocking=False)  # it may have been rung while nobody listened
            missing = self._crowd - 1 - len(self._waiting)
            if missing > 0:
                self._gathered.acquire(timeout=missing * _PATIENCE)
        batch = [mine]
        while self._waiting:
            handover = self._waiting.popleft()
            if handover is not mine:
                batch.append(handover)
        return batch

    def _insert(self, batch: Sequence[Handover]) -> None:
        alone = batch[0] if len(batch) == 1 else None
        if alone is not None and len(alone.rows) == 1:
            try:
                self._connection.execute(alone.statement, alone.rows[0])
            except FAULTS as error:
                raise _fault(self._connection, alone, self._store.path, error) from error
            return
        if alone is None:
            self._connection.execute("SAVEPOINT handovers")
            try:
                for statement, alike in groupby(batch, attrgetter("statement")):
                    self._connection.executemany(statement, [row for handover in alike for row in handover.rows])
            except FAULTS:
                self._connection.execute("ROLLBACK TO handovers")  # one of them is at fault: each by itself
            else:
                self._connection.execute("RELEASE handovers")
                return
        for handover in batch:
            insert(self._connection, handover, path=self._store.path)
        if alone is not None and alone.error is not None:
            raise alone.error


def _ring(bell: threading.Lock) -> None:
    """Release a lock that somebody may be waiting to acquire; twice is as good as once."""
    try:
        bell.release()
    except RuntimeError:
        return


def insert(connection: sqlite3.Connection | sqlite3.Cursor, handover: Handover, *, path: Path) -> None:
    """Insert all of it, or nothing and note why. The transaction goes on either way."""
    connection.execute("SAVEPOINT handover")
    try:
        connection.executemany(handover.statement, handover.rows)
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
