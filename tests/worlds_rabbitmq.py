"""RabbitMQ as the conformance suite needs it: one namespace of the test run's node per world."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from typing import Any

import pika
import pika.exceptions
from pika.adapters.blocking_connection import BlockingChannel

from dibs.broker import Broker, Consumer
from dibs.brokers import connect
from dibs.brokers.rabbitmq import RabbitBroker
from dibs.brokers.rabbitmq.consumer import RabbitConsumer
from dibs.brokers.rabbitmq.ledger import entries
from dibs.brokers.rabbitmq.ledger.entries import Entry
from dibs.brokers.rabbitmq.topology import Names
from tests.rabbit_node import Node


class RabbitWorld:
    """A namespace of its own in the node, with everything in it deleted at the end."""

    name = "rabbitmq"

    def __init__(self, node: Node) -> None:
        self.url = node.url
        self.namespace = f"t{secrets.token_hex(4)}"
        self._node = node
        self._starts = node.starts
        self._opened: list[RabbitBroker] = []

    def open(self, **options: Any) -> Broker:
        """Return a fresh handle, as another process would have. Options go to `connect`."""
        broker = connect(self.url, **{"namespace": self.namespace, **options})
        assert isinstance(broker, RabbitBroker)
        self._opened.append(broker)
        return broker

    def stored(self, name: str) -> str:
        """Return the name under which the server has a queue or exchange."""
        return f"{self.namespace}.{name}"

    @contextlib.contextmanager
    def channel(self) -> Iterator[BlockingChannel]:
        """A plain pika channel, as strangers have."""
        with contextlib.closing(pika.BlockingConnection(pika.URLParameters(f"{self.url}%2f"))) as connection:
            yield connection.channel()

    def recorded(self, stream: str = "dibs.ledger", *, quiet: float = 0.3) -> list[Entry]:
        """Return the entries that stand in a stream: those that came until nothing did for so many seconds."""
        found: list[Entry] = []
        if not self.exists(stream):
            return found
        with self.channel() as channel:
            channel.basic_qos(prefetch_count=1000)
            arguments = {"x-stream-offset": "first"}
            messages = channel.consume(self.stored(stream), arguments=arguments, inactivity_timeout=quiet)
            for method, _, body in messages:
                if method is None or body is None:
                    return found
                found += entries.decode(body)
                channel.basic_ack(method.delivery_tag)
        return found

    def exists(self, queue: str) -> bool:
        """Tell whether the server has a queue or stream of that name."""
        with self.channel() as channel:
            try:
                channel.queue_declare(self.stored(queue), passive=True)
            except pika.exceptions.ChannelClosedByBroker:
                return False
        return True

    def has_exchange(self, exchange: str) -> bool:
        """Tell whether the server has an exchange of that name."""
        with self.channel() as channel:
            try:
                channel.exchange_declare(self.stored(exchange), passive=True)
            except pika.exceptions.ChannelClosedByBroker:
                return False
        return True

    def restart(self) -> None:
        """Stop and start the node, on the same data."""
        self._node.stop()
        self._node.start()

    def close(self) -> None:
        """Close all handles and delete what they made: each quorum queue left over costs the node a Raft group.

        What a restart has seen is left: after a kill each queue that nobody has used since takes 5 s to delete.
        """
        made: dict[str, set[str]] = {self.namespace: set()}
        for broker in self._opened:
            made.setdefault(broker._names.exchange.removesuffix("dibs").rstrip("."), set()).update(broker._known)
            broker.close()
        self._node.start()  # a test may have left it down
        if self._node.starts > self._starts:
            return
        # The delay levels stay: deleting one can end the server's dead-lettering for the whole node.
        with self.channel() as channel:
            for namespace, queues in made.items():
                names = Names(namespace)
                for name in (*map(names.stored, queues), *map(names.dead, queues), names.ledger, names.control):
                    channel.queue_delete(name)
                for name in (names.exchange, names.ledger, names.control, names.reply, names.roll):
                    channel.exchange_delete(name)


def break_channel(consumer: Consumer) -> None:
    """Have the server close the consumer's channel, as it does when a delivery times out."""
    assert isinstance(consumer, RabbitConsumer)
    intake = consumer._intake

    def acknowledge_what_is_not_there() -> None:
        if intake._lane is not None and intake._lane.channel.is_open:
            intake._lane.channel.raw.basic_ack(10**6)

    intake.link.post(acknowledge_what_is_not_there)
