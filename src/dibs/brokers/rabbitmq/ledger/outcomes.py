"""Outcomes on their way to the ledger: in batches, and their deliveries are let go of behind the record (P2).

While one batch is underway what ends piles up into the next, so batches grow by themselves under load. On the
consumer's I/O thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence

from dibs.brokers.rabbitmq.hold import Hold
from dibs.brokers.rabbitmq.ledger import entries
from dibs.brokers.rabbitmq.ledger.answers import Answer
from dibs.brokers.rabbitmq.ledger.entries import Ended
from dibs.brokers.rabbitmq.ledger.journal import Record
from dibs.brokers.rabbitmq.publisher import Publisher
from dibs.brokers.rabbitmq.records import come_back

_log = logging.getLogger("dibs.rabbitmq")

#: Longest message to the ledger, unless one entry alone is longer.
_RECORD_BYTES = 256 * 1024
#: Seconds that a record may take before deliveries are let go of without it.
_PATIENCE = 5.0


class Outcomes:
    """Those of one consumer."""

    def __init__(self, publisher: Callable[[], Publisher], on_recorded: Callable[[Sequence[Hold]], None]) -> None:
        self._publisher = publisher
        self._on_recorded = on_recorded
        #: What has ended and was not sent yet, in order.
        self._pending: dict[Hold, None] = {}
        self._underway: set[Hold] = set()
        #: How many messages are underway.
        self._count = 0
        #: The last record took too long: nobody waits for one, until one is stored.
        self._is_stuck = False
        self._is_idle = asyncio.Event()
        self._is_idle.set()

    def add(self, holds: Iterable[Hold]) -> None:
        """Have what came of these recorded; `on_recorded` is called behind it. What is underway already waits on."""
        underway = self._underway
        for hold in holds:
            if hold not in underway:
                self._pending[hold] = None
        self._flush()

    def suspend(self, hold: Hold) -> None:
        """Record nothing of what is lost until it comes again: others may have it by then."""
        self._pending.pop(hold, None)

    async def finish(self) -> None:
        """Wait until all is recorded."""
        await self._is_idle.wait()

    def _flush(self) -> None:
        if self._count or not self._pending:
            return
        holds = list(self._pending)
        self._pending.clear()
        self._is_idle.clear()
        publisher = self._publisher()
        for part, body in _split(holds):
            self._send(publisher, part, body)

    def _send(self, publisher: Publisher, holds: Sequence[Hold], body: bytes) -> None:
        self._count += 1
        self._underway.update(holds)
        loop = asyncio.get_running_loop()
        timer = loop.call_later(0.0 if self._is_stuck else _PATIENCE, self._lose_patience, holds)
        record = Record(body, come_back(self._on_over, holds, timer), _answers_of(holds))
        publisher.link.post(publisher.journal.write, record)

    def _on_over(self, holds: Sequence[Hold], timer: asyncio.TimerHandle) -> None:
        timer.cancel()
        self._is_stuck = False
        if holds[0] in self._underway:
            self._let_go(holds)

    def _lose_patience(self, holds: Sequence[Hold]) -> None:
        if not self._is_stuck:
            self._is_stuck = True
            _log.warning(
                "The ledger has not confirmed what came of jobs for %.0f s; they are let go of without it.",
                _PATIENCE,
            )
        self._let_go(holds)

    def _let_go(self, holds: Sequence[Hold]) -> None:
        self._count -= 1
        self._underway.difference_update(holds)
        for hold in holds:
            hold.entry = None
        self._on_recorded(holds)
        self._flush()
        if not self._count:
            self._is_idle.set()


def _split(holds: list[Hold]) -> Iterable[tuple[list[Hold], bytes]]:
    """Yield these outcomes as bodies of records, none of them longer than it must be."""
    body = entries.encode([hold.entry for hold in holds if hold.entry is not None])
    if len(body) <= _RECORD_BYTES or len(holds) == 1:
        yield holds, body
        return
    half = len(holds) // 2
    yield from _split(holds[:half])
    yield from _split(holds[half:])


def _answers_of(holds: Sequence[Hold]) -> list[Answer]:
    """Return what is said to the processes that wait for these, as far as they are over: one message to each."""
    waited: dict[str, list[Ended]] = {}
    for hold in holds:
        if hold.reply_to is not None and hold.entry is not None and hold.entry.is_final:
            waited.setdefault(hold.reply_to, []).append(hold.entry)
    return [Answer(queue, entries.encode(ended)) for queue, ended in waited.items()]
