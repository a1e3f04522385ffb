"""What a task can learn of the job that it is running, and say of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Protocol

import msgspec

from dibs.errors import BadOption, UsageError
from dibs.message import Message

#: Largest number that progress can name: the largest up to which JSON's readers count exactly.
_LARGEST = 2.0**53
#: Longest note of a progress, in characters.
_NOTE_CHARACTERS = 300


class Watch(Protocol):
    """What surrounds a run: who may interrupt it, knows whose its job is, and hears what it says of itself."""

    #: What is logged in the run is to be kept.
    keeps_log: bool

    @property
    def is_cancelled(self) -> bool:
        """Whether the run was interrupted because its job is to be cancelled."""
        ...

    def call(self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Call a plain function. Only inside may it be interrupted, by `JobTimeout` or `JobCancelled`."""
        ...

    def why_cancelled(self, error: BaseException) -> BaseException | None:
        """Return what is to be judged where a coroutine ended with a `CancelledError`.

        None: it was not cancelled from here. Then it passes through, if somebody else did that from outside.
        """
        ...

    def is_lost(self) -> bool:
        """Whether the broker has taken the job back, so that another worker may run it by now."""
        ...

    def progress(self, done: float, total: float | None, note: str) -> None:
        """Hear how far the job is."""
        ...

    def log(self, lines: Sequence[str]) -> None:
        """Keep lines that were logged in the run."""
        ...

    def lines(self) -> list[str]:
        """Return the last lines that were logged."""
        ...


class CurrentJob(msgspec.Struct, frozen=True):
    """The job that is running in this task."""

    _message: Message
    _watch: Watch

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
        return self._watch.is_lost()

    def progress(self, done: float, total: float | None = None, note: str = "") -> None:
        """Say how far the job is, for whoever looks at it in the ledger. Any thread of the task may.

        Call it as often as you like: it is shown about once a second, and nothing waits for that.

        Args:
            done: how much is done, in whatever unit.
            total: how much there is to do; None: nobody knows.
            note: a few words on what is being done, at most 300 characters.

        Raises:
            BadOption: a value is out of bounds.
        """
        _check_amount("done", done)
        if total is not None:
            _check_amount("total", total)
        if not isinstance(note, str):
            raise BadOption(f"progress(note={note!r}): must be text.")
        if len(note) > _NOTE_CHARACTERS:
            raise BadOption(f"progress(note={note[:40]!r}…): {len(note)} characters, at most {_NOTE_CHARACTERS}.")
        self._watch.progress(done, total, note)


def _check_amount(name: str, amount: float) -> None:
    # What is no number at all can't be compared; NaN is not even equal to itself.
    if not isinstance(amount, (int, float)) or not 0 <= amount <= _LARGEST:
        raise BadOption(f"progress({name}={amount!r}): must be a number from 0 to {_LARGEST:.0f}.")


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


def watch_here() -> Watch | None:
    """Return what surrounds the run that this is called in; None: nothing runs here."""
    job = RUNNING.get(None)
    return None if job is None else job._watch  # noqa: SLF001 -- dibs' own side of it
