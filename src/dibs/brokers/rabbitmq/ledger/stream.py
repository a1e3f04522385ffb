"""Reading a stream of the server: from some place on, in batches, live. Runs on a connection's I/O thread.

A reader sees every entry from its start on, in order, once per connection; whoever wants it more often than that
remembers the offset. It knows bodies, not what they say.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable

from pika.exceptions import AMQPError, ChannelClosedByClient

from dibs.brokers.rabbitmq.channel import Channel, Connection
from dibs.brokers.rabbitmq.sieve import Sieve, Tap

#: Where to begin: "first", behind the newest with "next", at an offset, or so long ago, by the server's clock ("90s";
#: it may be some entries earlier).
Start = int | str

#: Offset and body of entries that stand one behind the other.
Batch = list[tuple[int, bytes]]

#: How many may be on their way, and after how many they are acknowledged: an acknowledgement costs the server a read.
_WINDOW, _ACKNOWLEDGED = 2000, 500
#: How long an acknowledgement may wait for company. The server's limit for it is half an hour.
_ACKNOWLEDGED_WITHIN = 1.0
#: The server writes entries of its own that nobody is given, one for each segment: so many numbers that are left out
#: mean nothing.
OWN_ENTRIES = 16
#: More than the last chunk of a stream can have, which `end_of` wants to have whole.
_LARGEST_WINDOW = 65535
#: The header that servers put on what they deliver from a stream, with the type of its value: a signed number of
#: eight bytes.
_OFFSET = b"\x0fx-stream-offsetl"
_LONG = struct.Struct(">q")


class StreamTap(Tap):
    """Offsets and bodies of one stream, in its order."""

    def __init__(self, on_batch: Callable[[Batch], None]) -> None:
        super().__init__()
        self._on_batch = on_batch
        self._batch: Batch = []
        self._offset = -1

    def take(self, body: bytes) -> None:
        """Take in an entry."""
        found = self.header.find(_OFFSET)
        # It is always there. Should it not be, the next number is the best guess.
        self._offset = _LONG.unpack_from(self.header, found + len(_OFFSET))[0] if found >= 0 else self._offset + 1
        self._batch.append((self._offset, body))

    def hand_on(self) -> None:
        """Hand on what came."""
        if self._batch:
            batch, self._batch = self._batch, []
            self._on_batch(batch)


class StreamReader:
    """Reads one stream, on a channel of its own."""

    def __init__(self, channel: Channel, name: str, start: Start, on_batch: Callable[[Batch], None]) -> None:
        self.name = name
        #: The offset of the entry to come; None: not known before the first one came.
        self.next: int | None = start if isinstance(start, int) else 0 if start == "first" else None
        #: How many entries were gone before they were read: the server had deleted them, as they were too old.
        self.missed = 0
        self._channel = channel
        #: Is called with what came.
        self.on_batch = on_batch
        self._tap = StreamTap(self._take)
        self._acknowledged = 0
        self._is_cancelled = False
        self._timer: asyncio.TimerHandle | None = None
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []

    @classmethod
    async def open(
        cls,
        connection: Connection,
        name: str,
        *,
        start: Start,
        on_batch: Callable[[Batch], None],
        on_closed: Callable[[BaseException], None] | None = None,
    ) -> StreamReader:
        """Begin to read.

        Args:
            connection: to the server.
            name: the stream's, with the namespace.
            start: where to begin. At an offset that is gone it begins with the oldest entry that there is.
            on_batch: is called with what came.
            on_closed: is called when the server ends it: the stream was deleted, or the channel was closed.

        Raises:
            AMQPError: there is no such stream, it may not be read, or the connection was lost.
        """
        reader = cls(await Channel.open(connection), name, start, on_batch)
        reader._channel.watch(reader._fail)
        if on_closed is not None:
            reader._channel.watch(on_closed)
        reader._channel.raw.add_on_cancel_callback(lambda _: reader._on_cancelled(on_closed))
        await _consume(reader._channel, reader._tap, name, start, _WINDOW)
        return reader

    async def end(self) -> int:
        """Return the offset behind the last entry that the stream has now; 0: it is empty."""
        return await end_of(self._channel.connection, self.name)

    async def reach(self, offset: int) -> None:
        """Wait until all entries before `offset` were handed on.

        Raises:
            AMQPError: the channel was closed.
        """
        if (self.next or 0) >= offset:
            return
        if not self._channel.is_open:
            raise self._channel.reason or ChannelClosedByClient(0, "closed")
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((offset, waiter))
        await waiter

    @property
    def is_open(self) -> bool:
        """Whether more may come."""
        return self._channel.is_open and not self._is_cancelled

    async def close(self) -> None:
        """Read no more."""
        if self._timer is not None:
            self._timer.cancel()
        self._fail(ChannelClosedByClient(0, "The reader was closed"))
        await _close(self._channel)

    def _take(self, batch: Batch) -> None:
        first, newest = batch[0][0], batch[-1][0]
        if self.next is not None and first - self.next > OWN_ENTRIES:
            self.missed += first - self.next
        self.on_batch(batch)
        self.next = newest + 1
        if self._tap.tag - self._acknowledged >= _ACKNOWLEDGED:
            self._acknowledge()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_ACKNOWLEDGED_WITHIN, self._acknowledge)
        if self._waiters:
            self._wake(self.next)

    def _wake(self, reached: int) -> None:
        for offset, waiter in self._waiters:
            if offset <= reached and not waiter.done():
                waiter.set_result(None)
        self._waiters = [(offset, waiter) for offset, waiter in self._waiters if not waiter.done()]

    def _acknowledge(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._channel.is_open:
            self._acknowledged = self._tap.tag
            self._channel.raw.basic_ack(self._acknowledged, multiple=True)

    def _on_cancelled(self, on_closed: Callable[[BaseException], None] | None) -> None:
        self._is_cancelled = True
        error = ChannelClosedByClient(0, f"The stream {self.name} was deleted")
        self._fail(error)
        if on_closed is not None:
            on_closed(error)

    def _fail(self, error: BaseException) -> None:
        for _, waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(error)
        self._waiters.clear()


async def end_of(connection: Connection, name: str) -> int:
    """Return the offset behind the last entry that a stream has now; 0: it is empty.

    The server's count of messages lags seconds behind, so this looks at the last entries themselves.

    Raises:
        AMQPError: there is no such stream, it may not be read, or the connection was lost.
    """
    seen = await _glance(connection, name, "last", _LARGEST_WINDOW)
    return 0 if seen is None else seen[1] + 1


async def offset_at(connection: Connection, name: str, start: Start) -> int | None:
    """Return the offset of the first entry that is read from there; None: there is none yet.

    Raises:
        AMQPError: as above.
    """
    seen = await _glance(connection, name, start, 1)
    return None if seen is None else seen[0]


async def _glance(connection: Connection, name: str, start: Start, window: int) -> tuple[int, int] | None:
    """Return the first and the last offset of what is there from `start` on, as far as the window reaches."""
    channel = await Channel.open(connection)
    seen: list[int] = []

    def take(batch: Batch) -> None:
        seen.extend((batch[0][0], batch[-1][0]))

    tap = StreamTap(take)
    await _consume(channel, tap, name, start, window)
    # What is there for a new consumer the server's channel learns from the stream. That there is nothing is sure when
    # the channel has asked the stream twice more: the second question was sent when the first was answered, and it
    # was answered behind what the stream had for the first consumer.
    for _ in range(2):
        if not seen:
            await _consume(channel, tap, name, "next", None)
    await _round_trip(channel)  # behind all that fits into the window
    await _close(channel)
    return (min(seen), max(seen)) if seen else None


async def _consume(channel: Channel, tap: Tap, name: str, start: Start, window: int | None) -> None:
    number = channel.raw.channel_number
    sieve = Sieve.of(channel.connection)
    sieve.put(number, tap)
    channel.watch(lambda _: sieve.remove(number))
    if window is not None:
        await channel.call(channel.raw.basic_qos, prefetch_count=window)
    await channel.call(
        channel.raw.basic_consume,
        queue=name,
        on_message_callback=lambda *_: None,  # the tap has them
        arguments={"x-stream-offset": start},
    )


async def _round_trip(channel: Channel) -> None:
    """Wait for an answer of the channel's own, which stands behind what it had for us."""
    await channel.call(channel.raw.basic_qos, prefetch_count=_LARGEST_WINDOW)


async def _close(channel: Channel) -> None:
    number, connection = channel.raw.channel_number, channel.connection
    try:
        await channel.close()
    except AMQPError:
        pass  # closed already
    Sieve.of(connection).remove(number)
