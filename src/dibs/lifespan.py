"""The hooks around an executor's life: `on_start` and `on_stop`, plain, async or context managers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import Any

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
            inspect.iscoroutinefunction(hook) or inspect.isasyncgenfunction(inspect.unwrap(hook))
            for hook in (*self._starts, *self._stops)
        )

    async def start(self) -> None:
        """Run the start hooks; what one raises ends the start."""
        for hook in self._starts:
            made = hook()
            if inspect.isawaitable(made):
                await made
            elif hasattr(made, "__aenter__"):
                await self._stack.enter_async_context(made)
            elif hasattr(made, "__enter__"):
                self._stack.enter_context(made)

    async def stop(self) -> None:
        """Run the stop hooks, then leave the context managers, last entered first."""
        async with self._stack:
            for hook in self._stops:
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
