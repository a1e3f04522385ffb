"""The database file, as one process has it open: connections, write transactions, checkpoints.

Promises that a write transaction stands in line, is rolled back whatever happens, and runs only on a schema that
this version knows; that the driver's errors leave as dibs' own. Knows nothing of jobs.
"""

from __future__ import annotations

import ctypes
import operator
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from dibs.brokers.sqlite import migration
from dibs.brokers.sqlite.errors import Busy, translate, translated
from dibs.brokers.sqlite.files import Files, has_removed_index
from dibs.brokers.sqlite.filesystem import check_filesystem
from dibs.brokers.sqlite.line import Line
from dibs.brokers.sqlite.locks import holders
from dibs.errors import BrokerBusy, StoreGone, StoreUnusable
from dibs.ledger import tables
from dibs.ledger.tables import SCHEMA_VERSION

#: STRICT tables; RETURNING is from 3.35.
_OLDEST_SQLITE = (3, 37, 0)
#: Pages that this process may write before it copies the WAL into the database. Larger means rarer fsyncs of the
#: database file; reading slows down as the WAL grows.
_CHECKPOINT_PAGES = 1000
_PAGE_BYTES = 4096

_VERSION = "SELECT version FROM dibs_meta"
_TABLES = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite^_%' ESCAPE '^'"


class Store:
    """One database file, opened. Shared by the threads of one process; a forked child must make its own."""

    def __init__(self, path: Path, *, timeout: float, may_create: bool, may_share: bool, is_checked: bool) -> None:
        """Open the file, and make it or its tables where that is allowed.

        Args:
            path: of the database; symbolic links are resolved, as the files beside it must be found by all.
            timeout: seconds that a write may wait for others.
            may_create: make the file, should it not exist.
            may_share: make the tables, should the file have other tables and none of dibs'.
            is_checked: refuse network file systems.

        Raises:
            StoreUnusable: says what is wrong with the file.
        """
        self.pid = os.getpid()
        self.path = Path(os.path.realpath(path))
        self.directory = self.path.with_name(self.path.name + "-run")
        self._timeout = timeout
        #: Each with the seconds that a write on it waits for others.
        self._connections: dict[sqlite3.Connection, float] = {}
        self._checkpoint_mutex = threading.Lock()
        #: Another file has come to stand at `path`, or none: this one leads to jobs that nobody will find.
        self.is_replaced = False
        _check_place(self.path, may_create=may_create)
        if is_checked:
            check_filesystem(self.path.parent)
        if has_removed_index(self.path):
            raise StoreGone(self._torn_text(f"{self.path}-shm"))
        with translated(self.path):
            self._look()
            self.directory.mkdir(mode=0o700, exist_ok=True)
            self.line = Line(self.directory)
            try:
                #: Open as long as the store is, so that its WAL stays; takes the write lock while a checkpoint runs.
                self._gate = self.connect(synchronous="FULL")
                self._prepare(self._gate, may_share=may_share)
            except BaseException:
                for connection in self._connections:
                    connection.close()
                self.line.close()
                raise
            self._gate.execute("PRAGMA busy_timeout = 0")
            self._files = Files(self.path)
            self._pages = _wal_pages(self.path)
        weakref.finalize(self, _end, self._connections, self._files)

    def connect(self, *, synchronous: Literal["FULL", "NORMAL"]) -> sqlite3.Connection:
        """Return a new connection. It ends with the store, or by `disconnect`."""
        connection = sqlite3.connect(
            f"{self.path.as_uri()}?mode=rw",
            uri=True,
            timeout=self._timeout,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=128,
        )
        self._connections[connection] = self._timeout
        # Another program may store text that is no UTF-8, and one such row would stop the whole queue.
        connection.text_factory = operator.methodcaller("decode", "utf-8", "backslashreplace")
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        # Before 3.51.3 a checkpoint that overlaps with another connection's commit can corrupt the WAL
        # (https://sqlite.org/wal.html#walresetbug), so none happens by itself: see `_checkpoint`.
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute("PRAGMA cache_size = -16384")
        return connection

    def disconnect(self, connection: sqlite3.Connection) -> None:
        """Close a connection that `connect` returned."""
        del self._connections[connection]
        connection.close()

    def limit_waiting(self, connection: sqlite3.Connection, seconds: float) -> None:
        """Let a write on this connection wait so long for others at the most; never longer than `timeout`."""
        self._connections[connection] = seconds = min(seconds, self._timeout)
        connection.execute(f"PRAGMA busy_timeout = {int(seconds * 1000)}")

    @contextmanager
    def write(self, connection: sqlite3.Connection, *, size: int = 0) -> Iterator[None]:
        """Run a write transaction: committed at the end of the block, rolled back if anything is raised.

        Args:
            connection: one of this store's, in no other thread's hands.
            size: about how many bytes are written, to know when a checkpoint is due.

        Raises:
            BrokerBusy: others held the write lock all the time; names them where the system can tell.
            StoreUnusable: the file or its disk; `StoreGone` if it is not the one that was opened any more.
        """
        timeout = self._connections[connection]
        deadline = time.monotonic() + timeout
        try:  # one context manager for all of it: a hand-over of one job feels each
            self.line.enter(deadline)
            try:
                self._begin(connection, deadline, timeout)
                try:
                    self._check_files()
                    self.check_version(connection)
                    yield
                    connection.execute("COMMIT")
                except BaseException:
                    _roll_back(connection)
                    raise
                self._count(connection, size)
            finally:
                self.line.leave()
        except Busy as busy:
            raise BrokerBusy(self._busy_text(timeout)) from busy
        except StoreGone:
            self._rescue(connection)
            raise
        except (sqlite3.Error, OSError) as error:
            raise translate(error, self.path) from error

    @contextmanager
    def read(self) -> Iterator[None]:
        """Translate the errors of reads inside the block."""
        with translated(self.path):
            yield

    def check(self, connection: sqlite3.Connection) -> None:
        """Raise if the files or the schema are not those that were opened. For one who only reads."""
        try:
            with self.read():
                self._check_files()
                self.check_version(connection)
        except StoreGone:
            self._rescue(connection)
            raise

    def check_version(self, connection: sqlite3.Connection | sqlite3.Cursor) -> None:
        """Raise if the schema is not the one that this process opened.

        Raises:
            StoreGone: another version of dibs has changed it.
        """
        found = _version_of(connection)
        if found != SCHEMA_VERSION:
            raise StoreGone(
                f"{self.path} was changed to schema version {found} while it was open; this process knows version "
                f"{SCHEMA_VERSION}. Nothing was stored. Restart it with the dibs that changed the file."
            )

    def close(self) -> None:
        """Close all connections. The last one to close, of all processes, empties and removes the WAL."""
        if self._files.is_torn():
            _leave_open(self._connections)
        else:
            for connection in self._connections:
                connection.close()
        self._connections.clear()
        self.line.close()

    def abandon(self) -> None:
        """Forget, in a forked child, what is the parent's.

        Its connections are never closed: that could remove the WAL under the parent's hands.
        """
        _leave_open(self._connections)
        self.line.forget()

    def _check_files(self) -> None:
        """Raise if other files stand at the paths, or none."""
        changed = self._files.find_changed()
        if changed is None:
            return
        self.is_replaced = changed == str(self.path)
        if self.is_replaced:
            raise StoreGone(
                f"{self.path} was removed or replaced while it was open: nothing was stored. Producers open the new "
                "file by themselves with the next call; restart the workers."
            )
        raise StoreGone(self._torn_text(changed))

    def _prepare(self, connection: sqlite3.Connection, *, may_share: bool) -> None:
        """Bring the file into WAL mode and see that it has dibs' tables, in this version's form."""
        try:
            if not self._is_prepared(connection):  # rarely: the write lock is needed, which others may hold for long
                deadline = time.monotonic() + self._timeout
                with self.line.turn(deadline):
                    self._check_owner(connection, may_share=may_share)
                    connection.execute("PRAGMA journal_mode = WAL")
                    self._begin(connection, deadline, self._timeout)
                    try:
                        if not _has_tables(connection):
                            tables.create(connection)
                        elif _version_of(connection) == migration.OLDER:
                            self._migrate(connection)
                        connection.execute("COMMIT")
                    except BaseException:
                        _roll_back(connection)
                        raise
        except Busy as busy:
            raise BrokerBusy(self._busy_text(self._timeout)) from busy
        self._check_known(connection)

    def _check_known(self, connection: sqlite3.Connection) -> None:
        """Raise for a schema of another version than this one's."""
        found = _version_of(connection)
        if found != SCHEMA_VERSION:
            raise StoreUnusable(
                f"{self.path} has schema version {found}; this dibs knows version {SCHEMA_VERSION} only. Another "
                "dibs has written it: use that one here, or name another file in DIBS_URL. Nothing was changed."
            )

    def _look(self) -> None:
        """Raise for a file that is no database, before anything is made beside it.

        SQLite itself must look: a file that is opened and closed past it loses this process's locks on it.
        """
        connection = self.connect(synchronous="FULL")
        try:
            _has_tables(connection)
        finally:
            self.disconnect(connection)

    def _is_prepared(self, connection: sqlite3.Connection) -> bool:
        is_wal = connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        return is_wal and _has_tables(connection) and _version_of(connection) != migration.OLDER

    def _check_owner(self, connection: sqlite3.Connection, *, may_share: bool) -> None:
        tables = sorted(name for (name,) in connection.execute(_TABLES))
        if tables and not may_share and not _has_tables(connection):
            raise StoreUnusable(
                f"{self.path} is a SQLite database but not dibs': it has the tables {', '.join(tables[:5])}. Name "
                "another file in DIBS_URL, or add ?share=1 if dibs shall make its tables (dibs_…) in there."
            )

    def _migrate(self, connection: sqlite3.Connection) -> None:
        reader = self.connect(synchronous="FULL")
        try:
            migration.migrate(connection, reader, self.path)
        finally:
            self.disconnect(reader)

    def _begin(self, connection: sqlite3.Connection, deadline: float, timeout: float) -> None:
        if connection.in_transaction:  # an earlier rollback failed, with a broken disk for instance
            connection.execute("ROLLBACK")
        left = deadline - time.monotonic()
        is_late = left < timeout * 0.99
        if is_late:
            connection.execute(f"PRAGMA busy_timeout = {max(0, int(left * 1000))}")
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
                raise Busy from error
            raise
        finally:
            if is_late:
                connection.execute(f"PRAGMA busy_timeout = {int(timeout * 1000)}")

    def _count(self, connection: sqlite3.Connection, size: int) -> None:
        """Count what was written, by estimate: a commit touches a few pages of each index besides its rows."""
        self._pages += 4 + size // _PAGE_BYTES
        if self._pages >= _CHECKPOINT_PAGES:
            self._pages = 0
            with suppress(sqlite3.Error):  # the jobs are stored; the next checkpoint does this one's work
                self._checkpoint(connection)

    def _checkpoint(self, connection: sqlite3.Connection) -> None:
        """Copy the WAL into the database, while holding the write lock on another connection.

        So no commit of anyone can overlap with it, be it a process that passed over the line or another program.
        """
        with self._checkpoint_mutex:
            self._gate.execute("BEGIN IMMEDIATE")
            try:
                if self._files.find_changed() is None or self._files.has_lost_wal():
                    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            finally:
                _roll_back(self._gate)

    def _rescue(self, connection: sqlite3.Connection) -> None:
        """Bring what was committed into a -wal that has been removed back into the database, while that is safe."""
        with suppress(sqlite3.Error):
            self._checkpoint(connection)

    def _torn_text(self, changed: str) -> str:
        return (
            f"{changed} was removed or replaced while {self.path} was open: nothing was stored. Restart this program "
            "and every other one that had the database open; remove no more files."
        )

    def _busy_text(self, timeout: float) -> str:
        shm = self.path.with_name(self.path.name + "-shm")
        pids = holders(shm, at=120)  # the byte of the WAL's write lock, https://sqlite.org/walformat.html
        who = f"by process {', '.join(map(str, pids))}" if pids else "by another program"
        return (
            f"{self.path} was locked {who} for {timeout:g} s: nothing was stored. If that process is stopped, "
            "let it go on or end it; else try again later."
        )


def _check_place(path: Path, *, may_create: bool) -> None:
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise StoreUnusable(
            f"This Python has SQLite {sqlite3.sqlite_version}; dibs needs 3.37 or newer. Use a newer Python build."
        )
    if path.is_dir():
        raise StoreUnusable(f"{path} is a directory. Name a file in DIBS_URL, such as sqlite:///{path}/dibs.db.")
    if not path.parent.is_dir():
        raise StoreUnusable(f"The directory {path.parent} does not exist. Make it, or correct DIBS_URL.")
    if path.exists():
        return
    if not may_create:
        raise StoreUnusable(
            f"There is no database {path}. Start a worker, which makes it, or set DIBS_URL to the one that you mean."
        )
    with translated(path):
        # SQLite gives the -wal and -shm files the database's own mode.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def _has_tables(connection: sqlite3.Connection) -> bool:
    return ("dibs_meta",) in connection.execute(_TABLES).fetchall()


def _version_of(connection: sqlite3.Connection | sqlite3.Cursor) -> int | None:
    row = connection.execute(_VERSION).fetchone()
    return row[0] if row else None


def _end(connections: Iterable[sqlite3.Connection], files: Files) -> None:
    """See to connections that nobody has closed before Python ends."""
    if files.is_torn():
        _leave_open(connections)


def _leave_open(connections: Iterable[sqlite3.Connection]) -> None:
    """Never close these: one more reference each keeps them from being collected. Their locks end with the process.

    The last connection to close brings its WAL into the database and removes the file at the WAL's path. SQLite sees
    to it that the database is still the one that it opened; with another WAL than its own it does harm.
    """
    for connection in connections:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


def _roll_back(connection: sqlite3.Connection) -> None:
    """End the transaction. Some errors have ended it already; a failing one is ended by the next `_begin`."""
    if connection.in_transaction:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")


def _wal_pages(path: Path) -> int:
    """Return how long the WAL is, so that processes too short-lived to fill it still come to empty it."""
    try:
        return path.with_name(path.name + "-wal").stat().st_size // _PAGE_BYTES
    except FileNotFoundError:
        return 0
