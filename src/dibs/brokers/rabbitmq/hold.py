"""A message in this consumer's hands, and the channels by which it can have them.

A delivery's tag dies with its channel, its hold need not: what comes again is held again, by another channel and
under another tag. All of it on the consumer's I/O thread; a hold is also the receipt of its delivery.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import msgspec

from dibs.brokers.rabbitmq.channel import Channel
from dibs.brokers.rabbitmq.flight import Flight, burial_of, flight_of
from dibs.brokers.rabbitmq.ledger.entries import Ended
from dibs.brokers.rabbitmq.topology import Names
from dibs.brokers.rabbitmq.wire import Burial
from dibs.message import Message

#: What tells a message from all others: its queue, job id, attempt, crashes and `dibs-put`.
Key = tuple[str, str, int, int, str]


def key_of(message: Message, put: str | None) -> Key | None:
    """Return what tells a message when it comes again; None: it has no `dibs-put`, as it is a stranger's.

    An id alone would take a retry, a replay, or a second job under the id of the caller's choice for the first.
    """
    return None if put is None else (message.queue, message.id, message.attempt, message.crashes, put)


class Record(msgspec.Struct, frozen=True):
    """What is to be published before a delivery is let go of."""

    message: Message
    #: Given where it goes among the dead.
    burial: Burial | None = None

    def flight(self, names: Names) -> Flight:
        """Return it ready to be handed over."""
        if self.burial is None:
            return flight_of([self.message], names)
        return burial_of(self.message, self.burial, names)


class Hold:
    """One message in hand. Without a lane it is lost, at present or for ever, or let go of."""

    __slots__ = (
        "entry",
        "is_over",
        "key",
        "lane",
        "own_returns",
        "record",
        "reply_to",
        "returns",
        "subscription",
        "tag",
    )

    def __init__(self, key: Key | None, subscription: int = 0) -> None:
        self.key = key
        self.lane: Lane | None = None
        self.tag = 0
        #: Which subscription it came by.
        self.subscription = subscription
        #: How often it came back before, as the server counts, and how many of these are this consumer's own doing.
        self.returns: int | None = 0
        self.own_returns = 0
        #: Its outcome is known.
        self.is_over = False
        #: What is to be stored before it is let go of.
        self.record: Record | None = None
        #: What the ledger is to be told before it is let go of, and the queue where somebody waits for it.
        self.entry: Ended | None = None
        self.reply_to: str | None = None


class Lane:
    """One channel, and what is held by it."""

    def __init__(self, channel: Channel, *, memory: int, is_lease: bool = False) -> None:
        """Begin with nothing.

        Args:
            channel: an open one.
            memory: how many acknowledged messages to remember.
            is_lease: what comes by it comes from lease queues.
        """
        self.channel = channel
        self.is_lease = is_lease
        #: By tag, in order.
        self.open: dict[int, Hold] = {}
        #: What was acknowledged last. There is no answer to an acknowledgement, so when the channel is lost these may
        #: come again.
        self.acknowledged: deque[Key] = deque(maxlen=memory)
        #: The last tag that was there at certain times.
        self._marks: deque[tuple[float, int]] = deque()
        self._last = self._aged = 0

    def take(self, hold: Hold, tag: int) -> None:
        """Have a message by this lane from now on."""
        hold.lane, hold.tag = self, tag
        self.open[tag] = hold
        self._last = tag

    def acknowledge(self, holds: Sequence[Hold]) -> None:
        """Let go of messages for good. On a lost channel they stay, and come again."""
        if not self.channel.is_open:
            return
        waiting = {hold.tag for hold in holds}
        span = 0
        for tag in self.open:  # in order: those at the front go in one acknowledgement
            if tag not in waiting:
                break
            span = tag
        self.channel.acknowledge(span, [hold.tag for hold in holds if hold.tag > span])
        for hold in holds:
            del self.open[hold.tag]
            hold.lane = None
            if hold.key is not None:
                self.acknowledged.append(hold.key)

    def give_back(self, hold: Hold) -> None:
        """Let go of a message that the server is to hand out again."""
        if self.channel.is_open:
            del self.open[hold.tag]
            hold.lane = None
            self.channel.raw.basic_nack(hold.tag, requeue=True)

    def replace(self, hold: Hold) -> None:
        """Acknowledge a message that is about to be held by another lane, as a copy."""
        del self.open[hold.tag]
        if self.channel.is_open:
            self.channel.raw.basic_ack(hold.tag)
        if hold.key is not None:
            self.acknowledged.append(hold.key)

    def aged(self, now: float, age: float) -> list[Hold]:
        """Return what has been held for `age` seconds, as exactly as this is called often."""
        self._marks.append((now, self._last))
        while self._marks and self._marks[0][0] <= now - age:
            self._aged = self._marks.popleft()[1]
        found = []
        for tag, hold in self.open.items():
            if tag > self._aged:
                break
            found.append(hold)
        return found
