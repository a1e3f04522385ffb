"""RabbitMQ as the source and the target of `dibs move`. See `dibs.moving.ends` for what each verb promises.

As a source it has no marks: what a mover held when it died is back in its queue, flagged as given out before. As a
target it proves what came by entries in the ledger's stream, each written behind the confirms of the jobs it names.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Generator, Sequence
from functools import partial
from typing import Any, TypeVar

from pika import exceptions

from dibs.broker import QueueInfo
from dibs.brokers.rabbitmq import faults, wire
from dibs.brokers.rabbitmq.channel import Channel, Connection, Letter
from dibs.brokers.rabbitmq.flight import Flight, flight_of
from dibs.brokers.rabbitmq.haul import Arrival, Haul
from dibs.brokers.rabbitmq.ledger import entries
from dibs.brokers.rabbitmq.ledger.control import Orders
from dibs.brokers.rabbitmq.ledger.journal import Record
from dibs.brokers.rabbitmq.ledger.streams import Streams
from dibs.brokers.rabbitmq.link import Link
from dibs.brokers.rabbitmq.proof import Proof
from dibs.brokers.rabbitmq.publisher import Publisher
from dibs.brokers.rabbitmq.topology import LEVELS, LOST, Names
from dibs.errors import (
    AccessRefused,
    BrokerBusy,
    BrokerError,
    BrokerUnavailable,
    LedgerUnavailable,
    MessageTooLarge,
    UnknownQueue,
    UsageError,
)
from dibs.ledger.snapshot import Snapshot
from dibs.message import Message, new_id, now_ms
from dibs.moving.ends import Arrivals, Piece, State, apart
from dibs.names import DEAD_SUFFIX
from dibs.outcome import Dead, is_reason
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
            streams: of the ledger, where what is cancelled can be read; None: there is none.
            may_declare: keep other movers out, which takes a declare.
            timeout: seconds that each step may take.
        """
        self._names = names
        self._count = count
        self._workers = workers
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


class RabbitSink:
    """One namespace, to which jobs are brought."""

    def __init__(
        self,
        address: Address,
        names: Names,
        publisher: Callable[[], Publisher],
        *,
        send: Callable[[Sequence[Message]], None],
        check: Callable[[Flight, Publisher], None],
        has_ledger: bool,
        timeout: float,
    ) -> None:
        """Publish nothing yet.

        Args:
            address: of the server.
            names: of the namespace.
            publisher: this process's.
            send: `Broker.send`.
            check: raises for a flight with something too large.
            has_ledger: proofs can be written.
            timeout: seconds that handing a batch over may take.
        """
        self._address = address
        self._names = names
        self._publisher = publisher
        self._send = send
        self._check = check
        self._has_ledger = has_ledger
        self._timeout = timeout

    def is_at(self, place: str) -> bool:
        """Tell whether the queue that a source has just made for itself is seen here."""
        protocol, kind, name = place.split(" ", 2)
        if protocol != "amqp" or kind == "url":
            return name == self._address.masked
        if not name.startswith(f"{self._names.move()}."):
            return False  # of another namespace
        return self._publisher().link.run(partial(_exists, name=name), self._timeout, "looking for the source")

    def begin(self, mark: int) -> None:
        """Write the place in the ledger from which proofs are looked for."""
        if mark:
            self._write([entries.Moved([], mark, now_ms())])

    def arrived(self, pieces: Sequence[Piece]) -> Arrivals:
        """Look for proofs in the ledger. None is no proof of the contrary: it is written behind the jobs."""
        proof = Proof(pieces)
        if self._has_ledger:
            search = partial(proof.search, name=self._names.ledger)
            try:
                self._publisher().link.run(search, self._timeout, "reading the ledger")
            except BrokerUnavailable:
                raise
            except BrokerError:
                pass  # there is none, or this user may not read it: nobody can tell
        return Arrivals(frozenset(proof.found), is_sure=False)

    def store(self, pieces: Sequence[Piece]) -> dict[str, str]:
        """Publish them, and write behind their confirms that they came."""
        refused: dict[str, str] = {}
        try:
            self._hand_over(pieces)
        except (UsageError, MessageTooLarge) as error:  # nothing was stored
            refused = {pieces[0].id: str(error)} if len(pieces) == 1 else self._refuse(pieces)
            pieces = [piece for piece in pieces if piece.id not in refused]
            if not refused:
                raise
            if pieces:
                self._hand_over(pieces)
        self._record(pieces)
        return refused

    def forget(self, pieces: Sequence[Piece]) -> None:
        """Do nothing: the ledger forgets by itself."""

    def close(self) -> None:
        """Do nothing: the broker closes what is open."""

    def _hand_over(self, pieces: Sequence[Piece]) -> None:
        if pieces[0].letter is None:
            self._send([piece.message for piece in pieces])
            return
        flight, publisher = _burials(pieces, self._names), self._publisher()
        self._check(flight, publisher)
        publisher.hand_over(flight, self._timeout)

    def _refuse(self, pieces: Sequence[Piece]) -> dict[str, str]:
        """Return what is wrong with each of these that can't be published."""
        refused = {}
        for piece in pieces:
            try:
                is_dead = piece.letter is not None
                flight = _burials([piece], self._names) if is_dead else flight_of([piece.message], self._names)
                self._check(flight, self._publisher())
            except (UsageError, MessageTooLarge) as error:
                refused[piece.id] = str(error)
        return refused

    def _record(self, pieces: Sequence[Piece]) -> None:
        """Tell the ledger what came. The dead have no worker who does."""
        for first in range(0, len(pieces), _RECORD_JOBS):
            part = pieces[first : first + _RECORD_JOBS]
            said: list[entries.Entry] = []
            for piece in part:
                if piece.letter is not None:
                    said += [entries.enqueued(piece.message), _end_of(piece)]
            for mark in {piece.mark for piece in part if piece.mark}:
                said.append(entries.Moved([piece.id for piece in part if piece.mark == mark], mark, now_ms()))
            if said:
                self._write(said)

    def _write(self, said: Sequence[entries.Entry]) -> None:
        if self._has_ledger:
            publisher = self._publisher()
            publisher.link.post(publisher.journal.write, Record(entries.encode(said)))


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


def _burials(pieces: Sequence[Piece], names: Names) -> Flight:
    """Return dead letters addressed to those of their queues."""
    nonce = os.urandom(6).hex()
    letters = []
    for index, piece in enumerate(pieces):
        message, letter = piece.message, piece.letter
        assert letter is not None  # a batch is of one state
        burial = wire.Burial(letter.reason, letter.error, letter.died, letter.worker)
        header = wire.encode(message, f"{nonce}-{index}", burial)
        letters.append(Letter(names.exchange, names.dead(message.queue), header, message.body, message.id))
    queues = frozenset(piece.message.queue + DEAD_SUFFIX for piece in pieces)
    return Flight(letters, nonce=nonce, queues=queues)


def _end_of(piece: Piece) -> entries.Ended:
    letter = piece.letter
    assert letter is not None
    outcome = Dead(letter.reason if is_reason(letter.reason) else "failed", letter.error)  # type: ignore[arg-type]
    return entries.ended(piece.message, outcome, letter.worker or "", letter.died or now_ms())


async def _declare(connection: Connection, name: str) -> None:
    channel = await Channel.open(connection)
    arguments = {"x-queue-type": "classic"}
    await channel.call(channel.raw.queue_declare, queue=name, exclusive=True, arguments=arguments)
    await channel.close()


async def _existing(connection: Connection, names: Sequence[str]) -> list[str]:
    """Return those of these queues that exist, up to the first that does not: the server logs each as an error."""
    found = []
    for name in names:
        if not await _exists(connection, name):
            break
        found.append(name)
    return found


async def _exists(connection: Connection, name: str) -> bool:
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
