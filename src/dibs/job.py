"""A job that was handed over."""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

from dibs.message import Message

R = TypeVar("R")


class Job(Generic[R]):
    """One call of a task that was handed over. `R` is what the task returns."""

    __slots__ = ("id", "queue", "task")

    def __init__(self, message: Message) -> None:
        #: UUIDv7, or the caller's own.
        self.id = message.id
        #: The queue it was handed to.
        self.queue = message.queue
        #: The task's name.
        self.task = message.task or ""

    def __repr__(self) -> str:
        """Never shows the arguments."""
        return f"Job(id={self.id!r}, task={self.task!r}, queue={self.queue!r})"


class Prepared(msgspec.Struct, Generic[R], frozen=True):
    """A call that was checked and encoded, but not yet handed over."""

    #: As it will be handed over.
    message: Message
