"""What a worker shows of itself: about once a second while something changes, and nothing while it is idle."""

from __future__ import annotations

import math
import os
import socket

from dibs.ledger.snapshot import ExecutorInfo, Running, Snapshot
from dibs.message import now_ms
from dibs.outcome import Cancelled, Dead, Done, Outcome, RetryIn
from dibs.worker.child import Child
from dibs.worker.memory import resident_bytes
from dibs.worker.noting import Noting
from dibs.worker.options import WorkerOptions
from dibs.worker.slots import Slots
from dibs.worker.supply import Supply

#: Seconds between two snapshots.
_INTERVAL = 1.0
#: Most jobs of an executor that are shown one by one.
_MOST_RUNNING = 100
#: The kinds of outcomes that are counted, as the snapshot names them.
_KINDS: dict[str, type[Outcome]] = {"done": Done, "retry": RetryIn, "dead": Dead, "cancelled": Cancelled}


class Showing:
    """Makes the snapshots."""

    def __init__(self, options: WorkerOptions, slots: Slots, supply: Supply, noting: Noting) -> None:
        self._options = options
        self._slots = slots
        self._supply = supply
        self._noting = noting
        self._started = now_ms()
        self._host = socket.gethostname()
        self._version = ""
        self._shown = -math.inf
        #: The last one.
        self.last: Snapshot | None = None
        #: Something has changed since the last one.
        self.is_stale = True

    def hurry(self) -> None:
        """Have the next one made at once."""
        self.is_stale, self._shown = True, -math.inf

    def patience(self, now: float) -> float | None:
        """Return in how many seconds one is due; None: nothing is foreseen."""
        if not self.is_stale or not self._supply.is_connected:
            return None
        return max(0.0, self._shown + _INTERVAL - now)

    def look(self, now: float, *, is_ending: bool) -> None:
        """Show how the worker is, if that is due."""
        if self.patience(now) == 0.0:
            self.is_stale, self._shown = False, now
            self._version = self._version or _version()
            self.last = self._snapshot(is_ending=is_ending)
            self._supply.show(self.last)

    def _snapshot(self, *, is_ending: bool) -> Snapshot:
        return Snapshot(
            worker=f"{self._host}:{os.getpid()}",
            host=self._host,
            pid=os.getpid(),
            version=self._version,
            app=self._options.app,
            started=self._started,
            at=now_ms(),
            queues=list(self._supply.queues),
            tasks=list(self._supply.tasks),
            slots=self._slots.total,
            executors=[self._executor(child) for child in self._slots.children],
            ended={kind: count for kind, outcome in _KINDS.items() if (count := self._supply.ended[outcome])},
            memory_bytes=resident_bytes(os.getpid()),
            is_ending=is_ending,
        )

    def _executor(self, child: Child) -> ExecutorInfo:
        shown = list(child.running.items())[:_MOST_RUNNING]
        return ExecutorInfo(
            pid=child.pid,
            started=child.started,
            memory_bytes=child.memory_bytes,
            finished=child.finished,
            state=_state(child),
            running=[
                Running(
                    id=delivery.message.id,
                    task=delivery.message.task,
                    queue=delivery.message.queue,
                    attempt=delivery.message.attempt,
                    since=child.since[number],
                    progress=self._noting.progress.get(number),
                )
                for number, delivery in shown
            ],
            held=len(child.running),
        )


def _version() -> str:
    from importlib.metadata import version  # noqa: PLC0415 -- takes longer than all that is imported for the first job

    return version("dibs")


def _state(child: Child) -> str:
    if child.is_retired:
        return "retired"
    if not child.is_ready:
        return "starting"
    return "quarantine" if child.is_quarantine else "ready"
