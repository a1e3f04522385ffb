"""Who is alive, told by locks that the kernel releases, and taking over from the dead.

A worker is a row and a lock file; it is locked before the row can be seen and until the worker and all its
executors are gone. Whoever gets the lock of another one holds it while it takes over, so two never do. A lock file
that is missing, not the one that was locked or another user's proves nothing: such a worker is reported, and left
alone. If it lives it makes its file anew.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from dibs.brokers.sqlite import cancels
from dibs.brokers.sqlite.commits import ADD_QUEUE
from dibs.brokers.sqlite.ring import HAS_EPOLL, Ring
from dibs.brokers.sqlite.store import Store
from dibs.brokers.sqlite.waiting import Waiters
from dibs.brokers.sqlite.wake import MEMBERS, Board, fifo_path, poke
from dibs.errors import BrokerError, StoreGone
from dibs.message import now_ms

_LOG = logging.getLogger("dibs.sqlite")
_BOOT = Path("/proc/sys/kernel/random/boot_id")

#: Bits of a receipt that number a worker's claims. 40 of them last 3 years at 10,000 claims a second, and leave
#: room for 8 million workers.
CLAIM_BITS = 40
#: Seconds between looks at all workers.
_LOOK_EVERY = 5.0 if HAS_EPOLL else 0.25
#: The same for so long after a worker's FIFO was closed: its lock is let go of a moment later, or someone else
#: is taking over from it.
_LOOK_SOON, _HURRY = 0.02, 1.0

#: How many workers watch each one.
_NEIGHBOURS = 2

_FREE_SLOT = """
SELECT min(slot) + 1 FROM (SELECT -1 AS slot UNION ALL SELECT slot FROM dibs_workers)
WHERE slot + 1 NOT IN (SELECT slot FROM dibs_workers)
"""
_ADD = """
INSERT INTO dibs_workers (slot, host, pid, boot, started, lock, queues) VALUES (?, ?, ?, ?, ?, '', ?) RETURNING id
"""
_SET_LOCK = "UPDATE dibs_workers SET lock = ? WHERE id = ?"
_REMOVE = "DELETE FROM dibs_workers WHERE id = ?"
_OTHERS = "SELECT id, host, pid, boot, lock, queues FROM dibs_workers WHERE id <> ? ORDER BY id"
# Each is served by dibs_running: one worker's receipts are a range.
_ADD_LOST_RUNS = """
INSERT INTO dibs_runs (job, attempt, started, ended, worker, outcome)
SELECT id, attempt, started, ?, ?, 'lost' FROM dibs_jobs
WHERE state = 2 AND receipt BETWEEN ? AND ? AND started IS NOT NULL
"""
_GIVE_BACK = """
UPDATE dibs_jobs SET state = 0, receipt = NULL, started = NULL, returns = returns + ?
WHERE state = 2 AND receipt BETWEEN ? AND ? RETURNING queue
"""


class Standing(Enum):
    """What is known about a worker."""

    ALIVE = "alive"
    DEAD = "dead"
    #: Its lock file is missing, another one or can't be opened.
    UNKNOWN = "unknown"


class Worker(NamedTuple):
    """A worker's row."""

    id: int
    host: str
    pid: int
    boot: str
    lock: str
    queues: str


class Membership:
    """One worker among the others of its database. Used by one thread."""

    def __init__(
        self, store: Store, connection: sqlite3.Connection, board: Board, waiters: Waiters, queues: Sequence[str]
    ) -> None:
        self._store = store
        self._connection = connection
        self._board = board
        self._waiters = waiters
        self._next_look = self._hurry_until = 0.0
        self._reported: set[int] = set()
        #: Shown to people: host and process.
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        with store.write(connection):
            connection.executemany(ADD_QUEUE, [(name,) for name in queues])
            (self.slot,) = connection.execute(_FREE_SLOT).fetchone()
            self.id, self.lock = self._lock_new_id(json.dumps(list(queues)))
        try:
            with store.read():
                self._ring = Ring(store.directory, self.id)  # after the commit: a look before it finds the lock taken
        except BrokerError:
            os.close(self.lock)
            raise
        self._tell_predecessors(self.id)

    def fileno(self) -> int:
        """Readable when there is something to tend to, or perhaps a job."""
        return self._ring.fileno()

    def keep_open(self) -> Sequence[int]:
        """Descriptors that say "alive" while any process has them."""
        return (self.lock, self._ring.fifo)

    def timeout(self) -> float:
        """Seconds until `tend` should look at all workers again."""
        return max(0.0, self._next_look - time.monotonic())

    def tend(self) -> bool:
        """See to what was told through the FIFO, and look at all others when it is time.

        Returns whether to look for jobs that are to be cancelled: so it was told, or it is time to.
        """
        news = self._ring.drain()
        is_time = time.monotonic() >= self._next_look
        if news.has_changed or news.has_gone or is_time:
            if news.has_gone:
                self._hurry_until = time.monotonic() + _HURRY
            self._look()
        return news.has_cancels or is_time

    def leave(self) -> None:
        """Give back what is held, and go. Costs the jobs nothing.

        Where the file can't be written the lock is let go of all the same, and others take over as from the dead.
        Nothing is said of one that is gone: that is why the owner leaves.
        """
        try:
            with self._store.write(self._connection):
                queues, cancelled = _give_back(self._connection, self.id, returns=0)
                self._connection.execute(_REMOVE, (self.id,))
            self._waiters.wake(cancelled)
            self._board.clear(self.slot)
            if queues:
                self._board.wake(set(queues), len(queues))
            self._tell_predecessors(self.id)
            _remove_files(self._store.directory, self.id)
        except StoreGone:
            return
        except BrokerError as error:
            _LOG.warning("A worker could not give back its jobs, others will take them over: error=%s", error)
        finally:
            self._ring.close()
            os.close(self.lock)

    def _lock_new_id(self, queues: str) -> tuple[int, int]:
        """Insert the row and lock its file. Ids whose lock is taken belong to an older database of this name."""
        boot = _boot()
        while True:
            values = (self.slot, socket.gethostname(), os.getpid(), boot, now_ms(), queues)
            (worker,) = self._connection.execute(_ADD, values).fetchone()
            descriptor = _lock(lock_path(self._store.directory, worker))
            if descriptor is None:
                self._connection.execute(_REMOVE, (worker,))
                continue
            self._connection.execute(_SET_LOCK, (_identity(descriptor), worker))
            return worker, descriptor

    def _look(self) -> None:
        """Take over from whoever is dead; watch the next ones that are not."""
        self._store.check(self._connection)
        if not self._has_lock_file():
            self._renew_lock()
        others = self._others()
        self._ring.watch(_neighbours(self.id, others))  # first: who dies from now on is told
        taken_over = [worker for worker in others if self._examine(worker)]
        if taken_over:
            self._ring.watch(_neighbours(self.id, self._others()))
            self._hurry_until = 0.0
        now = time.monotonic()
        self._next_look = now + (_LOOK_SOON if now < self._hurry_until else _LOOK_EVERY)

    def _has_lock_file(self) -> bool:
        try:
            found = lock_path(self._store.directory, self.id).stat()
        except OSError:
            return False
        return f"{found.st_dev}:{found.st_ino}" == _identity(self.lock)

    def _renew_lock(self) -> None:
        """Lock another file, as the one that others would look at is not there any more.

        Executors keep the old one. So their last moments are not waited for, should this worker die from now on.
        """
        with self._store.read():
            self._store.directory.mkdir(mode=0o700, exist_ok=True)
            descriptor = _lock(lock_path(self._store.directory, self.id))
        if descriptor is None:
            return  # someone looks at it just now; next time, then
        try:
            with self._store.write(self._connection):
                self._connection.execute(_SET_LOCK, (_identity(descriptor), self.id))
        except BaseException:
            os.close(descriptor)
            raise
        old, self.lock = self.lock, descriptor
        os.close(old)
        _LOG.warning(
            "This worker's lock file was removed or replaced; it has made another one. Others may notice its death, "
            "and it new jobs, seconds late until it is restarted: worker=%d lock=%s",
            self.id,
            lock_path(self._store.directory, self.id),
        )

    def _others(self) -> list[Worker]:
        with self._store.read():
            return [Worker(*row) for row in self._connection.execute(_OTHERS, (self.id,))]

    def _examine(self, worker: Worker) -> bool:
        """Take over from `worker` if it is dead; tell whether that was done."""
        with examine(self._store.directory, worker) as standing:
            if standing is Standing.DEAD:
                return self._take_over(worker)
        if standing is Standing.UNKNOWN and worker.id not in self._reported:
            self._reported.add(worker.id)
            _LOG.warning(
                "Nobody can tell whether a worker lives: its lock file is missing, was replaced or can't be opened. "
                'What it holds stays with it until it ends in order. If it is dead, say so: sqlite3 %s "UPDATE '
                "dibs_workers SET boot = 'over' WHERE id = %d\" worker=%d host=%s pid=%d lock=%s",
                self._store.path,
                worker.id,
                worker.id,
                worker.host,
                worker.pid,
                lock_path(self._store.directory, worker.id),
            )
        return False

    def _take_over(self, worker: Worker) -> bool:
        with self._store.write(self._connection):
            if self._connection.execute(_REMOVE, (worker.id,)).rowcount == 0:
                return False  # another one was first
            name = f"{worker.host}:{worker.pid}"
            self._connection.execute(_ADD_LOST_RUNS, (now_ms(), name, *receipts_of(worker.id)))
            queues, cancelled = _give_back(self._connection, worker.id, returns=1)
        _remove_files(self._store.directory, worker.id)
        self._waiters.wake(cancelled)
        if queues:
            _LOG.warning(
                "A worker died, its jobs go to others: worker=%d host=%s pid=%d jobs=%d",
                worker.id,
                worker.host,
                worker.pid,
                len(queues),
            )
            self._board.wake(set(queues), len(queues))
        self._tell_predecessors(worker.id)
        return True

    def _tell_predecessors(self, worker: int) -> None:
        """Tell those before `worker` in the ring that they have another one to watch."""
        for before in _neighbours(worker, self._others()[::-1], is_backwards=True):
            poke(fifo_path(self._store.directory, before), MEMBERS)


@contextmanager
def examine(directory: Path, worker: Worker) -> Iterator[Standing]:
    """Find out whether a worker lives. If it is dead, its lock is held until the end of the block.

    Where the lock file proves nothing, the machine may: nobody has lived through a restart of it, and a WAL can't
    be shared by two machines.
    """
    is_earlier = bool(worker.boot) and bool(_boot()) and worker.boot != _boot()
    unproven = Standing.DEAD if is_earlier else Standing.UNKNOWN
    try:
        descriptor = os.open(lock_path(directory, worker.id), os.O_RDWR | os.O_CLOEXEC)
    except OSError:  # missing; another user's
        yield unproven
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        yield Standing.ALIVE
        return
    try:
        yield Standing.DEAD if _identity(descriptor) == worker.lock else unproven
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def lock_path(directory: Path, worker: int) -> Path:
    """Return where that worker's lock file is."""
    return directory / f"{worker}.lock"


def snapshot_path(directory: Path, worker: int) -> Path:
    """Return where that worker's snapshot is."""
    return directory / f"{worker}.json"


def _lock(path: Path) -> int | None:
    """Open and lock this file, made where there is none; None: another process has it locked."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _remove_files(directory: Path, worker: int) -> None:
    """Remove the files of a worker that is gone. What can't be removed harms nobody: ids are never given twice."""
    for path in (lock_path(directory, worker), fifo_path(directory, worker), snapshot_path(directory, worker)):
        with suppress(OSError):
            path.unlink()


def receipts_of(worker: int) -> tuple[int, int]:
    """Return the first and the last receipt that this worker can have made."""
    return worker << CLAIM_BITS, (worker + 1 << CLAIM_BITS) - 1


def _give_back(connection: sqlite3.Connection, worker: int, *, returns: int) -> tuple[list[str], list[str]]:
    """Make ready what this worker holds, but cancel what is to be cancelled.

    Returns the queue of each job, and the ids of those that are cancelled.
    """
    queues = [queue for (queue,) in connection.execute(_GIVE_BACK, (returns, *receipts_of(worker))).fetchall()]
    return queues, cancels.carry_out(connection) if queues and cancels.asked(connection) else []


def _neighbours(worker: int, others: Sequence[Worker], *, is_backwards: bool = False) -> list[int]:
    """Return the next ones in the ring. `others` are in its order, or against it."""
    ids = [other.id for other in others if other.id != worker]
    further = [each for each in ids if (each < worker if is_backwards else each > worker)]
    return (further + [each for each in ids if each not in further])[:_NEIGHBOURS]


def _identity(descriptor: int) -> str:
    found = os.fstat(descriptor)
    return f"{found.st_dev}:{found.st_ino}"


def _boot() -> str:
    """Return which run of the machine this is, or "" where that can't be told."""
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return ""
