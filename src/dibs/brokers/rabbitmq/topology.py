"""What must exist in the server before a message can go its way: names, arguments, declares and bindings.

Declares only what is missing, once per connection; never redeclares a queue into another form and never
deletes one.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from pika import exceptions

from dibs.brokers.rabbitmq import faults
from dibs.brokers.rabbitmq.channel import Channel, Connection
from dibs.brokers.rabbitmq.fields import SHORT_STRING_BYTES
from dibs.errors import BadName, QueueMismatch
from dibs.message import now_ms
from dibs.names import DEAD_SUFFIX

_log = logging.getLogger("dibs.rabbitmq")

#: Seconds of the first delay level; each further one is twice as long.
DELAY_STEP = 0.125
#: How many levels there are: together they reach over 776 days.
LEVELS = 29
LONGEST_DELAY = DELAY_STEP * (2**LEVELS - 1)
_STEP_MS = int(DELAY_STEP * 1000)

#: RabbitMQ 4.x drops a message after 20 returns unless told otherwise, and browsing the dead counts as one;
#: 3.10 reads -1, which is "never" on 4.x, as "at once".
_MANY_RETURNS = 2**31 - 1
#: Milliseconds that a job may run: 30 years. Understood from 3.12 on; 0 would mean "at once".
LONG_RUN = 10**12
#: The arguments of every queue of dibs' own.
QUORUM = {"x-queue-type": "quorum", "x-delivery-limit": _MANY_RETURNS, "x-consumer-timeout": LONG_RUN}
#: The queue, in name only, whose dead letters are the delayed messages that found no queue any more.
LOST = "dibs"


class Names:
    """What things of one namespace are called in the server."""

    def __init__(self, namespace: str) -> None:
        self._prefix = f"{namespace}." if namespace else ""
        #: The exchange that jobs are published to.
        self.exchange = f"{self._prefix}dibs"
        #: The exchange at the end of a delay, and where it sends what has no queue any more.
        self.due = f"{self._prefix}dibs.delay.due"
        self.lost = f"{self._prefix}dibs.delay.lost"
        self.lost_queue = f"{self._prefix}{LOST}{DEAD_SUFFIX}"
        #: The ledger's two streams, and the exchanges of the same names that lead to them and to nothing else.
        self.ledger = f"{self._prefix}dibs.ledger"
        self.control = f"{self._prefix}dibs.control"
        #: The exchange that leads to the queues of those who wait for answers, whose names begin so.
        self.reply = f"{self._prefix}dibs.reply"
        #: The exchange by which all workers are asked how they are, and what the names of their queues begin with.
        self.roll = f"{self._prefix}dibs.roll"

    def stored(self, queue: str) -> str:
        """Return the name under which the server has `queue`.

        Raises:
            BadName: with the namespace it is too long for the routing key of a delayed message.
        """
        name = self._prefix + queue
        limit = SHORT_STRING_BYTES - 2 * LEVELS
        if len(name.encode()) > limit:
            raise BadName(f"Queue {name!r} has {len(name.encode())} bytes with its namespace; at most {limit} fit.")
        return name

    def dead(self, queue: str) -> str:
        """Return the name of the queue that holds the dead letters of `queue`."""
        return self.stored(queue) + DEAD_SUFFIX

    def below(self, number: int) -> str:
        """Return the name of the exchange that a delay level leads to."""
        return self.level(number - 1) if number else self.due

    def lease(self, consumer: str, queue: str) -> str:
        """Return the name of the queue by which one consumer renews its hold on messages of `queue`."""
        return f"{self._prefix}dibs.lease.{consumer}.{queue}"

    def walk(self, queue: str) -> str:
        """Return the name of the queue that keeps a second walker off the dead letters of `queue`."""
        return f"{self._prefix}dibs.walk.{queue}"

    def move(self, nonce: str = "") -> str:
        """Return the name of the queue that keeps a second mover out; with a nonce, one that tells where this is."""
        return f"{self._prefix}dibs.move{f'.{nonce}' if nonce else ''}"

    def level(self, number: int) -> str:
        """Return the name of a delay level's exchange, and of its queue."""
        return f"{self._prefix}dibs.delay.{number:02}"

    def route(self, queue: str, steps: int) -> tuple[str, str]:
        """Return exchange and routing key that bring a message to `queue` after `steps` delay steps."""
        if not steps:
            return self.exchange, self.stored(queue)
        bits = ".".join(f"{steps:0{LEVELS}b}")
        return self.level(steps.bit_length() - 1), f"{bits}.{self.stored(queue)}"

    def undelayed(self, routing_key: str) -> str:
        """Return the queue that a delayed message's routing key leads to."""
        return routing_key.split(".", LEVELS)[-1].removeprefix(self._prefix)


def steps_until(due: int) -> int:
    """Return how many delay steps it is from now until `due`, rounded up, so that nothing comes early."""
    return max(0, -((now_ms() - due) // _STEP_MS))


class Topology:
    """What of it is known to exist, for one connection."""

    def __init__(self, names: Names, types: Mapping[str, str], *, may_declare: bool) -> None:
        """Begin knowing nothing.

        Args:
            names: of the namespace.
            types: how each queue is to be made, where that was said; may grow.
            may_declare: False: take everything for granted.
        """
        self.names = names
        self.may_declare = may_declare
        #: Queues in a form of others, in which the server's limit on running times holds.
        self.foreign: set[str] = set()
        self._types = types
        #: Queues, and dead letters of queues under their own names.
        self._queues: set[str] = set()
        self._levels = 0
        self._has_exchanges = False

    def forget(self, queues: Iterable[str] | None = None) -> None:
        """Take nothing for granted any more: the connection is new. Or only not these: a message came back."""
        self._has_exchanges = False
        self._levels = 0
        self._queues.difference_update(tuple(self._queues) if queues is None else queues)

    def has(self, queues: frozenset[str], levels: int) -> bool:
        """Tell whether these queues and so many delay levels are known to exist."""
        return not self.may_declare or (queues <= self._queues and levels <= self._levels)

    async def ensure(self, connection: Connection, queues: Iterable[str], levels: int = 0) -> None:
        """Declare what of these is missing.

        Args:
            connection: to the server.
            queues: with their dead letters; or the dead letters alone, under their own name.
            levels: how many delay levels are needed.

        Raises:
            AMQPError: the server refused it, or the connection was lost.
            QueueMismatch: a queue exists in a form that can't be used.
        """
        if not self.may_declare:
            return
        for queue in queues:
            if queue not in self._queues:
                await self._declare_queue(connection, queue)
        if levels > self._levels:
            await self._declare_levels(connection, levels)

    async def _declare_exchanges(self, connection: Connection) -> None:
        """Declare where jobs are published, and where delays end: a queue that is made is bound to both."""
        channel, names = await Channel.open(connection), self.names
        raw = channel.raw
        await channel.call(raw.exchange_declare, exchange=names.exchange, durable=True)
        await channel.call(raw.exchange_declare, exchange=names.lost, exchange_type="fanout", durable=True)
        await channel.call(raw.queue_declare, queue=names.lost_queue, durable=True, arguments=QUORUM)
        await channel.call(raw.queue_bind, queue=names.lost_queue, exchange=names.lost, routing_key="")
        await channel.call(
            raw.exchange_declare,
            exchange=names.due,
            exchange_type="topic",
            durable=True,
            arguments={"alternate-exchange": names.lost},
        )
        await channel.close()
        self._has_exchanges = True

    async def _declare_queue(self, connection: Connection, queue: str) -> None:
        """Declare and bind a queue, then its dead letters.

        In this order: killed within two seconds, RabbitMQ 3.10 forgets the log of the quorum queue that it made last.
        """
        is_dead = queue.endswith(DEAD_SUFFIX)
        stored = self.names.dead(queue.removesuffix(DEAD_SUFFIX)) if is_dead else self.names.stored(queue)
        arguments = {} if self._types.get(queue) == "classic" else QUORUM
        is_ours = await self._declare_or_adopt(connection, stored, arguments)
        if not is_dead and not (is_ours and arguments):
            self.foreign.add(queue)
        if not self._has_exchanges:
            await self._declare_exchanges(connection)
        channel = await Channel.open(connection)
        bind = functools.partial(channel.call, channel.raw.queue_bind, queue=stored)
        await bind(exchange=self.names.exchange, routing_key=stored)
        if not is_dead:  # one word for each delay level, so that `eu.mail` is not `mail`
            await bind(exchange=self.names.due, routing_key="*." * LEVELS + stored)
        await channel.close()
        self._queues.add(queue)
        if not is_dead and queue + DEAD_SUFFIX not in self._queues:
            await self._declare_dead(connection, queue + DEAD_SUFFIX)

    async def _declare_dead(self, connection: Connection, queue: str) -> None:
        """Declare a queue of dead letters. Who may not can still do all else: a dead letter says so when it comes."""
        try:
            await self._declare_queue(connection, queue)
        except exceptions.ChannelClosedByBroker as error:
            if error.reply_code != faults.ACCESS_REFUSED:
                raise
            _log.warning("Dead letters have no place yet, and this user may not make one. error=%s", error.reply_text)

    async def _declare_or_adopt(self, connection: Connection, name: str, arguments: dict[str, Any]) -> bool:
        """Declare a queue. Where one of that name exists in another form, it stays as it is: returns False."""
        channel = await Channel.open(connection)
        try:
            await channel.call(channel.raw.queue_declare, queue=name, durable=True, arguments=arguments)
        except exceptions.ChannelClosedByBroker as error:
            if error.reply_code != faults.PRECONDITION_FAILED:
                raise
            if "'stream'" in error.reply_text:
                raise QueueMismatch(f"Queue {name!r} is a stream, which jobs can't be taken from.") from error
            _log.warning(
                "A queue exists in another form than dibs gives it, and is used as it is. queue=%s difference=%s",
                name,
                error.reply_text,
            )
            return False
        await channel.close()
        return True

    async def _declare_levels(self, connection: Connection, levels: int) -> None:
        """Declare the delay levels below `levels`, the shortest first: each one leads to the one below."""
        if not self._has_exchanges:
            await self._declare_exchanges(connection)
        channel = await Channel.open(connection)
        for number in range(self._levels, levels):
            await self._declare_level(channel, number)
        await channel.close()
        self._levels = max(levels, self._levels)  # another task may have been at it too

    async def _declare_level(self, channel: Channel, number: int) -> None:
        """Declare one level: an exchange that sends what has its bit set to wait in its queue, else straight on."""
        raw, name = channel.raw, self.names.level(number)
        below = self.names.below(number)
        arguments = level_arguments(self.names, number)
        skipped = "*." * (LEVELS - 1 - number)
        await channel.call(raw.exchange_declare, exchange=name, exchange_type="topic", durable=True)
        await channel.call(raw.queue_declare, queue=name, durable=True, arguments=arguments)
        await channel.call(raw.queue_bind, queue=name, exchange=name, routing_key=f"{skipped}1.#")
        await channel.call(raw.exchange_bind, destination=below, source=name, routing_key=f"{skipped}0.#")


def level_arguments(names: Names, number: int) -> dict[str, object]:
    """Return the arguments of a delay level's queue."""
    return QUORUM | {
        "x-message-ttl": _STEP_MS << number,
        "x-dead-letter-exchange": names.below(number),
        "x-dead-letter-strategy": "at-least-once",  # at-most-once lost 15 % in a kill -9 of the server
        "x-overflow": "reject-publish",  # which at-least-once asks for
    }
