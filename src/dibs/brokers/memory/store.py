"""All jobs of one process, under one lock, and who waits for them. Forgets what is over once its time is."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Protocol

from dibs.brokers.memory.entry import Entry
from dibs.errors import UnknownQueue
from dibs.ledger.life import Ending
from dibs.ledger.snapshot import Snapshot
from dibs.ledger.statistics import MINUTE
from dibs.ledger.tally import Tally
from dibs.message import Delivery, now_ms
from dibs.outcome import Outcome

Waiter = Future[Ending | None]
#: Minutes that the statistics go back.
_MINUTES = 180


class Member(Protocol):
    """A consumer, as the others see it."""

    queues: frozenset[str]
    #: What it last said of itself.
    snapshot: Snapshot | None

    def wake(self) -> None:
        """Have it look again."""
        ...


class Store:
    """What broker, consumers and ledger share. Use it inside `with store.open():`, but for `wake`."""

    def __init__(self) -> None:
        #: Jobs that are not over, and the dead.
        self.entries: dict[str, Entry] = {}
        #: Jobs that are done or cancelled and not forgotten: apart, so that receiving never looks at them.
        self.over: dict[str, Entry] = {}
        self.queues: set[str] = set()
        self.paused: set[str] = set()
        self.consumers: set[Member] = set()
        self.numbers = itertools.count()
        self.tally = Tally()
        self._lock = threading.Lock()
        self._waiters: dict[str, list[Waiter]] = {}
        self._told: list[tuple[Waiter, Ending | None]] = []
        #: When what is over is to be forgotten, the next one first.
        self._ends: list[tuple[int, int, Entry]] = []

    @contextmanager
    def open(self) -> Iterator[Store]:
        """Hold the lock; whoever waits for a job is told of its end behind it."""
        told: list[tuple[Waiter, Ending | None]] = []
        try:
            with self._lock:
                self._tidy()
                try:
                    yield self
                finally:
                    told, self._told = self._told, []
        finally:
            for waiter, ending in told:
                if waiter.set_running_or_notify_cancel():
                    waiter.set_result(ending)

    def wake(self) -> None:
        """Wake every consumer."""
        for consumer in tuple(self.consumers):
            consumer.wake()

    def find(self, job_id: str) -> Entry | None:
        """Return a job, wherever it is in its life."""
        return self.entries.get(job_id) or self.over.get(job_id)

    def every(self) -> Iterator[Entry]:
        """Yield all jobs that are known."""
        return itertools.chain(self.entries.values(), self.over.values())

    def select(self, queue: str, status: str) -> list[Entry]:
        """Return the jobs of a queue at that place, in line.

        Raises:
            UnknownQueue: there is no such queue.
        """
        if queue not in self.queues:
            known = ", ".join(sorted(self.queues)) or "none"
            raise UnknownQueue(f"There is no queue {queue!r}; there are: {known}.")
        return self.select_all({queue}, status)

    def select_all(self, queues: Collection[str], status: str) -> list[Entry]:
        """Return the jobs of these queues at that place, in line."""
        entries = self.entries.values()
        found = [entry for entry in entries if entry.status == status and entry.message.queue in queues]
        return sorted(found, key=lambda entry: entry.seq)

    def add(self, entry: Entry) -> None:
        """Take a job in."""
        self.queues.add(entry.message.queue)
        self.entries[entry.message.id] = entry

    def delete(self, entries: Sequence[Entry]) -> int:
        """Forget jobs at once; who waits for them is told so."""
        for entry in entries:
            del self.entries[entry.message.id]
            self._tell(entry.message.id, Ending(status="forgotten"))
        return len(entries)

    def changed(self, entry: Entry) -> None:
        """See to a job that came to its end, if it did: it is kept for its time, and who waits for it is told."""
        if not entry.is_over:
            return
        keep = round(entry.message.keep * 1000)
        ending = entry.ending()
        if entry.is_forgettable:
            del self.entries[entry.message.id]
            if keep:
                self.over[entry.message.id] = entry
                heapq.heappush(self._ends, ((entry.ended or now_ms()) + keep, entry.number, entry))
            else:
                ending = Ending(status="forgotten")
        self._tell(entry.message.id, ending)

    def count(self, outcomes: Sequence[tuple[Delivery, Outcome]]) -> None:
        """Add outcomes to the statistics."""
        now = now_ms()
        self.tally.add_all(outcomes, prefix="", now=now)
        self.tally.forget(now - _MINUTES * MINUTE)

    def watch(self, job_id: str) -> Waiter:
        """Return a future that is told how the job ends."""
        waiter: Waiter = Future()
        self._waiters.setdefault(job_id, []).append(waiter)
        waiter.add_done_callback(lambda done: self._leave(job_id, done))
        return waiter

    def _tidy(self) -> None:
        """Let what is due be ready, and forget what was kept for long enough."""
        now = now_ms()
        for entry in self.entries.values():
            if entry.status == "delayed" and (entry.message.due or 0) <= now:
                entry.status = "ready"
        while self._ends and self._ends[0][0] <= now:
            entry = heapq.heappop(self._ends)[2]
            if self.over.get(entry.message.id) is entry:
                del self.over[entry.message.id]

    def _tell(self, job_id: str, ending: Ending | None) -> None:
        self._told += [(waiter, ending) for waiter in self._waiters.pop(job_id, ())]

    def _leave(self, job_id: str, waiter: Waiter) -> None:
        """Forget one who waits no more."""
        if waiter.cancelled():
            with self._lock:
                waiters = self._waiters.get(job_id, [])
                if waiter in waiters:
                    waiters.remove(waiter)
                if not waiters:
                    self._waiters.pop(job_id, None)
