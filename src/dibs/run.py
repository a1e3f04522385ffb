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
from dibs.current import RUNNING, CurrentJob, Watch
from dibs.errors import BadArguments
from dibs.listener import Listener
from dibs.message import Message, now_ms
from dibs.outcome import (
    RESULT_BYTES,
    Bury,
    Cancelled,
    Dead,
    Done,
    JobTimeout,
    Outcome,
    Retry,
    RetryIn,
    Run,
    clip_error,
)
from dibs.task import AnyTask, ErrorKinds, Policy
from dibs.text import visible

#: A job of an unknown task waits at least and at most so long between tries, in seconds.
_UNKNOWN_WAITS = (1.0, 60.0)
#: How much is shown of a result that is too large to be kept, in characters.
_SHOWN = 200
#: Said of a private job's result without a JSON form: why it has none may tell what it is.
_OF_PRIVATE = "The result is not kept: it has no JSON form."


class Unwatched:
    """A run that nothing interrupts, nobody takes away and nobody listens to: `app.drain()`."""

    keeps_log = False
    is_cancelled = False

    def call(self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Call the function."""
        __tracebackhide__ = True
        return function(*args, **kwargs)

    def why_cancelled(self, error: BaseException) -> BaseException | None:
        """Return None: whoever runs the coroutine has cancelled it, or what it waited for was."""
        del error
        return None

    def is_lost(self) -> bool:
        """Return False."""
        return False

    def progress(self, done: float, total: float | None, note: str) -> None:
        """Hear nothing."""

    def log(self, lines: Sequence[str]) -> None:
        """Keep nothing."""

    def lines(self) -> list[str]:
        """Return nothing."""
        return []


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
        token = RUNNING.set(CurrentJob(self.message, watch))
        started = now_ms()
        try:
            result = watch.call(self.function, self.args, self.kwargs)
        except passing:
            raise
        except BaseException as error:  # noqa: BLE001 -- whatever a task raises is an outcome
            return self._raised(watch, error, started)
        finally:
            RUNNING.reset(token)
        run = _over(watch, started)
        if result is not None and inspect.isawaitable(result):
            return self._never_ran(result, run)
        return self._done(result, run)

    async def arun(self, watch: Watch) -> Outcome:
        """Run a coroutine function and judge how it ended; a cancellation that is not `watch`'s passes on."""
        import asyncio  # noqa: PLC0415 -- who runs this has it imported

        __tracebackhide__ = True
        token = RUNNING.set(CurrentJob(self.message, watch))
        started = now_ms()
        try:
            result = await self.function(*self.args, **self.kwargs)
        except asyncio.CancelledError as error:
            cause, running = watch.why_cancelled(error), asyncio.current_task()
            if cause is None and running is not None and running.cancelling():
                raise
            return self._raised(watch, cause or error, started)
        except BaseException as error:  # noqa: BLE001
            return self._raised(watch, error, started)
        finally:
            RUNNING.reset(token)
        return self._done(result, _over(watch, started))

    def _done(self, result: Any, run: Run) -> Outcome:
        """Return the outcome of a run that returned. A result that can't be kept is no reason to do it again."""
        try:
            data = codec.encode(result)
        except BadArguments as error:
            return Done(None, _OF_PRIVATE if self.message.is_private else f"The result is not kept. {error}", run)
        if len(data) <= RESULT_BYTES:
            return Done(data, None, run)
        note = f"The result is not kept: {len(data)} bytes of JSON, where {RESULT_BYTES} are the most."
        if not self.message.is_private:
            note += f" It begins: {visible(data[: _SHOWN * 4].decode('utf-8', 'replace')[:_SHOWN])}"
        return Done(None, note, run)

    def _raised(self, watch: Watch, error: BaseException, started: int) -> Outcome:
        """Return the outcome of a run that raised. What it raises because it is cancelled is no failure."""
        run = _over(watch, started)
        return Cancelled(run) if watch.is_cancelled else self.judge(error, run)

    def _never_ran(self, result: Any, run: Run) -> Outcome:
        """Return the outcome of a plain function that returned something to await: its work is still to be done."""
        if inspect.iscoroutine(result):
            result.close()
        name = getattr(self.function, "__qualname__", repr(self.function))
        return Dead(
            "failed",
            f"{name} is no coroutine function, but returned something to await, so nothing of it ran. If a decorator "
            "hides the coroutine function, make the decorator's own function `async def`.",
            run=run,
        )

    def judge(self, error: BaseException, run: Run | None = None) -> Outcome:
        """Return what is to follow a run that raised."""
        policy, message = self.policy, self.message
        parts = list(_parts(error))
        text = _describe(error)
        if any(isinstance(part, (Bury, policy.bury_on)) for part in parts):
            return Dead("buried", text, run=run)
        asked_for = next((part for part in parts if isinstance(part, Retry)), None)
        is_wanted = asked_for is not None or policy.retry_on is None or _is_all(error, policy.retry_on)
        if not is_wanted or message.attempt > policy.retries:
            return Dead("failed", text, run=run)
        asked = None if asked_for is None else asked_for.delay
        delay = policy.backoff.delay_after(message.attempt) if asked is None else asked
        return RetryIn(delay, message.after_failure(text), run)

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


class Tracing(Protocol):
    """Follows runs. It is `dibs.otel` that does."""

    def begin(self, call: Call) -> Call:
        """Return the call such that it is followed."""
        ...


class TracedRunner(Runner):
    """One whose calls are followed."""

    def __init__(self, *registered: Any, tracing: Tracing, unknown_task_limit: float) -> None:
        super().__init__(*registered, unknown_task_limit=unknown_task_limit)
        self._tracing = tracing

    def begin(self, message: Message) -> Call | Outcome:
        """Find the call, and have it followed."""
        begun = super().begin(message)
        return self._tracing.begin(begun) if isinstance(begun, Call) else begun


def make_runner(
    tasks: Mapping[str, AnyTask],
    listeners: Mapping[str, Listener],
    tracing: Tracing | None,
    *,
    unknown_task_limit: float,
) -> Runner:
    """Return what finds the functions of an app; without tracing a job pays nothing for it."""
    if tracing is None:
        return Runner(tasks, listeners, unknown_task_limit=unknown_task_limit)
    return TracedRunner(tasks, listeners, tracing=tracing, unknown_task_limit=unknown_task_limit)


def _over(watch: Watch, started: int) -> Run:
    """Return the record of a run that is over just now."""
    return Run(started, now_ms(), watch.lines())


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
