"""The hooks around an executor's life: `on_start` and `on_stop`, plain, async or context managers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import Any

from dibs.errors import BadTask

Hook = Callable[[], Any]


class Lifespan:
    """Runs the start hooks in order, and at the end the stop hooks and the context managers' other halves."""

    def __init__(self, starts: Sequence[Hook], stops: Sequence[Hook]) -> None:
        self._starts = starts
        self._stops = stops
        self._stack = AsyncExitStack()

    @property
    def needs_loop(self) -> bool:
        """Whether a hook is async, so that only an event loop can run it."""
        return any(
            inspect.iscoroutinefunction(hook)
            or inspect.isasyncgenfunction(inspect.unwrap(hook))
            or hasattr(hook, "__aenter__")  # a class of asynchronous context managers
            for hook in (*self._starts, *self._stops)
        )

    async def start(self) -> None:
        """Run the start hooks; what one raises ends the start, and the managers entered so far are left."""
        try:
            for hook in self._starts:
                await self._enter(hook)
        except BaseException:
            await self._stack.aclose()
            raise

    async def stop(self) -> None:
        """Run the stop hooks, then leave the context managers, last entered first.

        All of them, whatever one of them raises; that is raised at the end.
        """
        hooks = AsyncExitStack()
        for hook in reversed(self._stops):
            hooks.push_async_callback(_call, hook)
        try:
            await hooks.aclose()
        finally:
            await self._stack.aclose()  # told of no error: a manager without `finally` is left properly too

    async def _enter(self, hook: Hook) -> None:
        made = hook()
        if inspect.isawaitable(made):
            await made
        elif hasattr(made, "__aenter__"):
            await self._stack.enter_async_context(made)
        elif hasattr(made, "__enter__"):
            self._stack.enter_context(made)


def check_hook(hook: Hook) -> None:
    """Raise if calling `hook` would do nothing.

    Raises:
        BadTask: it is a generator, or can't be called.
    """
    name = getattr(hook, "__qualname__", repr(hook))
    if not callable(hook):
        raise BadTask(f"{name} is no function, so it can't be a hook.")
    if inspect.isgeneratorfunction(hook) or inspect.isasyncgenfunction(hook):
        raise BadTask(
            f"{name} is a generator: calling it runs nothing of it. Decorate it with @contextmanager or "
            "@asynccontextmanager."
        )


async def _call(hook: Hook) -> None:
    made = hook()
    if inspect.isawaitable(made):
        await made


def finish(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that waits for nothing, without an event loop: plain hooks need none."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    coroutine.close()
    raise RuntimeError("An on_start or on_stop hook returned something to await, but is no coroutine function.")
