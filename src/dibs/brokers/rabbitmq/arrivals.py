"""What is delivered on one channel, from the frames themselves: in batches, each message with its subscription."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from dibs.brokers.rabbitmq.channel import Channel
from dibs.brokers.rabbitmq.sieve import Sieve, Tap

#: The subscription of what still came by one that is being cancelled.
REFUSED = -1
#: Where the properties begin in a header frame: behind the class, the weight and the size of the body.
_PROPERTIES = 12


class Arrival(NamedTuple):
    """A message that has come."""

    queue: str
    #: Which subscription it came by.
    subscription: int
    #: Its delivery tag.
    tag: int
    is_redelivered: bool
    #: In wire form.
    properties: bytes
    body: bytes


class Arrivals(Tap):
    """Those of one channel."""

    def __init__(self, channel: Channel, on_batch: Callable[[list[Arrival]], None]) -> None:
        """Have what comes handed to `on_batch`, in order, as many at a time as were received at once."""
        super().__init__()
        self._channel = channel
        self._on_batch = on_batch
        self._batch: list[Arrival] = []
        #: Queue and subscription, by the consumer tag as it stands in a delivery.
        self._ways: dict[bytes, tuple[str, int]] = {}
        number = channel.raw.channel_number
        sieve = Sieve.of(channel.connection)
        sieve.put(number, self)
        channel.watch(lambda _: sieve.remove(number))

    def expect(self, consumer_tag: str, queue: str, subscription: int) -> None:
        """Know what comes by this consumer. Call it before the server is asked for it."""
        self._ways[consumer_tag.encode()] = queue, subscription

    def refuse(self, consumer_tag: str) -> None:
        """Mark what comes by this consumer from now on. Call it when the server is asked to end it."""
        way = consumer_tag.encode()
        if way in self._ways:
            self._ways[way] = self._ways[way][0], REFUSED

    def forget(self, consumer_tag: str) -> None:
        """Know that nothing comes by this consumer any more. Call it when the server has ended it."""
        self._ways.pop(consumer_tag.encode(), None)

    def take(self, body: bytes) -> None:
        """Take in a message."""
        method = self.method
        end = 1 + method[0]
        tag = int.from_bytes(method[end : end + 8], "big")
        way = self._ways.get(method[1:end])
        if way is None:
            self._channel.raw.basic_reject(tag)
        else:
            self._batch.append(Arrival(*way, tag, method[end + 8] & 1 == 1, self.header[_PROPERTIES:], body))

    def hand_on(self) -> None:
        """Hand on what came."""
        if self._batch:
            batch, self._batch = self._batch, []
            self._on_batch(batch)
