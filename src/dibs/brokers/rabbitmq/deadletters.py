"""The dead letters of a queue: looked at, put back, deleted. They lie in a queue of the server like any other.

Looking takes them without acknowledging, and gives them back; a queue with a delivery limit keeps their order.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from pika import exceptions

from dibs.brokers.rabbitmq import faults, wire
from dibs.brokers.rabbitmq.channel import Channel, Connection
from dibs.brokers.rabbitmq.flight import flight_of
from dibs.brokers.rabbitmq.publisher import Publisher
from dibs.brokers.rabbitmq.topology import Names
from dibs.errors import UnknownQueue
from dibs.outcome import DeadLetter

#: How many are fetched per step; each step has the whole time limit for itself.
_BATCH = 100


class DeadLetters:
    """Those of one queue, through the publisher's connection."""

    def __init__(self, queue: str, names: Names, publisher: Publisher, timeout: float) -> None:
        self._queue = queue
        self._names = names
        self._publisher = publisher
        self._timeout = timeout

    def browse(self, *, limit: int, after: str | None) -> list[DeadLetter]:
        """Return them, oldest first; from the start where `after` is not among them."""
        letters: list[DeadLetter] = []
        is_found = after is None
        with self._opened() as shelf:
            for batch in shelf.batches():
                for _, received in batch:
                    letters.append(received.letter)
                    if not is_found and received.message.id == after:
                        is_found = True
                        letters.clear()
                if is_found and len(letters) >= limit:
                    break
        return letters[:limit]

    def replay(self, ids: Collection[str] | None) -> int:
        """Publish those with these ids to their queue, then delete them here. None: all."""
        replayed: set[str] = set()  # a job that dies again at once is met again, and stays
        count = 0
        with self._opened() as shelf:
            for batch in shelf.batches():
                chosen = [
                    (tag, received)
                    for tag, received in batch
                    if received.message.id not in replayed and (ids is None or received.message.id in ids)
                ]
                replayed.update(received.message.id for _, received in chosen)
                if chosen:
                    messages = [wire.without_history(received.message) for _, received in chosen]
                    flight = flight_of(messages, self._names)
                    self._publisher.hand_over(flight, self._timeout)
                    shelf.delete([tag for tag, _ in chosen])
                    count += len(chosen)
        return count

    def drop(self, ids: Collection[str]) -> int:
        """Delete those with these ids."""
        count = 0
        with self._opened() as shelf:
            for batch in shelf.batches():
                tags = [tag for tag, received in batch if received.message.id in ids]
                shelf.delete(tags)
                count += len(tags)
        return count

    @contextmanager
    def _opened(self) -> Iterator[_Shelf]:
        shelf = _Shelf(self._queue, self._names, self._publisher, self._timeout)
        try:
            yield shelf
        finally:
            shelf.close()


class _Shelf:
    """A channel of its own that holds what was taken, until it is deleted or the channel closes."""

    def __init__(self, queue: str, names: Names, publisher: Publisher, timeout: float) -> None:
        self._queue = queue
        self._names = names
        self._link = publisher.link
        self._timeout = timeout
        self._doing = f"reading the dead letters of {queue!r}"
        self._channel = self._link.run(self._open, timeout, self._doing)

    def batches(self) -> Iterator[list[tuple[int, wire.Received]]]:
        """Yield the dead letters with their tags, oldest first, until none is left.

        The server's count would not do: what was given back a moment ago is missing from it.
        """
        while batch := self._link.run(self._take, self._timeout, self._doing):
            yield batch

    def delete(self, tags: Collection[int]) -> None:
        """Delete what was taken under these tags."""
        for tag in tags:
            self._link.post(self._channel.raw.basic_ack, tag)

    def close(self) -> None:
        """Give back what was not deleted."""
        self._link.run(self._close, self._timeout, self._doing)

    # What follows runs on the I/O thread.

    async def _open(self, connection: Connection) -> Channel:
        channel = await Channel.open(connection)
        name = self._names.dead(self._queue)
        try:
            await channel.call(channel.raw.queue_declare, queue=name, passive=True)
        except exceptions.ChannelClosedByBroker as error:
            if error.reply_code == faults.NOT_FOUND:
                raise UnknownQueue(f"There is no queue {self._queue!r} in {self._link.location}.") from error
            raise
        return channel

    async def _take(self, _: Connection) -> list[tuple[int, wire.Received]]:
        batch: list[tuple[int, wire.Received]] = []
        while len(batch) < _BATCH:
            got = await self._channel.get(self._names.dead(self._queue))
            if got is None:
                break
            method, properties, body = got
            is_lost = self._names.dead(self._queue) == self._names.lost_queue
            queue = self._names.undelayed(method.routing_key) if is_lost else self._queue
            batch.append((method.delivery_tag, wire.decode(properties, body, queue, redelivered=method.redelivered)))
        return batch

    async def _close(self, _: Connection) -> None:
        if self._channel.is_open:
            self._channel.raw.basic_nack(0, multiple=True, requeue=True)
            await self._channel.close()  # behind the nack: whoever looks next finds all of them
