"""Which executor runs which delivery.

An executor that dies with one job running has shown which one killed it. With several, all are suspects: each
of them then runs alone in an executor, until the guilty one is found. The innocent lose no attempt.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable

import msgspec

from dibs.message import Delivery
from dibs.outcome import Dead, Outcome, RetryIn
from dibs.worker.child import Child, Death

#: After so many executors that a job killed, it is set aside.
CRASH_LIMIT = 3


class Slots:
    """The executors' room. Knows no broker and no process: it only decides."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._numbers = itertools.count(1)
        self.children: list[Child] = []
        self._suspects: deque[Delivery] = deque()

    @property
    def running(self) -> list[Delivery]:
        """All that is held: running, or waiting to run alone."""
        return [delivery for child in self.children for delivery in child.running.values()] + list(self._suspects)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is held."""
        return not self._suspects and not any(child.running for child in self.children)

    @property
    def free(self) -> int:
        """How many more deliveries there is room for."""
        room = sum(child.room for child in self.children if _is_open(child))
        return max(0, room - len(self._suspects))

    def assign(self, deliveries: Iterable[Delivery]) -> None:
        """Start deliveries in the emptiest executors; suspects wait for one of their own."""
        for delivery in deliveries:
            if self._is_suspect(delivery):
                self._suspects.append(delivery)
                continue
            child = min(filter(_is_open, self.children), key=lambda child: (child.room == 0, len(child.running)))
            child.start(next(self._numbers), delivery)
        self.start_suspects()

    def finish(self, child: Child, number: int) -> Delivery:
        """Return the delivery of a run that ended; its slot is free."""
        delivery = child.finish(number)
        if self._suspects or child.is_quarantine:
            self.start_suspects()
        return delivery

    def bury(self, child: Child, death: Death) -> list[tuple[Delivery, Outcome]]:
        """Take a dead executor out; return what came of the job that killed it, if that is known."""
        self.children.remove(child)
        held = list(child.running.values())
        child.running.clear()
        if len(held) == 1:
            return [(held[0], judge_crash(held[0], death))]
        self._suspects.extend(held)
        return []

    def release_suspects(self) -> list[Delivery]:
        """Return those that wait to run alone, and hold them no longer."""
        released = list(self._suspects)
        self._suspects.clear()
        return released

    def clear(self) -> list[Delivery]:
        """Return all that is held, and hold it no longer."""
        held = self.running
        self._suspects.clear()
        for child in self.children:
            child.running.clear()
        return held

    @property
    def active(self) -> int:
        """How many executors there are beside one kept for suspects and those told to end."""
        return sum(not child.is_retired and not child.is_quarantine for child in self.children)

    @property
    def needs_quarantine(self) -> bool:
        """Whether a suspect waits and no executor is kept for it: all are busy, perhaps for hours."""
        return bool(self._suspects) and not any(child.is_quarantine for child in self.children)

    def start_suspects(self) -> None:
        """Start a suspect in the executor that is kept for them, or in an empty one, which then is."""
        quarantine = next((child for child in self.children if child.is_quarantine), None)
        if not self._suspects:
            if quarantine is not None and not quarantine.running:
                quarantine.is_quarantine = False
            return
        if quarantine is None:
            quarantine = next((child for child in self.children if _is_open(child) and not child.running), None)
            if quarantine is None:
                return
            quarantine.is_quarantine = True
        if quarantine.is_ready and not quarantine.running:
            quarantine.start(next(self._numbers), self._suspects.popleft())

    def retire(self, count: int) -> list[Child]:
        """Choose executors that have nothing to do and are to end; at most so many."""
        chosen = [child for child in self.children if _is_open(child) and not child.running][:count]
        for child in chosen:
            child.is_retired = True
        return chosen

    def _is_suspect(self, delivery: Delivery) -> bool:
        """Whether it must run alone: it has killed before. Where every job runs alone, none needs to."""
        return self._slots > 1 and delivery.message.crashes > 0


def _is_open(child: Child) -> bool:
    return child.is_ready and not child.is_quarantine and not child.is_retired


def judge_crash(delivery: Delivery, death: Death) -> Outcome:
    """Return what is to become of a job that killed its executor."""
    message = delivery.message
    crashes = message.crashes + 1
    error = f"The executor died while it ran this job, {crashes} of {CRASH_LIMIT} times: {death}."
    if crashes >= CRASH_LIMIT:
        return Dead("crashed", error)
    return RetryIn(0.0, msgspec.structs.replace(message, crashes=crashes, error=error, due=None))
