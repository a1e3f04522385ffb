"""Jobs that somebody asked to be cancelled, and that this worker has: what did not begin ends at once, the rest is
asked to end in its executor. What ignores that is `upkeep.py`'s.
"""

from __future__ import annotations

import time

from dibs.message import Delivery
from dibs.outcome import Cancelled, Outcome, RetryIn
from dibs.worker.child import Child
from dibs.worker.options import TIMEOUT_PATIENCE
from dibs.worker.slots import Slots
from dibs.worker.supply import Supply


class Cancelling:
    """Carries out what the broker says is to be cancelled."""

    def __init__(self, slots: Slots, supply: Supply) -> None:
        self._slots = slots
        self._supply = supply
        #: Receipts of what was to be cancelled when that was last looked at: it is said again and again.
        self._asked: frozenset[object] = frozenset()

    def sift(self, deliveries: list[Delivery]) -> list[Delivery]:
        """Cancel what is to be cancelled, and return those that were only just received and are not."""
        asked = self._supply.cancelled()
        if not asked:
            self._asked = asked
            return deliveries
        for delivery in deliveries:
            if delivery.receipt in asked:
                self._supply.end(delivery, Cancelled())
        if asked != self._asked:
            self._asked = asked
            for delivery in self._slots.take_suspects(asked):
                self._supply.end(delivery, Cancelled())
            for child in self._slots.children:
                self._cancel_in(child)
        return [delivery for delivery in deliveries if delivery.receipt not in asked]

    def _cancel_in(self, child: Child) -> None:
        numbers = [
            number
            for number, delivery in child.running.items()
            if delivery.receipt in self._asked and number not in child.cancelled
        ]
        if not child.unstarted.isdisjoint(numbers):
            for delivery in child.recall():
                if delivery.receipt in self._asked:
                    self._supply.end(delivery, Cancelled())
                else:
                    self._supply.release([delivery])
        if begun := [number for number in numbers if number in child.running]:
            child.cancel(begun, time.monotonic() + TIMEOUT_PATIENCE)

    def wake(self, now: float) -> None:
        """Have the executors read what is to end there."""
        for child in self._slots.children:
            if child.cancelled:
                child.wake(now)

    def patience(self, now: float) -> float | None:
        """Return in how many seconds an executor is to be woken, or loses its patience; None: nothing is foreseen."""
        waits = [
            min(child.wake_at, *child.cancelled.values()) - now
            for child in self._slots.children
            if child.cancelled and child.verdicts is None
        ]
        return max(0.0, min(waits)) if waits else None


def final(outcome: Outcome) -> Outcome:
    """Return what becomes of a job whose run ended so though it was to be cancelled: it does not come again."""
    return Cancelled(outcome.run) if isinstance(outcome, RetryIn) else outcome
