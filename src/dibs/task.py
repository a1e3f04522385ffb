"""A task: a registered function, how it is called, and how its calls become messages.

A Task is handed a way to send; it knows neither the app nor the broker.
"""

from __future__ import annotations

import copy
import datetime as dt
import inspect
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, overload

import msgspec

from dibs.backoff import Backoff
from dibs.codec import Signature
from dibs.errors import BadOption, BadTask
from dibs.job import Job, Prepared
from dibs.message import DEFAULT_PRIORITY, Message, check_id, check_queue_name, new_id, now_ms

P = ParamSpec("P")
#: What a call returns: for a coroutine function the coroutine.
C = TypeVar("C")
#: What a run returns: for a coroutine function what the coroutine returns.
R = TypeVar("R")

#: A year and a bit: further ahead, RabbitMQ's delay levels end.
LONGEST_DELAY = 400 * 86400.0


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What follows a failed run."""

    #: Further attempts after a failure.
    retries: int = 8
    backoff: Backoff = Backoff()
    #: Only these are tried again; None: all.
    retry_on: tuple[type[Exception], ...] | None = None
    #: These are set aside at once.
    bury_on: tuple[type[Exception], ...] = ()
    #: Seconds that a run may take; None: as long as it takes.
    timeout: float | None = None

    def __post_init__(self) -> None:
        if self.retries < 0:
            raise BadOption(f"retries={self.retries}: must be 0 (run once) or more.")
        if self.timeout is not None and self.timeout <= 0:
            raise BadOption(f"timeout={self.timeout}: must be above 0 seconds, or None for no limit.")


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How a call is handed over."""

    queue: str = "default"
    priority: int = DEFAULT_PRIORITY
    delay: float | dt.timedelta | None = None
    at: dt.datetime | None = None
    expires: float | dt.timedelta | dt.datetime | None = None
    id: str | None = None

    def __post_init__(self) -> None:
        check_queue_name(self.queue)
        if not 0 <= self.priority <= 9:
            raise BadOption(f"priority={self.priority}: must be from 0 (last) to 9 (first).")
        if self.delay is not None and self.at is not None:
            raise BadOption("delay= and at= were both given; give one.")
        if self.id is not None:
            check_id(self.id)
        self.due(0)
        self.deadline(0)

    def due(self, now: int) -> int | None:
        """Return the time before which it must not start, in ms since 1970; None: at once."""
        due = _moment("at", self.at, now) if self.at is not None else _moment("delay", self.delay, now)
        if due is not None and now and due > now + LONGEST_DELAY * 1000:
            raise BadOption(f"The job is due {(due - now) / 86_400_000:.0f} days from now; at most 400 are possible.")
        return due

    def deadline(self, now: int) -> int | None:
        """Return the time after which it must not start, in ms since 1970."""
        return _moment("expires", self.expires, now)


def _moment(name: str, value: float | dt.timedelta | dt.datetime | None, now: int) -> int | None:
    match value:
        case None:
            return None
        case dt.datetime():
            if value.tzinfo is None:
                raise BadOption(f"{name}={value!r} has no time zone. Use an aware datetime, e.g. datetime.now(UTC).")
            return int(value.timestamp() * 1000)
        case dt.timedelta():
            seconds = value.total_seconds()
        case _:
            seconds = value
    if not 0 <= seconds <= LONGEST_DELAY:
        raise BadOption(f"{name}={value!r}: must be from 0 seconds to 400 days.")
    return now + round(seconds * 1000)


class Task(Generic[P, C, R]):
    """A registered function. Calling it calls the function; `enqueue` hands the call over."""

    def __init__(
        self,
        function: Callable[P, C],
        *,
        name: str,
        options: Options,
        policy: Policy,
        send: Callable[[Sequence[Message]], None],
    ) -> None:
        #: The name under which workers know it.
        self.name = name
        self.function = function
        self.options = options
        self.policy = policy
        #: The arguments' form; the worker decodes by it.
        self.signature = Signature(function, name)
        self.is_async = inspect.iscoroutinefunction(function)
        self._send = send
        self.__doc__ = function.__doc__
        self.__wrapped__ = function

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> C:
        """Call the function here and now, as if it were no task."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        """Name the task and its queue."""
        return f"<Task {self.name} queue={self.options.queue}>"

    def prepare(self, *args: P.args, **kwargs: P.kwargs) -> Prepared[R]:
        """Check and encode a call without handing it over: for `enqueue_many` and `enqueue_in`.

        Raises:
            BadArguments: the call doesn't fit the function, or a value has no JSON form.
        """
        now = now_ms()
        options = self.options
        return Prepared(
            Message(
                body=self.signature.encode(args, kwargs),
                queue=options.queue,
                id=options.id or new_id(),
                task=self.name,
                content_type="application/json",
                priority=options.priority,
                enqueued=now,
                due=options.due(now),
                expires=options.deadline(now),
            )
        )

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Hand a call over. When this returns, it is stored for good (P1).

        Raises:
            BadArguments: the call doesn't fit the function, or a value has no JSON form.
            BrokerError: it was not stored, or (`HandoverUncertain`) nobody knows.
        """
        message = self.prepare(*args, **kwargs).message
        self._send((message,))
        return Job(message)

    async def aenqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Hand a call over without blocking the event loop. See `enqueue`."""
        import asyncio  # noqa: PLC0415 -- a third of the time of `import dibs`, and a running loop has it already

        return await asyncio.to_thread(self.enqueue, *args, **kwargs)

    def using(
        self,
        *,
        queue: str | None = None,
        priority: int | None = None,
        delay: float | dt.timedelta | None = None,
        at: dt.datetime | None = None,
        expires: float | dt.timedelta | dt.datetime | None = None,
        id: str | None = None,  # noqa: A002 -- the word of the API
    ) -> Task[P, C, R]:
        """Return a copy of this task that is handed over with other options.

        Args:
            queue: another queue; a worker must consume it.
            priority: 0 (last) to 9 (first).
            delay: seconds or timedelta before it may start.
            at: aware datetime before which it may not start.
            expires: seconds, timedelta or aware datetime after which it may not start any more.
            id: the caller's own job id.

        Raises:
            BadName, BadOption: a value is out of bounds.
        """
        given = {"queue": queue, "priority": priority, "delay": delay, "at": at, "expires": expires, "id": id}
        changed: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        copied = copy.copy(self)
        copied.options = msgspec.structs.replace(self.options, **changed)
        return copied


AnyTask = Task[Any, Any, Any]


class TaskDecorator(Protocol):
    """What `@app.task(...)` returns; typed so that a coroutine function's jobs carry what it returns."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, Coroutine[Any, Any, R], R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Task[P, R, R]: ...


def task_name(function: Callable[..., Any]) -> str:
    """Return `module.function`, by which every process that imports the module knows it."""
    name = getattr(function, "__qualname__", None)
    if name is None:
        raise BadTask(f"{function!r} has no name of its own. Give name=.")
    if "<locals>" in name or "<lambda>" in name:
        raise BadTask(f"{name} is defined inside a function, where a worker can't import it by name. Give name=.")
    if "." in name:
        raise BadTask(f"{name} is a method; a worker has no object to call it on. Make it a function.")
    module = function.__module__
    return f"{_main_module() if module == '__main__' else module}.{name}"


def _main_module() -> str:
    """Return the name under which others import the program that is running."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return str(spec.name)  # python -m package.module
    file = getattr(main, "__file__", None)
    return Path(file).stem if file else "__main__"
