"""The receiving side on its I/O thread: its channel, its subscriptions, and what has arrived.

What becomes of it in the owner's hands is for `holds.py`. The owner's thread (`consumer.py`) shares with it what
stands behind the bell's lock.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from pika import exceptions

from dibs.brokers.rabbitmq import faults, wire
from dibs.brokers.rabbitmq.arrivals import REFUSED, Arrival, Arrivals
from dibs.brokers.rabbitmq.bell import Bell
from dibs.brokers.rabbitmq.channel import Channel, Connection
from dibs.brokers.rabbitmq.hold import Hold, Lane, key_of
from dibs.brokers.rabbitmq.holds import Holds
from dibs.brokers.rabbitmq.ledger import entries
from dibs.brokers.rabbitmq.ledger.control import Orders
from dibs.brokers.rabbitmq.ledger.entries import Entry
from dibs.brokers.rabbitmq.ledger.journal import Record
from dibs.brokers.rabbitmq.ledger.roll import Roll
from dibs.brokers.rabbitmq.ledger.streams import Streams
from dibs.brokers.rabbitmq.link import Link
from dibs.brokers.rabbitmq.publisher import Publisher
from dibs.brokers.rabbitmq.renewal import Renewal
from dibs.brokers.rabbitmq.topology import LONG_RUN, Topology
from dibs.errors import AccessRefused, BrokerUnavailable, DibsError
from dibs.message import Delivery
from dibs.url import Address

_log = logging.getLogger("dibs.rabbitmq")

#: Seconds that a delivery may lie untaken here while another worker may be idle (P5).
_HOARD_LIMIT = 0.05
#: Seconds before a refused subscription is tried again: doubles from the first to the second.
_PAUSE, _LONGEST_PAUSE = 1.0, 60.0

#: The largest prefetch that AMQP can say.
_MOST = 65535


class Intake:
    """What one consumer has on its line. Owner of its link."""

    def __init__(
        self,
        address: Address,
        topology: Topology,
        queues: Sequence[str],
        limit: int,
        publisher: Callable[[], Publisher],
        streams: Streams | None,
    ) -> None:
        """Connect, in the background.

        Args:
            address: of the server.
            topology: of this connection.
            queues: what is consumed.
            limit: the most that the owner holds.
            publisher: what is to be stored goes by it.
            streams: of the ledger; None: there is to be none.
        """
        self.queues = tuple(queues)
        self.limit = min(limit, _MOST)
        self._location = address.masked  # the link's thread runs before the link is ours
        self._topology = topology
        self._publisher = publisher
        self._tasks: set[asyncio.Task[None]] = set()
        self._lane: Lane | None = None
        self._arrivals: Arrivals | None = None
        self._consumers: dict[str, str] = {}
        #: Queues whose subscriptions the server ended; they are made again.
        self._cancelled: set[str] = set()
        self._subscription = 0
        self._hoard_timer: asyncio.TimerHandle | None = None
        self.bell = Bell()
        self.holds = Holds(topology.names, publisher, self.bell, memory=self.limit * len(self.queues))
        self._renewal = Renewal(topology, self.holds, publisher, address.masked)
        #: What was paused and cancelled, and where workers are asked how they are.
        self.orders = None if streams is None else Orders(streams, self._on_orders)
        self.roll = None if streams is None else Roll(streams, publisher)
        self._paused: frozenset[str] = frozenset()

        # Behind the bell's lock:
        #: What has arrived and was not taken by the owner, with the time.
        self.arrived: deque[tuple[float, Delivery]] = deque()
        #: How many deliveries each queue may have on its way here.
        self.capacity = 0
        #: What stands in the way and is not mended by waiting.
        self.error: DibsError | None = None

        self.is_established = threading.Event()
        self.link = Link(address, "consumer", self)

    def write(self, noted: Sequence[Entry]) -> None:
        """Have entries written to the ledger, some time soon. On the owner's thread."""
        publisher = self._publisher()
        publisher.link.post(publisher.journal.write, Record(entries.encode(noted)))

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
        lane = self._lane
        if lane is None:
            return
        # What is over makes room for another one as soon as the ledger has it; what is to be published again first
        # may take as long as an alarm does.
        held = sum(
            hold.subscription == self._subscription and (hold.record is not None or not hold.is_over)
            for hold in lane.open.values()
        )
        self._widen(lane, min(room - max(0, self.capacity - held), self.limit - self.capacity))

    async def stop(self, _: Connection) -> None:
        """Receive nothing more, and begin to store what is to be published again before it is let go of."""
        if self._lane is not None:
            await self._cancel(self._lane.channel, self._drop_subscriptions())
        await self._renewal.stop()
        with self.bell.lock:
            held = [delivery for _, delivery in self.arrived] + list(self.holds.taken.values())
            self.arrived.clear()
            self.holds.taken.clear()
        again = [delivery for delivery in held if delivery.message.is_suspect or self._is_leased(delivery)]
        self.holds.give_back((delivery.receipt, delivery.message) for delivery in again)

    async def finish(self, _: Connection) -> None:
        """Wait until the outcomes that are on their way are stored."""
        await self.holds.records.finish()
        await self.holds.outcomes.finish()

    async def give_back(self, _: Connection) -> None:
        """Give back all that the server waits for, what could not be recorded with it."""
        self._lane = None
        await self.holds.close()
        await self._renewal.close()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)  # the loop itself keeps no hold of it
        task.add_done_callback(self._tasks.discard)

    def _tell(self, error: DibsError | None) -> None:
        with self.bell.lock:
            self.error = error
            self.is_established.set()
            self.bell.ring()

    async def _establish(self, connection: Connection, pause: float) -> None:
        """Declare the queues and open a channel; the owner then says how much it has room for."""
        await asyncio.sleep(pause)
        if self.orders is not None:
            await self.orders.follow(connection)
            self._on_orders()
        try:
            missing = [queue for queue in self.queues if not await self._has(connection, queue)]
            channel = await Channel.open(connection)
        except (exceptions.AMQPError, DibsError) as error:
            if connection.is_open:  # else the next one brings a new try
                self._tell(self._translate(error))
                self._spawn(self._establish(connection, _PAUSE))
            return
        if not channel.is_open:
            return  # the connection is lost already
        self._lane = lane = self.holds.open_lane(channel)
        self._arrivals = Arrivals(channel, functools.partial(self._on_arrivals, lane))
        channel.watch(functools.partial(self._on_channel_closed, lane))
        channel.raw.add_on_cancel_callback(self._on_cancelled)
        for queue in missing:
            self._begin_to_resubscribe(lane, queue)
        self._renewal.begin(connection)
        if self.roll is not None:
            self._spawn(self.roll.join(connection))
        self._widen(lane, min(len(self.holds.lost), self.limit))  # they are at the front of their queues
        self._tell(None)

    def _widen(self, lane: Lane, more: int) -> None:
        """Subscribe for so many more deliveries."""
        if more > 0:
            self.capacity += more
            queues = [queue for queue in self.queues if queue not in self._cancelled | self._paused]
            self._spawn(self._subscribe(lane, queues, more))

    async def _has(self, connection: Connection, queue: str) -> bool:
        """Declare a queue. False: its node is down, which must not keep us from the others."""
        try:
            await self._topology.ensure(connection, [queue])
        except exceptions.ChannelClosedByBroker as error:
            if not isinstance(self._translate(error), BrokerUnavailable):
                raise
            return False
        return True

    def _translate(self, error: Exception) -> DibsError:
        if isinstance(error, DibsError):
            return error
        return faults.from_channel(error, self._location, f"consuming from {', '.join(self.queues)}")

    async def _subscribe(self, lane: Lane, queues: Sequence[str], prefetch: int) -> None:
        """Add a consumer for each of these queues. Its prefetch is its own: a running one's can't be changed."""
        subscription, channel, arrivals = self._subscription, lane.channel, self._arrivals
        if arrivals is None:
            return
        try:
            await channel.call(channel.raw.basic_qos, prefetch_count=prefetch)
            for queue in queues:
                if subscription != self._subscription:
                    return  # given up meanwhile
                if queue in self._paused:
                    continue
                tag = f"{queue}-{os.urandom(4).hex()}"
                self._consumers[tag] = queue
                arrivals.expect(tag, queue, subscription)
                await channel.call(
                    channel.raw.basic_consume,
                    queue=self._topology.names.stored(queue),
                    on_message_callback=lambda *_: None,  # the tap has them
                    consumer_tag=tag,
                    arguments={"x-consumer-timeout": LONG_RUN},  # from 4.3 on, where a queue has none
                )
        except exceptions.AMQPError:
            return  # the channel is closed, and has told

    def _on_arrivals(self, lane: Lane, batch: Sequence[Arrival]) -> None:
        """Put what has come where the owner finds it, all at once: he is woken once."""
        now = time.monotonic()
        arrived: list[tuple[float, Delivery]] = []
        for queue, subscription, tag, is_redelivered, properties, body in batch:
            received = wire.decode(properties, body, queue, redelivered=is_redelivered)
            key = key_of(received.message, received.marks.put)
            if received.is_again and self.holds.recognise(key, lane, tag, subscription, received.returns):
                continue
            hold = Hold(key, subscription)
            lane.take(hold, tag)
            returns = self.holds.returns.arrive(hold, received.returns) if received.is_again else received.returns
            if subscription == REFUSED:
                self.holds.give_back([(hold, received.message)])
            else:
                arrived.append((now, Delivery(message=received.message, receipt=hold, returns=returns)))
        if not arrived:
            return
        with self.bell.lock:
            self.arrived.extend(arrived)
            self.bell.ring()
        if self._hoard_timer is None:
            self._hoard_timer = asyncio.get_running_loop().call_later(_HOARD_LIMIT, self._check_hoard)

    def _check_hoard(self) -> None:
        """Give back what the owner has left lying: it has no room, and another worker may be idle.

        The subscriptions end with it, else the same messages would come straight back.
        """
        self._hoard_timer = None
        with self.bell.lock:
            if not self.arrived:
                return
            rest = self.arrived[0][0] + _HOARD_LIMIT - time.monotonic()
        if rest > 0:
            self._hoard_timer = asyncio.get_running_loop().call_later(rest, self._check_hoard)
        elif self._lane is not None:
            self._spawn(self._end_subscriptions(self._lane.channel, self._drop_subscriptions(), self._is_of_old))

    def _drop_subscriptions(self) -> Sequence[str]:
        """Count on nothing from the subscriptions that there are; they are to be cancelled."""
        with self.bell.lock:
            self.capacity = 0
        self._subscription += 1
        consumers, self._consumers = self._consumers, {}
        return tuple(consumers)

    async def _cancel(self, channel: Channel, consumers: Sequence[str]) -> None:
        for tag in consumers:
            if self._arrivals is not None:
                self._arrivals.refuse(tag)
            if tag in channel.raw.consumer_tags:  # else the server has ended it, and would not answer
                await channel.call(channel.raw.basic_cancel, consumer_tag=tag)
            if self._arrivals is not None:
                self._arrivals.forget(tag)

    async def _end_subscriptions(
        self, channel: Channel, consumers: Sequence[str], is_surplus: Callable[[Delivery], bool]
    ) -> None:
        """Cancel subscriptions, and give back what came by them; what has come otherwise, or was taken, stays."""
        try:
            await self._cancel(channel, consumers)
        except exceptions.AMQPError:
            return  # the channel is closed, and all is given back
        with self.bell.lock:
            surplus = [delivery for _, delivery in self.arrived if is_surplus(delivery)]
            kept = [entry for entry in self.arrived if not is_surplus(entry[1])]
            self.arrived.clear()
            self.arrived.extend(kept)
            self.bell.ring()  # the owner may have room by now, and counts on what was to come
        self.holds.give_back((delivery.receipt, delivery.message) for delivery in surplus)

    def _on_orders(self) -> None:
        """Heed what others ask for: jobs that are to be cancelled, queues that are paused or resumed."""
        if self.orders is None:
            return
        self.holds.call_off(self.orders.means)
        before, self._paused = self._paused, self.orders.paused.intersection(self.queues)
        if (lane := self._lane) is None:
            return
        for queue in self._paused - before:
            tags = [tag for tag, consumed in self._consumers.items() if consumed == queue]
            for tag in tags:
                del self._consumers[tag]
            is_of_queue = functools.partial(_is_of, queue)
            self._spawn(self._end_subscriptions(lane.channel, tags, is_of_queue))
        for queue in before - self._paused - self._cancelled:
            if self.capacity:
                self._spawn(self._subscribe(lane, [queue], self.capacity))

    def _is_of_old(self, delivery: Delivery) -> bool:
        return bool(delivery.receipt.subscription != self._subscription)

    def _is_leased(self, delivery: Delivery) -> bool:
        lane: Lane | None = delivery.receipt.lane
        return lane is not None and lane.is_lease

    def _on_cancelled(self, frame: Any) -> None:
        """Subscribe again to a queue that was deleted under us, or whose node died; it is declared anew."""
        queue = self._consumers.pop(frame.method.consumer_tag, None)
        if queue is None or self._lane is None or queue in self._cancelled:
            return  # of several subscriptions to it each one is told
        self._topology.forget([queue])
        self._begin_to_resubscribe(self._lane, queue)

    def _begin_to_resubscribe(self, lane: Lane, queue: str) -> None:
        self._cancelled.add(queue)
        _log.warning(
            "A queue was deleted while it was consumed from, or its node died; it is made again. queue=%s", queue
        )
        self._spawn(self._resubscribe(lane, queue, _PAUSE))

    async def _resubscribe(self, lane: Lane, queue: str, pause: float) -> None:
        await asyncio.sleep(pause)
        if not lane.channel.is_open:
            return  # a new one subscribes to all
        try:
            await self._topology.ensure(lane.channel.connection, [queue])
        except (exceptions.AMQPError, DibsError) as error:
            if lane.channel.is_open:
                _log.warning("A queue can't be made again; trying on. queue=%s error=%s", queue, error)
                self._spawn(self._resubscribe(lane, queue, min(2 * pause, _LONGEST_PAUSE)))
            return
        self._cancelled.discard(queue)
        if self.capacity and queue not in self._paused and queue not in self._consumers.values():
            await self._subscribe(lane, [queue], self.capacity)

    def _on_channel_closed(self, lane: Lane, reason: Exception) -> None:
        """Forget what came by this channel and is in nobody's hands: the server has taken all of it back."""
        with self.bell.lock:
            untaken = {delivery.receipt for _, delivery in self.arrived}
            self.capacity = 0
            self.arrived.clear()
        self.holds.lose(lane, untaken)
        self._lane = None
        self._subscription += 1
        self._consumers.clear()
        self._cancelled.clear()
        connection = lane.channel.connection
        if not connection.is_open:
            return  # the next connection brings a new channel
        _log.warning("The server closed a consumer's channel; what it held comes again. error=%s", reason)
        code = faults.code_of(reason)
        if code == faults.ACCESS_REFUSED or (code == faults.NOT_FOUND and not self._topology.may_declare):
            self._tell(self._translate(reason))
        self._topology.forget()
        is_timeout = self._renewal.learn(reason, is_lease=False)
        self._spawn(self._establish(connection, 0.0 if is_timeout else _PAUSE))


def _is_of(queue: str, delivery: Delivery) -> bool:
    return delivery.message.queue == queue
