"""One delivery, run: from its message to its outcome. Knows no broker.

What follows a failure is decided here, as a value that the supervisor records.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from dibs import codec
from dibs.current import RUNNING, CurrentJob
from dibs.errors import BadArguments
from dibs.listener import Listener
from dibs.message import Message, now_ms
from dibs.outcome import Bury, Dead, Done, JobTimeout, Outcome, Retry, RetryIn, clip_error
from dibs.task import AnyTask, ErrorKinds, Policy

#: A job of an unknown task waits at least and at most so long between tries, in seconds.
_UNKNOWN_WAITS = (1.0, 60.0)


class Watch(Protocol):
    """What surrounds a run: who looks after its time limit, and knows whether its job is still this worker's."""

    def call(self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Call a plain function. Only inside may it be interrupted, by `JobTimeout`."""
        ...

    def is_lost(self) -> bool:
        """Whether the broker has taken the job back, so that another worker may run it by now."""
        ...


class Unwatched:
    """A run that nothing interrupts and nobody takes away: `app.drain()`."""

    def call(self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Call the function."""
        __tracebackhide__ = True
        return function(*args, **kwargs)

    def is_lost(self) -> bool:
        """Return False."""
        return False


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A function with its arguments decoded, ready to run."""

    message: Message
    function: Callable[..., Any]
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    policy: Policy
    is_async: bool

    def run(self, watch: Watch, *, passing: tuple[type[BaseException], ...] = ()) -> Outcome:
        """Run a plain function and judge how it ended.

        Args:
            watch: calls the function.
            passing: what is to pass through rather than be judged: the user's Ctrl-C in `app.drain()`. An
                executor has no terminal, so there it can only be the task's own doing.
        """
        __tracebackhide__ = True
        token = RUNNING.set(CurrentJob(self.message, watch.is_lost))
        try:
            result = watch.call(self.function, self.args, self.kwargs)
        except passing:
            raise
        except BaseException as error:  # noqa: BLE001 -- whatever a task raises is an outcome
            return self.judge(error)
        finally:
            RUNNING.reset(token)
        return self._never_ran(result) if result is not None and inspect.isawaitable(result) else _done(result)

    async def arun(self, watch: Watch) -> Outcome:
        """Run a coroutine function and judge how it ended; whoever cancels the run sees it cancelled."""
        import asyncio  # noqa: PLC0415 -- who runs this has it imported

        __tracebackhide__ = True
        token = RUNNING.set(CurrentJob(self.message, watch.is_lost))
        try:
            return _done(await self.function(*self.args, **self.kwargs))
        except asyncio.CancelledError as error:
            running = asyncio.current_task()
            if running is not None and running.cancelling():
                raise
            return self.judge(error)  # something that it waited for was cancelled: a failure like others
        except BaseException as error:  # noqa: BLE001
            return self.judge(error)
        finally:
            RUNNING.reset(token)

    def _never_ran(self, result: Any) -> Outcome:
        """Return the outcome of a plain function that returned something to await: its work is still to be done."""
        if inspect.iscoroutine(result):
            result.close()
        name = getattr(self.function, "__qualname__", repr(self.function))
        return Dead(
            "failed",
            f"{name} is no coroutine function, but returned something to await, so nothing of it ran. If a decorator "
            "hides the coroutine function, make the decorator's own function `async def`.",
        )

    def judge(self, error: BaseException) -> Outcome:
        """Return what is to follow a run that raised."""
        policy, message = self.policy, self.message
        parts = list(_parts(error))
        text = _describe(error)
        if any(isinstance(part, (Bury, policy.bury_on)) for part in parts):
            return Dead("buried", text)
        asked_for = next((part for part in parts if isinstance(part, Retry)), None)
        is_wanted = asked_for is not None or policy.retry_on is None or _is_all(error, policy.retry_on)
        if not is_wanted or message.attempt > policy.retries:
            return Dead("failed", text)
        asked = None if asked_for is None else asked_for.delay
        delay = policy.backoff.delay_after(message.attempt) if asked is None else asked
        return RetryIn(delay, message.after_failure(text))

    def judge_overtime(self) -> Outcome:
        """Return what is to follow a run that took longer than its time limit."""
        return self.judge(JobTimeout(overtime_text(self.policy.timeout or 0.0)))


def overtime_text(timeout: float) -> str:
    """Say that a run took longer than so many seconds."""
    return f"The job ran longer than its time limit of {timeout:g} s."


class Runner:
    """Finds the function for a message. Shared by the threads of an executor; holds no state of a run."""

    def __init__(
        self, tasks: Mapping[str, AnyTask], listeners: Mapping[str, Listener], *, unknown_task_limit: float
    ) -> None:
        self._tasks = tasks
        self._listeners = listeners
        self._unknown_task_limit = unknown_task_limit

    def begin(self, message: Message) -> Call | Outcome:
        """Return the call that a message asks for, or what becomes of it where there is none to make."""
        if message.expires is not None and now_ms() > message.expires:
            late = (now_ms() - message.expires) / 1000
            return Dead("expired", f"Expired {late:.1f} s before a worker was free to start it.")
        if message.task is None:
            return self._begin_plain(message)
        task = self._tasks.get(message.task)
        if task is None:
            return self._unknown(message, message.task)
        try:
            args, kwargs = task.signature.decode(message.body)
        except codec.Unreadable as error:
            return Dead("unreadable", clip_error(str(error)))
        except BadArguments as error:
            return Dead("bad-arguments", clip_error(str(error)))
        return Call(
            message=message,
            function=task.function,
            args=args,
            kwargs=kwargs,
            policy=task.policy,
            is_async=task.is_async,
        )

    def _begin_plain(self, message: Message) -> Call | Outcome:
        listener = self._listeners.get(message.queue)
        if listener is None:
            return Dead(
                "no-consumer",
                f"A plain message (it names no task) for queue {message.queue!r}, for which this worker has no "
                "@app.consumer.",
            )
        return Call(
            message=message,
            function=listener.function,
            args=(message,),
            kwargs={},
            policy=listener.policy,
            is_async=listener.is_async,
        )

    def _unknown(self, message: Message, name: str) -> Outcome:
        """Give the job back for a while: in a rolling deployment another worker knows the task."""
        now = now_ms()
        since = min(message.unknown_since or now, now)  # a stranger's may lie in the future, and would never be over
        waited = (now - since) / 1000
        text = (
            f"Job {message.id} names task {name!r}, which no worker that saw it knows (this one knows "
            f"{', '.join(sorted(self._tasks)) or 'none'}). Start a worker with the module that defines it."
        )
        if waited >= self._unknown_task_limit:
            return Dead("unknown-task", clip_error(text))
        shortest, longest = _UNKNOWN_WAITS
        delay = min(max(waited / 2, shortest), longest, self._unknown_task_limit)
        return RetryIn(delay, msgspec.structs.replace(message, unknown_since=since, error=clip_error(text), due=None))


def _done(result: Any) -> Outcome:
    try:
        return Done(codec.encode(result))
    except BadArguments:
        return Done(None)  # the work is done, and a result without a JSON form is no reason to do it again


def _parts(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and, as a TaskGroup wraps what its tasks raise, those in it."""
    yield error
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _parts(one)


def _is_all(error: BaseException, kinds: ErrorKinds) -> bool:
    """Tell whether an error is of these kinds, or a group of nothing else."""
    if isinstance(error, kinds):
        return True
    return isinstance(error, BaseExceptionGroup) and all(_is_all(one, kinds) for one in error.exceptions)


def _describe(error: BaseException) -> str:
    """Return the error with its traceback, from the task's own frame on: those around it hide themselves."""
    trace = error.__traceback__
    while trace is not None and "__tracebackhide__" in trace.tb_frame.f_code.co_varnames:
        trace = trace.tb_next
    return clip_error("".join(traceback.format_exception(type(error), error, trace)))
