"""What is to be cancelled ends where it is: just received, waiting to run alone, held ahead, or running."""

from __future__ import annotations

import math
from typing import cast

from dibs.message import Delivery, Message
from dibs.outcome import Cancelled, Dead, Done, Outcome, RetryIn, Run
from dibs.worker.cancelling import Cancelling, final
from dibs.worker.child import Child, Death
from dibs.worker.frames import Began
from dibs.worker.options import TIMEOUT_PATIENCE, WorkerOptions
from dibs.worker.slots import Slots
from dibs.worker.supply import Supply
from dibs.worker.upkeep import Upkeep


class FakeSupply:
    """A broker's side that remembers what became of what."""

    def __init__(self) -> None:
        self.asked: frozenset[object] = frozenset()
        self.ended: dict[str, Outcome] = {}
        self.released: list[str] = []

    def cancelled(self) -> frozenset[object]:
        return self.asked

    def end(self, delivery: Delivery, outcome: Outcome) -> None:
        self.ended[delivery.message.id] = outcome

    def release(self, deliveries: list[Delivery]) -> None:
        self.released += [delivery.message.id for delivery in deliveries]


class FakeChild:
    """An executor with so many slots, of which what is behind them can be recalled."""

    is_ready, is_quarantine, is_retired, worn_by, pid = True, False, False, "", 1

    def __init__(self, slots: int, *names: str) -> None:
        self._slots = slots
        self.running = {number: delivery(name) for number, name in enumerate(names)}
        self.cancelled: dict[int, float] = {}
        self.limited: dict[int, tuple[float, Began]] = {}
        self.overdue: set[int] = set()
        self.verdicts: dict[int, Outcome] | None = None
        self.wake_at = math.inf
        self.posted: list[list[int]] = []
        self.is_killed = False

    @property
    def unstarted(self) -> set[int]:
        return set(list(self.running)[self._slots :])

    def recall(self) -> list[Delivery]:
        return [self.running.pop(number) for number in sorted(self.unstarted)]

    def cancel(self, numbers: list[int], deadline: float) -> None:
        self.cancelled |= dict.fromkeys(numbers, deadline)
        self.posted.append(numbers)

    def run_of(self, number: int) -> Run:
        return Run(number, number)

    def kill(self) -> None:
        self.is_killed = True


def delivery(name: str) -> Delivery:
    return Delivery(message=Message(body=b"", queue="q", id=name, task="t"), receipt=name)


def make(*children: FakeChild) -> tuple[Cancelling, Slots, FakeSupply]:
    slots, supply = Slots(1, 1), FakeSupply()
    slots.children.extend(cast("list[Child]", children))
    return Cancelling(slots, cast("Supply", supply)), slots, supply


def test_where_nothing_is_to_be_cancelled_everything_passes() -> None:
    cancelling, _, supply = make(FakeChild(1, "a"))
    received = [delivery("b")]

    assert cancelling.sift(received) is received

    assert supply.ended == {}


def test_what_was_only_just_received_is_cancelled_and_the_rest_passes() -> None:
    cancelling, _, supply = make()
    supply.asked = frozenset("b")

    assert [held.message.id for held in cancelling.sift([delivery(name) for name in "abc"])] == ["a", "c"]

    assert supply.ended == {"b": Cancelled()}


def test_what_is_held_ahead_is_taken_back_and_what_was_beside_it_goes_to_others() -> None:
    child = FakeChild(1, "running", "ahead", "other")
    cancelling, _, supply = make(child)
    supply.asked = frozenset(["ahead"])

    cancelling.sift([])

    assert supply.ended == {"ahead": Cancelled()}
    assert supply.released == ["other"]
    assert child.posted == []


def test_what_runs_is_asked_to_end_once_however_often_it_is_named() -> None:
    child = FakeChild(2, "one", "two", "ahead")
    cancelling, _, supply = make(child)

    for asked in (["one"], ["one"], ["one", "two"], ["two"], ["two"]):
        supply.asked = frozenset(asked)
        cancelling.sift([])

    assert child.posted == [[0], [1]]
    assert supply.ended == {}
    assert supply.released == []


def test_a_suspect_that_waits_to_run_alone_is_cancelled() -> None:
    child = FakeChild(2, "one", "two")
    cancelling, slots, supply = make(child)
    slots.bury(cast("Child", child), Death(-9, 0))
    supply.asked = frozenset(["two"])

    cancelling.sift([])

    assert supply.ended == {"two": Cancelled()}
    assert [held.message.id for held in slots.running] == ["one"]


def test_what_fails_though_it_was_to_be_cancelled_does_not_come_again() -> None:
    run = Run(1, 2)

    assert final(RetryIn(1.0, delivery("a").message, run)) == Cancelled(run)
    for outcome in (Done(b"1", None, run), Dead("failed", "", run=run), Cancelled(run)):
        assert final(outcome) is outcome


def test_an_executor_that_dies_with_a_job_that_was_to_be_cancelled_is_no_crash_of_it() -> None:
    child = FakeChild(1, "one")
    _, slots, _ = make(child)
    child.cancelled[0] = 0.0

    assert slots.bury(cast("Child", child), Death(-11, 0)) == [(delivery("one"), Cancelled(Run(0, 0)))]

    assert slots.is_idle


def test_an_executor_in_which_a_cancel_is_ignored_is_killed_for_it_and_no_sooner() -> None:
    child = FakeChild(2, "stubborn", "innocent")
    child.cancelled[0] = TIMEOUT_PATIENCE
    upkeep = Upkeep(WorkerOptions(app="tasks:app"))

    assert not upkeep.condemn(cast("Child", child), TIMEOUT_PATIENCE - 0.01)
    assert upkeep.condemn(cast("Child", child), TIMEOUT_PATIENCE)

    assert child.is_killed
    assert child.verdicts == {0: Cancelled(Run(0, 0))}
    assert not upkeep.condemn(cast("Child", child), TIMEOUT_PATIENCE + 1)


def test_one_that_is_overdue_and_cancelled_is_cancelled() -> None:
    child = FakeChild(1, "stubborn")
    child.cancelled[0] = 100.0
    child.limited[0] = 0.0, Began(0, 0.1, 1.0, "failed")
    upkeep = Upkeep(WorkerOptions(app="tasks:app"))

    assert upkeep.condemn(cast("Child", child), 1.0)

    assert child.verdicts == {0: Cancelled(Run(0, 0))}


def test_while_a_cancel_is_open_the_worker_waits_for_its_end_and_else_for_nothing() -> None:
    child = FakeChild(1, "one")
    cancelling, _, _ = make(child)

    assert cancelling.patience(0.0) is None
    child.cancelled[0] = 5.0
    assert cancelling.patience(0.0) == 5.0
    child.wake_at = 1.0
    assert cancelling.patience(0.5) == 0.5
    child.verdicts = {}
    assert cancelling.patience(0.5) is None
