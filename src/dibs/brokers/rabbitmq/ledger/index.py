"""The index that a reader keeps of the ledger's stream: a SQLite file with the tables of the embedded broker.

It is a cache: whatever is wrong with the file, it is made anew from the stream. What an entry changes and the offset
behind it are one transaction, so a reader that is killed at any moment goes on exactly where it was. Should two write
at a time (one was stopped, and taken for dead), the offset that was not expected tells the later one. Knows entries;
not where they come from.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import assert_never

from dibs.brokers.rabbitmq.ledger import counting, entries, place, rows
from dibs.brokers.rabbitmq.ledger.account import CANCELLED, DONE, Account
from dibs.brokers.rabbitmq.ledger.entries import (
    Cancel,
    Dropped,
    Ended,
    Enqueued,
    Entry,
    Moved,
    Noted,
    Pause,
    Purged,
    Replayed,
)
from dibs.brokers.rabbitmq.ledger.rows import COLUMNS
from dibs.ledger import tables
from dibs.message import now_ms

_log = logging.getLogger("dibs.rabbitmq")

#: The form of the tables that only an index has.
_VERSION = 2
#: How many jobs that are told no more are remembered, so that late words of them don't bring them back.
_MOST_GONE = 200_000
#: So many jobs are forgotten at a time, after so many entries at the least.
_PRUNED, _PRUNED_EVERY = 2000, 500
#: So many jobs are looked at at a time where a whole queue is concerned.
_CHUNK = 5000
#: Larger than any number that means something.
_LARGEST = 2**60
#: Seconds to wait for another writer.
_BUSY = 2.0

_TABLES = (
    # One row. `next` is the offset of the entry to come, `digest` that of the message before it: whether the stream
    # is still the same is told by looking at that message again.
    """CREATE TABLE dibs_index (
        version INTEGER NOT NULL, stream TEXT NOT NULL, next INTEGER NOT NULL, digest BLOB
    ) STRICT""",
    # What is known of jobs beside what dibs_jobs has room for, and all that is known of those that are told no more:
    # `gone` numbers these.
    "CREATE TABLE dibs_index_beside (id TEXT PRIMARY KEY, gone INTEGER, data BLOB NOT NULL) STRICT, WITHOUT ROWID",
    "CREATE INDEX dibs_index_gone ON dibs_index_beside (gone) WHERE gone IS NOT NULL",
    # When all that was ready, and all that was dead, in a queue was deleted last.
    """CREATE TABLE dibs_index_queues (
        name TEXT PRIMARY KEY, purged INTEGER NOT NULL, dropped INTEGER NOT NULL
    ) STRICT""",
)
# All are served by the index of the ids, or the primary key.
_LOAD = f"SELECT {COLUMNS}, seq FROM dibs_jobs WHERE id IN (SELECT value FROM json_each(?))"  # noqa: S608
_LOAD_BESIDE = "SELECT id, gone, data FROM dibs_index_beside WHERE id IN (SELECT value FROM json_each(?))"
_INSERT = f"INSERT INTO dibs_jobs ({COLUMNS}, suspect) VALUES ({', '.join('?' * 22)}, 0)"  # noqa: S608
# Without the id: SQLite would write its index anew.
_UPDATE = f"UPDATE dibs_jobs SET ({COLUMNS[4:]}) = ({', '.join('?' * 21)}) WHERE seq = ?"  # noqa: S608
_DELETE = "DELETE FROM dibs_jobs WHERE seq = ?"
_PUT_BESIDE = "INSERT OR REPLACE INTO dibs_index_beside (id, gone, data) VALUES (?, ?, ?)"
_DELETE_BESIDE = "DELETE FROM dibs_index_beside WHERE id = ?"
_PUT_NOTES = "INSERT OR REPLACE INTO dibs_notes (job, progress, log) VALUES (?, ?, ?)"
_DELETE_NOTES = "DELETE FROM dibs_notes WHERE job = ?"
# Served by dibs_runs_of.
_DELETE_RUNS = "DELETE FROM dibs_runs WHERE job = ? AND ifnull(ended, 0) < ?"
_PUT_RUN = """
INSERT INTO dibs_runs (job, attempt, started, ended, worker, outcome, error)
SELECT :job, :attempt, :started, :ended, :worker, :outcome, :error
WHERE NOT EXISTS (SELECT 1 FROM dibs_runs WHERE job = :job AND attempt = :attempt AND started = :started
                  AND worker = :worker)
"""
# Served by dibs_ready, dibs_delayed and dibs_dead.
_OF_QUEUE = {
    "purged": (
        "SELECT id FROM dibs_jobs WHERE state = 0 AND queue = ?",
        "SELECT id FROM dibs_jobs WHERE state = 1 AND queue = ?",
    ),
    "dropped": ("SELECT id FROM dibs_jobs WHERE state = 3 AND queue = ?",),
}
# Served by dibs_over.
_OVER = "SELECT id FROM dibs_jobs WHERE state IN (4, 5) AND state >= 4 AND ended + keep <= ? LIMIT ?"
# Served by dibs_index_gone.
_FORGET_GONE = "DELETE FROM dibs_index_beside WHERE gone IS NOT NULL AND gone < ?"


class Overtaken(Exception):
    """Somebody else has written to the index, or made it anew. What was to be written is there, or will be."""


class Index:
    """The one writer of an index. Used by one thread."""

    def __init__(self, path: Path, stream: str) -> None:
        """Open the index; make it where there is none, or none that can be used.

        Args:
            path: of the file. Whoever opens it keeps other writers out.
            stream: what it is an index of.

        Raises:
            sqlite3.Error, OSError: it can't be made.
        """
        self.path = path
        self._stream = stream
        #: The offset of the entry to come.
        self.next = 0
        #: Of the message before it; None: there is none.
        self.digest: bytes | None = None
        #: How many entries were read since something was forgotten.
        self._unpruned = 0
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            self._open()
        except (sqlite3.DatabaseError, _Unusable) as error:
            if path.exists():
                place.refuse_other(path)
                _log.info("The index of the ledger can't be used, and is made anew. path=%s error=%s", path, error)
            self.make_anew()

    def make_anew(self) -> None:
        """Begin with an empty one."""
        self.close()
        place.remove(self.path)
        os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        self._connection = _connect(self.path)
        self._connection.execute("PRAGMA journal_mode = WAL")
        with self._transaction():
            tables.create(self._connection)
            for statement in _TABLES:
                self._connection.execute(statement)
            self._connection.execute("INSERT INTO dibs_index VALUES (?, ?, 0, NULL)", (_VERSION, self._stream))
        self._prepare()

    def apply(self, batch: list[tuple[int, bytes]]) -> None:
        """Take in messages of the stream, and that they were.

        Raises:
            Overtaken: somebody else has written meanwhile.
            sqlite3.Error: it can't be written.
        """
        said = [entry for _, body in batch for entry in entries.decode(body)]
        offset, body = batch[-1]
        try:
            self._write(said, offset + 1, digest_of(body))
        except OverflowError:  # anybody may have written it
            self._prepare()
            self._write([entry for entry in said if _is_sound(entry)], offset + 1, digest_of(body))

    def close(self) -> None:
        """Close the file. Safe to call twice."""
        connection: sqlite3.Connection | None = getattr(self, "_connection", None)
        if connection is not None:
            connection.close()

    def _open(self) -> None:
        if not self.path.exists():
            raise _Unusable("there is none")
        self._connection = _connect(self.path)
        row = self._connection.execute("SELECT version, stream, next, digest FROM dibs_index").fetchone()
        version = self._connection.execute("SELECT version FROM dibs_meta").fetchone()
        if row is None or row[:2] != (_VERSION, self._stream) or version != (tables.SCHEMA_VERSION,):
            raise _Unusable(f"it is {row and row[:2]} of tables {version}, not {(_VERSION, self._stream)}")
        self._prepare()

    def _prepare(self) -> None:
        execute = self._connection.execute
        self.next, self.digest = execute("SELECT next, digest FROM dibs_index").fetchone()
        self._inode = self.path.stat().st_ino
        self._gone = 1 + (
            execute("SELECT max(gone) FROM dibs_index_beside WHERE gone IS NOT NULL").fetchone()[0] or 0
        )
        self._has_beside = execute("SELECT 1 FROM dibs_index_beside LIMIT 1").fetchone() is not None
        #: When each queue was purged, and its dead letters dropped, last.
        self._marks: dict[str, tuple[int, int]] = {
            name: (purged, dropped) for name, purged, dropped in execute("SELECT * FROM dibs_index_queues")
        }
        self._queues = {name for (name,) in execute("SELECT name FROM dibs_queues")}

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def _write(self, said: Sequence[Entry], following: int, digest: bytes) -> None:
        now = now_ms()
        with self._transaction():
            place = self._connection.execute("SELECT next FROM dibs_index").fetchone()
            if place != (self.next,) or not self._is_in_place():
                raise Overtaken
            self._add(said, now)
            self._unpruned += len(said)
            if self._unpruned >= _PRUNED_EVERY:
                self._prune(now)
            self._connection.execute("UPDATE dibs_index SET next = ?, digest = ?", (following, digest))
        self.next, self.digest = following, digest

    def _is_in_place(self) -> bool:
        try:
            return self.path.stat().st_ino == self._inode
        except FileNotFoundError:
            return False

    def _add(self, said: Iterable[Entry], now: int) -> None:
        words: list[tuple[str, Entry]] = []
        wide: dict[tuple[str, str], None] = {}
        for entry in said:
            match entry:
                case Enqueued() | Ended() | Noted():
                    words.append((entry.id, entry))
                case Replayed():
                    words += [(job_id, entry) for job_id in entry.ids]
                case Dropped(ids=None):
                    self._mark(entry.queue, dropped=entry.at)
                    wide[entry.queue, "dropped"] = None
                case Dropped():
                    words += [(job_id, entry) for job_id in entry.ids or ()]
                case Purged():
                    self._mark(entry.queue, purged=entry.at)
                    wide[entry.queue, "purged"] = None
                case Cancel() | Pause():
                    pass  # belongs into the other stream
                case Moved():
                    pass  # each of them has told that it was handed over
                case _:
                    assert_never(entry)
        words = [(job_id, entry) for job_id, entry in words if "\0" not in job_id]  # SQLite's JSON can't carry it
        for start in range(0, len(words), _CHUNK):
            self._add_words(words[start : start + _CHUNK], now)
        for queue, what in wide:
            self._reconsider(queue, what, now)

    def _add_words(self, words: list[tuple[str, Entry]], now: int) -> None:
        books = self._load(dict.fromkeys(job_id for job_id, _ in words))  # in order: new ones get their places so
        for job_id, entry in words:
            account = books[job_id]
            kind = type(entry)
            if kind is Ended:
                account.add_ended(entry)  # type: ignore[arg-type]  # `match` costs ten times as much
            elif kind is Enqueued:
                account.add_enqueued(entry)  # type: ignore[arg-type]
            elif kind is Noted:
                account.add_noted(entry)  # type: ignore[arg-type]
            elif isinstance(entry, Replayed):
                account.add_replayed(entry.at, entry.queue)
            elif isinstance(entry, Dropped):
                account.add_dropped(entry.at)
        ends = [(entry, books[job_id]) for job_id, entry in words if isinstance(entry, Ended)]
        counting.count(self._connection, ends, now)
        self._store(books.values(), now)

    def _load(self, ids: Collection[str]) -> dict[str, Account]:
        """Return the accounts of these jobs, new ones among them."""
        named = json.dumps(list(ids))
        books: dict[str, Account] = {}
        for row in self._connection.execute(_LOAD, (named,)):
            books[row[0]] = rows.from_columns(row, row[22])
        if self._has_beside:
            for job_id, _, data in self._connection.execute(_LOAD_BESIDE, (named,)):
                beside = rows.DECODER.decode(data)
                if beside.columns is not None:
                    books[job_id] = rows.from_columns(beside.columns, None)
                rows.add_beside(books.setdefault(job_id, Account(job_id)), beside)
        for job_id in ids:
            if job_id not in books:
                books[job_id] = Account(job_id)
        return books

    def _store(self, accounts: Iterable[Account], now: int) -> None:
        inserted, updated, deleted = [], [], []
        beside: list[tuple[str, int | None, bytes]] = []
        plain: list[tuple[str]] = []
        noted: list[Account] = []
        for account in accounts:
            purged, dropped = self._marks.get(account.queue or "", (0, 0))
            is_gone = account.is_gone(now, purged, dropped)
            if account.queue is not None and account.queue not in self._queues:
                self._name(account.queue)
            if account.seq is not None and (is_gone or account.is_anew):
                deleted.append((account.seq,))
                account.seq = None
            if is_gone:
                beside.append((account.id, self._gone, rows.to_beside(account, is_gone=True)))
                self._gone += 1
            elif account.is_rare:
                beside.append((account.id, None, rows.to_beside(account, is_gone=False)))
            elif account.has_beside:
                plain.append((account.id,))
            if account.is_rare or account.has_beside or account.forget_runs_before or account.runs:
                noted.append(account)
            if not is_gone:
                row = rows.to_columns(account, now)
                if account.seq is None:
                    inserted.append(row)
                else:
                    updated.append((*row[1:], account.seq))
        many = self._connection.executemany
        many(_DELETE, deleted)
        many(_UPDATE, updated)
        many(_INSERT, inserted)
        if beside or plain:
            many(_PUT_BESIDE, beside)
            many(_DELETE_BESIDE, plain)
            self._has_beside = True
        if noted or deleted:
            self._store_lives(noted, {row[0] for row in beside if row[1] is not None})

    def _store_lives(self, accounts: Collection[Account], gone: Collection[str]) -> None:
        """Store runs, progress and logs."""
        many = self._connection.executemany
        # What was purged or dropped may come back, when it turns out that it was running, or replayed. What is over
        # for so long that it was forgotten may not.
        past = {a.id for a in accounts if a.id in gone and a.state in {DONE, CANCELLED}}
        tables.forget_lives(self._connection, past)
        living = [a for a in accounts if a.id not in past]
        told = [a for a in living if a.id not in gone]
        many(_DELETE_NOTES, [(a.id,) for a in living if a.id in gone])
        many(_DELETE_RUNS, [(a.id, a.forget_runs_before) for a in living if a.forget_runs_before])
        columns = ("attempt", "started", "ended", "worker", "outcome", "error")
        many(_PUT_RUN, [dict(zip(columns, run, strict=True), job=a.id) for a in living for run in a.runs])
        many(
            _PUT_NOTES,
            [
                (a.id, a.progress and a.progress[1].decode("utf-8", "replace"), a.log and json.dumps(a.log[1]))
                for a in told
                if a.progress or a.log
            ],
        )
        many(_DELETE_NOTES, [(a.id,) for a in told if not (a.progress or a.log)])

    def _mark(self, queue: str, *, purged: int = 0, dropped: int = 0) -> None:
        before = self._marks.get(queue, (0, 0))
        marks = max(before[0], purged), max(before[1], dropped)
        self._marks[queue] = marks
        self._connection.execute("INSERT OR REPLACE INTO dibs_index_queues VALUES (?, ?, ?)", (queue, *marks))

    def _name(self, queue: str) -> None:
        self._queues.add(queue)
        self._connection.execute("INSERT OR IGNORE INTO dibs_queues (name) VALUES (?)", (queue,))

    def _reconsider(self, queue: str, what: str, now: int) -> None:
        """Look again at all jobs of a queue that was purged, or whose dead letters were dropped."""
        ids = [job_id for select in _OF_QUEUE[what] for (job_id,) in self._connection.execute(select, (queue,))]
        for start in range(0, len(ids), _CHUNK):
            self._store(self._load(ids[start : start + _CHUNK]).values(), now)

    def _prune(self, now: int) -> None:
        """Forget some of what was over for longer than it is to be kept."""
        self._unpruned = 0
        execute = self._connection.execute
        ids = [job_id for (job_id,) in execute(_OVER, (now, _PRUNED))]
        if ids:
            self._store(self._load(ids).values(), now)
        execute(_FORGET_GONE, (self._gone - _MOST_GONE,))


def _is_sound(entry: Entry) -> bool:
    """Tell whether the numbers of an entry are ones that can be stored."""
    values = (getattr(entry, name) for name in entry.__struct_fields__)
    return all(not isinstance(value, int) or -_LARGEST < value < _LARGEST for value in values)


def digest_of(body: bytes) -> bytes:
    """Return what tells a message from others."""
    return hashlib.blake2b(body, digest_size=8).digest()


class _Unusable(Exception):
    """The file is no index, or not this one."""


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_BUSY, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA synchronous = OFF")  # it is a cache: what a power cut damages is made anew
    connection.execute("PRAGMA cache_size = -65536")
    connection.execute("PRAGMA wal_autocheckpoint = 4000")
    return connection
