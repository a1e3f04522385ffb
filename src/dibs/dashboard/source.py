"""What the dashboard asks, and of whom: the one place where it meets broker and ledger.

Everything here blocks, and is called in threads. Nothing is kept but a few samples of how deep the queues are.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Collection
from typing import TYPE_CHECKING

import msgspec

from dibs.broker import Broker, CancelAnswer, QueueInfo
from dibs.errors import BrokerError, LedgerUnavailable
from dibs.ledger.ledger import Ledger
from dibs.ledger.life import JobInfo, JobSelection, Page
from dibs.ledger.snapshot import Snapshot
from dibs.ledger.statistics import MINUTE, Minute, PastRuns
from dibs.message import now_ms
from dibs.selection import Selection

if TYPE_CHECKING:
    from dibs.app import Dibs

#: Seconds for which a count of the queues is good enough: pages that are asked for together share one.
_FRESH = 0.5
#: A million jobs take long to count. Where it took more than so many seconds it is done at the side, for a twentieth
#: of the time at the most, and pages show the count before, unless that is so old.
_LONG, _SHARE, _STALE = 0.02, 20.0, 10.0
#: Depth is kept by the minute for so many of them.
_MINUTES = 60


class Board(msgspec.Struct, frozen=True, kw_only=True):
    """How the queues are at one moment."""

    at: int
    location: str
    queues: list[QueueInfo]
    workers: list[Snapshot]
    #: Why the ledger can't be asked; None: it can.
    no_ledger: str | None = None

    @property
    def dead(self) -> int:
        """How many dead letters there are in all queues."""
        return sum(queue.dead for queue in self.queues)


class Source:
    """The broker and the ledger of one app, as the pages need them."""

    def __init__(self, app: Dibs, *, hides_arguments: bool) -> None:
        self.hides_arguments = hides_arguments
        self._app = app
        self._lock = threading.Lock()
        self._board: Board | None = None
        #: Until when it is good enough, as `time.monotonic` says, and how long it took.
        self._fresh_until = 0.0
        self._took = 0.0
        self._is_counting = False
        #: The last count of each minute in which somebody looked.
        self._depths: deque[tuple[int, dict[str, int]]] = deque(maxlen=_MINUTES)

    @property
    def broker(self) -> Broker:
        """The app's broker."""
        return self._app.broker

    @property
    def ledger(self) -> Ledger:
        """The broker's ledger.

        Raises:
            LedgerUnavailable: it keeps none.
        """
        return self._app.broker.ledger

    def board(self) -> Board:
        """Return how the queues are, or were a moment ago."""
        with self._lock:
            board, late = self._board, time.monotonic() - self._fresh_until
            if board is not None and (late < 0 or (self._is_counting and late < _STALE)):
                return board
            if board is not None and self._took > _LONG and late < _STALE:
                self._is_counting = True
                threading.Thread(target=self._count, name="dibs-dashboard-count", daemon=True).start()
                return board
            return self._look()

    def forget(self) -> None:
        """Have the next `board` ask anew: something was changed."""
        with self._lock:
            self._board = None

    def minutes(self, since: int) -> list[Minute]:
        """Return what the ledger recorded by minute and queue, with the depths that were seen from here."""
        told = [] if self.board().no_ledger else self.ledger.minutes(since)
        minutes = {(minute.start, minute.queue): minute for minute in told}
        seen = [(start, depths) for start, depths in tuple(self._depths) if start >= since - MINUTE]
        for start, depths in seen:
            for queue, depth in depths.items():
                known = minutes.get((start, queue)) or Minute(start=start, queue=queue)
                minutes[start, queue] = msgspec.structs.replace(known, depth=depth)
        return sorted(minutes.values(), key=lambda minute: minute.start)

    def runs(self, since: int, *, limit: int) -> PastRuns:
        """Return the runs that ended since then, the latest first."""
        return PastRuns([], since) if self.board().no_ledger else self.ledger.runs(since, limit=limit)

    def jobs(self, selection: JobSelection, *, limit: int, after: str | None) -> Page:
        """Return a page of jobs."""
        if self.board().no_ledger:
            return Page([], None)
        return self.ledger.jobs(selection, limit=limit, after=after)

    def job(self, id: str) -> JobInfo | None:  # noqa: A002 -- the word of the API
        """Return one job, without what is to be hidden."""
        found = None if self.board().no_ledger else self.ledger.job(id)
        if found is None or not self.hides_arguments:
            return found
        return msgspec.structs.replace(found, body=None, result=None)

    def pause(self, queue: str) -> None:
        """Pause a queue."""
        self.broker.pause(queue)

    def resume(self, queue: str) -> None:
        """Resume a queue."""
        self.broker.resume(queue)

    def purge(self, queue: str) -> int:
        """Delete what is ready in a queue, and what is delayed where the broker can."""
        count = self.broker.purge(queue, state="ready")
        if self.broker.capabilities.counts_held:
            count += self.broker.purge(queue, state="delayed")
        return count

    def cancel(self, ids: Collection[str]) -> dict[str, CancelAnswer]:
        """Cancel jobs."""
        return self.broker.cancel(ids)

    def replay(self, queue: str, selection: Selection) -> int:
        """Put dead letters back into their queue."""
        return self.broker.replay(queue, selection)

    def drop(self, queue: str, selection: Selection) -> int:
        """Delete dead letters for good."""
        return self.broker.drop(queue, selection)

    def _count(self) -> None:
        """Look at the side. Should that fail, whoever asks next looks for themselves, and is told why."""
        try:
            self._look()
        except BrokerError:
            self.forget()
        finally:
            self._is_counting = False

    def _look(self) -> Board:
        began = time.monotonic()
        broker = self._app.broker
        queues = broker.queues(self._app.queue_names)
        workers, no_ledger = _workers(broker)
        now = now_ms()
        depths = {queue.name: queue.ready + (queue.delayed or 0) for queue in queues}
        start = now - now % MINUTE
        if self._depths and self._depths[-1][0] == start:
            self._depths.pop()
        self._depths.append((start, depths))
        self._board = Board(at=now, location=broker.location, queues=queues, workers=workers, no_ledger=no_ledger)
        ended = time.monotonic()
        self._took = ended - began
        self._fresh_until = ended + min(max(_FRESH, _SHARE * self._took), _STALE / 2)
        return self._board


def _workers(broker: Broker) -> tuple[list[Snapshot], str | None]:
    """Return who is at work, and why the ledger can't tell, where it can't."""
    try:
        return broker.ledger.workers(), None
    except LedgerUnavailable as error:
        return [], str(error)
