"""A task: a registered function, how it is called, and how its calls become messages.

A Task is handed a way to hand over; it knows neither the app nor the broker.
"""

from __future__ import annotations

import copy
import datetime as dt
import functools
import inspect
import math
import os.path
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, overload

import msgspec

from dibs.backoff import Backoff
from dibs.codec import Signature
from dibs.errors import BadOption, BadTask
from dibs.job import Job, Prepared
from dibs.message import DEFAULT_KEEP, DEFAULT_PRIORITY, LONGEST_DELAY, Message, new_id, now_ms
from dibs.names import check_id, check_queue_name
from dibs.outcome import JobTimeout

P = ParamSpec("P")
#: What a call returns: for a coroutine function the coroutine.
C = TypeVar("C")
#: What a run returns: for a coroutine function what the coroutine returns.
R = TypeVar("R")

#: What `retry_on` and `bury_on` may name.
ErrorKind = type[Exception] | type[JobTimeout]
ErrorKinds = ErrorKind | tuple[ErrorKind, ...]

#: What a program's main module is called: in itself, and in a child that `multiprocessing` spawned.
_MAIN = ("__main__", "__mp_main__")


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What follows a failed run."""

    #: Further attempts after a failure.
    retries: int = 8
    backoff: Backoff = Backoff()
    #: Only these are tried again; None: all.
    retry_on: ErrorKinds | None = None
    #: These are set aside at once.
    bury_on: ErrorKinds = ()
    #: Seconds that a run may take; None: as long as it takes.
    timeout: float | None = None

    def __post_init__(self) -> None:
        if not (isinstance(self.retries, int) and self.retries >= 0):
            raise BadOption(f"retries={self.retries!r}: must be 0 (run once) or more.")
        if self.timeout is not None and not (_is_number(self.timeout) and 0 < self.timeout < math.inf):
            raise BadOption(f"timeout={self.timeout!r}: must be above 0 seconds, or None for no limit.")
        if not isinstance(self.backoff, Backoff):
            raise BadOption(f"backoff={self.backoff!r}: must be a Backoff, as in Backoff(first=15, limit=3600).")
        for name, kinds in (("retry_on", self.retry_on or ()), ("bury_on", self.bury_on)):
            listed = kinds if isinstance(kinds, tuple) else (kinds,)
            if not all(isinstance(kind, type) and issubclass(kind, (Exception, JobTimeout)) for kind in listed):
                raise BadOption(f"{name}={kinds!r}: must be an exception type or a tuple of them.")


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How a call is handed over."""

    queue: str = "default"
    priority: int = DEFAULT_PRIORITY
    delay: float | dt.timedelta | None = None
    at: dt.datetime | None = None
    expires: float | dt.timedelta | dt.datetime | None = None
    id: str | None = None
    keep: float | dt.timedelta = DEFAULT_KEEP
    is_private: bool = False

    def __post_init__(self) -> None:
        check_queue_name(self.queue)
        if not (isinstance(self.priority, int) and 0 <= self.priority <= 9):
            raise BadOption(f"priority={self.priority!r}: must be from 0 (last) to 9 (first).")
        if self.delay is not None and self.at is not None:
            raise BadOption("delay= and at= were both given; give one.")
        if self.at is not None and not isinstance(self.at, dt.datetime):
            raise BadOption(f"at={self.at!r}: must be an aware datetime. For seconds from now there is delay=.")
        if self.id is not None:
            check_id(self.id)
        self.due(0)
        self.deadline(0)
        _seconds("keep", self.keep)

    def due(self, now: int) -> int | None:
        """Return the time before which it must not start, in ms since 1970; None: at once."""
        if self.at is None and self.delay is None:
            return None
        due = _moment("at", self.at, now) if self.at is not None else _moment("delay", self.delay, now)
        if due is not None and now and due > now + LONGEST_DELAY * 1000:
            raise BadOption(f"The job is due {(due - now) / 86_400_000:.0f} days from now; at most 400 are possible.")
        return due

    def deadline(self, now: int) -> int | None:
        """Return the time after which it must not start, in ms since 1970."""
        return None if self.expires is None else _moment("expires", self.expires, now)

    def make_message(
        self, body: bytes, *, content_type: str, task: str | None = None, headers: Mapping[str, Any] | None = None
    ) -> Message:
        """Return the message that is handed over now, with a new id where the caller gave none."""
        now = now_ms()
        return Message(
            body=body,
            queue=self.queue,
            id=self.id or new_id(),
            task=task,
            content_type=content_type,
            headers=dict(headers) if headers else {},
            priority=self.priority,
            enqueued=now,
            due=self.due(now),
            expires=self.deadline(now),
            keep=_seconds("keep", self.keep),
            is_private=self.is_private,
        )


def _moment(name: str, value: float | dt.timedelta | dt.datetime | None, now: int) -> int | None:
    match value:
        case None:
            return None
        case dt.datetime():
            if value.tzinfo is None:
                raise BadOption(f"{name}={value!r} has no time zone. Use an aware datetime, e.g. datetime.now(UTC).")
            return int(value.timestamp() * 1000)
        case _:
            return now + round(_seconds(name, value) * 1000)


def _seconds(name: str, value: float | dt.timedelta) -> float:
    if type(value) is float and 0 <= value <= LONGEST_DELAY:  # asked of every job
        return value
    seconds = value.total_seconds() if isinstance(value, dt.timedelta) else value
    if not (_is_number(seconds) and 0 <= seconds <= LONGEST_DELAY):
        raise BadOption(f"{name}={value!r}: must be from 0 seconds to 400 days.")
    return float(seconds)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float))


class Task(Generic[P, C, R]):
    """A registered function. Calling it calls the function; `enqueue` hands the call over."""

    def __init__(
        self,
        function: Callable[P, C],
        *,
        name: str,
        options: Options,
        policy: Policy,
        hand_over: Callable[[Sequence[Message]], list[Job[Any]]],
    ) -> None:
        #: The name under which workers know it.
        self.name = name
        self.function = function
        self.options = options
        self.policy = policy
        #: The arguments' form; the worker decodes by it.
        self.signature = Signature(function, name)
        self.is_async = is_async(function)
        self._hand_over = hand_over
        functools.update_wrapper(self, function, updated=())

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
        body = self.signature.encode(args, kwargs)
        return Prepared(self.options.make_message(body, content_type="application/json", task=self.name))

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Hand a call over. When this returns, it is stored for good (P1).

        Raises:
            BadArguments: the call doesn't fit the function, or a value has no JSON form.
            BrokerError: it was not stored, or (`HandoverUncertain`) nobody knows.
        """
        return self._hand_over((self.prepare(*args, **kwargs).message,))[0]

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
        keep: float | dt.timedelta | None = None,
    ) -> Task[P, C, R]:
        """Return a copy of this task that is handed over with other options.

        Args:
            queue: another queue; a worker must consume it.
            priority: 0 (last) to 9 (first).
            delay: seconds or timedelta before it may start.
            at: aware datetime before which it may not start.
            expires: seconds, timedelta or aware datetime after which it may not start any more.
            id: the caller's own job id.
            keep: seconds or timedelta for which the ledger keeps it once it is done or cancelled; 0: not at all.

        Raises:
            BadName, BadOption: a value is out of bounds.
        """
        given = {"queue": queue, "priority": priority, "delay": delay, "at": at, "expires": expires, "id": id}
        given["keep"] = keep
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


def is_async(function: Callable[..., Any]) -> bool:
    """Tell whether a call of it has to be awaited."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def check_function(function: Callable[..., Any]) -> None:
    """Raise if a worker could not call it, or if calling it would do nothing.

    Raises:
        BadTask: a method, a generator, a class, or nothing that can be called.
    """
    name = getattr(function, "__qualname__", repr(function))
    if not callable(function) or inspect.isclass(function):
        raise BadTask(f"{name} is no function. Decorate a function that does the work.")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise BadTask(f"{name} is a generator: calling it runs nothing of it. Return a value instead of yielding.")
    if inspect.isfunction(function) and _is_in_class(name) and _first_parameter(function) in {"self", "cls"}:
        raise BadTask(f"{name} is a method; a worker has no object to call it on. Make it a function.")


def _is_in_class(qualified_name: str) -> bool:
    outer = qualified_name.rpartition(".")[0]
    return bool(outer) and not outer.endswith("<locals>")


def _first_parameter(function: Callable[..., Any]) -> str | None:
    return next(iter(inspect.signature(function).parameters), None)


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
    return f"{_main_module(function) if module in _MAIN else module}.{name}"


def _main_module(function: Callable[..., Any]) -> str:
    """Return the name under which others import the program that `function` stands in."""
    # Not sys.modules["__main__"]: in a spawned child that is still another one while the program is imported.
    main = getattr(inspect.unwrap(function), "__globals__", {})
    if (spec := main.get("__spec__")) is not None:
        return str(spec.name)  # python -m package.module
    file: str | None = main.get("__file__")
    if not file:
        return "__main__"
    return os.path.splitext(os.path.basename(file))[0]  # noqa: PTH119, PTH122 -- pathlib takes 5 ms to import
