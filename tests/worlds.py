"""What the conformance suite needs of a broker's surroundings. Each broker has one of these."""

from __future__ import annotations

from typing import Any, Protocol

from dibs.broker import Broker
from dibs.brokers.memory import MemoryBroker


class World(Protocol):
    """One store, empty at first, that any number of handles can be opened to."""

    name: str
    url: str

    def open(self, **options: Any) -> Broker:
        """Return a fresh handle, as another process would have. Options go to `connect`."""
        ...

    def restart(self) -> None:
        """Stop and start what keeps the messages, on the same data."""
        ...

    def close(self) -> None:
        """Take it all down."""
        ...


class MemoryWorld:
    """The one broker object: memory has no other handles."""

    name = "memory"
    url = "memory://"

    def __init__(self) -> None:
        self._broker = MemoryBroker()

    def open(self, **options: Any) -> Broker:
        """Return the one broker."""
        return self._broker

    def restart(self) -> None:
        """Do nothing: memory has nothing that could stop without its messages."""

    def close(self) -> None:
        """Do nothing."""
