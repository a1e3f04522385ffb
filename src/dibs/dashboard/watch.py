"""Has pages live: asks for what viewers look at, once for all who look at the same, and hands on what changed.

While nobody looks it does nothing. Nothing piles up for a slow viewer: it gets the newest state when it can take it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import Executor
from typing import Any

import msgspec

from dibs.dashboard.view import View
from dibs.errors import DibsError

#: Seconds from one look to the next, and at the most while the broker can't be asked.
_PERIOD, _PATIENCE = 1.0, 5.0
#: Seconds after which a viewer that there is nothing to tell is told that.
_HEARTBEAT = 15.0
#: Seconds without an answer after which viewers are told so.
_SILENCE = 5.0
#: So many may look on at the same time.
VIEWERS = 200

_log = logging.getLogger("dibs.dashboard")


class News(msgspec.Struct, frozen=True):
    """What is new to a viewer."""

    #: Live blocks that changed, by name.
    regions: dict[str, str] = {}
    #: Why the broker can't be asked; None: it can.
    gone: str | None = None


class _Screen:
    """What all who look at one view have seen."""

    def __init__(self) -> None:
        self.viewers = 0
        self.version = 0
        #: By name: in which version it changed last, and to what.
        self.regions: dict[str, tuple[int, str]] = {}
        self.gone: str | None = None
        self.changed = asyncio.Event()

    def take(self, regions: dict[str, str], gone: str | None) -> None:
        """Take in what was seen, and wake the viewers if it is new."""
        fresh = {name: html for name, html in regions.items() if self.regions.get(name, (0, None))[1] != html}
        if not fresh and gone == self.gone and self.version:
            return
        self.version += 1
        self.regions |= {name: (self.version, html) for name, html in fresh.items()}
        self.gone = gone
        self.changed.set()
        self.changed = asyncio.Event()

    def since(self, version: int) -> News:
        """Return what a viewer who has seen that version has not."""
        return News({name: html for name, (at, html) in self.regions.items() if at > version}, self.gone)


class Watch:
    """The one poller of a dashboard. Lives in one event loop."""

    def __init__(self, look: Callable[[View], dict[str, str]], threads: Executor) -> None:
        self._look = look
        self._threads = threads
        self._screens: dict[View, _Screen] = {}
        self._poller: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    @property
    def is_full(self) -> bool:
        """Whether no more viewers are taken in."""
        return sum(screen.viewers for screen in self._screens.values()) >= VIEWERS

    @property
    def is_idle(self) -> bool:
        """Whether nobody looks, so nothing is done."""
        return not self._screens and self._poller is None

    def close(self) -> None:
        """Send all viewers away. Call it in the event loop."""
        self._closing.set()

    async def follow(self, view: View) -> AsyncGenerator[News | None, None]:
        """Yield what is new, all of it first; None now and then, while nothing is."""
        screen = self._screens.setdefault(view, _Screen())
        screen.viewers += 1
        self._start()
        version = 0
        try:
            while not self._closing.is_set():
                changed = screen.changed
                if screen.version > version:
                    news, version = screen.since(version), screen.version
                    yield news
                elif not await self._wait(changed):
                    yield None
        finally:
            screen.viewers -= 1
            if not screen.viewers:
                self._screens.pop(view, None)
            if not self._screens and self._poller is not None:
                self._poller.cancel()
                self._poller = None

    async def _wait(self, changed: asyncio.Event) -> bool:
        """Wait until something changed; tell whether it did before a sign of life is due."""
        waits = [asyncio.ensure_future(event.wait()) for event in (changed, self._closing)]
        try:
            done, _ = await asyncio.wait(waits, timeout=_HEARTBEAT, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return bool(done)

    def _start(self) -> None:
        if self._poller is None:
            self._poller = asyncio.get_running_loop().create_task(self._poll(), name="dibs-dashboard-poller")

    async def _poll(self) -> None:
        loop = asyncio.get_running_loop()
        pause = _PERIOD
        while True:
            began = loop.time()
            is_gone = False
            for view, screen in tuple(self._screens.items()):
                asked = loop.run_in_executor(self._threads, self._ask, view)
                if not (await asyncio.wait([asked], timeout=_SILENCE))[0]:
                    screen.take({}, f"The broker has not answered for {_SILENCE:.0f} seconds.")
                regions, gone = await asked
                screen.take(regions, gone)
                is_gone = is_gone or gone is not None
            # Looking may take up to half of the time: a slow broker is asked less often.
            took = loop.time() - began
            pause = min(pause * 2, _PATIENCE) if is_gone else max(_PERIOD, took)
            await asyncio.sleep(max(pause - took, took))

    def _ask(self, view: View) -> tuple[dict[str, str], str | None]:
        try:
            return self._look(view), None
        except DibsError as error:
            return {}, str(error)
        except Exception:  # noqa: BLE001 -- a fault of ours: this view stands still, the others go on, and the log has it
            _log.exception("page could not be rendered page=%s", view.path)
            return {}, "This page could not be made; the dashboard's log says why."


def encode(news: News | None) -> bytes:
    """Return news as a server-sent event; a comment where there are none."""
    if news is None:
        return b": still here\n\n"
    data: Any = {"regions": news.regions, "gone": news.gone}
    return b"event: news\ndata: " + msgspec.json.encode(data) + b"\n\n"


async def stream(watch: Watch, view: View) -> AsyncIterator[bytes]:
    """Yield a view's events until the viewer leaves."""
    yield b"retry: 1000\n\n"
    follow = watch.follow(view)
    async with contextlib.aclosing(follow):
        async for news in follow:
            yield encode(news)
