"""How a worker is, for those who ask from other threads: it turns, it is ready, what it has counted."""

from __future__ import annotations

import threading
import time

from dibs.broker import Broker, QueueInfo
from dibs.brokers import connect
from dibs.errors import BrokerError
from dibs.metrics.exposition import Family, Sample, render
from dibs.metrics.families import of_queues, of_workers
from dibs.metrics.tally import Tally
from dibs.worker.ending import Ending
from dibs.worker.frames import Ready
from dibs.worker.showing import Showing
from dibs.worker.supply import Supply

#: Seconds after which a loop that does not turn counts as stuck. A broker may keep one waiting for some.
STUCK_AFTER = 15.0
#: Seconds for which what the broker counted is shown again.
_FRESH = 5.0
#: Seconds that counting may wait for the broker.
_PATIENCE = 3.0


class Health:
    """Written by the supervisor's thread, which waits for nobody here; read by the threads that serve."""

    def __init__(self, supply: Supply, showing: Showing, ending: Ending) -> None:
        self._supply = supply
        self._showing = showing
        self._ending = ending
        self._turned = time.monotonic()
        self._depths: Depths | None = None

    def know(self, ready: Ready) -> None:
        """Learn what the app is that is connected now, and have its outcomes counted."""
        self._depths = Depths(ready, self._supply.queues)
        self._supply.tally = Tally(ready.tasks)

    def turn(self) -> None:
        """Note that the supervisor's loop turns."""
        self._turned = time.monotonic()

    @property
    def patience(self) -> float:
        """How long the loop may wait for news, so that one that waits isn't taken for one that is stuck."""
        return STUCK_AFTER / 3

    @property
    def is_well(self) -> bool:
        """Whether the supervisor's loop turns."""
        return time.monotonic() - self._turned < STUCK_AFTER

    @property
    def is_ready(self) -> bool:
        """Whether it takes jobs: its broker answers, and it has not been told to end."""
        if not self.is_well or self._depths is None or not self._supply.is_consuming or self._ending.is_begun:
            return False
        return bool(self._depths.ask())

    def page(self) -> str:
        """Return all metrics, as Prometheus reads them."""
        families = [
            Family(
                "dibs_worker_ready",
                "gauge",
                "1 while it is connected and takes jobs.",
                [Sample({}, int(self.is_ready))],
            )
        ]
        if (snapshot := self._showing.last) is not None:
            families += of_workers([snapshot], is_own=True)
        if (tally := self._supply.tally) is not None:
            families += tally.families()
        if self._depths is not None:
            families += of_queues(self._depths.ask())
        return render(families)

    def close(self) -> None:
        """Let go of the broker."""
        if self._depths is not None:
            self._depths.close()


class Depths:
    """What the broker counts in a worker's queues, over a connection of its own: the worker's has work to do."""

    def __init__(self, ready: Ready, queues: tuple[str, ...]) -> None:
        self._ready = ready
        self._queues = queues
        self._lock = threading.Lock()
        self._broker: Broker | None = None
        self._asked = -_FRESH
        self._infos: list[QueueInfo] = []

    def ask(self) -> list[QueueInfo]:
        """Return them, some seconds old at the most; none while the broker refuses or lets others wait for it."""
        if self._lock.acquire(timeout=_PATIENCE):
            try:
                if time.monotonic() - self._asked >= _FRESH:
                    self._infos = self._count()
                    self._asked = time.monotonic()
                return self._infos
            finally:
                self._lock.release()
        return []

    def _count(self) -> list[QueueInfo]:
        ready = self._ready
        try:
            if self._broker is None:
                self._broker = connect(
                    ready.url,
                    namespace=ready.namespace,
                    handover_timeout=_PATIENCE,
                    may_declare=False,
                    may_create=False,
                )
                self._broker.declare(ready.queues)
            return [info for info in self._broker.queues() if info.name in self._queues]
        except BrokerError:
            return []  # the worker itself says in its log what is wrong with it

    def close(self) -> None:
        """Let go of the broker."""
        if self._broker is not None:
            self._broker.close()
