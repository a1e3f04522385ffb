"""Which executor runs which delivery, and which executors there are to be. Knows no broker and no process."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Collection, Iterable

from dibs.message import Delivery
from dibs.outcome import Cancelled, Outcome, Released
from dibs.worker.child import Child, Death
from dibs.worker.crashes import KEPT_FREE, SUSPECT_AFTER_DEATHS, judge_death, judge_return, put_off

Ended = tuple[Delivery, Outcome]


class Slots:
    """The executors' room. It only decides."""

    def __init__(self, slots: int, executors: int) -> None:
        self._slots = slots
        self._executors = executors
        #: How many executors are to end though they have work.
        self._surplus = 0
        self._numbers = itertools.count(1)
        self.children: list[Child] = []
        #: From how many returns on a delivery is suspect.
        self.returns_limit = SUSPECT_AFTER_DEATHS
        self._suspects: deque[Delivery] = deque()
        #: Until this time an executor is kept free for marked suspects that were put off.
        self._kept_until = 0.0

    @property
    def total(self) -> int:
        """How many jobs the worker can run at a time."""
        return self._slots * self._executors

    def resize(self, change: int) -> bool:
        """Have one executor more or fewer; tell whether that can be."""
        if self._executors + change < 1:
            return False
        self._executors += change
        self._surplus = max(0, self._surplus - change)
        return True

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
        """How many more deliveries there is room for. Suspects wait beside it, some of them at no cost to others."""
        room = sum(child.room for child in self.children if _is_open(child))
        return max(0, room - max(0, len(self._suspects) - self._slots))

    def assign(self, deliveries: Iterable[Delivery]) -> list[Ended]:
        """Start deliveries in the emptiest executors; suspects wait for one of their own.

        Returns what becomes of those that are not to be run as they came.
        """
        ended: list[Ended] = []
        marked: list[Delivery] = []
        children = [child for child in self.children if _is_open(child)]
        for delivery in deliveries:
            message = delivery.message
            if delivery.returns != 0 and (outcome := judge_return(delivery, self.returns_limit)) is not None:
                ended.append((delivery, outcome))
            elif message.is_suspect:
                marked.append(delivery)
            elif message.crashes and self._slots > 1:
                self._suspects.append(delivery)
            else:
                child = children[0] if len(children) == 1 else min(children, key=_crowding)
                child.start(next(self._numbers), delivery)
        for delivery in marked:  # last: one takes a whole executor
            if not self._start_alone(delivery):
                ended.append((delivery, put_off(delivery)))
                self._kept_until = time.monotonic() + KEPT_FREE
        self.start_suspects()
        return ended

    def _start_alone(self, delivery: Delivery) -> bool:
        """Start a marked suspect in an executor that has nothing else, if there is one and no other one is here."""
        if any(held.message.is_suspect for held in self.running):
            return False
        empty = [child for child in self.children if child.is_ready and not child.is_retired and not child.running]
        if not empty:
            return False
        child = max(empty, key=lambda child: child.is_quarantine)
        child.is_quarantine = True
        child.start(next(self._numbers), delivery)
        return True

    def finish(self, child: Child, number: int) -> Delivery:
        """Return the delivery of a run that ended; its slot is free."""
        delivery = child.finish(number)
        if self._suspects or child.is_quarantine:
            self.start_suspects()
        return delivery

    def bury(self, child: Child, death: Death) -> list[Ended]:
        """Take a dead executor out; return what came of the jobs that it ran, as far as that is known.

        One that was alone has killed it. With several, all are suspect: each of them then runs alone. What was to be
        cancelled is over in any case.
        """
        self.children.remove(child)
        held, child.running = child.running, {}
        if child.verdicts is not None:  # killed for some of them: the others are innocent
            return [(delivery, child.verdicts.get(number, Released())) for number, delivery in held.items()]
        cancelled = {number: delivery for number, delivery in held.items() if number in child.cancelled}
        ended: list[Ended] = [(delivery, Cancelled(child.run_of(number))) for number, delivery in cancelled.items()]
        if len(held) == 1 and not cancelled:
            return [
                (delivery, judge_death(delivery, death, child.run_of(number))) for number, delivery in held.items()
            ]
        self._suspects.extend(delivery for number, delivery in held.items() if number not in cancelled)
        return ended

    def take_suspects(self, receipts: Collection[object]) -> list[Delivery]:
        """Return those with these receipts that wait to run alone, and hold them no longer."""
        taken = [delivery for delivery in self._suspects if delivery.receipt in receipts]
        for delivery in taken:
            self._suspects.remove(delivery)
        return taken

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
    def lacks_executors(self) -> bool:
        """Whether one more is to be started.

        That is so while there are too few, while one is worn and none is there yet to take its place, and while a
        suspect waits and all executors are busy, perhaps for hours.
        """
        present = [child for child in self.children if not child.is_retired and not child.is_quarantine]
        if len(present) < self._executors or self.lacks_quarantine:
            return True
        return len(present) == self._executors and any(child.worn_by for child in present)

    @property
    def lacks_quarantine(self) -> bool:
        """Whether an executor is to be started for a suspect."""
        kept = [child for child in self.children if child.is_quarantine]
        empty = sum(not child.running for child in kept)
        wanted = max(len(self._suspects), int(time.monotonic() < self._kept_until))
        return wanted > empty and len(kept) < self._executors

    def start_suspects(self) -> None:
        """Start suspects, each alone: in executors that are kept for them, or in empty ones, which then are."""
        for child in [child for child in self.children if child.is_quarantine and not child.running]:
            if not self._suspects and time.monotonic() >= self._kept_until:
                child.is_quarantine = False
            elif not self._suspects:
                continue
            elif child.is_ready:
                child.start(next(self._numbers), self._suspects.popleft())
        while self._suspects and self.lacks_quarantine:
            empty = next((child for child in self.children if _is_open(child) and not child.running), None)
            if empty is None:
                return
            empty.is_quarantine = True
            empty.start(next(self._numbers), self._suspects.popleft())

    def retire(self) -> list[Child]:
        """Choose the executors that are more than there are to be: worn ones first, then such as have no work.

        Others wait until they have none, unless there are to be fewer: then those go that have the least.
        """
        ready = [child for child in self.children if _is_open(child)]
        surplus = len(ready) - self._executors
        worn = [child for child in ready if child.worn_by]
        idle = [child for child in ready if not child.worn_by and not child.running]
        chosen = worn + idle
        if self._surplus:
            busy = [child for child in ready if not child.worn_by and child.running]
            chosen += sorted(busy, key=lambda child: len(child.running))[: self._surplus]
        chosen = chosen[: max(0, surplus)]
        for child in chosen:
            child.is_retired = True
        self._surplus = max(0, self._surplus - len(chosen))
        return chosen


def _crowding(child: Child) -> tuple[bool, int]:
    return child.room == 0, len(child.running)


def _is_open(child: Child) -> bool:
    return child.is_ready and not child.is_quarantine and not child.is_retired
