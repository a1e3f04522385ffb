"""Outcomes that are published before their delivery is let go of (P2): retries, dead letters, returns of suspects.

All of it on the consumer's I/O thread, save what the publisher's calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any

from dibs.brokers.rabbitmq.flight import Flight, State
from dibs.brokers.rabbitmq.hold import Hold
from dibs.brokers.rabbitmq.publisher import Publisher
from dibs.brokers.rabbitmq.topology import Names
from dibs.errors import DibsError

_log = logging.getLogger("dibs.rabbitmq")

#: Seconds before a refused record is tried again: doubles from the first to the second.
_PAUSE, _LONGEST_PAUSE = 1.0, 60.0


class Records:
    """Those of one consumer."""

    def __init__(self, names: Names, publisher: Callable[[], Publisher], on_stored: Callable[[Hold], None]) -> None:
        self._names = names
        self._publisher = publisher
        self._on_stored = on_stored
        #: In hand, and not let go of before their record is stored.
        self._waiting: set[Hold] = set()
        #: Those of them that were refused, with how often.
        self._refused: dict[Hold, int] = {}
        #: With the publisher.
        self._underway: dict[Hold, tuple[Publisher, Flight]] = {}
        self._is_idle = asyncio.Event()
        self._is_idle.set()

    def begin(self, hold: Hold) -> None:
        """Have the record of what is in hand stored; `on_stored` is called behind it."""
        self._waiting.add(hold)
        self._is_idle.clear()
        if hold in self._underway or hold.record is None:
            return  # it was sent before its channel was lost, and the answer is still to come
        publisher, flight = self._publisher(), hold.record.flight(self._names)
        self._underway[hold] = publisher, flight
        publisher.link.post(publisher.submit, flight, come_back(self._on_over, hold))

    def suspend(self, hold: Hold) -> None:
        """Store nothing of what is lost until it comes again: others may have it by then.

        What was sent and not answered goes on: whether it is stored can't be known otherwise.
        """
        self._done_waiting(hold)
        if hold in self._underway:
            publisher, flight = self._underway[hold]
            publisher.link.post(_recall_unsent, publisher, flight, come_back(self._on_recalled, hold))

    async def finish(self) -> None:
        """Wait until all is stored, save what is refused again and again."""
        await self._is_idle.wait()

    def give_up(self) -> None:
        """Store nothing more. What was sent may still be stored."""
        underway, self._underway = self._underway, {}
        self._waiting.clear()
        self._refused.clear()
        for publisher, flight in underway.values():
            with contextlib.suppress(DibsError):  # a closed publisher publishes nothing anyway
                publisher.link.post(publisher.recall, flight)

    def _on_over(self, hold: Hold) -> None:
        if hold not in self._underway:
            return  # given up
        _, flight = self._underway.pop(hold)
        if flight.is_stored:
            hold.record = None
            self._done_waiting(hold)
            self._on_stored(hold)
        elif hold in self._waiting:
            self._on_refused(hold, flight)

    def _on_refused(self, hold: Hold, flight: Flight) -> None:
        refusals = self._refused.get(hold, 0)
        self._refused[hold] = refusals + 1
        pause = min(_LONGEST_PAUSE, _PAUSE * 2 ** min(refusals, 10))
        job, queues = flight.letters[0].id, ", ".join(flight.queues)
        text = "An outcome can't be stored; trying again in %.0f s. job=%s queue=%s error=%s"
        _log.error(text, pause, job, queues, flight.error)
        self._look_if_idle()
        asyncio.get_running_loop().call_later(pause, self._again, hold)

    def _on_recalled(self, hold: Hold) -> None:
        self._underway.pop(hold, None)
        self._again(hold)  # it may have come back meanwhile

    def _again(self, hold: Hold) -> None:
        if hold in self._waiting:
            self.begin(hold)

    def _done_waiting(self, hold: Hold) -> None:
        self._waiting.discard(hold)
        self._refused.pop(hold, None)
        self._look_if_idle()

    def _look_if_idle(self) -> None:
        if len(self._refused) == len(self._waiting):
            self._is_idle.set()


def come_back(function: Callable[..., None], *arguments: Any) -> Callable[[], None]:
    """Return a call that other threads may make, and that is run on the loop of this one."""
    loop = asyncio.get_running_loop()

    def call() -> None:
        with contextlib.suppress(RuntimeError):  # closed meanwhile: the server has taken the deliveries back
            loop.call_soon_threadsafe(function, *arguments)

    return call


def _recall_unsent(publisher: Publisher, flight: Flight, on_recalled: Callable[[], None]) -> None:
    """Stop what was not sent yet. On the publisher's thread."""
    if not flight.is_over and State.SENT not in flight.states:
        publisher.recall(flight)
        on_recalled()
