"""A job that was handed over: asking what became of it, waiting for its result, cancelling it.

Knows how an app's broker is asked and how endings read; not how they are stored.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar, assert_never

import msgspec

from dibs.broker import Broker
from dibs.errors import (
    BadArguments,
    BadOption,
    BadTask,
    JobFailed,
    ResultCancelled,
    ResultNotKept,
    ResultPending,
    UnknownJob,
)
from dibs.ledger.life import Ending, JobInfo, Status
from dibs.message import Message

if TYPE_CHECKING:
    from concurrent.futures import Future

#: For so many seconds after a job was handed over its record may be late, and how often is asked for it again.
_LATE, _PAUSE = 2.0, 0.05

R = TypeVar("R")
T = TypeVar("T")


class Source(Protocol):
    """Where jobs are asked after: an app."""

    @property
    def broker(self) -> Broker:
        """What keeps them."""
        ...

    def read_result(self, task: str | None, result: bytes) -> Any:
        """Return what a task returned, from its JSON: as the task's annotation says, where the task is known.

        Raises:
            BadArguments, BadTask: it does not fit the annotation, or the annotation has no JSON form.
        """
        ...


class Job(Generic[R]):
    """One call of a task that was handed over. `R` is what the task returns.

    What asks (`status`, `result`, `cancel`, `info`) asks the broker each time; nothing is remembered. Each has a twin
    for coroutines that does not block the event loop; the others may be called there too, but block it.
    """

    __slots__ = ("_handed_over", "_source", "id", "queue", "task")

    def __init__(
        self,
        id: str,  # noqa: A002 -- the word of the API
        source: Source,
        *,
        task: str = "",
        queue: str = "",
        handed_over: tuple[int, float] | None = None,
    ) -> None:
        #: UUIDv7, or the caller's own.
        self.id = id
        #: The queue it was handed to; "" where only the id is known.
        self.queue = queue
        #: The task's name; "" where only the id is known.
        self.task = task
        self._source = source
        #: By which process and when, on its monotonic clock; None where nobody here knows.
        self._handed_over = handed_over

    @classmethod
    def of(cls, messages: Sequence[Message], source: Source, *, is_ours: bool) -> list[Job[Any]]:
        """Return the jobs that these messages are. They are ours if this process has handed them over just now."""
        handed_over = (os.getpid(), time.monotonic()) if is_ours else None
        return [
            cls(each.id, source, task=each.task or "", queue=each.queue, handed_over=handed_over) for each in messages
        ]

    def __repr__(self) -> str:
        """Never shows the arguments."""
        return f"Job(id={self.id!r}, task={self.task!r}, queue={self.queue!r})"

    def status(self) -> Status:
        """Return where it is in its life: "delayed", "ready", "running", "done", "dead" or "cancelled".

        Raises:
            UnknownJob: nobody knows it, or it is over and forgotten.
            BrokerError: it can't be asked; `LedgerUnavailable` where this broker keeps no ledger.
        """
        return self.info().status

    def info(self) -> JobInfo:
        """Return all that is known of it: times, runs, error, progress, log.

        Raises:
            UnknownJob, BrokerError: see `status`.
        """
        broker = self._source.broker
        while (found := broker.ledger.job(self.id)) is None:
            # What was handed over just now is known, though the ledger may not say so yet (RabbitMQ).
            if broker.capabilities.is_ledger_exact or not self._is_fresh:
                raise self._unknown()
            time.sleep(_PAUSE)
        return found

    def result(self, timeout: float | None = None) -> R:
        """Wait until it is over, and return what its task returned, decoded to the task's annotation.

        Args:
            timeout: seconds to wait at the most; 0: don't wait; None: as long as it takes.

        Raises:
            JobFailed: it is dead; has the exception's type, message and traceback.
            ResultCancelled: it was cancelled.
            ResultNotKept: it is done, but its result was not kept, or does not fit the task's annotation.
            ResultPending: it is not over yet. A `TimeoutError`.
            UnknownJob: nobody knows it, or it is over and forgotten.
            BrokerError: it can't be asked; `LedgerUnavailable` where this broker keeps no ledger.
        """
        _check_timeout(timeout)
        if timeout == 0:
            return self._read(self._look())
        waiting = self._watch()
        try:
            return self._read(waiting.result(timeout))
        except TimeoutError:
            if waiting.done():
                raise  # the error of whoever asked for us
            raise self._pending(timeout) from None
        finally:
            waiting.cancel()  # whoever gave up, by Ctrl-C say, waits no more

    def cancel(self) -> Literal["cancelled", "requested", "over"]:
        """Cancel it: "cancelled": it waited, and never runs. "over": it had ended already, nothing changes.

        "requested": a worker ends it soon, should it not end by itself before: a coroutine is cancelled,
        `JobCancelled` is raised in a plain function, and what heeds neither loses its executor. On RabbitMQ this is
        always the answer.

        Raises:
            UnknownJob: nobody knows it, or it is over and forgotten.
            BrokerError: the broker could not be told.
        """
        answer = self._source.broker.cancel([self.id])[self.id]
        if answer == "unknown":
            raise self._unknown()
        return answer

    async def astatus(self) -> Status:
        """Return where it is in its life, without blocking the event loop. See `status`."""
        return await _in_thread(self.status)

    async def ainfo(self) -> JobInfo:
        """Return all that is known of it, without blocking the event loop. See `info`."""
        return await _in_thread(self.info)

    async def acancel(self) -> Literal["cancelled", "requested", "over"]:
        """Cancel it without blocking the event loop. See `cancel`."""
        return await _in_thread(self.cancel)

    async def aresult(self, timeout: float | None = None) -> R:
        """Wait for its result without blocking the event loop, or a thread. See `result`."""
        import asyncio  # noqa: PLC0415 -- a third of the time of `import dibs`, and a running loop has it already

        _check_timeout(timeout)
        if timeout == 0:
            return self._read(await asyncio.to_thread(self._look))
        waiting, limit = _Waiting(self._watch), asyncio.timeout(timeout)
        try:
            async with limit:
                begun = await asyncio.to_thread(waiting.begin)
                ending = await asyncio.wrap_future(begun)
        except TimeoutError:
            if not limit.expired():
                raise
            raise self._pending(timeout) from None
        finally:
            waiting.end()
        if not self.task and ending is not None and ending.result is not None:
            return await asyncio.to_thread(self._read, ending)  # it looks up which task this is
        return self._read(ending)

    def _watch(self) -> Future[Ending | None]:
        return self._source.broker.ledger.watch(self.id, is_ours=self._is_ours)

    @property
    def _is_ours(self) -> bool:
        """Whether this process handed it over: a forked child is told of nothing that its parent did."""
        return self._handed_over is not None and self._handed_over[0] == os.getpid()

    @property
    def _is_fresh(self) -> bool:
        """Whether this process handed it over just now, so that its record may be on its way still."""
        return self._is_ours and self._handed_over is not None and time.monotonic() <= self._handed_over[1] + _LATE

    def _look(self) -> Ending | None:
        """Return how it ended, without waiting for it."""
        ledger = self._source.broker.ledger
        ending = ledger.endings([self.id]).get(self.id)
        if ending is None and ledger.job(self.id) is not None:
            raise self._pending(0)
        return Ending(status="forgotten") if ending is None and self._is_ours else ending

    def _read(self, ending: Ending | None) -> R:
        """Return the result that an ending has, or raise what it says instead."""
        if ending is None:
            raise self._unknown()
        match ending.status:
            case "done" if ending.result is not None:
                return self._decode(ending.result)
            case "done":
                why = ending.note or "Its result is not there, and nobody says why."
                raise ResultNotKept(f"{self._name()} is done. {why}", id=self.id)
            case "forgotten":
                raise ResultNotKept(
                    f"{self._name()} is over, and nothing of it is kept. How long that is says keep=.", id=self.id
                )
            case "cancelled":
                raise ResultCancelled(f"{self._name()} was cancelled.", id=self.id)
            case "dead":
                hidden = ", and its error is kept out of the ledger, as its task is private" * (ending.error is None)
                raise JobFailed(
                    f"{self._name()} is dead ({ending.reason or 'no reason given'}){hidden}",
                    id=self.id,
                    reason=ending.reason or "",
                    error=ending.error or "",
                )
            case _:
                assert_never(ending.status)

    def _decode(self, result: bytes) -> R:
        task = self.task
        if not task:
            found = self._source.broker.ledger.job(self.id)
            task = "" if found is None else found.task or ""
        try:
            value: R = self._source.read_result(task, result)
        except (BadArguments, BadTask) as error:
            raise ResultNotKept(
                f"{self._name()} is done, but what it returned can't be read: {error} As it came, it stands in "
                "info().result.",
                id=self.id,
            ) from error
        return value

    def _pending(self, timeout: float | None) -> ResultPending:
        waited = f"after {timeout:g} s of waiting" if timeout else "yet"
        return ResultPending(f"{self._name()} is not over {waited}.", id=self.id)

    def _unknown(self) -> UnknownJob:
        return UnknownJob(
            f"Nobody knows job {self.id!r} at {self._source.broker.location}: it was never handed over there, or it "
            "is over and forgotten.",
            id=self.id,
        )

    def _name(self) -> str:
        return f"Job {self.id}" + (f" of task {self.task}" if self.task else "")


class Prepared(msgspec.Struct, Generic[R], frozen=True, gc=False):
    """A call that was checked and encoded, but not yet handed over."""

    #: As it will be handed over.
    message: Message


async def _in_thread(function: Callable[[], T]) -> T:
    import asyncio  # noqa: PLC0415 -- see `aresult`

    return await asyncio.to_thread(function)


def _check_timeout(timeout: float | None) -> None:
    if timeout is not None and not (isinstance(timeout, (int, float)) and timeout >= 0):
        raise BadOption(f"timeout={timeout!r}: must be 0 seconds or more, or None to wait as long as it takes.")


class _Waiting:
    """A wait that is begun in another thread, and may be given up before it has."""

    def __init__(self, watch: Callable[[], Future[Ending | None]]) -> None:
        self._watch = watch
        self._future: Future[Ending | None] | None = None
        self._is_over = False

    def begin(self) -> Future[Ending | None]:
        """Return the future that is told."""
        self._future = self._watch()
        if self._is_over:
            self._future.cancel()
        return self._future

    def end(self) -> None:
        """Wait no more."""
        self._is_over = True
        if self._future is not None:
            self._future.cancel()
