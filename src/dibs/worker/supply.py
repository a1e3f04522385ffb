"""A worker's side of the broker: what comes in, what goes back, and waiting while it refuses."""

from __future__ import annotations

import logging
import select
import selectors
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from dibs.broker import Broker, Consumer
from dibs.errors import BrokerError, ReceiptLost, StoreGone
from dibs.ledger.life import Note
from dibs.ledger.snapshot import Snapshot
from dibs.message import Delivery
from dibs.outcome import Done, Outcome, Released, RetryIn
from dibs.worker.consuming import consume
from dibs.worker.crashes import SUSPECT_AFTER_DEATHS, SUSPECT_AFTER_RETURNS
from dibs.worker.frames import Ready
from dibs.worker.options import WorkerOptions
from dibs.worker.pause import Pause
from dibs.worker.report import ids, report

if TYPE_CHECKING:
    from dibs.metrics.tally import Tally

log = logging.getLogger("dibs.worker")

#: Seconds between two lines of the log about what is only for looking at.
_COMPLAINT_INTERVAL = 60.0


class Supply:
    """The one owner of a worker's consumer."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._broker: Broker | None = None
        self._consumer: Consumer | None = None
        #: Whether the selector tells of news of it.
        self._is_heard = False
        self._outcomes: list[tuple[Delivery, Outcome]] = []
        #: How many jobs ended so, by the kind of the outcome. A retry without a run is none.
        self.ended: Counter[type[Outcome]] = Counter()
        #: Counts what was recorded; None: nobody asks.
        self.tally: Tally | None = None
        self._complaint_due = 0.0
        #: While the broker refuses: nothing is received, and outcomes are kept.
        self.pause = Pause()
        #: Those that are consumed, as soon as the app has said which there are.
        self.queues: tuple[str, ...] = ()
        #: The names of the app's tasks.
        self.tasks: tuple[str, ...] = ()
        #: What no waiting mends.
        self.failure: StoreGone | None = None
        #: From how many returns on a delivery is suspect, here.
        self.returns_limit = SUSPECT_AFTER_DEATHS

    def connect(self, ready: Ready, options: WorkerOptions) -> None:
        """Connect to the app's broker. Raises what `consume` raises."""
        self._broker, self._consumer, self.queues = consume(ready, options)
        self.tasks = tuple(ready.tasks)
        if not self._broker.capabilities.counts_deaths:
            self.returns_limit = SUSPECT_AFTER_RETURNS
        self._listen(self._consumer)

    @property
    def is_connected(self) -> bool:
        """Whether the app has said where its queues are."""
        return self._consumer is not None

    @property
    def is_consuming(self) -> bool:
        """Whether it receives: it is connected, and the broker does not refuse."""
        return self.is_connected and not self.pause.is_on

    @property
    def location(self) -> str:
        """Where the broker is, for people."""
        return self._broker.location if self._broker is not None else ""

    @property
    def descriptors(self) -> list[int]:
        """What each executor is to keep open."""
        return list(self._consumer.keep_open()) if self._consumer is not None else []

    @property
    def has_outcomes(self) -> bool:
        """Whether something is still to be recorded."""
        return bool(self._outcomes)

    def timeout(self) -> float | None:
        """Seconds until `receive` should be called though there is no news; None: never."""
        if self._consumer is None or self.pause.is_on:
            return self.pause.left
        return self._consumer.timeout()

    def end(self, delivery: Delivery, outcome: Outcome) -> None:
        """Note what came of a run, to be recorded soon."""
        self._outcomes.append((delivery, outcome))
        if isinstance(outcome, Done):
            self.ended[Done] += 1
            return
        report(delivery, outcome)
        if not isinstance(outcome, RetryIn) or outcome.run is not None:
            self.ended[type(outcome)] += 1

    def release(self, deliveries: Iterable[Delivery]) -> None:
        """Note that these go back, at no cost."""
        self._outcomes += [(delivery, Released()) for delivery in deliveries]

    def record(self) -> None:
        """Settle what has ended; what the broker refuses now is tried again, and nothing is received before."""
        if self._consumer is None or not self._outcomes or self.pause.is_on:
            return
        outcomes, self._outcomes = self._outcomes, []
        try:
            self._consumer.settle(outcomes)
        except ReceiptLost as error:
            log.warning("jobs ended that were no longer this worker's; they run again jobs=%s", ids(error.deliveries))
            if self.tally is not None:
                lost = [delivery.receipt for delivery in error.deliveries]
                self.tally.count(ended for ended in outcomes if ended[0].receipt not in lost)
        except BrokerError as error:
            self._outcomes = outcomes + self._outcomes
            self._begin_pause(error)
        else:
            self.pause.reset()
            if self.tally is not None:
                self.tally.count(outcomes)

    def receive(self, limit: int) -> list[Delivery]:
        """Return deliveries for so many free slots."""
        if self._consumer is None or self.pause.is_on:
            return []
        if not self._is_heard:
            self._listen(self._consumer)
        try:
            return self._consumer.receive(limit)
        except BrokerError as error:
            self._begin_pause(error)
            return []

    def lost(self) -> frozenset[object]:
        """Return the receipts of what the broker has taken back of what is held here."""
        if self._consumer is None:
            return frozenset()
        return frozenset(delivery.receipt for delivery in self._consumer.lost())

    def cancelled(self) -> frozenset[object]:
        """Return the receipts of what is held here and is to be cancelled."""
        if self._consumer is None or not (asked := self._consumer.cancelled()):
            return frozenset()
        return frozenset(delivery.receipt for delivery in asked)

    def note(self, notes: Sequence[tuple[Delivery, Note]]) -> None:
        """Have the ledger show what running jobs say. What it does not take is let go of: nothing hangs on it."""
        if self._consumer is None or self.pause.is_on:
            return
        try:
            self._consumer.note(notes)
        except BrokerError as error:
            self._complain("what running jobs say of themselves could not be stored: %s", error)

    def show(self, snapshot: Snapshot) -> None:
        """Have others see how this worker is, if that can be."""
        if self._consumer is None or self.pause.is_on:
            return
        try:
            self._consumer.show(snapshot)
        except BrokerError as error:
            self._complain("how this worker is could not be shown: %s", error)

    def _complain(self, text: str, error: BrokerError) -> None:
        now = time.monotonic()
        if now >= self._complaint_due:
            self._complaint_due = now + _COMPLAINT_INTERVAL
            log.warning(text, error)

    def is_drained(self) -> bool:
        """Tell whether the broker counts nothing ready in the queues that are consumed here."""
        if self._broker is None or self._outcomes:
            return False
        try:
            infos = self._broker.queues()
        except BrokerError as error:
            self._begin_pause(error)
            return False
        # A queue that does not count this consumer yet can't say that it is empty: after a restart RabbitMQ is
        # still bringing it up. What waits in a paused one is not for now.
        mine = [info for info in infos if info.name in self.queues]
        if any((info.ready and not info.is_paused) or not info.consumers for info in mine):
            return False
        # What was handed out while the broker counted is ready nowhere, but there to be received.
        return self._consumer is None or not select.select([self._consumer], [], [], 0)[0]

    def close(self, patience: float) -> None:
        """Record what is left, trying on for so many seconds, and let go of the queues."""
        if self._consumer is None:
            return
        deadline = time.monotonic() + patience
        self.pause.reset()
        self.record()
        while self._outcomes and self.failure is None and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, self.pause.left or 0.0))
            self.record()
        self._consumer.close()

    def disconnect(self) -> None:
        """Let go of the broker."""
        if self._broker is not None:
            self._broker.close()

    def _listen(self, consumer: Consumer) -> None:
        self._is_heard = True
        self._selector.register(consumer, selectors.EVENT_READ, self)

    def _begin_pause(self, error: BrokerError) -> None:
        self.pause.begin()
        if isinstance(error, StoreGone):
            self.failure = error
            return
        if self._consumer is not None and self._is_heard:
            self._is_heard = False
            self._selector.unregister(self._consumer)  # nobody reads it meanwhile, so it may stay readable
        log.error("the broker refuses; trying again in %.1f s: %s", self.pause.seconds, error)
