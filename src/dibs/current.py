"""What a task can learn of the job that it is running."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar

import msgspec

from dibs.errors import UsageError
from dibs.message import Message


class CurrentJob(msgspec.Struct, frozen=True):
    """The job that is running in this task."""

    _message: Message
    _is_lost: Callable[[], bool]

    @property
    def id(self) -> str:
        """UUIDv7, or the caller's own."""
        return self._message.id

    @property
    def task(self) -> str | None:
        """The task's name; None for a plain message."""
        return self._message.task

    @property
    def queue(self) -> str:
        """The queue it came from."""
        return self._message.queue

    @property
    def attempt(self) -> int:
        """Which run this is, from 1."""
        return self._message.attempt

    @property
    def last_error(self) -> str | None:
        """What the run before this one said when it failed."""
        return self._message.error

    @property
    def is_lost(self) -> bool:
        """Whether another worker may run the job by now: the broker took it back, as after a cut connection.

        What this run returns is then recorded only if the job comes back to this worker (P4, P6). On SQLite that
        never happens.
        """
        return self._is_lost()


#: Set around each run; a thread or a coroutine sees its own.
RUNNING: ContextVar[CurrentJob] = ContextVar("dibs-running-job")


def current_job() -> CurrentJob:
    """Return the job that is running here.

    Raises:
        UsageError: no job is: the function was called, not run by a worker.
    """
    try:
        return RUNNING.get()
    except LookupError:
        raise UsageError("No job is running here: current_job() works inside a task that a worker runs.") from None
