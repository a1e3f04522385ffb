"""Taking all that is in a queue of the server, on a channel of its own, while others publish to it and consume.

What is taken stays unacknowledged until it is let go of. All else goes back when the haul ends, however it ends: in
its order and with what is left of its time, as one channel with at most 32 consumers gives it back. (Messages that
were to wait 6 s waited 6.0 s, on 3.10.8 and 4.0.5, though a consumer that was killed had them for 3 of these.)
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Collection
from typing import Any, NamedTuple

from pika import exceptions, frame, spec

from dibs.brokers.rabbitmq import faults
from dibs.brokers.rabbitmq.channel import Channel, Connection
from dibs.moving.ends import BATCH, BATCH_BYTES

#: How many the server may send before anybody knows how large they are, then how many and about how many bytes.
_FIRST_AHEAD, _AHEAD, _AHEAD_BYTES = 50, 1000, 16 * 1024 * 1024
#: The most that one consumer may hold, and the most consumers that keep their order when all is given back.
_LARGEST_WINDOW, _MOST_CONSUMERS = 65535, 32
#: How long nothing comes before a batch is as full as it gets.
_QUIET = 0.05


class Arrival(NamedTuple):
    """A message as it came."""

    tag: int
    routing_key: str
    properties: bytes
    body: bytes
    is_again: bool


class Haul:
    """The messages of one queue. Everything runs on the I/O thread."""

    def __init__(self, channel: Channel, name: str, count: int) -> None:
        self._channel = channel
        self._name = name
        #: How many there were at the beginning: who publishes without end is not waited for.
        self._expected = count
        #: What came and was not handed on; and the tags of what was, in their order.
        self._arrived: deque[Arrival] = deque()
        self._in_hand: dict[int, None] = {}
        self._count = self._bytes = 0
        self._consumers = self._capacity = 0
        self._is_enough = asyncio.Event()
        #: Nothing more is taken.
        self.is_over = False

    @classmethod
    async def open(cls, connection: Connection, name: str) -> Haul | None:
        """Begin to take from that queue; None: there is none of that name."""
        channel = await Channel.open(connection)
        declared = await channel.look(name)
        if declared is None:
            return None
        haul = cls(channel, name, declared.message_count)
        await haul._widen(_FIRST_AHEAD)
        return haul

    async def take(self) -> list[Arrival]:
        """Return what came, up to a batch; nothing: look at `is_over`."""
        self._check()
        if self.is_over:
            return self._next_batch()
        await self._look_ahead()
        if len(self._arrived) < BATCH:
            self._is_enough.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._is_enough.wait(), _QUIET)
            self._check()
        if len(self._arrived) < BATCH and (self._count >= self._expected or not self._arrived):
            await self._look_if_over()
        return self._next_batch()

    async def let_go(self, tags: Collection[int]) -> None:
        """Acknowledge; returns when the queue has seen it, so that nothing of it can come back."""
        self._check()
        first = [tag for tag, _ in zip(self._in_hand, tags, strict=False)]
        is_one = set(first) == set(tags)
        if is_one:
            self._channel.raw.basic_ack(first[-1], multiple=True)
        else:
            for tag in tags:
                self._channel.raw.basic_ack(tag)
        for tag in tags:
            del self._in_hand[tag]
        # The queue answers behind what it has been told. The channel keeps back what goes beyond 32 that the queue
        # has not answered for: the first answer brings the others on their way, the next one comes behind them.
        for _ in range(1 if is_one else 2):
            got = await self._channel.get(self._name)
            if got is not None:
                self._on_message(None, *got)

    async def close(self) -> None:
        """Give back what is still held."""
        with contextlib.suppress(exceptions.AMQPError):  # then the server has taken it back
            await self._channel.close()

    def _check(self) -> None:
        """Raise what closed the channel: all that it held is back in its queue then."""
        if not self._channel.is_open:
            raise self._channel.reason or exceptions.ChannelWrongStateError("The channel is closed.")

    def _next_batch(self) -> list[Arrival]:
        batch: list[Arrival] = []
        size = 0
        while self._arrived and len(batch) < BATCH and (not batch or size + len(self._arrived[0].body) < BATCH_BYTES):
            arrival = self._arrived.popleft()
            size += len(arrival.body)
            self._in_hand[arrival.tag] = None
            batch.append(arrival)
        return batch

    async def _look_ahead(self) -> None:
        """Let the server send more where what is held leaves too little room: a consumer's own can't be widened."""
        ahead = max(1, min(_AHEAD, _AHEAD_BYTES * self._count // (self._bytes or 1))) if self._count else 0
        room = self._capacity - len(self._in_hand)
        if self._consumers < _MOST_CONSUMERS and room < ahead:
            await self._widen(min(_LARGEST_WINDOW, max(ahead, len(self._in_hand))))

    async def _widen(self, window: int) -> None:
        channel = self._channel
        await channel.call(channel.raw.basic_qos, prefetch_count=window)
        await channel.call(
            channel.raw.basic_consume,
            queue=self._name,
            on_message_callback=self._on_message,
            consumer_tag=f"{self._consumers:06}",  # in this order the server puts back what each one holds
        )
        self._consumers += 1
        self._capacity += window

    def _on_message(self, _: Any, method: Any, properties: Any, body: bytes) -> None:
        self._arrived.append(
            Arrival(method.delivery_tag, method.routing_key, properties.data, body, bool(method.redelivered))
        )
        self._count += 1
        self._bytes += len(properties.data) + len(body)
        if len(self._arrived) >= BATCH:
            self._is_enough.set()

    async def _look_if_over(self) -> None:
        """Take no more, if all that there was has come, or the queue is empty; what is on its way still comes."""
        if self._count < self._expected and await self._has_more():
            return
        for number in range(self._consumers):
            cancel = spec.Basic.Cancel(consumer_tag=f"{number:06}", nowait=True)  # type: ignore[no-untyped-call]
            # Not by pika's `basic_cancel`: it would give back what is still on its way.
            self._channel.connection.write(frame.Method(self._channel.raw.channel_number, cancel).marshal())
        await _catch_up(self._channel)
        self.is_over = True

    async def _has_more(self) -> bool:
        """Tell whether there is more for these consumers, though nothing came for a while.

        The server's count of what is ready lags behind; that there is nothing only `basic.get` tells for sure.
        """
        count = self._count
        declared = await self._channel.call(self._channel.raw.queue_declare, queue=self._name, passive=True)
        if declared.message_count and len(self._in_hand) < self._capacity:
            return True
        got = await self._channel.get(self._name)
        if got is not None:
            self._on_message(None, *got)
        await _catch_up(self._channel)
        return self._count > count


async def _catch_up(channel: Channel) -> None:
    """Wait for an answer of the channel's own, which stands behind what it had for us or for the queue."""
    await channel.call(channel.raw.basic_qos, prefetch_count=_FIRST_AHEAD)


async def exists(connection: Connection, name: str) -> bool:
    channel = await Channel.open(connection)
    try:
        await channel.call(channel.raw.queue_declare, queue=name, passive=True)
    except exceptions.ChannelClosedByBroker as error:
        if error.reply_code in {faults.NOT_FOUND, faults.ACCESS_REFUSED}:
            return False
        if error.reply_code == faults.LOCKED:
            return True
        raise
    await channel.close()
    return True
