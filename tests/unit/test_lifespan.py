"""The hooks around an executor's life: their order, and that none is left out because another one fails."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

from dibs import BadTask, Dibs
from dibs.lifespan import Lifespan, finish
from tests.ids import stable

Log = list[str]


@pytest.fixture
def log() -> Log:
    return []


def note(log: Log, word: str, *, fails: bool = False) -> Callable[[], None]:
    def hook() -> None:
        log.append(word)
        if fails:
            raise ValueError(word)

    return hook


def note_async(log: Log, word: str) -> Callable[[], Any]:
    async def hook() -> None:
        await asyncio.sleep(0)
        log.append(word)

    return hook


def manager(log: Log, word: str) -> Callable[[], Any]:
    @contextmanager
    def hook() -> Iterator[None]:
        log.append(f"enter {word}")
        yield
        log.append(f"leave {word}")

    return hook


def manager_async(log: Log, word: str) -> Callable[[], Any]:
    @asynccontextmanager
    async def hook() -> AsyncIterator[None]:
        log.append(f"enter {word}")
        yield
        await asyncio.sleep(0)
        log.append(f"leave {word}")

    return hook


async def live(lifespan: Lifespan) -> None:
    await lifespan.start()
    await lifespan.stop()


def test_hooks_run_in_order_and_managers_are_left_last_entered_first(log: Log) -> None:
    starts = [note(log, "a"), manager(log, "b"), note_async(log, "c"), manager_async(log, "d")]
    stops = [note(log, "y"), note_async(log, "z")]

    asyncio.run(live(Lifespan(starts, stops)))

    assert log == ["a", "enter b", "c", "enter d", "y", "z", "leave d", "leave b"]


def test_plain_hooks_need_no_event_loop(log: Log) -> None:
    lifespan = Lifespan([note(log, "a"), manager(log, "b")], [note(log, "z")])

    finish(lifespan.start())
    finish(lifespan.stop())

    assert not lifespan.needs_loop
    assert log == ["a", "enter b", "z", "leave b"]


class Resource:
    async def __aenter__(self) -> None: ...
    async def __aexit__(self, *_: object) -> None: ...


@pytest.mark.parametrize("hook", [note_async([], ""), manager_async([], ""), Resource])
def test_an_async_hook_is_told_by_its_looks(hook: Callable[[], Any]) -> None:
    assert Lifespan([hook], []).needs_loop


def test_a_hook_that_hides_that_it_is_async_is_told_so(log: Log) -> None:
    hook = note_async(log, "a")
    lifespan = Lifespan([functools.wraps(note)(lambda: hook())], [])  # noqa: PLW0108 -- that is how it hides

    with pytest.raises(RuntimeError, match="no coroutine function"):
        finish(lifespan.start())


def test_a_failing_start_leaves_the_managers_entered_so_far(log: Log) -> None:
    lifespan = Lifespan([manager(log, "a"), note(log, "b", fails=True), note(log, "never")], [note(log, "never")])

    with pytest.raises(ValueError, match="b"):
        asyncio.run(lifespan.start())

    assert log == ["enter a", "b", "leave a"]


def test_a_failing_stop_hook_keeps_none_of_the_others_from_running(log: Log) -> None:
    lifespan = Lifespan([manager(log, "a")], [note(log, "x", fails=True), note(log, "y")])

    with pytest.raises(ValueError, match="x"):
        asyncio.run(live(lifespan))

    assert log == ["enter a", "x", "y", "leave a"]


def forgotten() -> Iterator[None]:
    yield


async def forgotten_async() -> AsyncIterator[None]:
    yield


@pytest.mark.parametrize("hook", [forgotten, forgotten_async, 7], ids=stable)
def test_a_hook_that_would_never_run_is_refused(hook: Any) -> None:
    app = Dibs("memory://")

    for register in (app.on_start, app.on_stop):
        with pytest.raises(BadTask):
            register(hook)
    assert app.hooks == ((), ())


def test_a_hook_stays_the_function_that_it_was() -> None:
    app = Dibs("memory://")

    @app.on_start
    def connect() -> str:
        return "connected"

    assert connect() == "connected"
    assert app.hooks == ((connect,), ())
