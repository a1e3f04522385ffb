"""A consumer, with what it holds and what it has settled."""

from __future__ import annotations

from collections.abc import Sequence

from dibs.broker import Consumer
from dibs.message import Delivery
from tests.remote import RemoteConsumer
from tests.waiting import receive


class Holder:
    """One consumer, here or in a process of its own."""

    def __init__(self, consumer: Consumer | RemoteConsumer, queues: Sequence[str]) -> None:
        self.consumer = consumer
        self.queues = queues
        self.held: list[Delivery] = []
        self.settled: list[Delivery] = []

    @property
    def process(self) -> RemoteConsumer | None:
        """The other process that it is in, if it is."""
        return self.consumer if isinstance(self.consumer, RemoteConsumer) else None

    def receive(self, count: int, *, within: float) -> list[Delivery]:
        """Receive until `count` deliveries came or the time is over."""
        if isinstance(self.consumer, RemoteConsumer):
            return self.consumer.receive(count, within=within)
        return receive(self.consumer, count, within=within)
