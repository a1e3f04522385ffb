"""Keeps a process's view of the ledger up to date: its index, written here or by another process, and its reader.

One process at a time writes an index; the others wait for what it writes, and one of them takes over when it is gone
or does nothing. Once asked, it goes on live until it is closed. On a connection of its own, as reading may keep its
I/O thread busy for long.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from pika import exceptions

from dibs.brokers.rabbitmq import faults
from dibs.brokers.rabbitmq.channel import Connection
from dibs.brokers.rabbitmq.ledger.index import Index, Overtaken, digest_of
from dibs.brokers.rabbitmq.ledger.place import Claim, identity_of, path_of, remove
from dibs.brokers.rabbitmq.ledger.stream import OWN_ENTRIES, Batch, StreamReader, end_of
from dibs.brokers.rabbitmq.ledger.streams import Streams, refusal
from dibs.brokers.rabbitmq.link import Link
from dibs.errors import AccessRefused, BrokerUnavailable, LedgerUnavailable
from dibs.url import Address

_log = logging.getLogger("dibs.rabbitmq")

T = TypeVar("T")

#: How long what came waits for more, so that it is written together; and how much is written together at the most.
_GATHERED_WITHIN, _MOST_GATHERED = 0.005, 2000
#: How long one look at how far the index is takes at the most.
_SLICE = 0.25
#: How often is looked whether another process has written.
_PAUSE = 0.01
#: How often is tried again what the server could not do yet.
_DOWN_PAUSE = 0.1
#: So often a damaged index is made anew; after that it is no accident.
_MOST_DAMAGES = 3
#: After so long without a step the other one is taken for dead or stopped.
_DEAD_AFTER = 3.0
#: What the server says to who may not read the stream, or when it is not there.
_FINAL = frozenset({faults.ACCESS_REFUSED, faults.NOT_FOUND, faults.PRECONDITION_FAILED})


class Follower:
    """The reader of one ledger in one process. May be shared between threads."""

    def __init__(self, address: Address, streams: Streams, *, timeout: float) -> None:
        """Connect to nothing yet.

        Args:
            address: of the server.
            streams: of the namespace.
            timeout: seconds that it may be without a step before it is given up.
        """
        #: How many entries were deleted by the server before they were read.
        self.missed = 0
        self.path = path_of(address, streams.names.ledger)
        self._address = address
        self._streams = streams
        self._name = streams.names.ledger
        self._timeout = timeout
        self._doing = f"reading {self._name}"
        self._claim = Claim(self.path)
        #: None: another process has it.
        self._index: Index | None = None
        self._reader: StreamReader | None = None
        #: What came and is not written.
        self._gathered: Batch = []
        self._timer: asyncio.TimerHandle | None = None
        #: The message before the first one that is wanted came not yet: it tells whether the stream is the same.
        self._is_checking = False
        self._trouble: LedgerUnavailable | None = None
        self._closing: asyncio.Task[None] | None = None
        #: How often the file was found damaged.
        self._damages = 0
        #: When the other one was seen to take a step, and how far it was.
        self._step = (0.0, -1)
        self._link = Link(address, "ledger", self)

    def refresh(self, on_progress: Callable[[int, int], None] | None = None) -> None:
        """Take in what stands in the ledger now. See `Ledger.refresh`."""
        start: int | None = None
        place, end = -1, 0
        moved = time.monotonic()
        while start is None or place < end:
            try:
                if start is None:
                    end, start = self._link.run(self._begin, self._timeout, self._doing)
                reached = self._link.run(partial(self._advance, end), self._timeout, self._doing)
            except BrokerUnavailable:  # a lost connection comes back by itself
                if time.monotonic() - moved > self._timeout:
                    raise
                time.sleep(_DOWN_PAUSE)
                continue
            if on_progress is not None:
                on_progress(max(0, min(reached, end) - start), max(0, end - start))
            if reached != place:
                place, moved = reached, time.monotonic()
            elif time.monotonic() - moved > self._timeout:
                raise LedgerUnavailable(
                    f"The index of {self._name} at {self.path} has been at {reached} of {end} for "
                    f"{self._timeout:g} s. Is its file system full, or who writes it stopped?"
                )

    def ask(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """Return what `question` finds in the index. One that turns out to be damaged is made anew, and asked again.

        Raises:
            LedgerUnavailable: it can't be read.
        """
        for is_again in (False, True):
            try:
                with contextlib.closing(_look(self.path)) as connection:
                    return question(connection)
            except sqlite3.Error as error:
                if is_again or not _is_damage(error):
                    raise LedgerUnavailable(f"The index at {self.path} can't be read: {error}.") from error
                self._link.run(partial(self._replace, str(error)), self._timeout, self._doing)
            self.refresh()
        raise AssertionError  # the second time returns, or raises

    def run(self, work: Callable[[Connection], Coroutine[Any, Any, T]]) -> T:
        """Run `work` with its connection. See `Link.run`."""
        return self._link.run(work, self._timeout, self._doing)

    def close(self) -> None:
        """Let go of the connection, and of the index. Safe to call twice."""
        self._link.close()
        self._step_down()  # the I/O thread has ended

    # What follows runs on the I/O thread.

    def on_open(self, connection: Connection) -> None:
        """Do nothing: whoever asks begins to read."""

    def on_lost(self, error: BaseException) -> None:  # noqa: ARG002 -- the protocol's
        """Read no more. Whoever asks next begins anew where this ended."""
        self._reader = None

    def on_refused(self, error: AccessRefused) -> None:
        """Do nothing: whoever asks is told."""

    async def _begin(self, connection: Connection) -> tuple[int, int]:
        """Return where the stream ends now, and how far the index is."""
        self._trouble = None
        end = await self._explained(self._find_end(connection))
        with self._writing():
            if self._index is None and self._claim.take():
                self._index = Index(self.path, identity_of(self._address, self._name))
        if self._index is not None and end < self._index.next:
            self._make_anew("it ends before what was read of it")
        await self._follow(connection)  # even if there is nothing to read now, as others wait for what we write
        return end, self._place()

    async def _replace(self, reason: str, connection: Connection) -> None:  # noqa: ARG002 -- what a link runs
        """Do away with an index that can't be read."""
        if self._index is not None:
            self._make_anew(reason)
            return
        with self._writing():  # who writes it notices, and steps down
            remove(self.path)

    async def _find_end(self, connection: Connection) -> int:
        while True:
            try:
                return await end_of(connection, self._name)
            except exceptions.ChannelClosedByBroker as error:
                if faults.is_down(error):  # it comes up later than the server
                    await asyncio.sleep(_DOWN_PAUSE)
                elif faults.code_of(error) == faults.NOT_FOUND:
                    await self._streams.declare(connection)  # nothing was recorded yet
                else:
                    raise

    async def _advance(self, end: int, connection: Connection) -> int:
        """Go on for a moment, or until `end`. Returns how far the index is."""
        deadline = time.monotonic() + _SLICE
        while (place := self._place()) < end and time.monotonic() < deadline:
            if self._index is None:
                self._take_over(place)
            await self._follow(connection)
            await asyncio.sleep(_PAUSE if self._index is None else 0.002)
        return place

    def _place(self) -> int:
        if self._index is not None:
            return self._index.next
        try:
            with contextlib.closing(_look(self.path)) as connection:
                return int(connection.execute("SELECT next FROM dibs_index").fetchone()[0])
        except (sqlite3.Error, TypeError):
            return 0  # who writes it has not made it yet

    def _take_over(self, place: int) -> None:
        """Write it ourselves if the other one is gone, or takes no step for long."""
        now = time.monotonic()
        if self._step[1] != place:
            self._step = now, place
        with self._writing():
            is_ours = self._claim.take()
            if not is_ours and now - self._step[0] > _DEAD_AFTER:
                _log.info("Who writes the index of the ledger takes no step; taking over. path=%s", self.path)
                self._step = now, -1
                is_ours = self._claim.usurp()
            if is_ours:
                self._index = Index(self.path, identity_of(self._address, self._name))

    async def _follow(self, connection: Connection) -> None:
        """See to it that the stream is read, if the index is ours.

        Raises:
            LedgerUnavailable: it can't be written.
        """
        if self._trouble is not None:
            raise self._trouble
        if self._index is not None and (self._reader is None or not self._reader.is_open):
            await self._explained(self._read(connection))

    async def _read(self, connection: Connection) -> None:
        """Begin to read where the index ends: with the message before, to see whether the stream is the same."""
        index = self._index
        if index is None:
            return
        self._is_checking = index.digest is not None
        start = index.next - 1 if self._is_checking else index.next or "first"
        self._gathered.clear()
        self._reader = await StreamReader.open(connection, self._name, start=start, on_batch=self._take)

    def _take(self, batch: Batch) -> None:
        self._gathered += batch
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(_GATHERED_WITHIN, self._flush)

    def _flush(self) -> None:
        """Write what came."""
        self._timer = None
        batch, self._gathered = self._gathered, []
        index = self._index
        if index is None or not batch:
            return
        with self._writing():
            if self._is_checking:
                self._is_checking = False
                offset, body = batch[0]
                if offset < index.next:
                    if digest_of(body) != index.digest:
                        raise _Changed
                    del batch[0]
            if batch and batch[0][0] - index.next > OWN_ENTRIES:
                self._miss(index.next, batch[0][0])
            for start in range(0, len(batch), _MOST_GATHERED):
                index.apply(batch[start : start + _MOST_GATHERED])

    def _miss(self, expected: int, offset: int) -> None:
        if expected == 0:
            return  # what was there before anybody looked
        self.missed += offset - expected
        _log.warning(
            "The server deleted entries of the ledger before they were read: what happened then is missing. "
            "stream=%s missed=%d",
            self._name,
            offset - expected,
        )

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Do without the index where it is another's by now, make it anew where it is damaged."""
        try:
            yield
        except Overtaken:
            self._step_down()
        except _Changed:
            self._make_anew("the stream is another one")
        except OSError as error:
            self._fail(error)
        except sqlite3.OperationalError as error:
            # Nobody else writes, so whoever blocks it was stopped in the middle of it.
            is_blocked = error.sqlite_errorcode in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
            if is_blocked and self._claim.is_held():
                self._make_anew(str(error))
            else:
                self._fail(error)
        except (sqlite3.DatabaseError, msgspec.DecodeError) as error:
            self._damages += 1
            if self._damages > _MOST_DAMAGES:
                self._fail(error)
            else:
                self._make_anew(str(error))

    def _fail(self, error: Exception) -> None:
        self._trouble = LedgerUnavailable(
            f"The index at {self.path} can't be written: {error}. Mend that, or add index=/another/path to the URL."
        )
        self._step_down()

    def _make_anew(self, reason: str) -> None:
        _log.info("The index of the ledger is made anew. path=%s reason=%s", self.path, reason)
        self._stop_reading()
        try:
            if self._index is not None:
                self._index.make_anew()
        except (OSError, sqlite3.Error) as error:
            self._fail(error)

    def _stop_reading(self) -> None:
        reader, self._reader = self._reader, None
        self._gathered = []
        if reader is not None and reader.is_open:
            self._closing = asyncio.get_running_loop().create_task(reader.close())

    def _step_down(self) -> None:
        """Leave the index to others."""
        with contextlib.suppress(RuntimeError):  # there is no loop any more
            self._stop_reading()
        if self._index is not None:
            self._index.close()
            self._index = None
        self._claim.release()

    async def _explained(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Wait for `work`; say so where the server does not let it be done."""
        try:
            return await work
        except (exceptions.ChannelClosedByBroker, exceptions.ConnectionClosedByBroker) as error:
            is_final = faults.code_of(error) in _FINAL and not faults.is_down(error)
            if not is_final and not faults.has_no_streams(error):
                raise
            raise refusal(self._link.location, self._name, error) from error


class _Changed(Exception):
    """The stream is not the one that was read."""


def _is_damage(error: sqlite3.Error) -> bool:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)  # without one: somebody has removed the file
    return code & 0xFF in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def _look(path: Path) -> sqlite3.Connection:
    if not path.exists():
        raise sqlite3.OperationalError(f"there is no {path}")
    connection = sqlite3.connect(path, timeout=2.0, isolation_level=None)
    connection.execute("PRAGMA query_only = 1")
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    return connection
