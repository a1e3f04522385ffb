"""The receiving side on its I/O thread: channel, subscriptions, what has arrived, and what is told the server.

The owner's thread (`consumer.py`) shares with it what stands behind `lock`. A generation is the life of one
channel: delivery tags mean nothing beyond it, so a receipt names both.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Coroutine, Sequence
from typing import Any

from pika import exceptions

from dibs.brokers.rabbitmq import faults, wire
from dibs.brokers.rabbitmq.channel import Channel, Connection, Encoded
from dibs.brokers.rabbitmq.flight import Flight
from dibs.brokers.rabbitmq.link import Link
from dibs.brokers.rabbitmq.publisher import Publisher
from dibs.brokers.rabbitmq.topology import Topology
from dibs.errors import AccessRefused, DibsError
from dibs.message import Delivery
from dibs.url import Address

_log = logging.getLogger("dibs.rabbitmq")

#: Seconds that a delivery may lie untaken here while another worker may be idle (P5).
_HOARD_LIMIT = 0.05
#: Seconds before a refused subscription or record is tried again.
_PAUSE = 1.0

#: The largest prefetch that AMQP can say.
_MOST = 65535

#: Proof of a hold: the generation and the delivery tag.
Receipt = tuple[int, int]


class Intake:
    """What one consumer has on its line. Owner of its link."""

    def __init__(self, address: Address, topology: Topology, queues: Sequence[str], limit: int) -> None:
        self.queues = tuple(queues)
        self.limit = min(limit, _MOST)
        self._topology = topology
        self._tasks: set[asyncio.Task[None]] = set()
        self._channel: Channel | None = None
        self._consumers: dict[str, str] = {}
        #: Tags that the server waits for, in order, each with the subscription that it came by.
        self._open: dict[int, int] = {}
        self._subscription = 0
        self._hoard_timer: asyncio.TimerHandle | None = None

        self.lock = threading.Condition()
        #: Begins anywhere, so that a receipt of another consumer's fits nothing here.
        self.generation = int.from_bytes(os.urandom(6), "big")
        #: What has arrived and was not taken by the owner, with the time.
        self.arrived: deque[tuple[float, Delivery]] = deque()
        #: Tags that the owner holds.
        self.taken: set[int] = set()
        #: Tags whose outcome is on its way to be stored; they are let go of behind it.
        self.recording: dict[int, tuple[Publisher, Flight]] = {}
        #: How many deliveries each queue may have on its way here.
        self.capacity = 0
        #: What stands in the way and is not mended by waiting.
        self.error: DibsError | None = None
        self.is_established = threading.Event()
        self.read_end, self._write_end = os.pipe()
        os.set_blocking(self.read_end, False)
        os.set_blocking(self._write_end, False)
        self._is_readable = False
        self.link = Link(address, "consumer", self)

    def drain(self) -> None:
        """Make the descriptor unreadable until there is news. With the lock held."""
        if self._is_readable:
            self._is_readable = False
            os.read(self.read_end, 64)

    def wake(self) -> None:
        """Make the descriptor readable. With the lock held."""
        if not self._is_readable:
            self._is_readable = True
            os.write(self._write_end, b"n")

    def record(self, generation: int, tag: int) -> None:
        """Have the outcome of a delivery published; `_on_recorded` comes behind."""
        with self.lock:
            publisher, flight = self.recording.get(tag, (None, None))
        if publisher is not None and flight is not None and generation == self.generation:
            publisher.link.post(publisher.submit, flight, functools.partial(self._tell_recorded, generation, tag))

    def close_descriptors(self) -> None:
        """Let go of the descriptors. An I/O thread that a frozen server still holds up can't wake anybody then."""
        with self.lock:
            self._is_readable = True
        os.close(self.read_end)
        os.close(self._write_end)

    # What follows runs on the I/O thread.

    def on_open(self, connection: Connection) -> None:
        """Take up the line on a new connection."""
        self._topology.forget()
        self._spawn(self._establish(connection, 0.0))

    def on_lost(self, error: BaseException) -> None:
        """Do nothing: the channel has told."""

    def on_refused(self, error: AccessRefused) -> None:
        """Tell the owner that nobody is let in with this login."""
        self._tell(error)

    def want(self, room: int) -> None:
        """Subscribe for as many more deliveries as the owner has room for and none are on their way."""
        if self._channel is None:
            return
        on_their_way = sum(subscription == self._subscription for subscription in self._open.values())
        more = min(room - max(0, self.capacity - on_their_way), self.limit - self.capacity)
        if more > 0:
            self.capacity += more
            self._spawn(self._subscribe(self._channel, self.queues, more))

    def let_go(self, generation: int, acks: Sequence[int], nacks: Sequence[int]) -> None:
        """Acknowledge and give back deliveries."""
        channel = self._channel
        if generation != self.generation or channel is None or not channel.is_open:
            return  # the server has taken them back already
        for tag in nacks:
            self._open.pop(tag, None)
            channel.raw.basic_nack(tag, requeue=True)
        waiting = set(acks)
        span = 0
        for tag in self._open:  # in order: those at the front go in one acknowledgement
            if tag not in waiting:
                break
            span = tag
        if span:
            channel.raw.basic_ack(span, multiple=True)
        for tag in acks:
            del self._open[tag]
            if tag > span:
                channel.raw.basic_ack(tag)

    async def give_back(self, _: Connection) -> None:
        """Give back all that the server waits for, what could not be recorded with it."""
        self._recall_records()
        if self._channel is not None and self._channel.is_open:
            channel, self._channel = self._channel, None
            channel.raw.basic_nack(0, multiple=True, requeue=True)
            await channel.close()

    def _tell_recorded(self, generation: int, tag: int) -> None:
        """Come back from the publisher's thread to this one's."""
        with contextlib.suppress(DibsError):  # closed meanwhile: the server has taken the delivery back
            self.link.post(self._on_recorded, generation, tag)

    def _on_recorded(self, generation: int, tag: int) -> None:
        """Let go of a delivery whose outcome is stored; else try to store it again."""
        if generation != self.generation or tag not in self.recording:
            return
        _, flight = self.recording[tag]
        if flight.is_stored:
            self.let_go(generation, [tag], [])
            with self.lock:
                del self.recording[tag]
                self.lock.notify_all()
            return
        _log.error("An outcome can't be stored; trying on. queue=%s error=%s", ", ".join(flight.queues), flight.error)
        flight.error, flight.is_over = None, False
        asyncio.get_running_loop().call_later(_PAUSE, self.record, generation, tag)

    def _recall_records(self) -> None:
        with self.lock:
            recording, self.recording = self.recording, {}
            self.lock.notify_all()
        for publisher, flight in recording.values():
            with contextlib.suppress(DibsError):  # a closed publisher publishes nothing anyway
                publisher.link.post(publisher.recall, flight)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)  # the loop itself keeps no hold of it
        task.add_done_callback(self._tasks.discard)

    def _tell(self, error: DibsError | None) -> None:
        with self.lock:
            self.error = error
            self.is_established.set()
            self.wake()

    async def _establish(self, connection: Connection, pause: float) -> None:
        """Declare the queues and open a channel; the owner then says how much it has room for."""
        await asyncio.sleep(pause)
        try:
            await self._topology.ensure(connection, self.queues)
            channel = await Channel.open(connection)
        except (exceptions.AMQPError, DibsError) as error:
            if connection.is_open:  # else the next one brings a new try
                self._tell(self._translate(error))
                self._spawn(self._establish(connection, _PAUSE))
            return
        self._channel = channel
        channel.watch(functools.partial(self._on_channel_closed, connection))
        channel.raw.add_on_cancel_callback(self._on_cancelled)
        self._tell(None)

    def _translate(self, error: Exception) -> DibsError:
        if isinstance(error, DibsError):
            return error
        return faults.from_channel(error, self.link.location, f"consuming from {', '.join(self.queues)}")

    async def _subscribe(self, channel: Channel, queues: Sequence[str], prefetch: int) -> None:
        """Add a consumer for each of these queues. Its prefetch is its own: a running one's can't be changed."""
        subscription = self._subscription
        try:
            await channel.call(channel.raw.basic_qos, prefetch_count=prefetch)
            for queue in queues:
                if subscription != self._subscription:
                    return  # given up meanwhile
                tag = f"{queue}-{os.urandom(4).hex()}"
                self._consumers[tag] = queue
                await channel.call(
                    channel.raw.basic_consume,
                    queue=self._topology.names.stored(queue),
                    on_message_callback=functools.partial(self._on_delivery, queue, subscription),
                    consumer_tag=tag,
                )
        except exceptions.AMQPError:
            return  # the channel is closed, and has told

    def _on_delivery(
        self, queue: str, subscription: int, _: Any, method: Any, properties: Encoded, body: bytes
    ) -> None:
        received = wire.decode(properties.data, body, queue, redelivered=method.redelivered)
        tag = method.delivery_tag
        self._open[tag] = subscription
        delivery = Delivery(message=received.message, receipt=(self.generation, tag), returns=received.returns)
        with self.lock:
            self.arrived.append((time.monotonic(), delivery))
            self.wake()
        if self._hoard_timer is None:
            self._hoard_timer = asyncio.get_running_loop().call_later(_HOARD_LIMIT, self._check_hoard)

    def _check_hoard(self) -> None:
        """Give back what the owner has left lying: it has no room, and another worker may be idle.

        The subscriptions end with it, else the same messages would come straight back.
        """
        self._hoard_timer = None
        with self.lock:
            if not self.arrived:
                return
            rest = self.arrived[0][0] + _HOARD_LIMIT - time.monotonic()
            if rest > 0:
                self._hoard_timer = asyncio.get_running_loop().call_later(rest, self._check_hoard)
                return
            self.capacity = 0
        self._subscription += 1
        consumers, self._consumers = self._consumers, {}
        if self._channel is not None:
            self._spawn(self._give_back_surplus(self._channel, tuple(consumers)))

    async def _give_back_surplus(self, channel: Channel, consumers: Sequence[str]) -> None:
        try:
            for tag in consumers:
                if tag in channel.raw.consumer_tags:  # else the server has ended it, and would not answer
                    await channel.call(channel.raw.basic_cancel, consumer_tag=tag)
        except exceptions.AMQPError:
            return  # the channel is closed, and all is given back
        with self.lock:  # what has come meanwhile, or was taken, is as it should be
            surplus = [delivery for _, delivery in self.arrived if self._is_of_old(delivery)]
            kept = [entry for entry in self.arrived if not self._is_of_old(entry[1])]
            self.arrived.clear()
            self.arrived.extend(kept)
        self.let_go(self.generation, [], [delivery.receipt[1] for delivery in surplus])

    def _is_of_old(self, delivery: Delivery) -> bool:
        return self._open[delivery.receipt[1]] != self._subscription

    def _on_cancelled(self, frame: Any) -> None:
        """Subscribe again to a queue that was deleted under us; it is declared anew."""
        queue = self._consumers.pop(frame.method.consumer_tag, None)
        if queue is not None and self._channel is not None:
            _log.warning("A queue was deleted while it was consumed from; it is made again. queue=%s", queue)
            self._topology.forget([queue])
            self._spawn(self._resubscribe(self._channel, queue))

    async def _resubscribe(self, channel: Channel, queue: str) -> None:
        await asyncio.sleep(_PAUSE)
        try:
            await self._topology.ensure(channel.connection, [queue])
        except (exceptions.AMQPError, DibsError) as error:
            _log.warning("A queue can't be made again; trying on. queue=%s error=%s", queue, error)
            if channel.is_open:
                self._spawn(self._resubscribe(channel, queue))
            return
        if self.capacity and queue not in self._consumers.values():
            await self._subscribe(channel, [queue], self.capacity)

    def _on_channel_closed(self, connection: Connection, reason: Exception) -> None:
        """Forget what came by this channel: the server has taken all of it back."""
        with self.lock:
            self.generation += 1
            self.capacity = 0
            self.arrived.clear()
            self.taken.clear()
        self._recall_records()
        self._channel = None
        self._subscription += 1
        self._consumers.clear()
        self._open.clear()
        if not connection.is_open:
            return  # the next connection brings a new channel
        _log.warning("The server closed a consumer's channel; what it held comes again. error=%s", reason)
        code = faults.code_of(reason)
        if code == faults.ACCESS_REFUSED or (code == faults.NOT_FOUND and not self._topology.may_declare):
            self._tell(self._translate(reason))
        self._topology.forget()
        self._spawn(self._establish(connection, _PAUSE))
