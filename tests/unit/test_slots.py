"""Which executor runs which delivery, and who is guilty when one dies. No process is started here."""

from __future__ import annotations

from typing import Any, cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dibs.message import Delivery, Message
from dibs.outcome import Dead, Outcome, Released, RetryIn, Run
from dibs.worker.child import Child, Death
from dibs.worker.crashes import CRASH_LIMIT, SUSPECT_AFTER_DEATHS, SUSPECT_AFTER_RETURNS
from dibs.worker.slots import Slots

KILLED = Death(-9, 1024 * 1024)


class FakeChild:
    """An executor that only remembers what it was given."""

    def __init__(self, slots: int, *, is_ready: bool = True) -> None:
        self._slots = slots
        self.running: dict[int, Delivery] = {}
        self.is_ready = is_ready
        self.is_quarantine = False
        self.is_retired = False
        self.worn_by = ""
        self.verdicts: dict[int, Outcome] | None = None
        self.cancelled: dict[int, float] = {}

    def run_of(self, number: int) -> Run:
        return Run(number, number + 1)

    def start(self, number: int, delivery: Delivery) -> None:
        self.running[number] = delivery

    def finish(self, number: int) -> Delivery:
        return self.running.pop(number)

    @property
    def room(self) -> int:
        return self._slots - len(self.running)

    @property
    def ids(self) -> list[str]:
        return [delivery.message.id for delivery in self.running.values()]


def make(slots: int, children: int) -> tuple[Slots, list[FakeChild]]:
    made = Slots(slots, children)
    fakes = [FakeChild(slots) for _ in range(children)]
    made.children.extend(cast("list[Child]", fakes))
    return made, fakes


def delivery(name: str, **fields: Any) -> Delivery:
    return Delivery(message=Message(body=b"", queue="q", id=name, task="t", **fields), receipt=name)


def finish(slots: Slots, child: FakeChild, name: str) -> Delivery:
    (number,) = (number for number, held in child.running.items() if held.message.id == name)
    return slots.finish(cast("Child", child), number)


def bury(slots: Slots, child: FakeChild) -> list[tuple[Delivery, Outcome]]:
    return slots.bury(cast("Child", child), KILLED)


def retire(slots: Slots) -> list[Any]:
    return [*slots.retire()]


def replace(slots: Slots) -> FakeChild:
    """Start a new executor, ready at once."""
    child = FakeChild(slots._slots)
    slots.children.append(cast("Child", child))
    slots.start_suspects()
    return child


def test_an_executor_that_is_not_ready_has_no_room() -> None:
    slots, (child,) = make(3, 1)
    child.is_ready = False

    assert slots.free == 0
    child.is_ready = True
    assert slots.free == 3


def test_the_emptiest_executor_gets_the_next_delivery() -> None:
    slots, children = make(3, 3)

    slots.assign([delivery(str(number)) for number in range(7)])

    assert sorted(len(child.running) for child in children) == [2, 2, 3]
    assert slots.free == 2
    assert len(slots.running) == 7
    assert not slots.is_idle


def test_a_finished_run_frees_its_slot() -> None:
    slots, (child,) = make(1, 1)
    slots.assign([delivery("a")])

    assert finish(slots, child, "a").message.id == "a"

    assert (slots.free, slots.is_idle, slots.running) == (1, True, [])


def test_a_job_that_was_alone_is_guilty_and_loses_no_attempt() -> None:
    slots, (child,) = make(4, 1)
    slots.assign([delivery("a", attempt=2, crashes=1)])

    ((held, outcome),) = bury(slots, child)

    assert held.message.id == "a"
    assert isinstance(outcome, RetryIn)
    assert (outcome.delay, outcome.message.attempt, outcome.message.crashes) == (0, 2, 2)
    assert "Crash 2 of 3. The executor died while it ran this job: signal 9 (SIGKILL)" in (
        outcome.message.error or ""
    )
    assert slots.children == []


def test_after_its_last_crash_a_job_is_set_aside() -> None:
    slots, (child,) = make(1, 1)
    slots.assign([delivery("a", crashes=CRASH_LIMIT - 1)])

    ((_, outcome),) = bury(slots, child)

    assert isinstance(outcome, Dead)
    assert outcome.reason == "crashed"
    assert "SIGKILL" in outcome.error


def test_of_several_each_runs_alone_until_the_guilty_one_is_found() -> None:
    slots, (child,) = make(3, 1)
    slots.assign([delivery(name) for name in ("innocent", "guilty", "unlucky")])

    assert bury(slots, child) == []

    child = replace(slots)
    assert (child.ids, len(slots.running)) == (["innocent"], 3)
    assert finish(slots, child, "innocent").message.attempt == 1
    assert child.ids == ["guilty"]
    ((held, outcome),) = bury(slots, child)
    assert isinstance(outcome, RetryIn)
    assert (held.message.id, outcome.message.crashes) == ("guilty", 1)
    child = replace(slots)
    assert child.ids == ["unlucky"]
    assert finish(slots, child, "unlucky").message.crashes == 0
    assert (slots.free, slots.is_idle) == (3, True)


def test_the_other_executors_go_on_while_suspects_are_tried() -> None:
    slots, (dying, other) = make(2, 2)
    slots.assign([delivery(name) for name in "abcd"])
    suspects = dying.ids

    bury(slots, dying)
    child = replace(slots)

    assert child.ids == suspects[:1]
    assert child.is_quarantine
    finish(slots, other, other.ids[0])
    slots.assign([delivery("new")] * min(1, slots.free))
    assert child.ids == suspects[:1]


def test_several_suspects_are_tried_at_once_where_there_are_executors_for_it() -> None:
    slots, (dying, other) = make(2, 2)
    slots.assign([delivery(name) for name in "abcd"])
    suspects, others = dying.ids, other.ids

    bury(slots, dying)
    finish(slots, other, others[0])
    finish(slots, other, others[1])
    child = replace(slots)

    assert {*child.ids, *other.ids} == set(suspects)


def came_back(name: str, returns: int | None, **fields: Any) -> Delivery:
    """Return a delivery that came back without an outcome so often."""
    return Delivery(message=delivery(name, **fields).message, receipt=name, returns=returns)


@pytest.mark.parametrize("limit", [SUSPECT_AFTER_DEATHS, SUSPECT_AFTER_RETURNS])
def test_a_job_that_comes_back_again_and_again_is_marked_before_it_runs(limit: int) -> None:
    slots, (child,) = make(2, 1)
    slots.returns_limit = limit

    assert slots.assign([came_back("a", limit - 1)]) == []
    assert child.ids == ["a"]
    ((held, outcome),) = slots.assign([came_back("b", limit)])

    assert (child.ids, held.message.id) == (["a"], "b")
    assert isinstance(outcome, RetryIn)
    assert outcome.message == delivery("b", is_suspect=True).message


def test_where_nobody_counts_what_comes_back_is_no_suspect() -> None:
    slots, (child,) = make(2, 1)

    assert slots.assign([came_back("a", None)]) == []

    assert child.ids == ["a"]


def test_a_worker_that_died_with_a_marked_job_is_put_down_to_it() -> None:
    slots, (child,) = make(2, 1)

    ((_, second),) = slots.assign([came_back("a", 1, is_suspect=True, crashes=1)])
    ((_, third),) = slots.assign([came_back("a", None, is_suspect=True, crashes=2)])

    assert child.ids == []
    assert isinstance(second, RetryIn)
    assert (second.message.crashes, second.message.attempt, second.message.is_suspect) == (2, 1, True)
    assert isinstance(third, Dead)
    assert (third.reason, third.crashes) == ("crashed", 3)
    assert third.error == "Crash 3 of 3. The worker died while this job ran alone; nobody lived to see the cause."


def test_a_marked_job_that_did_not_come_back_runs_alone() -> None:
    slots, (one, two) = make(2, 2)

    assert slots.assign([delivery("suspect", is_suspect=True), delivery("a")]) == []

    assert sorted([one.ids, two.ids]) == [["a"], ["suspect"]]


def test_what_comes_with_a_marked_job_finds_its_executor() -> None:
    slots, (child,) = make(2, 1)

    ended = slots.assign([delivery("suspect", is_suspect=True), delivery("good")])

    assert child.ids == ["good"]
    assert [held.message.id for held, _ in ended] == ["suspect"]


def test_two_marked_jobs_never_run_in_one_worker() -> None:
    slots, (one, two) = make(2, 2)
    slots.assign([delivery("suspect", is_suspect=True)])

    ((late, outcome),) = slots.assign([delivery("second", is_suspect=True), delivery("good")])

    assert sorted([one.ids, two.ids]) == [["good"], ["suspect"]]
    assert isinstance(outcome, RetryIn)
    assert outcome.message == late.message
    assert outcome.delay > 0


@pytest.mark.parametrize("count", [1, 2])
def test_a_marked_job_is_started_at_once_or_put_off_and_an_executor_kept_for_it(count: int) -> None:
    slots, (busy,) = make(count, 1)
    slots.assign([delivery("busy")])

    ended = slots.assign([delivery("suspect", is_suspect=True)])

    assert [held.message.id for held, _ in ended] == ["suspect"]
    assert slots.lacks_quarantine
    extra = FakeChild(count)
    extra.is_quarantine = True
    slots.children.append(cast("Child", extra))
    slots.start_suspects()
    assert extra.is_quarantine
    assert not slots.lacks_executors
    assert slots.assign([delivery("suspect", is_suspect=True)]) == []
    assert (busy.ids, extra.ids) == (["busy"], ["suspect"])


def test_of_those_beside_a_run_that_its_executor_was_killed_for_none_is_suspect() -> None:
    slots, (child,) = make(3, 1)
    slots.assign([delivery(name) for name in "abc"])
    guilty = next(number for number, held in child.running.items() if held.message.id == "b")
    verdict = Dead("failed", "too long")

    child.verdicts = {guilty: verdict}

    ended = {held.message.id: outcome for held, outcome in bury(slots, child)}
    assert ended == {"a": Released(), "b": verdict, "c": Released()}
    assert slots.is_idle


def test_a_worn_executor_goes_on_until_its_successor_is_there() -> None:
    slots, (worn, other) = make(2, 2)
    slots.assign([delivery(name) for name in "ab"])
    worn.worn_by = "memory"

    assert slots.lacks_executors
    assert retire(slots) == []
    successor = FakeChild(2, is_ready=False)
    slots.children.append(cast("Child", successor))
    assert (slots.lacks_executors, retire(slots), slots.free) == (False, [], 2)
    successor.is_ready = True
    assert retire(slots) == [worn]

    slots.assign([delivery(name) for name in "cde"])
    assert (len(worn.ids), len(other.ids), len(successor.ids)) == (1, 2, 2)
    assert not slots.lacks_executors


def test_of_one_executor_more_there_is_room_as_soon_as_it_is_there() -> None:
    slots, _ = make(2, 1)

    assert slots.resize(1)

    assert slots.lacks_executors
    replace(slots)
    assert (slots.total, slots.free, slots.lacks_executors, retire(slots)) == (4, 4, False, [])


def test_of_one_executor_fewer_an_idle_one_goes_first() -> None:
    slots, (busy, idle) = make(1, 2)
    slots.assign([delivery("a")])
    busy, idle = sorted([busy, idle], key=lambda child: not child.running)

    assert slots.resize(-1)

    assert retire(slots) == [idle]
    assert retire(slots) == []
    assert (slots.total, slots.free) == (1, 0)
    assert not slots.resize(-1)
    assert retire(slots) == []


def test_where_all_are_busy_the_one_with_the_least_in_hand_gets_nothing_more() -> None:
    slots, children = make(3, 2)
    slots.assign([delivery(name) for name in "abc"])
    least = min(children, key=lambda child: len(child.running))

    slots.resize(-1)

    assert retire(slots) == [least]
    assert slots.free == 1
    assert not slots.lacks_executors


def test_a_signal_that_is_taken_back_retires_nobody() -> None:
    slots, _ = make(1, 2)
    slots.assign([delivery(name) for name in "ab"])

    slots.resize(-1)
    slots.resize(1)

    assert retire(slots) == []
    assert slots.total == 2


def test_worn_executors_are_replaced_one_after_the_other() -> None:
    slots, (one, two) = make(1, 2)
    one.worn_by = two.worn_by = "memory"

    first = FakeChild(1)
    slots.children.append(cast("Child", first))

    assert not slots.lacks_executors
    (retired,) = retire(slots)
    second = FakeChild(1)
    slots.children.append(cast("Child", second))
    assert [retired, *retire(slots)] == [one, two]
    assert not slots.lacks_executors


def test_a_job_that_killed_before_runs_alone() -> None:
    slots, (one, two) = make(2, 2)

    slots.assign([delivery("killer", crashes=1), delivery("good")])

    alone = one if one.ids == ["killer"] else two
    assert alone.ids == ["killer"]
    assert alone.is_quarantine
    assert slots.free == 1


def test_a_suspect_that_finds_no_empty_executor_gets_one_more_and_holds_nobody_up() -> None:
    slots, (busy,) = make(3, 1)
    slots.assign([delivery("hours long")])

    slots.assign([delivery("killer", crashes=1)])

    assert slots.lacks_quarantine
    assert slots.lacks_executors
    extra = FakeChild(3)
    extra.is_quarantine = True
    slots.children.append(cast("Child", extra))
    slots.start_suspects()
    assert (busy.ids, extra.ids) == (["hours long"], ["killer"])
    assert (slots.lacks_executors, slots.free, retire(slots)) == (False, 2, [])
    finish(slots, extra, "killer")
    assert retire(slots) == [extra]
    assert (slots.lacks_executors, slots.free) == (False, 2)


def test_an_executor_that_runs_empty_takes_the_suspect() -> None:
    slots, (child,) = make(2, 1)
    slots.assign([delivery("good"), delivery("killer", crashes=1)])

    finish(slots, child, "good")

    assert child.ids == ["killer"]
    finish(slots, child, "killer")
    assert slots.free == 2


def test_where_each_job_runs_alone_anyway_nobody_waits() -> None:
    slots, children = make(1, 2)

    slots.assign([delivery("killer", crashes=2), delivery("good")])

    assert sorted(child.ids for child in children) == [["good"], ["killer"]]


def test_clearing_returns_all_that_is_held() -> None:
    slots, (child,) = make(2, 1)
    slots.assign([delivery("a"), delivery("b")])
    bury(slots, child)
    replace(slots)

    assert {held.message.id for held in slots.clear()} == {"a", "b"}

    assert (slots.running, slots.is_idle) == ([], True)


@pytest.mark.parametrize(
    ("death", "said"),
    [
        (Death(-11, 5 * 1024 * 1024), "signal 11 (SIGSEGV), peak memory 5 MiB"),
        (Death(-64, 0), "signal 64 (SIGRTMAX)"),
        (Death(3, 0), "exit status 3"),
        (Death(0, 0), "exit status 0"),
    ],
)
def test_a_death_says_its_cause(death: Death, said: str) -> None:
    assert said in str(death)


class AnyLife(RuleBasedStateMachine):
    """Whatever happens: nothing is lost, nothing runs twice, no executor is over-filled, suspects are alone."""

    SLOTS = 3

    def __init__(self) -> None:
        super().__init__()
        self.slots, fakes = make(self.SLOTS, 2)
        self.children = fakes
        self.held: set[str] = set()
        self.made = 0

    @precondition(lambda self: self.slots.free)
    @rule(data=st.data(), crashes=st.sampled_from([0, 0, 0, 1]))
    def receive(self, data: st.DataObject, crashes: int) -> None:
        names = [str(self.made + number) for number in range(data.draw(st.integers(1, self.slots.free)))]
        self.made += len(names)
        self.held |= set(names)
        self.slots.assign([delivery(name, crashes=crashes) for name in names])

    @precondition(lambda self: any(child.running for child in self.children))
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        child = data.draw(st.sampled_from([child for child in self.children if child.running]))
        name = data.draw(st.sampled_from(child.ids))
        self.held.remove(finish(self.slots, child, name).message.id)

    @precondition(lambda self: self.children)
    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        child = data.draw(st.sampled_from(self.children))
        self.children.remove(child)
        was_alone = len(child.running) == 1
        outcomes = bury(self.slots, child)
        assert bool(outcomes) == was_alone
        self.held -= {held.message.id for held, _ in outcomes}
        fresh = FakeChild(self.SLOTS, is_ready=False)
        self.children.append(fresh)
        self.slots.children.append(cast("Child", fresh))

    @precondition(lambda self: not all(child.is_ready for child in self.children))
    @rule()
    def become_ready(self) -> None:
        next(child for child in self.children if not child.is_ready).is_ready = True
        self.slots.start_suspects()

    @invariant()
    def nothing_is_lost_and_nothing_is_held_twice(self) -> None:
        ids = [held.message.id for held in self.slots.running]
        assert sorted(ids) == sorted(self.held)
        assert self.slots.is_idle == (not self.held)

    @invariant()
    def no_executor_has_more_than_its_slots(self) -> None:
        assert all(len(child.running) <= self.SLOTS for child in self.children)
        room = sum(self.SLOTS - len(c.running) for c in self.children if c.is_ready and not c.is_quarantine)
        assert 0 <= self.slots.free <= room

    @invariant()
    def a_job_that_killed_before_is_alone(self) -> None:
        for child in self.children:
            if any(held.message.crashes for held in child.running.values()):
                assert len(child.running) == 1

    def teardown(self) -> None:
        """All that waits gets its turn in the end."""
        while not all(child.is_ready for child in self.children):
            self.become_ready()
        for _ in range(len(self.held)):
            child = next(child for child in self.children if child.running)
            self.held.remove(finish(self.slots, child, child.ids[0]).message.id)
        assert self.slots.is_idle
        assert self.slots.free == self.SLOTS * len(self.children)


TestAnyLife = AnyLife.TestCase
TestAnyLife.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
