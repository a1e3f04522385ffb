"""Cancel, pause and resume: entries in a stream of their own, written with a confirm and read by every consumer.

The last word counts for a queue, and a cancel stands for ever: a delayed job may come more than a year later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Any

from pika import exceptions

from dibs.brokers.rabbitmq import faults, fields
from dibs.brokers.rabbitmq.channel import Channel, Connection, Encoded, Letter
from dibs.brokers.rabbitmq.ledger import entries
from dibs.brokers.rabbitmq.ledger.entries import Cancel, Entry, Pause
from dibs.brokers.rabbitmq.ledger.stream import Batch, Start, StreamReader, offset_at
from dibs.brokers.rabbitmq.ledger.streams import Streams
from dibs.errors import BrokerError, LedgerUnavailable
from dibs.message import Message, now_ms

#: Seconds that are read besides, so that no age is too young by a rounding, or by two clocks.
_SLACK = 60
#: Seconds that reading what was asked for until now may take.
_CATCH_UP_TIMEOUT = 10.0
#: How many entries may be on their way at a time, live.
_WINDOW = 100
#: Seconds before a stream is looked at again that is coming up, and before reading is tried again: these double from
#: the second to the third, or to the last where a try costs the connection.
_LOOK, _PAUSE, _LONGEST_PAUSE, _LONGEST_REST = 0.1, 2.0, 60.0, 600.0

#: What a program goes on without.
_UNHEEDED = "What is paused or cancelled is not heeded here"


async def order(connection: Connection, streams: Streams, wanted: Collection[Entry]) -> None:
    """Store entries in the stream, which is made where it does not exist.

    Raises:
        AMQPError: the connection was lost; whether they are stored is not known.
        LedgerUnavailable: there is no such stream, or this user may not write to it.
        BrokerError: the server refused it for now.
    """
    body = entries.encode(wanted)
    for is_declared in (False, True):
        try:
            if is_declared:
                await streams.declare(connection)
            if await _publish(connection, streams.names.control, body):
                return
        except exceptions.ChannelClosedByBroker as error:
            code, text = faults.code_of(error), faults.text_of(error)
            if code != faults.NOT_FOUND or is_declared:
                raise LedgerUnavailable(
                    f"Nothing can be cancelled, paused or resumed here: {text}. Allow this user to declare and write "
                    f"to {streams.names.control}."
                ) from error
    raise LedgerUnavailable(f"{streams.names.control} leads to no stream, and can't be made to.")


async def _publish(connection: Connection, exchange: str, body: bytes) -> bool:
    """Publish with a confirm, on a channel of its own. False: it leads nowhere."""
    channel = await Channel.open(connection)
    confirmed: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    is_returned = False

    def on_return(*_: Any) -> None:
        nonlocal is_returned
        is_returned = True

    def on_confirm(method: Any) -> None:
        if not confirmed.done():
            confirmed.set_result(method.NAME == "Basic.Ack")

    def on_closed(reason: Exception) -> None:
        if not confirmed.done():
            confirmed.set_exception(reason)

    try:
        channel.watch(on_closed)
        channel.raw.add_on_return_callback(on_return)
        await channel.confirm(on_confirm)
        channel.publish([Letter(exchange, "", fields.encode({"app_id": "dibs"}), body, "")])
        if not await confirmed:
            raise BrokerError(f"{exchange} takes nothing now: its stream has no leader. Try again.")
        return not is_returned
    finally:
        if channel.is_open:
            channel.raw.close()


async def cancel_asked(connection: Connection, stream: str, id: str, enqueued: int | None) -> int | None:  # noqa: A002
    """Return when it was last asked for that a job be cancelled; None: never, or nobody may read of it here.

    Args:
        connection: to the server.
        stream: the name of `dibs.control`.
        id: the job's.
        enqueued: when it was handed over: what was asked for before that means another one.
    """
    asked: list[int] = []

    def take(batch: Batch) -> None:
        cancels = (entry for _, body in batch for entry in entries.decode(body) if isinstance(entry, Cancel))
        asked.extend(entry.at for entry in cancels if id in entry.ids and _means(entry.at, enqueued))

    start: Start = "first" if enqueued is None else f"{max(0, now_ms() - enqueued) // 1000 + _SLACK}s"
    try:
        first = await offset_at(connection, stream, start)
        if first is None:
            return None
        reader = await StreamReader.open(connection, stream, start=first, on_batch=take)
        try:
            await reader.reach(await reader.end())
        finally:
            await reader.close()
    except exceptions.ChannelClosedByBroker:
        return None
    return max(asked, default=None)


def _means(at: int, enqueued: int | None) -> bool:
    """Tell whether a cancel means a job that was handed over then: messages say so to the second."""
    return enqueued is None or enqueued // 1000 <= at // 1000


class Orders:
    """What is paused and what is cancelled, as one connection at a time tells. On its I/O thread."""

    def __init__(self, streams: Streams, on_news: Callable[[], None]) -> None:
        """Know of nothing.

        Args:
            streams: of the namespace.
            on_news: is called when something changed, once it is read to its end.
        """
        self._streams = streams
        self._on_news = on_news
        self._connection: Connection | None = None
        #: Reads again after a while.
        self._retry: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()
        #: The offset of the entry to come.
        self._next = 0
        self._is_live = False
        self._pause = _PAUSE
        #: The last try cost the connection, and whether any other one would.
        self._is_costly = self._is_hopeless = False
        #: Queues, without the namespace.
        self.paused: frozenset[str] = frozenset()
        #: Jobs, with the time up to which they were to be handed over for the cancel to mean them.
        self.cancels: dict[str, int] = {}

    def means(self, message: Message) -> bool:
        """Tell whether somebody has asked for this job to be cancelled."""
        at = self.cancels.get(message.id)
        return at is not None and _means(at, message.enqueued)

    async def follow(self, connection: Connection) -> None:
        """Read all that was asked for until now, then go on live. Where that can't be done it says so, once."""
        async with self._lock:
            if self._is_costly and self._connection is not connection:
                self._connection, self._is_live = connection, False
                self._follow_soon(connection)
            elif self._connection is not connection or (not self._is_live and self._retry is None):
                await self._follow(connection)

    async def _follow(self, connection: Connection) -> None:
        self._connection, self._is_live = connection, False
        self._give_up_retry()
        try:
            async with asyncio.timeout(_CATCH_UP_TIMEOUT):
                while not await self._catch_up(connection):
                    await asyncio.sleep(_LOOK)
                await self._go_on(connection)
        except (exceptions.AMQPError, LedgerUnavailable, TimeoutError) as error:
            if connection.is_open:
                self._streams.tell(_UNHEEDED, faults.text_of(error))
                self._follow_soon(connection)
            elif faults.code_of(error) >= faults.NOT_IMPLEMENTED:
                # The server has no streams, or can't bring this one up, and takes it out on the connection.
                self._streams.tell(_UNHEEDED, faults.text_of(error))
                self._is_costly, self._is_hopeless = True, faults.has_no_streams(error)

    def _follow_soon(self, connection: Connection) -> None:
        self._give_up_retry()
        if not self._is_hopeless:
            self._retry = asyncio.get_running_loop().create_task(self._follow_later(connection))

    def _give_up_retry(self) -> None:
        retry, self._retry = self._retry, None
        if retry is not None and retry is not asyncio.current_task():
            retry.cancel()

    async def _catch_up(self, connection: Connection) -> bool:
        """Read what there is. False: the server has not brought the stream up yet."""
        try:
            await self._read(connection)
        except exceptions.ChannelClosedByBroker as error:
            if not faults.is_down(error):
                if faults.code_of(error) != faults.NOT_FOUND:
                    raise
                await self._streams.declare(connection)
            return False
        return True

    async def _read(self, connection: Connection) -> None:
        if not self._next:
            self.paused, self.cancels = frozenset(), {}
        reader = await StreamReader.open(
            connection, self._streams.names.control, start=self._next or "first", on_batch=self._take
        )
        try:
            end = await reader.end()
            if end >= self._next:
                await reader.reach(end)
        finally:
            await reader.close()
        if end < self._next:  # it was deleted meanwhile, and is another one
            self._next = 0
            await self._read(connection)

    async def _go_on(self, connection: Connection) -> None:
        """Read on by pika's own means: what a stream reader puts in the connection's way costs each job a little."""
        channel = await Channel.open(connection)
        channel.watch(lambda _: self._begin_again(connection))
        channel.raw.add_on_cancel_callback(lambda _: self._begin_again(connection, is_deleted=True))
        await channel.call(channel.raw.basic_qos, prefetch_count=_WINDOW)
        await channel.call(
            channel.raw.basic_consume,
            queue=self._streams.names.control,
            on_message_callback=lambda _, *message: self._on_message(channel, *message),
            arguments={"x-stream-offset": self._next},
        )
        self._is_live, self._is_costly, self._pause = True, False, _PAUSE

    def _begin_again(self, connection: Connection, *, is_deleted: bool = False) -> None:
        """Follow the stream anew: it was deleted, or its channel closed."""
        if self._is_live and self._connection is connection and connection.is_open:
            self._is_live = False
            if is_deleted:
                self._next = 0
            self._follow_soon(connection)

    async def _follow_later(self, connection: Connection) -> None:
        await asyncio.sleep(self._pause)
        self._pause = min(_LONGEST_REST if self._is_costly else _LONGEST_PAUSE, 2 * self._pause)
        async with self._lock:
            if self._connection is connection and connection.is_open:
                await self._follow(connection)
                self._on_news()

    def _on_message(self, channel: Channel, method: Any, properties: Encoded, body: bytes) -> None:
        offset = fields.decode(properties.data).get("headers", {}).get("x-stream-offset", self._next)
        self._take([(offset, body)])
        if channel.is_open:
            channel.raw.basic_ack(method.delivery_tag)
        self._on_news()

    def _take(self, batch: Batch) -> None:
        for offset, body in batch:
            if offset < self._next:
                continue  # servers begin with the chunk that an offset is in
            self._next = offset + 1
            for entry in entries.decode(body):
                match entry:
                    case Cancel(ids=ids, at=at):
                        self.cancels.update((each, max(at, self.cancels.get(each, at))) for each in ids)
                    case Pause(queue=queue, is_paused=True):
                        self.paused |= {queue}
                    case Pause(queue=queue):
                        self.paused -= {queue}
                    case _:
                        continue  # of a later version
