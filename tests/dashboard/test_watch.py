"""The poller that all viewers share: it works for those who look, once for all of them, and keeps nothing."""

from __future__ import annotations

import asyncio
import threading
import tracemalloc
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Any

import pytest

from dibs import BrokerUnavailable
from dibs.dashboard import watch as module
from dibs.dashboard.page import Query
from dibs.dashboard.view import View
from dibs.dashboard.watch import News, Watch, encode

VIEW, OTHER = (View(path, Query(), "") for path in ("/", "/jobs"))


class Looks:
    """What is to be seen, and how often somebody looked."""

    def __init__(self) -> None:
        self.count = 0
        self.regions: dict[str, str] = {"live_a": "one"}
        self.error: Exception | None = None

    def __call__(self, view: View) -> dict[str, str]:
        self.count += 1
        if self.error is not None:
            raise self.error
        return dict(self.regions)


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PERIOD", 0.001)
    monkeypatch.setattr(module, "_PATIENCE", 0.01)


def watched(looks: Looks, story: Callable[[Watch], Coroutine[Any, Any, None]]) -> None:
    """Tell a story with a watch in it, in an event loop of its own."""
    with ThreadPoolExecutor(1) as threads:
        asyncio.run(asyncio.wait_for(story(Watch(looks, threads)), 30))


async def next_news(follow: AsyncIterator[News | None]) -> News:
    """Wait for the next news."""
    while (news := await anext(follow)) is None:
        pass
    return news


def is_idle(watch: Watch) -> bool:
    """Tell whether nobody looks, at this moment."""
    return watch.is_idle


async def count_past(looks: Looks, more: int) -> None:
    """Wait until there were so many looks more."""
    until = looks.count + more
    while looks.count < until:
        await asyncio.sleep(0.001)


def test_a_viewer_is_told_everything_once_and_then_what_changed() -> None:
    looks = Looks()

    async def story(watch: Watch) -> None:
        looks.regions["live_b"] = "same"
        async with aclosing(watch.follow(VIEW)) as follow:
            assert await next_news(follow) == News({"live_a": "one", "live_b": "same"})
            looks.regions["live_a"] = "two"
            assert await next_news(follow) == News({"live_a": "two"})

    watched(looks, story)


def test_nobody_looks_for_nobody() -> None:
    looks = Looks()

    async def story(watch: Watch) -> None:
        async with aclosing(watch.follow(VIEW)) as follow:
            await next_news(follow)
            assert not is_idle(watch)
        assert is_idle(watch)
        await asyncio.sleep(0.01)  # a look that was under way is over
        before = looks.count
        await asyncio.sleep(0.05)
        assert looks.count == before

    watched(looks, story)


def test_a_hundred_viewers_of_one_page_cost_one_look() -> None:
    looks = Looks()

    async def story(watch: Watch) -> None:
        follows = [watch.follow(VIEW) for _ in range(100)]
        seen = await asyncio.gather(*(next_news(follow) for follow in follows))
        assert looks.count <= 3  # not a hundred: one, and those that came while the hundred were told
        assert seen == [News({"live_a": "one"})] * 100
        for follow in follows:
            await follow.aclose()
        assert watch.is_idle

    watched(looks, story)


def test_a_slow_viewer_gets_the_newest_and_nothing_piles_up() -> None:
    looks = Looks()

    async def story(watch: Watch) -> None:
        async with aclosing(watch.follow(VIEW)) as follow:
            await next_news(follow)
            for number in range(50):
                looks.regions["live_a"] = f"news {number}"
                await count_past(looks, 2)
            assert await next_news(follow) == News({"live_a": "news 49"})

    watched(looks, story)


def test_a_broker_that_is_gone_is_told_and_its_return() -> None:
    looks = Looks()

    async def story(watch: Watch) -> None:
        async with aclosing(watch.follow(VIEW)) as follow:
            await next_news(follow)
            looks.error = BrokerUnavailable("it is gone")
            assert await next_news(follow) == News({}, "it is gone")
            looks.error = None
            assert await next_news(follow) == News({}, None)

    watched(looks, story)


def test_a_broker_that_does_not_answer_is_told_before_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SILENCE", 0.05)
    looks, answer = Looks(), threading.Event()

    def hang(view: View) -> dict[str, str]:
        answer.wait(20)
        return looks(view)

    async def story() -> None:
        watch = Watch(hang, threads)
        async with aclosing(watch.follow(VIEW)) as follow:
            assert "has not answered" in str((await next_news(follow)).gone)
            answer.set()
            assert await next_news(follow) == News({"live_a": "one"})

    with ThreadPoolExecutor(1) as threads:
        asyncio.run(asyncio.wait_for(story(), 30))


def test_a_fault_of_a_page_is_logged_and_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    looks = Looks()

    async def story(watch: Watch) -> None:
        async with aclosing(watch.follow(VIEW)) as follow:
            looks.error = ZeroDivisionError("a fault")
            assert "could not be made" in str((await next_news(follow)).gone)
            looks.error = None
            while (await next_news(follow)).gone is not None:
                pass

    watched(looks, story)
    assert "page could not be rendered" in caplog.text


def test_a_page_that_stays_open_does_not_grow() -> None:
    looks = Looks()

    async def story(watch: Watch) -> None:
        async with aclosing(watch.follow(VIEW)) as follow:
            for number in range(200):
                looks.regions["live_a"] = f"{number:1000}"
                await next_news(follow)
            before = tracemalloc.get_traced_memory()[0]
            for number in range(800):
                looks.regions["live_a"] = f"{number:1000}"
                await next_news(follow)
            assert tracemalloc.get_traced_memory()[0] - before < 100_000

    tracemalloc.start()
    try:
        watched(looks, story)
    finally:
        tracemalloc.stop()


def test_close_sends_everybody_away() -> None:
    looks = Looks()

    async def story(watch: Watch) -> None:
        follow = watch.follow(VIEW)
        await next_news(follow)
        watch.close()
        with pytest.raises(StopAsyncIteration):
            while True:
                await anext(follow)
        assert watch.is_idle

    watched(looks, story)


def test_news_with_lines_and_markup_are_one_event() -> None:
    sent = encode(News({"live_a": "<p>one\n\ntwo</p>\r\n"}))

    assert sent.startswith(b"event: news\ndata: {")
    assert sent.endswith(b"}\n\n")
    assert sent.count(b"\n") == 3
    assert encode(None) == b": still here\n\n"
