"""What one caller hands over at once, and what is known of each message in it."""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Mapping, Sequence
from enum import IntEnum
from types import MappingProxyType
from typing import NamedTuple

import msgspec

from dibs.brokers.rabbitmq import wire
from dibs.brokers.rabbitmq.channel import Letter
from dibs.brokers.rabbitmq.ledger import entries
from dibs.brokers.rabbitmq.ledger.entries import Enqueued, Replayed
from dibs.brokers.rabbitmq.topology import DELAY_STEP, LEVELS, LONGEST_DELAY, Names, steps_until
from dibs.errors import BadOption, BrokerBusy, DibsError, HandoverUncertain
from dibs.message import Message, now_ms
from dibs.names import DEAD_SUFFIX

#: One message to the ledger tells of so many jobs, or has about so many bytes of their bodies.
_RECORD_JOBS, _RECORD_BYTES = 100, 48 * 1024


class State(IntEnum):
    """What is known of a letter's last publish."""

    WAITING = 0
    SENT = 1
    STORED = 2
    RETURNED = 3
    REFUSED = 4


class Later(NamedTuple):
    """A delayed letter's way."""

    names: Names
    #: Without the namespace.
    queue: str
    #: In ms since 1970.
    due: int
    #: How long it was to wait when it was handed over, in delay steps.
    steps: int


class Flight:
    """Letters that are handed over together. Only the publisher's I/O thread changes it."""

    def __init__(
        self,
        letters: list[Letter],
        *,
        nonce: str,
        queues: frozenset[str],
        later: Mapping[int, Later] = MappingProxyType({}),
    ) -> None:
        """Prepare for the handover.

        Args:
            letters: what is handed over.
            nonce: what `dibs-put` of each letter begins with; its index follows behind a dash.
            queues: where they go, without the namespace; dead letters under their own name.
            later: those of the letters that are delayed, by their index.
        """
        self.letters = letters
        self.nonce = nonce
        self.queues = queues
        self._later = later
        #: How many delay levels are needed.
        self.levels = max((each.steps.bit_length() for each in later.values()), default=0)
        self.on_over: Callable[[], object] = bool  # until it is submitted, nobody is to be told
        self.states = bytearray(len(letters))
        #: Letters that were sent and never answered for: they may be stored.
        self.doubtful: set[int] = set()
        #: What makes trying again useless.
        self.error: DibsError | None = None
        #: What stood in the way last.
        self.trouble: DibsError | None = None
        self.is_over = False
        #: A task is at work to make its way free.
        self.is_mended = False
        self.failures = 0
        #: Letters of this round that are neither sent nor answered.
        self.unanswered = 0
        #: What goes to the ledger right behind the letter of this index, the first time that it is sent.
        self.records: dict[int, bytes] = {}
        #: Some of that was sent.
        self.is_told = False

    @property
    def is_stored(self) -> bool:
        """Whether each letter is stored for good."""
        return self.states.count(State.STORED) == len(self.states)

    def address(self, index: int) -> Letter:
        """Return a letter as it is to be published now: of its delay, waiting until now has taken its part."""
        later = self._later.get(index)
        if later is not None:
            # Not above what it was at first, should the clock be set back: the levels were declared for that.
            steps = min(later.steps, steps_until(later.due))
            exchange, key = later.names.route(later.queue, steps)
            self.letters[index] = msgspec.structs.replace(self.letters[index], exchange=exchange, routing_key=key)
        return self.letters[index]

    def unstored(self) -> list[int]:
        """Return the indexes of the letters that are not known to be stored."""
        return [index for index, state in enumerate(self.states) if state != State.STORED]

    def certainly_not_stored(self) -> list[str]:
        """Return the ids of the letters that were not stored, and can't be any more once it is over."""
        in_doubt = {State.SENT, State.STORED}
        return [
            letter.id
            for index, (letter, state) in enumerate(zip(self.letters, self.states, strict=True))
            if state not in in_doubt and index not in self.doubtful
        ]

    def failure(self, location: str, timeout: float, unreachable: DibsError | None) -> DibsError:
        """Return the error that tells the caller what is known now that waiting is over.

        Args:
            location: of the broker.
            timeout: how long the caller waited.
            unreachable: why there is no connection, if there is none.
        """
        missing = self.unstored()
        why = self.error or unreachable or self.trouble
        is_partly_stored = len(missing) < len(self.letters)
        if is_partly_stored or self.doubtful or State.SENT in self.states:
            return HandoverUncertain(
                f"{location} did not confirm {len(missing)} of {len(self.letters)} messages"
                f"{f': {why}' if why else f' within {timeout:g} s.'} They may or may not be stored; "
                "hand them over again with the same ids.",
                ids=[self.letters[index].id for index in missing],
            )
        if why is None:
            return BrokerBusy(f"{location} took none of {len(missing)} messages within {timeout:g} s.")
        return why


def flight_of(messages: Sequence[Message], names: Names, *, reply_to: str | None = None) -> Flight:
    """Return messages addressed to their queues, through the delay levels where they are due later.

    Args:
        messages: what is to be handed over.
        names: of the namespace.
        reply_to: the queue where this process waits for outcomes.

    Raises:
        BadOption: a delay is longer than the levels reach.
    """
    nonce = os.urandom(6).hex()
    addresses = {queue: names.route(queue, 0) for queue in {message.queue for message in messages}}
    letters, later = [], {}
    for index, message in enumerate(messages):
        exchange, key = addresses[message.queue]
        if message.due is not None and (steps := steps_until(message.due)):
            if steps.bit_length() > LEVELS:
                raise BadOption(
                    f"Job {message.id} is due {steps * DELAY_STEP / 86400:.0f} days from now; RabbitMQ is used for "
                    f"delays of up to {LONGEST_DELAY / 86400:.0f}."
                )
            later[index] = Later(names, message.queue, message.due, steps)  # addressed when it is published
        header = wire.encode(message, f"{nonce}-{index}", reply_to=reply_to)
        letters.append(Letter(exchange, key, header, message.body, message.id))
    return Flight(letters, nonce=nonce, queues=frozenset(addresses), later=later)


def enqueued_by(messages: Sequence[Message], withdrawn: Container[str] = ()) -> dict[int, bytes]:
    """Return what the ledger is told of these messages, each message to it by the index of the last one in it.

    Args:
        messages: what is handed over.
        withdrawn: ids of which the ledger was told that they were dropped: the same message may come again.
    """
    records: dict[int, bytes] = {}
    batch: list[Enqueued | Replayed] = []
    size = 0
    for index, message in enumerate(messages):
        entry = entries.enqueued(message)
        batch.append(entry)
        if message.id in withdrawn:
            batch.append(Replayed([message.id], message.queue, now_ms()))
        size += len(entry.body or b"")
        if len(batch) == _RECORD_JOBS or size > _RECORD_BYTES or index == len(messages) - 1:
            records[index] = entries.encode(batch)
            batch.clear()
            size = 0
    return records


def burial_of(message: Message, burial: wire.Burial, names: Names) -> Flight:
    """Return a message addressed to the dead letters of its queue."""
    nonce = os.urandom(6).hex()
    header = wire.encode(message, f"{nonce}-0", burial)
    letter = Letter(names.exchange, names.dead(message.queue), header, message.body, message.id)
    return Flight([letter], nonce=nonce, queues=frozenset({message.queue + DEAD_SUFFIX}))
