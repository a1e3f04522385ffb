"""One walk along the dead letters of a queue, from the oldest to the newest, over a connection of its own.

AMQP has no way to look at a message without taking it, nor at the next one before the first is settled. So a walk
takes what it sees and gives it back at its end, by closing its channel: the server then puts all of it back in order
(a nack of many does not keep it). A killed walk loses nothing; what it took may then stand behind the rest. While it
lasts nobody else finds those letters: a second walker would see a part only, so it waits until the first is done.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections import Counter, deque
from collections.abc import Collection, Iterator
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple

from pika import exceptions, frame, spec

from dibs.brokers.rabbitmq import faults, fields, wire
from dibs.brokers.rabbitmq.channel import Channel, Connection
from dibs.brokers.rabbitmq.link import Link
from dibs.brokers.rabbitmq.topology import Names
from dibs.errors import AccessRefused, BrokerBusy, BrokerError, UnknownQueue
from dibs.url import Address

#: The most letters that are handed on at a time.
_BATCH = 500
#: How many letters a window has at first, and at the most; and about how many bytes it may have.
_FIRST_WINDOW, _LARGEST_WINDOW = 100, 65535
_WINDOW_BYTES = 16 * 1024 * 1024
#: Windows double until they have this many letters. After that they grow by a quarter of what came: with more than
#: 32 of them the server no longer puts letters back in order.
_DOUBLED = 4000
#: The same where letters are deleted.
_DELETED = 1000
#: How long nothing comes before we ask whether there is more.
_QUIET = 0.05
#: How long to wait before asking again whether another walker is done.
_PAUSE = 0.05
#: Headers in which the server counts how often a message was looked at.
_COUNTS = ("x-delivery-count", "x-acquired-count")


#: A channel, and the tag under which it holds a letter.
Hold = tuple[Channel, int]


class _Arrival(NamedTuple):
    """A letter as it came."""

    hold: Hold
    routing_key: str
    properties: bytes
    body: bytes


class Walk(contextlib.AbstractContextManager["Walk"]):
    """A walk that is under way while the block lasts."""

    def __init__(
        self, queue: str, names: Names, address: Address, *, deletes: bool, may_declare: bool, timeout: float
    ) -> None:
        """Connect.

        Args:
            queue: whose dead letters.
            names: of the namespace.
            address: of the server.
            deletes: some of the letters will be deleted.
            may_declare: keep other walkers out, which takes a declare.
            timeout: seconds that each step, and waiting for another walker, may take.
        """
        self._queue = queue
        self._names = names
        self._name = names.dead(queue)
        self._timeout = timeout
        self._doing = f"reading the dead letters of {queue!r}"
        #: One, or one for each window where letters are deleted: the server looks for what is acknowledged among
        #: all that the channel holds. What is given back of several may change places, window by window.
        self._channels: list[Channel] = []
        self._deletes = deletes
        #: What came and was not handed on.
        self._arrived: deque[_Arrival] = deque()
        #: What came in all, in letters and bytes.
        self._count = self._bytes = 0
        self._windows = 0
        #: What it is to reach in this window, and whether it has.
        self._enough = 0
        self._is_full = asyncio.Event()
        #: Whether the newest of them was never taken before.
        self._is_fresh = False
        self._is_over = False
        self._nameless: Counter[str] = Counter()
        self._link = Link(address, "dead-letters", self)
        try:
            if may_declare:
                self._link.run(self._lock, timeout * 2, self._doing)
            self._link.run(self._open, timeout, self._doing)
        except BaseException:
            self._link.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give back what was not deleted, in order where the walk ended as it should."""
        try:
            if kind is None or kind is GeneratorExit:  # the latter: who looked has seen enough
                with contextlib.suppress(BrokerError):  # only the order is at stake
                    while not self._link.run(self._may_end, self._timeout, self._doing):
                        pass
                    for channel in self._channels:
                        self._link.run(partial(_close, channel), self._timeout, self._doing)
        finally:
            self._link.close()

    def batches(self) -> Iterator[list[tuple[Hold, wire.Received]]]:
        """Yield the letters with what is needed to delete them, oldest first, until all that were there are through.

        What was deleted is gone for good when this is at its end.
        """
        while batch := self._link.run(self._take, self._timeout, self._doing):
            yield [(arrival.hold, self._decode(arrival)) for arrival in batch]
        if self._deletes:
            for channel in self._channels:
                self._link.run(partial(self._confirm_deletions, channel), self._timeout, self._doing)

    def delete(self, holds: Collection[Hold]) -> None:
        """Delete these letters."""
        self._link.run(partial(_acknowledge, holds), self._timeout, self._doing)

    def _decode(self, arrival: _Arrival) -> wire.Received:
        data, body = arrival.properties, arrival.body
        is_lost = self._name == self._names.lost_queue  # then each has its own queue
        queue = self._names.undelayed(arrival.routing_key) if is_lost else self._queue
        return wire.decode(data, body, queue, redelivered=True, make_id=partial(self._make_id, data, body))

    def _make_id(self, data: bytes, body: bytes) -> str:
        """Return an id for a letter whose sender gave it none: the same one at each walk, so that it can be named.

        Letters with the same content are numbered. It does not matter which of them has which number.
        """
        properties = fields.decode(data)
        headers = properties.get("headers", {})
        properties["headers"] = {name: value for name, value in headers.items() if name not in _COUNTS}
        content = repr(properties).encode("utf-8", "backslashreplace") + body
        digest = hashlib.blake2b(content, digest_size=8).hexdigest()
        self._nameless[digest] += 1
        return f"nameless-{digest}-{self._nameless[digest]}"

    # What follows runs on the I/O thread.

    def on_open(self, connection: Connection) -> None:
        """Do nothing: a walk is not taken up again on another connection."""

    def on_lost(self, error: BaseException) -> None:
        """Do nothing: the channel tells whoever waits."""

    def on_refused(self, error: AccessRefused) -> None:
        """Do nothing: whoever waits is told."""

    async def _lock(self, connection: Connection) -> None:
        """Wait until no other walker is here: an exclusive queue ends with its connection, however that ends."""
        name = self._names.walk(self._queue)
        deadline = asyncio.get_running_loop().time() + self._timeout
        while True:
            channel = await Channel.open(connection)
            try:
                await channel.call(
                    channel.raw.queue_declare, queue=name, exclusive=True, arguments={"x-queue-type": "classic"}
                )
            except exceptions.ChannelClosedByBroker as error:
                if error.reply_code == faults.ACCESS_REFUSED:
                    return  # without the right to declare it goes on unguarded
                if error.reply_code != faults.LOCKED:
                    raise
            else:
                return
            if asyncio.get_running_loop().time() > deadline:
                raise BrokerBusy(
                    f"Somebody else has been looking at the dead letters of {self._queue!r} at {self._link.location} "
                    f"for {self._timeout:g} s. Try again when they are done: one at a time can."
                )
            await asyncio.sleep(_PAUSE)

    async def _open(self, connection: Connection) -> None:
        channel = await Channel.open(connection)
        if await channel.look(self._name) is None:
            raise UnknownQueue(f"There is no queue {self._queue!r} in {self._link.location}.")
        self._channels.append(channel)

    async def _take(self, _: Connection) -> list[_Arrival]:
        if not self._arrived and not self._is_over:
            await self._fill()
        return [self._arrived.popleft() for _ in range(min(_BATCH, len(self._arrived)))]

    async def _may_end(self, _: Connection) -> bool:
        """Tell whether the server would put all back where it was; take more where it would not.

        It keeps what was given back in a line of its own, in front of what nobody has taken yet, and adds to its
        end. So whoever takes the first of that line and gives it back must have taken all of it.
        """
        if self._is_over or self._is_fresh:
            return True
        await self._fill()
        self._arrived.clear()
        return False

    async def _fill(self) -> None:
        """Take the next window of letters, by a consumer of its own: how many one may hold can't be changed later.

        It is cancelled at once, keeping what it holds: else it would be given more when something is deleted, and,
        when the walk ends, what others gave back: that is then no longer in order.
        """
        channel = _checked(self._channels[-1])
        if self._deletes and self._windows:
            channel = await Channel.open(channel.connection)
            self._channels.append(channel)
        window = self._next_window()
        tag = f"{self._windows:06}"  # in this order the server puts back what each one holds
        self._windows += 1
        self._enough = self._count + window
        self._is_full.clear()
        await channel.call(channel.raw.basic_qos, prefetch_count=window)
        await channel.call(
            channel.raw.basic_consume,
            queue=self._name,
            on_message_callback=lambda _, *message: self._on_message(channel, *message),
            consumer_tag=tag,
        )
        while self._count < self._enough and not self._is_over:
            count = self._count
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._is_full.wait(), _QUIET)
            if self._count == count and _checked(channel):
                self._is_over = not await self._has_more(channel)
        cancel = spec.Basic.Cancel(consumer_tag=tag, nowait=True)  # type: ignore[no-untyped-call]  # pika's
        # Not by pika's `basic_cancel`: it would give back what is still on its way.
        channel.connection.write(frame.Method(channel.raw.channel_number, cancel).marshal())

    def _next_window(self) -> int:
        if not self._count:
            return _FIRST_WINDOW
        most = max(_DELETED, self._count // 50) if self._deletes else max(_DOUBLED, self._count // 4)
        fitting = _WINDOW_BYTES * self._count // self._bytes
        return max(1, min(self._count, most, fitting, _LARGEST_WINDOW))

    async def _has_more(self, channel: Channel) -> bool:
        """Tell whether there is more for this consumer, though nothing came for a while.

        The server gives a consumer that has room all that is ready, and its count of that may lag behind: that
        nothing is ready only `basic.get` tells for sure. It is asked last, as what it takes is no longer in order
        when it is given back. Its answer may have passed deliveries on their way through the channel, or, in a
        cluster, through another node.
        """
        count = self._count
        declared = await channel.call(channel.raw.queue_declare, queue=self._name, passive=True)
        if declared.message_count:
            return True
        got = await channel.get(self._name)
        if got is not None:
            self._on_message(channel, *got)
        await _catch_up(channel)
        await asyncio.sleep(_QUIET)
        return self._count > count

    def _on_message(self, channel: Channel, method: Any, properties: Any, body: bytes) -> None:
        self._arrived.append(_Arrival((channel, method.delivery_tag), method.routing_key, properties.data, body))
        self._is_fresh = not method.redelivered
        self._count += 1
        self._bytes += len(properties.data) + len(body) + 1
        if self._count >= self._enough:
            self._is_full.set()

    async def _confirm_deletions(self, channel: Channel, _connection: Connection) -> None:
        """Wait until the queue has seen all acknowledgements: closing would lose those that the channel still has.

        It keeps back what goes beyond 32 that the queue has not answered for. The first answer of the queue brings
        the others on their way; the next one comes behind them.
        """
        for _ in range(2):
            got = await _checked(channel).get(self._name)
            if got is not None:  # it died just now, and goes back at the end
                self._on_message(channel, *got)
            await _catch_up(channel)


async def _acknowledge(holds: Collection[Hold], _: Connection) -> None:
    for channel, tag in holds:
        _checked(channel).raw.basic_ack(tag)
    for channel in {channel for channel, _ in holds}:
        await _catch_up(channel)


async def _catch_up(channel: Channel) -> None:
    """Wait for an answer of the channel's own, which stands behind what it had for us or for the queue."""
    await channel.call(channel.raw.basic_qos, prefetch_count=_FIRST_WINDOW)


async def _close(channel: Channel, _: Connection) -> None:
    await channel.close()


def _checked(channel: Channel) -> Channel:
    """Return the channel, or raise what closed it: its letters are back in their queue then."""
    if not channel.is_open:
        raise channel.reason or exceptions.ChannelWrongStateError("The channel is closed.")
    return channel
