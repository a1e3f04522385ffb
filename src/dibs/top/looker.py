"""The thread that asks the broker, look after look, and does what the user wants done in between.

One thread does both, so that the next look shows what was done. The screen never waits for it.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Collection

import msgspec

from dibs.broker import Broker
from dibs.errors import DibsError
from dibs.message import now_ms
from dibs.selection import Selection
from dibs.top.cells import one_line
from dibs.top.look import Look, look
from dibs.top.view import Deed

#: Seconds between two looks at the most, while the broker can't be asked.
_PATIENCE = 5.0


class Trouble(msgspec.Struct, frozen=True):
    """The broker could not be asked."""

    text: str


class Answer(msgspec.Struct, frozen=True):
    """What came of a deed."""

    text: str


#: What the looker has to say. An exception is a fault of ours.
News = Look | Trouble | Answer | Exception


class Looker:
    """Looks until it is closed.

    Args:
        broker: whom it asks.
        names: queues that it asks for, where the broker can't list them.
        interval: seconds from one look to the next.
        on_news: is called in the looker's thread when there are news to `take`.
    """

    def __init__(self, broker: Broker, names: Collection[str], interval: float, on_news: Callable[[], None]) -> None:
        self._broker = broker
        self._names = names
        self._interval = interval
        self._on_news = on_news
        self._news: queue.SimpleQueue[News] = queue.SimpleQueue()
        self._deeds: queue.SimpleQueue[Deed | None] = queue.SimpleQueue()
        # A daemon: who quits does not wait for a broker that does not answer.
        self._thread = threading.Thread(target=self._run, name="dibs-top-looker", daemon=True)
        self._thread.start()

    def do(self, deed: Deed) -> None:
        """Have something done, as soon as the look that is under way is over."""
        self._deeds.put(deed)

    def take(self) -> list[News]:
        """Return the news since the last call."""
        found: list[News] = []
        while not self._news.empty():
            found.append(self._news.get())
        return found

    def close(self) -> None:
        """Look no more."""
        self._deeds.put(None)

    def _run(self) -> None:
        pause = self._interval
        try:
            while True:
                began = time.monotonic()
                pause = self._interval if self._look() else min(max(pause * 2, self._interval), _PATIENCE)
                # Looking takes half of the time at the most: a broker that is slow is asked less often.
                took = time.monotonic() - began
                if not self._rest(max(pause - took, took)):
                    return
        except Exception as error:  # noqa: BLE001 -- raised again in the thread of the screen
            self._say(error)

    def _look(self) -> bool:
        try:
            self._say(look(self._broker, self._names, now_ms))
        except DibsError as error:
            self._say(Trouble(str(error)))
            self._broker.close()  # the next look connects anew, also where the file is another one now
            return False
        return True

    def _rest(self, seconds: float) -> bool:
        """Wait for the next look; at once where something was done. False: there is to be none."""
        try:
            deed = self._deeds.get(timeout=seconds)
        except queue.Empty:
            return True
        if deed is None:
            return False
        try:
            self._say(Answer(carry_out(self._broker, deed)))
        except DibsError as error:
            self._say(Answer(f"could not {deed.verb} {deed.name}: {one_line(str(error))}"))
        return True

    def _say(self, news: News) -> None:
        self._news.put(news)
        self._on_news()


def carry_out(broker: Broker, deed: Deed) -> str:
    """Do what the user wants done, and return what came of it."""
    match deed.verb:
        case "pause":
            broker.pause(deed.target)
            return f"paused {deed.name}"
        case "resume":
            broker.resume(deed.target)
            return f"resumed {deed.name}"
        case "cancel":
            return f"cancel {deed.name}: {broker.cancel([deed.target])[deed.target]}"
        case "replay":
            count = broker.replay(deed.queue, Selection(ids=frozenset({deed.target})))
            return f"replayed {deed.name}" if count else f"{deed.name} is not among the dead any more"
