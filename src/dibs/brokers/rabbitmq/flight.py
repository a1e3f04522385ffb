"""What one caller hands over at once, and what is known of each message in it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from enum import IntEnum

from dibs.brokers.rabbitmq import wire
from dibs.brokers.rabbitmq.channel import Letter
from dibs.brokers.rabbitmq.topology import Names, steps_of
from dibs.errors import BrokerBusy, DibsError, HandoverUncertain
from dibs.message import Message, now_ms


class State(IntEnum):
    """What is known of a letter's last publish."""

    WAITING = 0
    SENT = 1
    STORED = 2
    RETURNED = 3
    REFUSED = 4


class Flight:
    """Letters that are handed over together. Only the publisher's I/O thread changes it."""

    def __init__(
        self,
        letters: Sequence[Letter],
        *,
        nonce: str,
        queues: frozenset[str],
        delayed: frozenset[str],
        levels: int,
    ) -> None:
        """Prepare for the handover.

        Args:
            letters: what is handed over.
            nonce: what `dibs-put` of each letter begins with; its index follows behind a dash.
            queues: where they go, without the namespace.
            delayed: those of the queues that are reached through the delay levels.
            levels: how many delay levels are needed.
        """
        self.letters = letters
        self.nonce = nonce
        self.queues = queues
        self.delayed = delayed
        self.levels = levels
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

    @property
    def is_stored(self) -> bool:
        """Whether each letter is stored for good."""
        return self.states.count(State.STORED) == len(self.states)

    def unstored(self) -> list[int]:
        """Return the indexes of the letters that are not known to be stored."""
        return [index for index, state in enumerate(self.states) if state != State.STORED]

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


def flight_of(messages: Sequence[Message], names: Names) -> Flight:
    """Return messages addressed to their queues, through the delay levels where they are due later.

    Raises:
        BadOption: a delay is longer than the levels reach.
    """
    nonce, now = os.urandom(6).hex(), now_ms()
    stored = {queue: names.stored(queue) for queue in {message.queue for message in messages}}
    letters, delayed, levels = [], set(), 0
    for index, message in enumerate(messages):
        exchange, key = names.exchange, stored[message.queue]
        steps = 0 if message.due is None else steps_of((message.due - now) / 1000)
        if steps:
            exchange, key = names.delayed_route(message.queue, steps)
            delayed.add(message.queue)
            levels = max(levels, steps.bit_length())
        header = wire.encode(message, f"{nonce}-{index}")
        letters.append(Letter(exchange, key, header, message.body, message.id))
    return Flight(letters, nonce=nonce, queues=frozenset(stored), delayed=frozenset(delayed), levels=levels)


def burial_of(message: Message, burial: wire.Burial, names: Names) -> Flight:
    """Return a message addressed to the dead letters of its queue."""
    nonce = os.urandom(6).hex()
    header = wire.encode(message, f"{nonce}-0", burial)
    letter = Letter(names.exchange, names.dead(message.queue), header, message.body, message.id)
    return Flight([letter], nonce=nonce, queues=frozenset({message.queue}), delayed=frozenset(), levels=0)
