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
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import msgspec

from dibs.brokers.rabbitmq.ledger import entries
from dibs.brokers.rabbitmq.ledger.account import CANCELLED, DELAYED, DONE, READY, Account
from dibs.brokers.rabbitmq.ledger.entries import Dropped, Ended, Enqueued, Entry, Noted, Purged, Replayed
from dibs.ledger import tables
from dibs.message import now_ms

_log = logging.getLogger("dibs.rabbitmq")

#: The form of the tables that only an index has.
_VERSION = 1
#: How many jobs that are told no more are remembered, so that late words of them don't bring them back.
_MOST_GONE = 200_000
#: So many jobs are forgotten at a time, after so many entries at the least.
_PRUNED, _PRUNED_EVERY = 2000, 500
#: So many jobs are looked at at a time where a whole queue is concerned.
_CHUNK = 5000
#: Seconds to wait for another writer.
_BUSY = 2.0

_TABLES = (
    # One row. `next` is the offset of the entry to come, `digest` that of the message before it: whether the stream
    # is still the same is told by looking at that message again.
    "CREATE TABLE dibs_index (version INTEGER NOT NULL, stream TEXT NOT NULL, next INTEGER NOT NULL, digest BLOB) STRICT",
    # What is known of jobs beside what dibs_jobs has room for, and all that is known of those that are told no more:
    # `gone` numbers these.
    "CREATE TABLE dibs_index_beside (id TEXT PRIMARY KEY, gone INTEGER, data BLOB NOT NULL) STRICT, WITHOUT ROWID",
    "CREATE INDEX dibs_index_gone ON dibs_index_beside (gone) WHERE gone IS NOT NULL",
    # When all that was ready, and all that was dead, in a queue was deleted last.
    "CREATE TABLE dibs_index_queues (name TEXT PRIMARY KEY, purged INTEGER NOT NULL, dropped INTEGER NOT NULL) STRICT",
)
_COLUMNS = (
    "id, queue, priority, due, expires, attempt, crashes, enqueued, keep, private, started, ended, worker, task, "
    "content_type, error, reason, death_error, note, result, body, state"
)
# All are served by the index of the ids, or the primary key.
_LOAD = f"SELECT {_COLUMNS}, seq FROM dibs_jobs WHERE id IN (SELECT value FROM json_each(?))"  # noqa: S608
_LOAD_BESIDE = "SELECT id, gone, data FROM dibs_index_beside WHERE id IN (SELECT value FROM json_each(?))"
_INSERT = f"INSERT INTO dibs_jobs ({_COLUMNS}, suspect) VALUES ({', '.join('?' * 22)}, 0)"  # noqa: S608
_UPDATE = f"UPDATE dibs_jobs SET ({_COLUMNS}) = ({', '.join('?' * 22)}) WHERE seq = ?"  # noqa: S608
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
# Served by dibs_over: the lengths of time that there are, one after the other, and what is over for so long.
_NEXT_KEEP = "SELECT min(keep) FROM dibs_jobs WHERE state >= 4 AND keep > ?"
_OVER = f"SELECT {_COLUMNS}, seq FROM dibs_jobs WHERE state >= 4 AND keep = ? AND ended < ? LIMIT ?"  # noqa: S608
# Served by dibs_index_gone.
_FORGET_GONE = "DELETE FROM dibs_index_beside WHERE gone IS NOT NULL AND gone < ?"


class _Beside(msgspec.Struct, frozen=True, array_like=True):
    """What is known of a job beside its columns."""

    replayed: int = 0
    dropped: int = 0
    retry: Ended | None = None
    ends: list[Ended] = []
    progress: tuple[int, bytes] | None = None
    log: tuple[int, list[str]] | None = None
    #: Its columns, where it is told no more.
    columns: tuple[str | int | bytes | None, ...] | None = None


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(_Beside)


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
                _log.info("The index of the ledger can't be used, and is made anew. path=%s error=%s", path, error)
            self.make_anew()

    def make_anew(self) -> None:
        """Begin with an empty one."""
        self.close()
        for ending in ("", "-wal", "-shm"):
            Path(f"{self.path}{ending}").unlink(missing_ok=True)
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
        digest = digest_of(body)
        now = now_ms()
        with self._transaction():
            place = self._connection.execute("SELECT next FROM dibs_index").fetchone()
            if place != (self.next,) or not self._is_in_place():
                raise Overtaken
            self._add(said, now)
            self._unpruned += len(said)
            if self._unpruned >= _PRUNED_EVERY:
                self._prune(now)
            self._connection.execute("UPDATE dibs_index SET next = ?, digest = ?", (offset + 1, digest))
        self.next, self.digest = offset + 1, digest

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
                case _:
                    pass  # belongs into the other stream
        for start in range(0, len(words), _CHUNK):
            self._add_words(words[start : start + _CHUNK], now)
        for queue, what in wide:
            self._reconsider(queue, what, now)

    def _add_words(self, words: list[tuple[str, Entry]], now: int) -> None:
        books = self._load({job_id for job_id, _ in words})
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
        self._store(books.values(), now)

    def _load(self, ids: Collection[str]) -> dict[str, Account]:
        """Return the accounts of these jobs, new ones among them."""
        named = json.dumps(list(ids))
        books: dict[str, Account] = {}
        for row in self._connection.execute(_LOAD, (named,)):
            books[row[0]] = _from_columns(row, row[22])
        if self._has_beside:
            for job_id, _, data in self._connection.execute(_LOAD_BESIDE, (named,)):
                beside = _DECODER.decode(data)
                if beside.columns is not None:
                    books[job_id] = _from_columns(beside.columns, None)
                _add_beside(books.setdefault(job_id, Account(job_id)), beside)
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
            if account.seq is not None and (is_gone or account.is_anew):
                deleted.append((account.seq,))
                account.seq = None
            if is_gone:
                beside.append((account.id, self._gone, _to_beside(account, is_gone=True)))
                self._gone += 1
            elif account.is_rare:
                beside.append((account.id, None, _to_beside(account, is_gone=False)))
            elif account.has_beside:
                plain.append((account.id,))
            if account.is_rare or account.has_beside or account.forget_runs_before or account.runs:
                noted.append(account)
            if not is_gone:
                row = _to_columns(account, now)
                if account.seq is None:
                    inserted.append(row)
                else:
                    updated.append((*row, account.seq))
                if account.queue not in self._queues:
                    self._name(account.queue or "")
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

    def _store_lives(self, accounts: Iterable[Account], gone: Collection[str]) -> None:
        """Store runs, progress and logs."""
        many = self._connection.executemany
        over = [a for a in accounts if a.id in gone]
        told = [a for a in accounts if a.id not in gone]
        # What was purged may come back, when it turns out to have been running; what is over and gone may not.
        ended = [a.id for a in over if a.state != READY]
        if gone:
            tables.forget_lives(self._connection, [job_id for job_id in gone if job_id in set(ended)])
        many(_DELETE_NOTES, [(a.id,) for a in over])
        living = [a for a in (*told, *over) if a.id not in set(ended)]
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
        keep = execute(_NEXT_KEEP, (-1,)).fetchone()[0]
        left = _PRUNED
        while keep is not None and left > 0:
            rows = execute(_OVER, (keep, now - keep, left)).fetchall()
            left -= len(rows)
            if rows:
                self._store(self._load([row[0] for row in rows]).values(), now)
            keep = execute(_NEXT_KEEP, (keep,)).fetchone()[0]
        execute(_FORGET_GONE, (self._gone - _MOST_GONE,))


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


def _from_columns(row: tuple[object, ...], seq: int | None) -> Account:
    account = Account(str(row[0]))
    (
        account.id,
        account.queue,
        account.priority,
        account.due,
        account.expires,
        account.attempt,
        account.crashes,
        account.enqueued,
        account.keep,
        account.is_private,
        account.started,
        account.ended,
        account.worker,
        account.task,
        account.content_type,
        account.error,
        account.reason,
        account.death_error,
        account.note,
        account.result,
        account.body,
        account.state,
    ) = row[:22]  # type: ignore[assignment]  # they were stored so
    if account.state == DELAYED:
        account.state = READY
    account.seq = seq
    return account


def _to_columns(a: Account, now: int) -> tuple[str | int | bytes | None, ...]:
    state = DELAYED if a.state == READY and a.due is not None and a.due > now else a.state
    return (
        a.id,
        a.queue,
        a.priority,
        a.due,
        a.expires,
        a.attempt,
        a.crashes,
        a.enqueued,
        a.keep,
        a.is_private,
        a.started,
        a.ended,
        a.worker,
        a.task,
        a.content_type,
        a.error,
        a.reason,
        a.death_error,
        a.note,
        a.result,
        a.body,
        state,
    )


def _add_beside(account: Account, beside: _Beside) -> None:
    account.has_beside = True
    account.replayed, account.dropped = beside.replayed, beside.dropped
    account.retry, account.ends = beside.retry, list(beside.ends)
    account.progress, account.log = beside.progress, beside.log


def _to_beside(account: Account, *, is_gone: bool) -> bytes:
    columns = None
    if is_gone:
        columns = _to_columns(account, 2**62)
        if account.state in {DONE, CANCELLED}:  # for good, so only its times are of use
            account.body, account.result, account.error, account.death_error = b"", None, None, None
            columns = _to_columns(account, 2**62)
    return _ENCODER.encode(
        _Beside(
            account.replayed,
            account.dropped,
            account.retry,
            account.ends,
            account.progress,
            account.log,
            columns,
        )
    )
