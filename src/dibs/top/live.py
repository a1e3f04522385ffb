"""The live screen: draws what the looker saw, and does what keys say."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from msgspec.structs import replace

from dibs.broker import Broker
from dibs.message import now_ms
from dibs.top.cells import one_line
from dibs.top.drawing import draw, page_rows
from dibs.top.look import Look, look, rates, recent
from dibs.top.looker import Answer, Looker, News, Trouble
from dibs.top.panes import rows
from dibs.top.steering import press
from dibs.top.terminal import Terminal
from dibs.top.view import PANES, State, View

#: Seconds without a look after which the user is told so.
_SILENCE = 5.0
#: Seconds between two looks where there are only two: workers speak once a second.
_GAP = 1.5


def peek(broker: Broker, names: Collection[str], sleep: Callable[[float], None] = time.sleep) -> View:
    """Return what there is to see now. Looks twice, so that it can tell how fast things go."""
    first = look(broker, names, now_ms)
    sleep(_GAP)
    last = look(broker, names, now_ms)
    return View(location=one_line(broker.location), now=last.at, look=last, rates=rates([first, last]))


class Live:
    """The screen, until the user quits."""

    def __init__(self, broker: Broker, names: Collection[str], interval: float, terminal: Terminal) -> None:
        self._terminal = terminal
        self._interval = interval
        self._location = one_line(broker.location)
        self._state = State()
        self._looks: list[Look] = []
        self._trouble = ""
        self._heard = time.monotonic()
        self._looker = Looker(broker, names, interval, terminal.wake)

    def run(self) -> None:
        """Show it until the user quits."""
        try:
            while not self._state.is_quitting:
                for news in self._looker.take():
                    self._hear(news)
                view, size = self._view(), self._terminal.size
                self._terminal.paint(draw(view, *size), size)
                for key in self._terminal.read(1.0):
                    self._press(key, size[1])
                    if self._state.question is not None:
                        break  # what was typed before the question could be seen is no answer to it
        except EOFError:
            pass  # nobody is there to be shown anything
        finally:
            self._looker.close()

    def _hear(self, news: News) -> None:
        match news:
            case Look():
                self._looks = recent([*self._looks, news])
                self._trouble = ""
            case Trouble(text):
                self._trouble = one_line(text)
            case Answer(text):
                self._state = replace(self._state, said=text)
            case Exception():
                raise news
        self._heard = time.monotonic()

    def _view(self) -> View:
        trouble = self._trouble
        silence = time.monotonic() - self._heard
        if silence > max(_SILENCE, 2 * self._interval) and not trouble:
            trouble = f"No answer for {silence:.0f} s."
        return View(
            location=self._location,
            now=now_ms(),
            look=self._looks[-1] if self._looks else None,
            rates=rates(self._looks),
            state=self._state,
            trouble=trouble,
        )

    def _press(self, key: str, height: int) -> None:
        view = self._view()
        self._state, deed = press(self._state, key, {pane: rows(pane, view) for pane in PANES}, page_rows(height))
        if deed is not None:
            self._state = replace(self._state, said=f"{deed.verb} {deed.name} …")
            self._looker.do(deed)
