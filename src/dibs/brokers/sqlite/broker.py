"""What an app holds: the queues of one database file. See `dibs.broker.Broker` for what each verb promises."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Collection, Generator, Sequence
from itertools import islice
from pathlib import Path

from dibs.broker import CancelAnswer, Capabilities, Queue, QueueInfo, State
from dibs.brokers.sqlite import cancels, counts, examination, foreign, rows
from dibs.brokers.sqlite.commits import ADD_QUEUE, Handover
from dibs.brokers.sqlite.consumer import SqliteConsumer
from dibs.brokers.sqlite.dead import BATCH, DeadLetters
from dibs.brokers.sqlite.ledger import SqliteLedger
from dibs.brokers.sqlite.liveness import CLAIM_BITS
from dibs.brokers.sqlite.moving import SqliteSink, SqliteSource
from dibs.brokers.sqlite.opened import Opened
from dibs.brokers.sqlite.store import Store
from dibs.brokers.sqlite.wake import CANCELS, SLOTS, fifo_path, poke
from dibs.errors import MessageTooLarge, UnknownQueue
from dibs.facts import Facts
from dibs.ledger.tables import SCHEMA_VERSION
from dibs.message import Message, now_ms
from dibs.outcome import DeadLetter
from dibs.selection import EVERY, Selection
from dibs.url import Address

#: SQLite refuses rows over a billion bytes by default; this leaves room for headers and an error text.
_BODY_BYTES = 512 * 1024 * 1024

_CAPABILITIES = Capabilities(
    server=f"SQLite {sqlite3.sqlite_version}",
    is_durable=True,
    is_shared=True,
    priorities=10,
    delay_step=0.001,
    has_atomic_settle=True,
    refuses_duplicates=True,
    counts_deaths=True,
    counts_held=True,
    lists_queues=True,
    has_ledger=True,
    is_ledger_exact=True,
    body_bytes=_BODY_BYTES,
)
# Served by the primary key.
_KNOWS = "SELECT 1 FROM dibs_queues WHERE name = ?"
_PAUSE = "INSERT INTO dibs_queues (name, paused) VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET paused = 1"
_RESUME = "UPDATE dibs_queues SET paused = 0 WHERE name = ? AND paused = 1"


class SqliteBroker:
    """The queues of one file. Shared by threads; a forked child opens its own. Job ids are unique per file."""

    def __init__(self, address: Address, *, namespace: str, handover_timeout: float, may_create: bool) -> None:
        """Remember what to open; nothing is opened before its first use.

        Args:
            address: an absolute path, with `unsafe_fs=1` (open it on any file system) and `share=1` (make dibs'
                tables in a database that has others).
            namespace: put before every queue's name, with a dot.
            handover_timeout: seconds that a write waits for others at the most.
            may_create: make the file where there is none.
        """
        self._path = Path(address.path or "")
        self._prefix = f"{namespace}." if namespace else ""
        self._timeout = handover_timeout
        self._may_create = may_create
        self._may_share = address.options.get("share") == "1"
        self._is_unsafe = address.options.get("unsafe_fs") == "1"
        self._opened: Opened | None = None
        #: Per process, as a fork may happen while another thread holds it.
        self._opening: dict[int, threading.Lock] = {}
        self._ledger = SqliteLedger(self._open, prefix=self._prefix)

    @property
    def capabilities(self) -> Capabilities:
        """What this broker can do."""
        return _CAPABILITIES

    @property
    def location(self) -> str:
        """The absolute path of the file."""
        return str(self._path)

    def declare(self, queues: Sequence[Queue]) -> None:
        """Make these queues, where they don't exist."""
        opened = self._open()
        with opened.connection() as connection:
            with opened.store.read():
                known = {name for name, _ in connection.execute(counts.NAMES)}
            missing = [(stored,) for queue in queues if (stored := self._prefix + queue.name) not in known]
            if missing:
                with opened.store.write(connection):
                    connection.executemany(ADD_QUEUE, missing)

    def send(self, messages: Sequence[Message]) -> None:
        """Hand messages over, all or none: they are on disk when this returns. See `Broker.send`."""
        if not messages:
            return
        handover = self._to_handover(messages)
        opened = self._open()
        opened.commits.send(handover)
        opened.board.wake(handover.queues, len(handover.rows))

    def send_in(self, connection: sqlite3.Connection, messages: Sequence[Message]) -> None:
        """Store messages in the caller's own transaction on the same file: they are jobs once he commits.

        Where no transaction is open one is begun, as the `sqlite3` module itself does before an INSERT. Idle
        workers notice the jobs within a second of the commit. Automatic checkpoints are switched off on the
        connection: see `Store.connect`.

        Raises:
            UsageError: the connection is to another file, or commits by itself and is in no transaction.
            StoreUnusable: the file has no tables of dibs', or those of a newer one.
            JobExists: an id is taken; nothing was stored, and the transaction stands as it was.
        """
        foreign.store_in(self._open().store, connection, self._to_handover(messages))

    def consume(self, queues: Sequence[str], *, limit: int) -> SqliteConsumer:
        """Begin to receive from these queues."""
        del limit  # nothing is taken before it is asked for
        opened = self._open()
        consumer = SqliteConsumer(opened.store, opened.board, opened.waiters, queues, prefix=self._prefix)
        opened.consumers = [known for known in opened.consumers if known.is_open] + [consumer]
        return consumer

    def queues(self, names: Collection[str] = ()) -> list[QueueInfo]:
        """Return all queues of the namespace, by name. It can list them, so `names` are not looked for."""
        del names
        opened = self._open()
        with opened.connection() as connection, opened.store.read():
            opened.store.check(connection)  # who only looks on would go on with a file that was removed
            return counts.queues(opened.store, connection, prefix=self._prefix)

    def dead(
        self, queue: str, selection: Selection = EVERY, *, limit: int, after: str | None = None
    ) -> list[DeadLetter]:
        """Return one page of dead letters."""
        return list(islice(self.each_dead(queue, selection, after=after), limit))

    def each_dead(
        self, queue: str, selection: Selection = EVERY, *, after: str | None = None
    ) -> Generator[DeadLetter]:
        """Yield dead letters of `queue`, oldest first."""
        yield from self._dead_letters(queue).each(selection, after=after)

    def replay(self, queue: str, selection: Selection = EVERY) -> int:
        """Put dead letters back into `queue`: same id, attempt 1."""
        count = self._dead_letters(queue).replay(selection)
        if count:
            self._open().board.wake([self._prefix + queue], count)
        return count

    def drop(self, queue: str, selection: Selection) -> int:
        """Delete dead letters for good."""
        return self._dead_letters(queue).drop(selection)

    def purge(self, queue: str, *, state: State) -> int:
        """Delete all messages of `queue` in that state."""
        opened = self._open()
        with opened.connection() as connection:
            stored = self._check(connection, queue)
            return counts.purge(opened.store, connection, opened.waiters, stored, state)

    def pause(self, queue: str) -> None:
        """Have no job of this queue started any more, until `resume`. See `Broker.pause`."""
        opened = self._open()
        with opened.connection() as connection, opened.store.write(connection):
            connection.execute(_PAUSE, (self._prefix + queue,))

    def resume(self, queue: str) -> None:
        """End a pause. See `Broker.resume`."""
        opened = self._open()
        with opened.connection() as connection, opened.store.write(connection):
            connection.execute(_RESUME, (self._prefix + queue,))
        opened.board.wake([self._prefix + queue], SLOTS)

    def cancel(self, ids: Collection[str]) -> dict[str, CancelAnswer]:
        """Cancel jobs: those that wait at once; those that run are ended by their worker. See `Broker.cancel`."""
        opened = self._open()
        answers: dict[str, CancelAnswer] = {}
        left = list(dict.fromkeys(ids))
        while left:
            part, left = left[:BATCH], left[BATCH:]
            with opened.connection() as connection, opened.store.write(connection, size=len(part) * 512):
                requested = cancels.request(connection, part, prefix=self._prefix)
            opened.waiters.wake(requested.cancelled)
            for worker in {receipt >> CLAIM_BITS for receipt in requested.receipts}:
                poke(fifo_path(opened.store.directory, worker), CANCELS)
            answers |= requested.answers
        return answers

    @property
    def ledger(self) -> SqliteLedger:
        """The record of jobs: it stands in the same file."""
        return self._ledger

    def examine(self, queues: Sequence[Queue] = (), *, is_deep: bool = False) -> Facts:
        """Look at the file and at what is around it. It can list its queues, so `queues` are not looked for."""
        del queues
        path = Path(os.path.realpath(self._path))
        store = examination.look(path, is_allowed=self._is_unsafe, is_deep=is_deep)
        is_usable = store.trouble is None and store.schema == SCHEMA_VERSION and store.has_run_directory
        is_usable = is_usable and (self._is_unsafe or not store.is_network)
        return Facts(
            location=self.location,
            server=_CAPABILITIES.server,
            store=store,
            has_queues=is_usable,
            has_jobs=is_usable,
            has_workers=is_usable,
        )

    def source(self) -> SqliteSource:
        """Return it as the source of a move."""
        return SqliteSource(self._open, self.queues, prefix=self._prefix)

    def sink(self) -> SqliteSink:
        """Return it as the target of a move."""
        return SqliteSink(self._open, self._path, prefix=self._prefix)

    def close(self) -> None:
        """Let go of the file and of all consumers. The next call opens it again. Safe to call twice."""
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()

    def _open(self) -> Opened:
        """Return what this process has opened, opening it first where need be."""
        opened = self._opened
        if opened is not None and opened.is_usable():
            return opened
        with self._opening.setdefault(os.getpid(), threading.Lock()):
            opened = self._opened
            if opened is None or not opened.is_usable():
                self.close()
                store = Store(
                    self._path,
                    timeout=self._timeout,
                    may_create=self._may_create,
                    may_share=self._may_share,
                    is_checked=not self._is_unsafe,
                )
                opened = self._opened = Opened(store, timeout=self._timeout)
            return opened

    def _dead_letters(self, queue: str) -> DeadLetters:
        opened = self._open()
        with opened.connection() as connection:
            stored = self._check(connection, queue)
        return DeadLetters(opened.store, opened.connection, stored, name=queue)

    def _check(self, connection: sqlite3.Connection, queue: str) -> str:
        """Return the queue's name as it is stored, or raise that there is none."""
        stored = self._prefix + queue
        with self._open().store.read():
            found = connection.execute(_KNOWS, (stored,)).fetchone()
        if found is None:
            raise UnknownQueue(f"There is no queue {queue!r} in {self._path}. `dibs queues` lists those that exist.")
        return stored

    def _to_handover(self, messages: Sequence[Message]) -> Handover:
        new, queues, size = [], set(), 0
        for message in messages:
            length = len(message.body)
            if length > _BODY_BYTES:
                raise MessageTooLarge(
                    f"Message {message.id} has {length} bytes; SQLite takes at most {_BODY_BYTES}. Nothing of the "
                    "call was stored. Keep large data elsewhere and send its place."
                )
            queue = self._prefix + message.queue
            if (row := rows.to_new_row(message, queue)) is not None:
                new.append(row)
            queues.add(queue)
            size += length + 256
        if len(new) == len(messages):
            return Handover(rows.INSERT_NEW, new, queues, size)
        return Handover(rows.INSERT, [self._to_row(message) for message in messages], queues, size)

    def _to_row(self, message: Message) -> rows.Row:
        due = message.due
        state = rows.DELAYED if due is not None and due > now_ms() else rows.READY
        return rows.to_row(message, self._prefix + message.queue, state=state, due=due)
