"""SQLite as the source and the target of `dibs move`. See `dibs.moving.ends` for what each verb promises.

As a source it marks: a job on its way looks like one that runs, its receipt being one that no worker makes. So no
claim, purge or takeover touches it, and it stays so when the mover dies. One mover at a time is told by a file lock.
As a target it keeps the ids that came in a table, written in the transaction that stores the jobs.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from itertools import groupby
from typing import Any

from dibs.broker import QueueInfo
from dibs.brokers.sqlite import cancels, rows
from dibs.brokers.sqlite.commits import ADD_QUEUE, FAULTS
from dibs.brokers.sqlite.errors import is_uncertain
from dibs.brokers.sqlite.liveness import CLAIM_BITS
from dibs.brokers.sqlite.opened import Opened
from dibs.errors import BrokerBusy, BrokerError, HandoverUncertain, UnknownQueue
from dibs.ledger import tables
from dibs.message import now_ms
from dibs.moving.ends import BATCH, BATCH_BYTES, Arrivals, Piece, State, apart, new_mark

#: States as they are stored; a marked row's receipt ends with the one that it had.
_STATES: dict[State, int] = {"ready": 0, "delayed": 1, "dead": 3}
_STATE_BITS = 2

# Each is served by its state's index, in its order.
_NEXT: dict[State, str] = {
    "ready": """
        SELECT seq, length(body) FROM dibs_jobs WHERE state = 0 AND queue = ? ORDER BY priority DESC, seq LIMIT ?""",
    "delayed": "SELECT seq, length(body) FROM dibs_jobs WHERE state = 1 AND queue = ? ORDER BY due, seq LIMIT ?",
    "dead": "SELECT seq, length(body) FROM dibs_jobs WHERE state = 3 AND queue = ? ORDER BY ended, seq LIMIT ?",
}
_COLUMNS = """
id, priority, due, expires, attempt, crashes, suspect, enqueued, unknown_since, keep, private, task, content_type,
headers, properties, error, body, reason, death_error, ended, worker, seq, receipt, queue
"""
# Served by the primary key.
_MARK = f"""
UPDATE dibs_jobs SET state = 2, receipt = ? << {_STATE_BITS} | state WHERE seq IN (SELECT value FROM json_each(?))
RETURNING {_COLUMNS}
"""  # noqa: S608 -- of constants
_RELEASE = f"""
UPDATE dibs_jobs SET state = receipt & 3, receipt = NULL
WHERE seq IN (SELECT value FROM json_each(?)) AND +state = 2 AND +receipt < 1 << {CLAIM_BITS} RETURNING queue
"""  # noqa: S608
_LET_GO = f"""
DELETE FROM dibs_jobs
WHERE seq IN (SELECT value FROM json_each(?)) AND +state = 2 AND +receipt < 1 << {CLAIM_BITS} RETURNING id
"""  # noqa: S608
# Served by dibs_running: no worker has the number 0.
_MARKED = f"""
SELECT {_COLUMNS} FROM dibs_jobs
WHERE state = 2 AND receipt < 1 << {CLAIM_BITS} AND (receipt, seq) > (?, ?) ORDER BY receipt, seq LIMIT {BATCH}
"""  # noqa: S608
_COUNT_MARKED = f"""
SELECT queue, receipt & 3, count(*) FROM dibs_jobs WHERE state = 2 AND receipt < 1 << {CLAIM_BITS} GROUP BY 1, 2
"""  # noqa: S608
_COUNT_RUNNING = f"""
SELECT queue, count(*) FROM dibs_jobs WHERE state = 2 AND receipt >= 1 << {CLAIM_BITS} GROUP BY queue
"""  # noqa: S608

# Takes what `to_row` returns, and behind it what there is of the dead only.
_INSERT = """
INSERT INTO dibs_jobs (id, queue, state, priority, due, expires, attempt, crashes, suspect, enqueued, unknown_since,
                       keep, private, task, content_type, headers, properties, error, body, reason, death_error,
                       ended, worker)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_CAME = "INSERT OR IGNORE INTO dibs_moved (job) VALUES (?)"
# Served by the index of the ids.
_TAKEN = "SELECT task, enqueued, body FROM dibs_jobs WHERE id = ?"
_ARRIVED = "SELECT job FROM dibs_moved WHERE job IN (SELECT value FROM json_each(?))"
_FORGET = "DELETE FROM dibs_moved WHERE job IN (SELECT value FROM json_each(?))"


class SqliteSource:
    """The jobs of one file, or of one namespace in it, to be taken away."""

    def __init__(
        self, open_file: Callable[[], Opened], count: Callable[[Collection[str]], list[QueueInfo]], *, prefix: str
    ) -> None:
        """Touch nothing yet.

        Args:
            open_file: returns what this process has open.
            count: `Broker.queues`.
            prefix: the namespace with its dot, or "".
        """
        self._open = open_file
        self._count = count
        self._prefix = prefix
        self._lock: int | None = None
        #: What goes back when the present walk ends: places of rows.
        self._held: set[int] = set()
        self.mark = new_mark()

    @property
    def place(self) -> str:
        """Device and inode of the file."""
        return _place_of(self._open().store.path)

    def begin(self) -> None:
        """Lock the file of movers; the system lets it go when this process ends."""
        store = self._open().store
        with store.read():
            descriptor = os.open(store.directory / "move.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                os.close(descriptor)
                raise BrokerBusy(
                    f"Somebody else is moving jobs from {store.path}. Wait until they are done, or end them."
                ) from error
        self._lock = descriptor

    def queues(self, names: Collection[str]) -> dict[str, dict[State, int | None]]:
        """Return what there is of each queue; what movers that died had marked counts as what it was."""
        infos = {info.name: info for info in self._count(()) if not names or info.name in names}
        for name in names:
            if name not in infos:
                raise UnknownQueue(
                    f"There is no queue {name!r} in {self._open().store.path}. `dibs queues` lists those that exist."
                )
        found: dict[str, dict[State, int | None]] = {
            name: {"ready": info.ready, "delayed": info.delayed, "dead": info.dead} for name, info in infos.items()
        }
        states: dict[int, State] = {number: state for state, number in _STATES.items()}
        for stored, number, count in self._select(_COUNT_MARKED):
            queue = stored.removeprefix(self._prefix)
            if stored.startswith(self._prefix) and queue in found and number in states:
                found[queue][states[number]] = (found[queue][states[number]] or 0) + count
        return found

    def running(self, queues: Collection[str]) -> dict[str, int | None]:
        """Return how many jobs workers have."""
        counted = dict(self._select(_COUNT_RUNNING))
        return {queue: counted.get(self._prefix + queue, 0) for queue in queues}

    def doubtful(self, queues: Collection[str]) -> Generator[list[Piece]]:
        """Yield what movers that died had marked; it stays marked until it is let go of or given back."""
        stored = {self._prefix + queue for queue in queues}
        place = (-1, -1)
        try:
            while found := self._select(_MARKED, place):
                place = (found[-1][22], found[-1][21])
                pieces = [self._piece(row, is_doubtful=True) for row in found if row[23] in stored]
                for _, alike in groupby(pieces, key=lambda piece: piece.letter is None):
                    yield from apart(list(alike))
        finally:
            self._release()

    def take(self, queues: Sequence[str], state: State) -> Generator[list[Piece]]:
        """Yield what is in that state, queue by queue, in the order in which it would be claimed."""
        try:
            for queue in queues:
                while pieces := self._mark_next(self._prefix + queue, state):
                    self._held.update(piece.hold for piece in pieces)
                    yield from apart(pieces)
        finally:
            self._release()

    def let_go(self, pieces: Sequence[Piece]) -> list[str]:
        """Delete them with their lives, and tell whoever waits for them that they are not here."""
        opened, ids = self._open(), [piece.id for piece in pieces]
        with opened.connection() as connection, opened.store.write(connection, size=len(pieces) * 512):
            gone = connection.execute(_LET_GO, (_places(pieces),)).fetchall()
            if len(gone) != len(pieces):
                raise BrokerError(
                    f"{len(pieces) - len(gone)} of {len(pieces)} jobs that were moved are not in {opened.store.path} "
                    "as they were left. Another program has changed the file: compare both sides by hand."
                )
            tables.forget_lives(connection, ids)
            cancelled = list(cancels.asked(connection).intersection(ids))
            if cancelled:
                cancels.carry_out(connection)
        self._held.difference_update(piece.hold for piece in pieces)
        opened.waiters.wake(ids)
        return cancelled

    def give_back(self, pieces: Sequence[Piece]) -> None:
        """Have them go back when the walk ends: else it would meet them again."""
        self._held.update(piece.hold for piece in pieces)

    def leave_in_doubt(self, pieces: Sequence[Piece]) -> None:
        """Leave them marked."""
        self._held.difference_update(piece.hold for piece in pieces)

    def close(self) -> None:
        """Let other movers in."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _mark_next(self, stored: str, state: State) -> list[Piece]:
        opened = self._open()
        with opened.connection() as connection:
            with opened.store.read():
                found = connection.execute(_NEXT[state], (stored, BATCH)).fetchall()
            if not found:
                return []
            with opened.store.write(connection, size=len(found) * 256):
                seqs = list(_fitting(connection.execute(_NEXT[state], (stored, BATCH))))
                marked = connection.execute(_MARK, (self.mark, json.dumps(seqs))).fetchall()
        by_place = {row[21]: row for row in marked}  # RETURNING promises no order
        return [self._piece(by_place[seq], is_doubtful=False) for seq in seqs]

    def _release(self) -> None:
        held, self._held = self._held, set()
        if not held:
            return
        opened = self._open()
        with opened.connection() as connection, opened.store.write(connection, size=len(held) * 128):
            queues = [queue for (queue,) in connection.execute(_RELEASE, (json.dumps(list(held)),)).fetchall()]
            cancelled = cancels.carry_out(connection) if cancels.asked(connection) else []
        opened.waiters.wake(cancelled)
        opened.board.wake(set(queues), len(queues))

    def _piece(self, row: tuple[Any, ...], *, is_doubtful: bool) -> Piece:
        seq, receipt, stored = row[21:24]
        queue = stored.removeprefix(self._prefix)
        is_dead = receipt & 3 == _STATES["dead"]
        return Piece(
            message=rows.to_message(row, queue),
            letter=rows.to_letter(row, queue) if is_dead else None,
            hold=seq,
            mark=receipt >> _STATE_BITS,
            is_doubtful=is_doubtful,
        )

    def _select(self, statement: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        opened = self._open()
        with opened.connection() as connection, opened.store.read():
            return connection.execute(statement, values).fetchall()


class SqliteSink:
    """One file, to which jobs are brought."""

    def __init__(self, open_file: Callable[[], Opened], path: os.PathLike[str], *, prefix: str) -> None:
        self._open = open_file
        self._path = path
        self._prefix = prefix

    def is_at(self, place: str) -> bool:
        """Tell whether it is this file."""
        return place == _place_of(self._path)

    def begin(self, mark: int) -> None:
        """Do nothing: a job and its proof are stored in one transaction."""

    def arrived(self, pieces: Sequence[Piece]) -> Arrivals:
        """Look into the table of proofs."""
        opened = self._open()
        with opened.connection() as connection, opened.store.read():
            found = connection.execute(_ARRIVED, (_ids(pieces),)).fetchall()
        return Arrivals(frozenset(job for (job,) in found), is_sure=True)

    def store(self, pieces: Sequence[Piece]) -> dict[str, str]:
        """Insert them, all in one transaction, with their proofs."""
        opened = self._open()
        refused: dict[str, str] = {}
        size = sum(len(piece.message.body) + 512 for piece in pieces)
        try:
            with opened.connection() as connection, opened.store.write(connection, size=size):
                queues = {self._prefix + piece.message.queue for piece in pieces}
                connection.executemany(ADD_QUEUE, [(queue,) for queue in queues])
                for piece in pieces:
                    if (why := self._insert(connection, piece)) is not None:
                        refused[piece.id] = why
                connection.executemany(_CAME, [(piece.id,) for piece in pieces if piece.id not in refused])
        except BrokerError as error:
            if is_uncertain(error):
                raise HandoverUncertain(str(error), ids=[piece.id for piece in pieces]) from error
            raise
        opened.board.wake(queues, len(pieces))
        return refused

    def forget(self, pieces: Sequence[Piece]) -> None:
        """Delete their proofs."""
        opened = self._open()
        with opened.connection() as connection, opened.store.write(connection):
            connection.execute(_FORGET, (_ids(pieces),))

    def close(self) -> None:
        """Do nothing: the broker closes what is open."""

    def _insert(self, connection: sqlite3.Connection, piece: Piece) -> str | None:
        """Insert one; return why it can't be stored here."""
        message, letter, now = piece.message, piece.letter, now_ms()
        end: tuple[object, ...] = (None, None, None, None)
        if letter is not None:
            state = _STATES["dead"]
            # Without a time it would be found by nobody: it has its place in the index by it.
            end = (letter.reason, letter.error, now if letter.died is None else letter.died, letter.worker)
        else:
            state = rows.READY if message.due is None or message.due <= now else rows.DELAYED
        row = rows.to_row(message, self._prefix + message.queue, state=state, due=message.due)
        try:
            connection.execute(_INSERT, (*row, *end))
        except FAULTS as error:
            if getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_CONSTRAINT_UNIQUE:
                return f"A field has a wrong type or size: {error}."
            if not self._is_same(connection, piece):
                return f"Its id is in use in {self._path} already, by another job."
        return None

    def _is_same(self, connection: sqlite3.Connection, piece: Piece) -> bool:
        """Tell whether the job that has this id is this one: it came twice, or has run since."""
        task, enqueued, body = connection.execute(_TAKEN, (piece.id,)).fetchone()
        message = piece.message
        return (
            task == message.task
            and _in_seconds(enqueued) == _in_seconds(message.enqueued)  # RabbitMQ has no more of it
            and body in (message.body, b"")  # that of a private job is emptied when it is over
        )


def _in_seconds(time: int | None) -> int | None:
    return None if time is None else time // 1000


def _fitting(found: Iterable[tuple[int, int]]) -> Generator[int]:
    """Yield as many places as make a batch."""
    total = 0
    for seq, size in found:
        total += size
        if total > BATCH_BYTES and total > size:
            return
        yield seq


def _places(pieces: Sequence[Piece]) -> str:
    return json.dumps([piece.hold for piece in pieces])


def _ids(pieces: Sequence[Piece]) -> str:
    return json.dumps([piece.id for piece in pieces])


def _place_of(path: os.PathLike[str]) -> str:
    """Return what tells this file from all others, by whatever path."""
    try:
        found = os.stat(path)  # noqa: PTH116 -- any kind of path
    except FileNotFoundError:
        return ""
    return f"sqlite file {found.st_dev}:{found.st_ino}"
