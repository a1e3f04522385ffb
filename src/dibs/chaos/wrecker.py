"""Does to the processes what the plan says, to whom of the living it can, and writes down whom it hit and when."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import TypeVar

import msgspec

from dibs.chaos.account import Account
from dibs.chaos.crew import Crew, Post
from dibs.chaos.plan import Fault, FaultKind
from dibs.chaos.server import Server

T = TypeVar("T")


class Strike(msgspec.Struct, frozen=True):
    """A fault as it was made."""

    kind: FaultKind
    #: The moment right before the signal.
    at: float
    #: Executors that it killed, or that died of it.
    pids: frozenset[int] = frozenset()
    #: When it was over, for what lasts.
    until: float | None = None


class Wrecker:
    """Makes faults. Prefers those to whom it makes a difference: who is in the middle of a job."""

    def __init__(self, crew: Crew, server: Server, account: Account) -> None:
        self._crew = crew
        self._server = server
        self._account = account
        self.strikes: list[Strike] = []

    @property
    def counts(self) -> dict[str, int]:
        """How many faults of each kind there were."""
        return dict(Counter(strike.kind for strike in self.strikes))

    def strike(self, fault: Fault) -> None:
        """Make a fault; where there is nobody whom it could hit, none is made and none is counted."""
        made = self._make(fault)
        if made is not None:
            self.strikes.append(made)

    def _make(self, fault: Fault) -> Strike | None:
        crew = self._crew
        match fault.kind:
            case "executor":
                return self._kill_executor(fault)
            case "everybody":
                pids = [pid for worker in crew.workers for pid in crew.executors(worker)]
                struck = Strike("everybody", time.monotonic(), frozenset(pids))
                for post in (*crew.workers, *crew.producers):
                    crew.kill(post, pause=fault.pause)
                return struck
            case "producer":
                producer = _pick(fault, crew.producers)
                if producer is None:
                    return None
                struck = Strike("producer", time.monotonic())
                crew.kill(producer, pause=fault.pause)
                return struck
            case "broker":
                if self._server.is_down:
                    return None  # it is still coming back
                self._server.kill(pause=fault.pause)
                return Strike("broker", time.monotonic())
            case _:
                worker = self._choose_worker(fault)
                return None if worker is None else self._hit(fault, worker)

    def _kill_executor(self, fault: Fault) -> Strike | None:
        crew = self._crew
        # A worker whose first executor dies while it imports the app takes the app for broken, and ends: no fault of
        # the queue's. So only those are hit that have come up.
        there = {pid: worker for worker in crew.workers for pid in crew.executors(worker)}
        pids = {pid: worker for pid, worker in there.items() if pid in self._account.came_up}
        pid = _pick(fault, sorted(self._account.busy(pids)) or sorted(pids))
        if pid is None:
            return None
        struck = Strike("executor", time.monotonic(), frozenset({pid}))
        crew.kill_executors(pids[pid], [pid])
        return struck

    def _hit(self, fault: Fault, worker: Post) -> Strike | None:
        crew = self._crew
        pids = crew.executors(worker)
        now = time.monotonic()
        match fault.kind:
            case "freeze":
                crew.freeze(worker, until=now + fault.pause)
                return Strike("freeze", now, until=now + fault.pause)
            case "stop":
                crew.stop(worker)
                return Strike("stop", now)
            case "session":
                crew.kill_executors(worker, pids)
        crew.kill(worker, pause=fault.pause)
        return Strike(fault.kind, now, frozenset(pids))

    def _choose_worker(self, fault: Fault) -> Post | None:
        crew = self._crew
        awake = [worker for worker in crew.workers if not crew.is_frozen(worker)]
        busy = [worker for worker in awake if self._account.busy(crew.executors(worker))]
        return _pick(fault, busy or awake)


def _pick(fault: Fault, those: Sequence[T]) -> T | None:
    return those[int(fault.pick * len(those))] if those else None
