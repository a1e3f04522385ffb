"""Keeps long jobs from the server's consumer_timeout: what is held for long is held anew, as a copy.

RabbitMQ before 3.12 takes away what was not acknowledged for that long (30 minutes, unless set otherwise), and
later ones do for queues that lack dibs' arguments. The copy goes to a queue that this consumer alone reads, its
original is acknowledged when the copy is in hand, and the delivery stays what it was. Should this worker die, the
copy's time there is over at once and it goes back to the queue it came from.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import re
import time
from collections.abc import Callable, Sequence

from pika import exceptions

from dibs.brokers.rabbitmq import faults, wire
from dibs.brokers.rabbitmq.channel import Channel, Connection, Letter
from dibs.brokers.rabbitmq.flight import Flight
from dibs.brokers.rabbitmq.hold import Hold, Lane, key_of
from dibs.brokers.rabbitmq.holds import Holds
from dibs.brokers.rabbitmq.publisher import Publisher
from dibs.brokers.rabbitmq.records import come_back
from dibs.brokers.rabbitmq.topology import QUORUM, Topology
from dibs.errors import AccessRefused
from dibs.message import Message

_log = logging.getLogger("dibs.rabbitmq")

#: Seconds after which a hold is renewed: two thirds of the timeout that servers have unless told otherwise.
_INTERVAL = 20 * 60.0
#: The part of a timeout that we were told after which a hold is renewed.
_FRACTION = 0.5
#: The part of the interval after which we look again.
_LOOK = 0.05
#: Seconds that the copies may take to be stored.
_COPY_TIMEOUT = 10.0
#: Milliseconds that a copy may take to be fetched. Afterwards it goes back, also when its worker has died.
_TTL = 5_000
#: Milliseconds without use after which the server deletes a lease queue: a week. What is in a worker's hands does
#: not count as use, so it must be far longer than a renewal; and what can't go back at once, as its queue is full or
#: has no leader, must not go with it.
_EXPIRES = 7 * 86_400_000


class Renewal:
    """Of what one consumer holds. On its I/O thread."""

    def __init__(self, topology: Topology, holds: Holds, publisher: Callable[[], Publisher], location: str) -> None:
        self.interval = _INTERVAL
        self._topology = topology
        self._holds = holds
        self._publisher = publisher
        self._location = location
        self._name = os.urandom(6).hex()
        self._connection: Connection | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._round: asyncio.Task[None] | None = None
        #: Whether all that is held is in danger, and what is held by a lease.
        self._is_needed = self._is_needed_again = False
        self._is_refused = False
        #: Lease queues that were made, and those of them that a copy may still be in.
        self._made: set[str] = set()
        self._astray: set[str] = set()

    def begin(self, connection: Connection) -> None:
        """Look after what is held by this connection."""
        if self._connection is None and _is_old(connection):
            _log.info(
                "This RabbitMQ takes jobs away that run longer than its consumer_timeout, so they are renewed every "
                "%.0f min; with consumer_timeout = 31536000000 in its rabbitmq.conf that ends. broker=%s",
                self.interval / 60,
                self._location,
            )
        self._connection = connection
        if _is_old(connection):
            self._is_needed = self._is_needed_again = True
        self._is_refused = False
        self._look_again()

    def learn(self, reason: Exception, *, is_lease: bool) -> bool:
        """Tell whether a channel was closed by the timeout; then renew in time from now on."""
        found = re.search(r"Timeout value used: (\d+) ms", faults.text_of(reason))
        if found is None:
            return False
        self.interval = min(self.interval, int(found[1]) / 1000 * _FRACTION)
        self._is_needed = True
        self._is_needed_again = self._is_needed_again or is_lease
        self._look_again()
        return True

    async def stop(self) -> None:
        """Renew nothing more. What has begun comes to its end, else originals and copies would both go back."""
        self._is_refused = True
        if self._round is not None:
            await asyncio.wait([self._round])

    async def close(self) -> None:
        """Delete the lease queues that are empty. What is held by a lease has been let go of."""
        if self._timer is not None:
            self._timer.cancel()
        if self._connection is None or not self._connection.is_open or not self._made - self._astray:
            return
        channel = await Channel.open(self._connection)
        for queue in self._made - self._astray:
            await channel.call(channel.raw.queue_delete, queue=self._lease(queue))
        await channel.close()

    def _look_again(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(self.interval * _LOOK, self._look)

    def _look(self) -> None:
        """Begin to renew what has been held for long."""
        now = time.monotonic()
        aged = [hold for lane in self._holds.lanes for hold in lane.aged(now, self.interval)]
        due = [(hold, message) for hold, message in self._holds.running(aged) if self._is_in_danger(hold, message)]
        if due and not self._is_refused and (self._round is None or self._round.done()):
            self._round = asyncio.get_running_loop().create_task(self._renew(due))
        self._look_again()

    def _is_in_danger(self, hold: Hold, message: Message) -> bool:
        if hold.lane is not None and hold.lane.is_lease:
            return self._is_needed_again
        return self._is_needed or message.queue in self._topology.foreign

    async def _renew(self, due: Sequence[tuple[Hold, Message]]) -> None:
        """Hold each of these anew, as a copy, all by one fresh channel: they are due together the next time too."""
        connection = self._connection
        if connection is None or not connection.is_open:
            return
        queues = {message.queue for _, message in due}
        try:
            channel = await Channel.open(connection)
            for queue in queues:
                await self._declare(channel, queue)
        except (exceptions.ChannelClosedByBroker, AccessRefused) as error:
            self._refuse(error)
            return
        except exceptions.AMQPError:
            return  # the connection is lost, and what it held with it
        if not channel.is_open:
            return  # the same, seen too late
        lane = self._holds.open_lane(channel, is_lease=True)
        channel.watch(functools.partial(self._on_lane_closed, lane))
        are_clean = queues - self._astray
        self._astray |= queues
        flight = self._copies(due)
        await self._hand_over(flight)
        try:
            count = 0
            for queue in queues:
                count += await self._fetch(lane, queue, flight.nonce)
        except exceptions.AMQPError:
            return  # the channel is lost, and has told
        if count == len(due):
            self._astray -= are_clean
            _log.info("The hold on long jobs is renewed. jobs=%s", ",".join(message.id for _, message in due))
        else:
            trouble = flight.error or flight.trouble or f"{count} of {len(due)} copies arrived in time"
            _log.warning("The hold on long jobs can't be renewed; trying on. error=%s", trouble)
        self._holds.close_if_done(lane)

    async def _declare(self, channel: Channel, queue: str) -> None:
        """Make the lease queue, or say that it is in use."""
        names = self._topology.names
        if not self._topology.may_declare:
            raise AccessRefused("this app may not declare queues (declare=False)")
        await channel.call(
            channel.raw.queue_declare,
            queue=self._lease(queue),
            durable=True,
            arguments=QUORUM
            | {
                "x-message-ttl": _TTL,
                "x-expires": _EXPIRES,
                "x-dead-letter-exchange": names.exchange,
                "x-dead-letter-routing-key": names.stored(queue),
                "x-dead-letter-strategy": "at-least-once",
                "x-overflow": "reject-publish",  # which at-least-once asks for
            },
        )
        await channel.call(
            channel.raw.queue_bind,
            queue=self._lease(queue),
            exchange=names.exchange,
            routing_key=self._lease(queue),
        )
        self._made.add(queue)

    def _copies(self, due: Sequence[tuple[Hold, Message]]) -> Flight:
        """Return copies of what is held, each of them expected from now on."""
        nonce, exchange = os.urandom(6).hex(), self._topology.names.exchange
        letters = []
        for index, (hold, message) in enumerate(due):
            put = f"{nonce}-{index}"
            header = wire.encode(message, put)
            letters.append(Letter(exchange, self._lease(message.queue), header, message.body, message.id))
            self._holds.expected.expect(key_of(message, put), hold)
        return Flight(letters, nonce=nonce, queues=frozenset())

    async def _hand_over(self, flight: Flight) -> None:
        publisher, landed = self._publisher(), asyncio.Event()
        publisher.link.post(publisher.submit, flight, come_back(landed.set))
        try:
            async with asyncio.timeout(_COPY_TIMEOUT):
                await landed.wait()
        except TimeoutError:
            publisher.link.post(publisher.recall, flight)

    async def _fetch(self, lane: Lane, queue: str, nonce: str) -> int:
        """Take all that is in a lease queue. Returns how many copies of what is in hand it was."""
        raw, strange, count = lane.channel.raw, [], 0
        while (got := await lane.channel.get(self._lease(queue))) is not None:
            method, properties, body = got
            received = wire.decode(properties.data, body, queue, redelivered=method.redelivered)
            key = key_of(received.message, received.marks.put)
            if self._holds.recognise(key, lane, method.delivery_tag, 0, received.returns):
                count += 1
            elif (received.marks.put or "").startswith(f"{nonce}-"):
                raw.basic_ack(method.delivery_tag)  # published twice by a lost connection, and held already
            else:
                strange.append(method.delivery_tag)
        for tag in strange:  # left over from what was lost: they go back where they came from
            raw.basic_nack(tag, requeue=True)
        return count

    def _on_lane_closed(self, lane: Lane, reason: Exception) -> None:
        """Expect what was held by a lease: it goes back by itself, and comes again."""
        self._astray.update(hold.key[0] for hold in lane.open.values() if hold.key is not None)
        self._holds.lose(lane, ())
        self.learn(reason, is_lease=True)

    def _refuse(self, error: Exception) -> None:
        self._is_refused = True
        _log.warning(
            "The hold on long jobs can't be renewed: what runs longer than the server's consumer_timeout (30 min "
            "unless set otherwise) will run again. Set consumer_timeout = 31536000000 in its rabbitmq.conf, or allow "
            "this user to declare queues named %s. error=%s",
            self._topology.names.lease("*", "*"),
            faults.text_of(error),
        )

    def _lease(self, queue: str) -> str:
        return self._topology.names.lease(self._name, queue)


def _is_old(connection: Connection) -> bool:
    """Tell whether the server ignores the consumer timeout that a queue is declared with."""
    version = str((connection.server_properties or {}).get("version", "0"))
    return [int(part) for part in re.findall(r"\d+", version)[:2]] < [3, 12]
