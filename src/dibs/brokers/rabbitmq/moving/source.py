"""RabbitMQ as the source of `dibs move`. See `dibs.moving.ends` for what each verb promises.

It has no marks: what a mover held when it died is back in its queue, flagged as given out before.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Generator, Sequence
from functools import partial
from typing import Any, TypeVar

from dibs.broker import QueueInfo
from dibs.brokers.rabbitmq import faults, wire
from dibs.brokers.rabbitmq.channel import Channel, Connection
from dibs.brokers.rabbitmq.ledger import entries
from dibs.brokers.rabbitmq.ledger.control import Orders
from dibs.brokers.rabbitmq.ledger.streams import Streams
from dibs.brokers.rabbitmq.link import Link
from dibs.brokers.rabbitmq.moving.haul import Arrival, Haul, exists
from dibs.brokers.rabbitmq.topology import LEVELS, LOST, Names
from dibs.errors import (
    AccessRefused,
    BrokerBusy,
    BrokerError,
    LedgerUnavailable,
    UnknownQueue,
)
from dibs.ledger.snapshot import Snapshot
from dibs.message import new_id, now_ms
from dibs.moving.ends import Piece, State, apart
from dibs.url import Address

_T = TypeVar("_T")

#: A record in the ledger names so many jobs at the most.
_RECORD_JOBS = 100


class RabbitSource:
    """The messages of one namespace, to be taken away."""

    mark = 0

    def __init__(
        self,
        address: Address,
        names: Names,
        count: Callable[[Collection[str]], list[QueueInfo]],
        workers: Callable[[], list[Snapshot]],
        record: Callable[[entries.Entry], None],
        *,
        streams: Streams | None,
        may_declare: bool,
        timeout: float,
    ) -> None:
        """Connect.

        Args:
            address: of the server.
            names: of the namespace.
            count: `Broker.queues`.
            workers: `Ledger.workers`.
            record: has the ledger told.
            streams: of the ledger, where what is cancelled can be read; None: there is none.
            may_declare: keep other movers out, which takes a declare.
            timeout: seconds that each step may take.
        """
        self._names = names
        self._count = count
        self._workers = workers
        self._record = record
        self._may_declare = may_declare
        self._timeout = timeout
        self._address = address
        self._link = Link(address, "mover", self)
        self._haul: Haul | None = None
        self._orders = None if streams is None else Orders(streams, lambda: None)

    @property
    def place(self) -> str:
        """A queue that exists here alone, for as long as this is open; the address where none may be made."""
        name = self._names.move(os.urandom(6).hex())
        return f"amqp queue {name}" if self._declare(name) else f"amqp url {self._address.masked}"

    def begin(self) -> None:
        """Keep other movers out until `close`: an exclusive queue ends with its connection, however that ends."""
        self._declare(self._names.move())
        if self._orders is not None:
            self._run(self._orders.follow)

    def queues(self, names: Collection[str]) -> dict[str, dict[State, int | None]]:
        """Return what there is of each queue. What is delayed can't be counted: it lies with that of all others."""
        found = {info.name: info for info in self._count(names) if info.name != LOST}
        for name in names:
            if name not in found:
                raise UnknownQueue(f"There is no queue {name!r} in {self._link.location}.")
        return {
            name: {"ready": info.ready, "delayed": None, "dead": info.dead}
            for name, info in found.items()
            if name in names or not names
        }

    def running(self, queues: Collection[str]) -> dict[str, int | None]:
        """Return what the workers say of themselves; nothing where they can't be asked."""
        try:
            snapshots = self._workers()
        except LedgerUnavailable:
            return dict.fromkeys(queues)
        held = Counter(
            running.queue for each in snapshots for executor in each.executors for running in executor.running
        )
        return {queue: held[queue] for queue in queues}

    def doubtful(self, queues: Collection[str]) -> Generator[list[Piece]]:
        """Yield nothing: what a mover that died had is in its queue again, among the others."""
        del queues
        yield from ()

    def take(self, queues: Sequence[str], state: State) -> Generator[list[Piece]]:
        """Yield what is in that state, queue by queue, the delayed level by level from the longest on."""
        match state:
            case "ready":
                for queue in queues:
                    yield from self._take(self._names.stored(queue), [queue])
            case "delayed":
                names = [self._names.level(number) for number in range(LEVELS)]
                levels = self._run(partial(_existing, names=names))
                for level in reversed(levels):  # what leaves a level meanwhile goes to a shorter one
                    yield from self._take(level, queues, is_level=True)
            case "dead":
                for queue in queues:
                    yield from self._take(self._names.dead(queue), [queue], is_dead=True)

    def let_go(self, pieces: Sequence[Piece]) -> list[str]:
        """Acknowledge them. A job that was cancelled lies in its queue until a worker has it: see which are."""
        haul = self._haul
        assert haul is not None  # they came out of it
        self._run(lambda _: haul.let_go([piece.hold for piece in pieces]))
        for queue in {piece.message.queue for piece in pieces}:
            gone = [piece for piece in pieces if piece.message.queue == queue]
            # Not before they are due: to the ledger it would be another life of theirs that was dropped.
            at = max(now_ms(), *(piece.message.due or 0 for piece in gone))
            self._record(entries.Dropped([piece.id for piece in gone], queue, at))
        orders = self._orders
        return [] if orders is None else [piece.id for piece in pieces if orders.means(piece.message)]

    def give_back(self, pieces: Sequence[Piece]) -> None:
        """Do nothing: all that was not let go of goes back when its channel ends."""

    def leave_in_doubt(self, pieces: Sequence[Piece]) -> None:
        """Do nothing: they go back, and are flagged."""

    def close(self) -> None:
        """Let go of the connection."""
        self._link.close()

    def _take(
        self, name: str, queues: Sequence[str], *, is_level: bool = False, is_dead: bool = False
    ) -> Generator[list[Piece]]:
        haul = self._haul = self._run(partial(Haul.open, name=name))
        if haul is None:
            return
        try:
            while True:
                arrivals = self._run(lambda _: haul.take())
                if not arrivals and haul.is_over:
                    return
                pieces = []
                for arrival in arrivals:
                    queue = self._names.undelayed(arrival.routing_key) if is_level else queues[0]
                    if queue in queues:  # else it stays where it is: it is held until the end
                        pieces.append(_piece(arrival, queue, is_dead=is_dead))
                yield from apart(pieces)
        finally:
            with contextlib.suppress(BrokerError):  # then the server has taken back what was held
                self._run(lambda _: haul.close())

    def _declare(self, name: str) -> bool:
        """Make an exclusive queue; False: this user may not."""
        if not self._may_declare:
            return False
        try:
            self._run(partial(_declare, name=name))
        except AccessRefused:
            return False
        except BrokerError as error:
            if faults.code_of(error.__cause__) == faults.LOCKED:
                raise BrokerBusy(
                    f"Somebody else is moving jobs from {self._link.location}. Wait until they are done."
                ) from error
            raise
        return True

    def _run(self, work: Callable[[Connection], Coroutine[Any, Any, _T]]) -> _T:
        return self._link.run(work, self._timeout, "moving jobs")

    # What follows runs on the I/O thread.

    def on_open(self, connection: Connection) -> None:
        """Do nothing: what was held is not taken up again on another connection."""

    def on_lost(self, error: BaseException) -> None:
        """Do nothing: the channel tells whoever waits."""

    def on_refused(self, error: AccessRefused) -> None:
        """Do nothing: whoever waits is told."""


def _piece(arrival: Arrival, queue: str, *, is_dead: bool) -> Piece:
    nameless: list[str] = []

    def make_id() -> str:
        nameless.append(new_id())
        return nameless[0]

    received = wire.decode(arrival.properties, arrival.body, queue, redelivered=arrival.is_again, make_id=make_id)
    return Piece(
        message=received.message,
        letter=received.letter if is_dead else None,
        hold=arrival.tag,
        is_doubtful=arrival.is_again,
        is_nameless=bool(nameless),
    )


async def _declare(connection: Connection, name: str) -> None:
    channel = await Channel.open(connection)
    arguments = {"x-queue-type": "classic"}
    await channel.call(channel.raw.queue_declare, queue=name, exclusive=True, arguments=arguments)
    await channel.close()


async def _existing(connection: Connection, names: Sequence[str]) -> list[str]:
    """Return those of these queues that exist, up to the first that does not: the server logs each as an error."""
    found = []
    for name in names:
        if not await exists(connection, name):
            break
        found.append(name)
    return found
