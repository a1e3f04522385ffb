"""The queues that an app names, and how each is to be made, should it not exist."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from dibs.broker import Broker, Queue
from dibs.errors import BadOption, UnknownQueue
from dibs.message import Message
from dibs.names import check_queue_name

QueueType = Literal["quorum", "classic"]


class Queues:
    """What tasks, consumers and `app.queue` name. A consumer has a say before a task, the user before both."""

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._of_tasks: dict[str, QueueType] = {}
        self._of_consumers: dict[str, QueueType] = {}
        self._chosen: dict[str, QueueType] = {}
        self._undeclared: set[str] = set()

    @property
    def names(self) -> frozenset[str]:
        """All of them."""
        return frozenset(self._names)

    def add_tasks(self, name: str) -> None:
        """Add a task's queue: quorum, unless strangers use it too."""
        self._of_tasks[name] = "quorum"
        self._add(name)

    def add_plain(self, name: str) -> None:
        """Add a queue of plain messages, which strangers may declare as well: durable and nothing else."""
        self._of_consumers[name] = "classic"
        self._add(name)

    def choose(self, name: str, type: QueueType | None) -> None:  # noqa: A002 -- the word of the API
        """Add a queue with the type that the user chose, if any.

        Raises:
            BadName, BadOption: a value is out of bounds.
        """
        if type not in ("quorum", "classic", None):
            raise BadOption(f"Queue type {type!r}: must be 'quorum' or 'classic'.")
        check_queue_name(name)
        if type is not None:
            self._chosen[name] = type
        self._add(name)

    def all(self) -> list[Queue]:
        """Return each with how it is to be made."""
        types: dict[str, QueueType] = dict.fromkeys(self._names, "classic")
        types |= self._of_tasks | self._of_consumers | self._chosen
        return [Queue(name=name, type=kind) for name, kind in types.items()]

    def check(self, messages: Sequence[Message]) -> None:
        """Raise if a message is for a queue that is not named here.

        Raises:
            UnknownQueue: names it, and those that there are.
        """
        for message in messages:
            if message.queue not in self._names:
                known = ", ".join(sorted(self._names)) or "none"
                raise UnknownQueue(
                    f"Queue {message.queue!r} is neither a task's nor declared (there are: {known}). "
                    f"Declare it with app.queue({message.queue!r})."
                )

    @property
    def is_declared(self) -> bool:
        """Whether the broker was told of all of them."""
        return not self._undeclared

    def declare(self, broker: Broker) -> None:
        """Tell the broker of those that it was not told of."""
        names = frozenset(self._undeclared)
        broker.declare([queue for queue in self.all() if queue.name in names])
        self._undeclared -= names

    def forget(self) -> None:
        """Expect another broker, which knows none of them."""
        self._undeclared = set(self._names)

    def _add(self, name: str) -> None:
        self._names.add(name)
        self._undeclared.add(name)
