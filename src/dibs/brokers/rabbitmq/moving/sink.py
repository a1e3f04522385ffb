"""RabbitMQ as the target of `dibs move`. See `dibs.moving.ends` for what each verb promises.

It proves what came by entries in the ledger's stream, each written behind the confirms of the jobs that it names.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial

import msgspec

from dibs.brokers.rabbitmq import wire
from dibs.brokers.rabbitmq.channel import Letter
from dibs.brokers.rabbitmq.flight import Flight, flight_of
from dibs.brokers.rabbitmq.ledger import entries
from dibs.brokers.rabbitmq.ledger.journal import Record
from dibs.brokers.rabbitmq.moving.haul import exists
from dibs.brokers.rabbitmq.moving.proof import Proof
from dibs.brokers.rabbitmq.publisher import Publisher
from dibs.brokers.rabbitmq.topology import Names
from dibs.errors import BrokerError, BrokerUnavailable, MessageTooLarge, UsageError
from dibs.message import Message, now_ms
from dibs.moving.ends import Arrivals, Piece
from dibs.names import DEAD_SUFFIX
from dibs.outcome import Dead, DeadLetter, is_reason
from dibs.url import Address

#: A record in the ledger names so many jobs at the most.
_RECORD_JOBS = 100


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
        return self._publisher().link.run(partial(exists, name=name), self._timeout, "looking for the source")

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
                    said += _life_of(piece, piece.letter)
            for mark in {piece.mark for piece in part if piece.mark}:
                said.append(entries.Moved([piece.id for piece in part if piece.mark == mark], mark, now_ms()))
            if said:
                self._write(said)

    def _write(self, said: Sequence[entries.Entry]) -> None:
        if self._has_ledger:
            publisher = self._publisher()
            publisher.link.post(publisher.journal.write, Record(entries.encode(said)))


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


def _life_of(piece: Piece, letter: DeadLetter) -> list[entries.Entry]:
    """Return what the ledger is told of a dead letter: that it was handed over, and that it died."""
    died = now_ms() if letter.died is None else letter.died
    # Who does not say when it was handed over would be taken to do so now: behind its end.
    enqueued = died if piece.message.enqueued is None else piece.message.enqueued
    message = msgspec.structs.replace(piece.message, enqueued=enqueued)
    outcome = Dead(letter.reason if is_reason(letter.reason) else "failed", letter.error)  # type: ignore[arg-type]
    return [entries.enqueued(message), entries.ended(message, outcome, letter.worker or "", died)]
