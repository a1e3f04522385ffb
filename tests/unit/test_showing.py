"""A worker shows itself when something has changed, once a second at the most, and not at all while it is idle."""

from __future__ import annotations

from collections import Counter
from typing import cast

from dibs.ledger.life import Progress
from dibs.ledger.snapshot import ExecutorInfo, Running, Snapshot
from dibs.message import Delivery, Message
from dibs.outcome import Done, Outcome, RetryIn
from dibs.worker.child import Child
from dibs.worker.noting import Noting
from dibs.worker.options import WorkerOptions
from dibs.worker.showing import Showing
from dibs.worker.slots import Slots
from dibs.worker.supply import Supply


class FakeSupply:
    """A broker's side that remembers what it was shown."""

    queues = ("mail",)
    tasks = ("send", "t")

    def __init__(self) -> None:
        self.is_connected = True
        self.ended: Counter[type[Outcome]] = Counter({Done: 3, RetryIn: 1})
        self.shown: list[Snapshot] = []

    def show(self, snapshot: Snapshot) -> None:
        self.shown.append(snapshot)


class FakeChild:
    """An executor with so many jobs."""

    pid, started, memory_bytes, finished = 7, 5, 1000, 9
    is_retired, is_ready, is_quarantine = False, True, False

    def __init__(self, count: int) -> None:
        self.running = {
            number: Delivery(
                message=Message(body=b"secret", queue="mail", id=f"job {number}", task="t", attempt=2), receipt=number
            )
            for number in range(count)
        }
        self.since = {number: 10 + number for number in range(count)}


def make(count: int) -> tuple[Showing, FakeSupply, Noting, FakeChild]:
    supply, slots, child = FakeSupply(), Slots(2, 3), FakeChild(count)
    slots.children.append(cast("Child", child))
    noting = Noting(cast("Supply", supply))
    return Showing(WorkerOptions(app="shop:app"), slots, cast("Supply", supply), noting), supply, noting, child


def test_what_is_shown_says_who_runs_what_and_how_much_ended() -> None:
    showing, supply, noting, _ = make(120)
    noting.progress[1] = Progress(3, 4)

    showing.look(100.0, is_ending=True)

    (shown,) = supply.shown
    assert (shown.app, shown.queues, shown.slots, shown.is_ending) == ("shop:app", ["mail"], 6, True)
    assert shown.ended == {"done": 3, "retry": 1}
    assert shown.worker == f"{shown.host}:{shown.pid}"
    (executor,) = shown.executors
    assert (executor.pid, executor.memory_bytes, executor.finished, executor.state) == (7, 1000, 9, "ready")
    assert (len(executor.running), executor.held) == (100, 120)
    assert executor.running[1] == Running(
        id="job 1", task="t", queue="mail", attempt=2, since=11, progress=Progress(3, 4)
    )


def test_nothing_is_shown_twice_and_an_idle_worker_is_not_woken_for_it() -> None:
    showing, supply, _, _ = make(0)

    assert showing.patience(100.0) == 0.0
    showing.look(100.0, is_ending=False)
    showing.look(200.0, is_ending=False)

    assert len(supply.shown) == 1
    assert showing.patience(200.0) is None


def test_what_changes_is_shown_a_second_later_and_the_end_at_once() -> None:
    showing, supply, _, _ = make(0)
    showing.look(100.0, is_ending=False)

    showing.is_stale = True
    showing.look(100.4, is_ending=False)
    assert len(supply.shown) == 1
    assert showing.patience(100.5) == 0.5
    showing.hurry()
    showing.look(100.6, is_ending=True)

    assert [shown.is_ending for shown in supply.shown] == [False, True]


def test_a_worker_without_a_broker_shows_nothing() -> None:
    showing, supply, _, _ = make(0)
    supply.is_connected = False

    showing.look(100.0, is_ending=False)

    assert supply.shown == []
    assert showing.patience(100.0) is None


def test_the_state_of_an_executor_is_told() -> None:
    showing, supply, _, child = make(0)

    states: list[ExecutorInfo] = []
    for changes in ({"is_ready": False}, {"is_ready": True, "is_quarantine": True}, {"is_retired": True}):
        for name, value in changes.items():
            setattr(child, name, value)
        showing.hurry()
        showing.look(1.0, is_ending=False)
        states += supply.shown[-1].executors

    assert [state.state for state in states] == ["starting", "quarantine", "retired"]
