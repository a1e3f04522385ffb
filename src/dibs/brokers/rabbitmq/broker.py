"""`RabbitBroker`: the contract of `Broker`, put together from a publisher, consumers and the dead letters."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Collection, Generator, Sequence
from contextlib import closing
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

import msgspec
from pika import exceptions

from dibs import settings
from dibs.broker import CancelAnswer, Capabilities, Queue, QueueInfo, State
from dibs.brokers.rabbitmq import faults, wire
from dibs.brokers.rabbitmq.channel import Channel, Connection
from dibs.brokers.rabbitmq.flight import Flight, enqueued_by, flight_of
from dibs.brokers.rabbitmq.ledger import entries
from dibs.brokers.rabbitmq.ledger.control import Orders
from dibs.brokers.rabbitmq.ledger.entries import Cancel, Dropped, Entry, Pause, Purged
from dibs.brokers.rabbitmq.ledger.ledger import RabbitLedger
from dibs.brokers.rabbitmq.ledger.streams import Streams
from dibs.brokers.rabbitmq.topology import DELAY_STEP, LOST, Names, Topology
from dibs.errors import LedgerUnavailable, MessageTooLarge, UnknownQueue, UsageError
from dibs.facts import Facts
from dibs.ledger.ledger import Ledger
from dibs.message import Message, now_ms
from dibs.names import DEAD_SUFFIX
from dibs.outcome import DeadLetter
from dibs.selection import EVERY, Selection
from dibs.url import Address

# What only some need is imported by who needs it: all of it together takes longer than to ask the ledger something.
if TYPE_CHECKING:
    from dibs.brokers.rabbitmq.consumer import RabbitConsumer
    from dibs.brokers.rabbitmq.deadletters import DeadLetters
    from dibs.brokers.rabbitmq.moving.sink import RabbitSink
    from dibs.brokers.rabbitmq.moving.source import RabbitSource
    from dibs.brokers.rabbitmq.publisher import Publisher

#: The largest body that every server takes; RabbitMQ before 4.0 takes more.
_BODY_BYTES, _OLD_BODY_BYTES = 16 * 1024 * 1024, 128 * 1024 * 1024


class RabbitBroker:
    """The queues of one virtual host, or of one namespace in it. See `Broker`."""

    def __init__(self, address: Address, *, namespace: str, handover_timeout: float, may_declare: bool) -> None:
        """Remember what to open. Nothing is opened before first use."""
        self._address = address
        self._names = Names(namespace)
        self._timeout = handover_timeout
        self._may_declare = may_declare
        keeping = settings.keeping(address)
        self._has_ledger = keeping is not None
        self._streams = Streams(self._names, keeping or settings.Keeping(), may_declare=may_declare)
        self._orders = Orders(self._streams, lambda: None)
        self._ledger = RabbitLedger(address, self._streams, timeout=handover_timeout, on_queue=self._use_reply_queue)
        #: The queue where this process waits for outcomes, once it has waited for one.
        self.reply_queue: str | None = None
        #: How each queue that this object was told of is to be made.
        self._types: dict[str, str] = {}
        self._known: set[str] = set()
        self._capabilities: Capabilities | None = None
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._open_publisher: Publisher | None = None
        self._inherited: Publisher | None = None
        self._consumers: list[RabbitConsumer] = []

    @property
    def location(self) -> str:
        """Where it is, for people."""
        return self._address.masked

    @property
    def capabilities(self) -> Capabilities:
        """What the server can do, by its version. Connects to know it."""
        publisher = self._publisher()
        if self._capabilities is None:
            version = publisher.link.run(_version, self._timeout, "being asked for its version")
            self._capabilities = _capabilities(version, has_ledger=self._has_ledger)
        return self._capabilities

    def declare(self, queues: Sequence[Queue]) -> None:
        """Make these queues. See `Broker.declare`."""
        names = [queue.name for queue in queues]
        self._types.update((queue.name, queue.type) for queue in queues)
        publisher = self._publisher()
        publisher.link.run(
            partial(publisher.topology.ensure, queues=names), self._timeout, f"declaring {', '.join(names)}"
        )
        self._known.update(names)

    def send(self, messages: Sequence[Message]) -> None:
        """Hand messages over. See `Broker.send`."""
        if not messages:
            return
        publisher = self._publisher()
        flight = flight_of(messages, self._names, reply_to=self.reply_queue)
        self._known |= flight.queues
        self._check_sizes(flight, publisher)
        if self._has_ledger:
            flight.records = enqueued_by(messages, publisher.journal.withdrawn)
        publisher.hand_over(flight, self._timeout)

    def consume(self, queues: Sequence[str], *, limit: int) -> RabbitConsumer:
        """Begin to receive from these queues. See `Broker.consume`."""
        from dibs.brokers.rabbitmq.consumer import RabbitConsumer  # noqa: PLC0415
        from dibs.brokers.rabbitmq.intake import Intake  # noqa: PLC0415

        topology = Topology(self._names, self._types, may_declare=self._may_declare)
        streams = self._streams if self._has_ledger else None
        intake = Intake(self._address, topology, queues, limit, self._publisher, streams)
        consumer = RabbitConsumer(intake, names=self._names, handover_timeout=self._timeout)
        self._known.update(queues)
        self._consumers = [*(known for known in self._consumers if not known.is_closed), consumer]
        return consumer

    def queues(self, names: Collection[str] = ()) -> list[QueueInfo]:
        """Return the queues that this object was told of, and those named. AMQP has no way to ask for others."""
        wanted = sorted(self._known.union(names, [LOST]))
        paused: frozenset[str] = frozenset()
        if self._has_ledger:
            paused = self._publisher().link.run(self._paused, self._timeout, "reading what is paused")
        counts = self._publisher().link.run(partial(self._count, wanted), self._timeout, "counting messages")
        return [
            QueueInfo(
                name=queue,
                ready=ready,
                running=None,
                delayed=None,
                dead=dead,
                consumers=consumers,
                is_paused=queue in paused,
            )
            for queue, (ready, consumers), (dead, _) in counts
        ]

    def dead(
        self, queue: str, selection: Selection = EVERY, *, limit: int, after: str | None = None
    ) -> list[DeadLetter]:
        """Return one page of dead letters. See `Broker.dead`."""
        with closing(self.each_dead(queue, selection, after=after)) as letters:
            return list(islice(letters, limit))

    def each_dead(
        self, queue: str, selection: Selection = EVERY, *, after: str | None = None
    ) -> Generator[DeadLetter]:
        """Yield dead letters of `queue`, oldest first. See `Broker.each_dead`."""
        yield from self._dead_letters(queue).each(selection, after=after)

    def replay(self, queue: str, selection: Selection = EVERY) -> int:
        """Put dead letters back into their queue. See `Broker.replay`."""
        return self._dead_letters(queue).replay(selection)

    def drop(self, queue: str, selection: Selection) -> int:
        """Delete these dead letters for good."""
        if selection == EVERY:
            count = self._purge(queue, self._names.dead(queue))
            self._record(Dropped(None, queue, now_ms()))
            return count
        return self._dead_letters(queue).drop(selection)

    def purge(self, queue: str, *, state: State) -> int:
        """Delete all messages of `queue` that are ready. See `Broker.purge`."""
        if state == "delayed":
            raise UsageError("RabbitMQ can't purge delayed messages: those of all queues wait in the same places.")
        count = self._purge(queue, self._names.stored(queue))
        self._record(Purged(queue, now_ms()))
        return count

    def pause(self, queue: str) -> None:
        """Have no job of this queue started any more. See `Broker.pause`."""
        self._order([Pause(queue, True, now_ms())], f"pausing {queue!r}")

    def resume(self, queue: str) -> None:
        """End a pause. See `Broker.resume`."""
        self._order([Pause(queue, False, now_ms())], f"resuming {queue!r}")

    def cancel(self, ids: Collection[str]) -> dict[str, CancelAnswer]:
        """Ask for jobs to be cancelled: the worker that has one, or gets it, does it. See `Broker.cancel`."""
        if ids:
            self._order([Cancel(list(ids), now_ms())], f"cancelling {len(ids)} jobs")
        return dict.fromkeys(ids, "requested")

    @property
    def ledger(self) -> Ledger:
        """What became of jobs. See `Broker.ledger`."""
        if not self._has_ledger:
            raise LedgerUnavailable(
                f"{self.location} is used without a ledger (ledger=off): what becomes of jobs is recorded nowhere."
            )
        return self._ledger

    def examine(self, queues: Sequence[Queue] = (), *, is_deep: bool = False) -> Facts:
        """Look at what there is in the server, and ask its management API where that is. See `Broker.examine`."""
        del is_deep
        from dibs.brokers.rabbitmq import examination, management  # noqa: PLC0415

        uses_ledger = self._has_ledger
        looked = examination.Examination(self._address, self._names, queues, uses_ledger=uses_ledger)
        server = looked.look(self._timeout)
        told, why_not = management.ask(self._address, self._names, [self._names.stored(each.name) for each in queues])
        return Facts(
            location=self.location,
            server=f"RabbitMQ {server.version}",
            rabbitmq=msgspec.structs.replace(server, management=told),
            not_asked=[f"the management API (policies, clock): {why_not}"] if told is None else [],
            has_queues=not server.is_fresh,
            has_jobs=server.has_ledger and server.has_roll,  # the workers are asked, too
            has_workers=uses_ledger and server.has_roll,
        )

    def source(self) -> RabbitSource:
        """Return it as the source of a move."""
        from dibs.brokers.rabbitmq.moving.source import RabbitSource  # noqa: PLC0415

        return RabbitSource(
            self._address,
            self._names,
            self.queues,
            lambda: self.ledger.workers(),  # noqa: PLW0108 -- asked for when it is needed: there may be none
            self._record,
            streams=self._streams if self._has_ledger else None,
            may_declare=self._may_declare,
            timeout=self._timeout,
        )

    def sink(self) -> RabbitSink:
        """Return it as the target of a move."""
        from dibs.brokers.rabbitmq.moving.sink import RabbitSink  # noqa: PLC0415

        return RabbitSink(
            self._address,
            self._names,
            self._publisher,
            send=self.send,
            check=self._check_sizes,
            has_ledger=self._has_ledger,
            timeout=self._timeout,
        )

    def close(self) -> None:
        """Close what was opened here, consumers first: they may still have outcomes to publish."""
        if os.getpid() != self._pid:
            return
        for consumer in self._consumers:
            consumer.close()
        self._ledger.close()
        if self._open_publisher is not None:
            self._open_publisher.close()
            self._open_publisher = None

    def _publisher(self) -> Publisher:
        """Return this process's publisher, made at its first use.

        A forked child has the parent's sockets too, and its lock in whatever state: it leaves all of that alone.
        """
        if os.getpid() != self._pid:
            self._pid, self._lock = os.getpid(), threading.Lock()
            self._inherited, self._open_publisher = (
                self._open_publisher,
                None,
            )  # kept, so that nothing of it is closed
            self.reply_queue, self._orders = None, Orders(self._streams, lambda: None)
        with self._lock:
            if self._open_publisher is None:
                from dibs.brokers.rabbitmq.publisher import Publisher  # noqa: PLC0415

                topology = Topology(self._names, self._types, may_declare=self._may_declare)
                self._open_publisher = Publisher(self._address, topology, self._streams)
            return self._open_publisher

    def _use_reply_queue(self, name: str) -> None:
        self.reply_queue = name

    def _dead_letters(self, queue: str) -> DeadLetters:
        from dibs.brokers.rabbitmq.deadletters import DeadLetters  # noqa: PLC0415
        from dibs.brokers.rabbitmq.walk import Walk  # noqa: PLC0415

        walk = partial(Walk, queue, self._names, self._address, may_declare=self._may_declare, timeout=self._timeout)
        return DeadLetters(walk, self._names, self._publisher, self._record, self._timeout)

    def _record(self, entry: Entry) -> None:
        """Have the ledger told, some time soon."""
        if self._has_ledger:
            from dibs.brokers.rabbitmq.ledger.journal import Record  # noqa: PLC0415

            publisher = self._publisher()
            publisher.link.post(publisher.journal.write, Record(entries.encode([entry])))

    def _purge(self, queue: str, name: str) -> int:
        return self._publisher().link.run(partial(_purge, name=name, queue=queue), self._timeout, f"purging {name}")

    def _check_sizes(self, flight: Flight, publisher: Publisher) -> None:
        """Refuse what the server would answer by closing the channel, or the connection, of everybody."""
        for letter in flight.letters:
            if len(letter.header) > wire.HEADER_BYTES:
                raise MessageTooLarge(
                    f"Message {letter.id} has {len(letter.header)} bytes of headers and properties; "
                    f"at most {wire.HEADER_BYTES} fit. Put large values into the body."
                )
        largest = max(flight.letters, key=lambda letter: len(letter.body))
        limit = publisher.body_bytes or _BODY_BYTES
        if len(largest.body) > limit:
            limit = publisher.body_bytes or self.capabilities.body_bytes
        if len(largest.body) > limit:
            raise MessageTooLarge(
                f"Message {largest.id} has {len(largest.body)} bytes; {self.location} takes at most {limit}. "
                "Store large payloads elsewhere, and send where they are."
            )

    def _order(self, wanted: Sequence[Entry], doing: str) -> None:
        if not self._has_ledger:
            raise LedgerUnavailable(
                f"{self.location} is used without a ledger (ledger=off): {doing} does not work, as workers "
                "would not read of it."
            )
        self._publisher().order(wanted, self._timeout, doing)

    async def _paused(self, connection: Connection) -> frozenset[str]:
        await self._orders.follow(connection)
        return self._orders.paused

    async def _count(
        self, queues: Sequence[str], connection: Connection
    ) -> list[tuple[str, tuple[int, int], tuple[int, int]]]:
        counts = []
        for queue in queues:
            name = self._names.stored(queue)
            ready, dead = await _depth(connection, name), await _depth(connection, name + DEAD_SUFFIX)
            if ready is None and queue == LOST and dead is not None and dead[0]:
                ready = 0, 0  # it has dead letters only
            if ready is not None:
                counts.append((queue, ready, dead or (0, 0)))
        return counts


async def _version(connection: Connection) -> str:
    return str((connection.server_properties or {}).get("version", "0"))


async def _depth(connection: Connection, name: str) -> tuple[int, int] | None:
    """Return how many messages are ready and how many consumers there are; None: there is no such queue."""
    channel = await Channel.open(connection)
    declared = await channel.look(name)
    if declared is None:
        return None
    await channel.close()
    return declared.message_count, declared.consumer_count


async def _purge(connection: Connection, name: str, queue: str) -> int:
    channel = await Channel.open(connection)
    try:
        purged = await channel.call(channel.raw.queue_purge, queue=name)
    except exceptions.ChannelClosedByBroker as error:
        if error.reply_code == faults.NOT_FOUND:
            raise UnknownQueue(f"There is no queue {queue!r}.") from error
        raise
    await channel.close()
    return int(purged.message_count)


def _capabilities(version: str, *, has_ledger: bool) -> Capabilities:
    major, minor = (int(part) for part in re.findall(r"\d+", version + ".0.0")[:2])
    return Capabilities(
        server=f"RabbitMQ {version}",
        is_durable=True,
        is_shared=True,
        priorities=1 if major < 4 else 2 if (major, minor) < (4, 3) else 10,
        delay_step=DELAY_STEP,
        has_atomic_settle=False,
        refuses_duplicates=False,
        counts_deaths=False,
        counts_held=False,
        lists_queues=False,
        has_ledger=has_ledger,
        is_ledger_exact=False,
        body_bytes=_OLD_BODY_BYTES if major < 4 else _BODY_BYTES,
    )
