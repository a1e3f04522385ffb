"""Claims: what they cost, their order, and fairness among queues (P5)."""

from __future__ import annotations

import itertools
import select
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dibs.brokers.sqlite import SqliteBroker, cancels, claims, commits, counts, dead, ledger, liveness, waiting
from dibs.brokers.sqlite import consumer as consumers
from dibs.errors import ReceiptLost
from dibs.ledger import tables
from dibs.message import now_ms
from dibs.outcome import Dead, Done, RetryIn
from dibs.selection import Selection
from tests.waiting import job, receive
from tests.worlds_sqlite import SqliteWorld


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[SqliteBroker]:
    """An empty broker."""
    world = SqliteWorld(tmp_path)
    yield world.open()
    world.close()


#: What `tables` asks for jobs by, all of it.
_WANTED = dict.fromkeys(("statuses", "low", "high", "task", "reason", "since", "now", "before", "first", "few"), 1)


@pytest.mark.parametrize(
    ("statement", "values", "index"),
    [
        (claims._CLAIM, (1, "a", 1, 1), "COVERING INDEX dibs_ready (state=? AND queue=?)"),
        (claims._PROMOTE, ("a", 1, 1), "INDEX dibs_delayed (state=? AND queue=? AND due<?)"),
        (claims._PEEK, ("[]",), "COVERING INDEX dibs_ready (state=? AND queue=?)"),
        (claims._PEEK, ("[]",), "COVERING INDEX dibs_delayed (state=? AND queue=?)"),
        (claims._REMOVE, (1, 1), "INTEGER PRIMARY KEY (rowid=?)"),
        (liveness._GIVE_BACK, (1, 1, 1), "INDEX dibs_running (state=? AND receipt>? AND receipt<?)"),
        (
            dead._WINDOW,
            ("a", "t", "r", 9, 1, 1, 9, 1),
            "INDEX dibs_dead (state=? AND queue=? AND ended>? AND ended<?",
        ),
        (dead._NAMED, ("a", "t", "r", 9, 1, 1, "[]"), "INDEX sqlite_autoindex_dibs_jobs_1 (id=?)"),
        (dead._PLACE, ("a", "a"), "INDEX sqlite_autoindex_dibs_jobs_1 (id=?)"),
        (dead._LETTER, (1, "a"), "INTEGER PRIMARY KEY (rowid=?)"),
        (dead._REPLAY, (1, "a"), "INTEGER PRIMARY KEY (rowid=?)"),
        (dead._DROP, (1, "a"), "INTEGER PRIMARY KEY (rowid=?)"),
        (cancels._FIND, ("[]", ""), "INDEX sqlite_autoindex_dibs_jobs_1 (id=?)"),
        (cancels._CANCEL, (1, "a"), "INDEX sqlite_autoindex_dibs_jobs_1 (id=?)"),
        (cancels._FORGET, (), "INDEX sqlite_autoindex_dibs_jobs_1 (id=?)"),
        (cancels._END, (), "INDEX sqlite_autoindex_dibs_jobs_1 (id=?)"),
        (cancels._HELD, (1, 1), "INDEX sqlite_autoindex_dibs_jobs_1 (id=?)"),
        (waiting._THERE, ("[]", ""), "INDEX sqlite_autoindex_dibs_jobs_1 (id=?)"),
        (ledger._RUNNERS, (1, "[]"), "INDEX sqlite_autoindex_dibs_jobs_1 (id=?)"),
        (tables._PLACE, ("a", "", "b"), "INDEX sqlite_autoindex_dibs_jobs_1 (id=?)"),
        (tables._ENDINGS, ("[]", "", "b"), "INDEX sqlite_autoindex_dibs_jobs_1 (id=?)"),
        (tables._RUNS, ("a",), "INDEX dibs_runs_of (job=?)"),
        (tables._NOTES, ("[]",), "dibs_notes USING PRIMARY KEY (job=?)"),
        (tables._INFO, {"seq": 1, "is_whole": 1}, "INTEGER PRIMARY KEY (rowid=?)"),
        (tables._FITTING, _WANTED, "INTEGER PRIMARY KEY (rowid>? AND rowid<?)"),
        (tables._PLACES[0], _WANTED, "COVERING INDEX dibs_ready (state=? AND queue>? AND queue<?)"),
        (tables._PLACES[1], _WANTED, "COVERING INDEX dibs_delayed (state=? AND queue>? AND queue<?)"),
        (tables._PLACES[2], _WANTED, "COVERING INDEX dibs_running (state=?)"),
        (tables._PLACES[3], _WANTED, "COVERING INDEX dibs_dead (state=? AND queue>? AND queue<?)"),
        (tables._PLACES[4], _WANTED, "COVERING INDEX dibs_over (state=?)"),
        (tables._PLACES[5], _WANTED, "COVERING INDEX dibs_over (state=?)"),
        (tables._FORGETTABLE, (1, 1), "INDEX dibs_over (state=? AND <expr><?)"),
        (tables._HAS_FORGETTABLE, (1,), "INDEX dibs_over (state=? AND <expr><?)"),
        (tables._FORGET, ("[]",), "INTEGER PRIMARY KEY (rowid=?)"),
        (tables._FORGET_RUNS, ("[]",), "INDEX dibs_runs_of (job=?)"),
        (tables._FORGET_NOTES, ("[]",), "dibs_notes USING PRIMARY KEY (job=?)"),
        (commits._TAKEN, ("[]",), "INDEX sqlite_autoindex_dibs_jobs_1 (id=?)"),
        (counts._READY, (), "COVERING INDEX dibs_ready (state=?)"),
        (counts._DELAYED, (), "COVERING INDEX dibs_delayed (state=?)"),
        (counts._RUNNING, (), "INDEX dibs_running (state=?)"),
        (counts._DEAD, (), "COVERING INDEX dibs_dead (state=?)"),
        (counts._PURGE["ready"], ("a", 1), "COVERING INDEX dibs_ready (state=? AND queue=?)"),
        (counts._PURGE["delayed"], ("a", 1), "COVERING INDEX dibs_delayed (state=? AND queue=?)"),
    ],
)
def test_each_statement_is_served_by_its_index(
    broker: SqliteBroker, statement: str, values: tuple[Any, ...] | dict[str, int], index: str
) -> None:
    connection = broker._open()._connection

    plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", values)]

    assert any(index in step for step in plan), plan
    assert not any(step.startswith("SCAN dibs_jobs") for step in plan), plan
    # Sorting the few that are running, or named by the caller, is fine.
    if statement not in {dead._NAMED, counts._RUNNING}:
        assert not any("TEMP B-TREE" in step for step in plan), plan


def test_no_queue_has_precedence(broker: SqliteBroker) -> None:
    broker.send([job("deep") for _ in range(100)])
    broker.send([job("a"), job("b")])
    consumer = broker.consume(["deep", "a", "b"], limit=6)

    got = consumer.receive(6)

    assert sorted(delivery.message.queue for delivery in got) == ["a", "b", "deep", "deep", "deep", "deep"]


def test_one_slot_serves_all_queues_in_turns(broker: SqliteBroker) -> None:
    for name in ("a", "b", "c"):
        broker.send([job(name) for _ in range(3)])
    consumer = broker.consume(["a", "b", "c"], limit=1)
    order = []

    for _ in range(6):
        (delivery,) = consumer.receive(1)
        consumer.settle([(delivery, Done())])
        order.append(delivery.message.queue)

    assert {*order[:3]} == {*order[3:]} == {"a", "b", "c"}


def test_a_batch_comes_in_order(broker: SqliteBroker) -> None:
    broker.send([job("a", str(number).encode(), priority=number % 3) for number in range(30)])

    got = broker.consume(["a"], limit=30).receive(30)

    ranks = [(-delivery.message.priority, int(delivery.message.body)) for delivery in got]
    assert ranks == sorted(ranks)


def test_a_claim_costs_the_same_however_many_jobs_are_delayed(broker: SqliteBroker) -> None:
    consumer = broker.consume(["a"], limit=1)

    def steps() -> int:
        """Return how many instructions of SQLite's machine it takes to claim a job and to settle it."""
        broker.send([job("a")])
        count = itertools.count()
        consumer._connection.set_progress_handler(lambda: next(count) and 0, 1)
        (delivery,) = consumer.receive(1)
        consumer.settle([(delivery, Done())])
        consumer._connection.set_progress_handler(None, 1)
        return next(count)

    steps()  # the first one compiles the statements
    alone = steps()
    for _ in range(5):
        broker.send([job("a", delay=3600.0) for _ in range(2000)])

    assert steps() <= alone * 1.1


def test_jobs_that_are_due_together_are_made_ready_bit_by_bit(
    broker: SqliteBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumers, "_PROMOTED_AT_ONCE", 10)
    due = now_ms() + 200
    broker.send([job("a", due=due) for _ in range(100)])
    consumer = broker.consume(["a"], limit=1)

    assert len(receive(consumer, 1)) == 1

    (info,) = broker.queues()
    assert (info.ready, info.delayed) == (9, 90)
    # Whoever has room for more than that gets it at once all the same.
    assert len(broker.consume(["a"], limit=80).receive(80)) == 80
    assert len(receive(consumer, 19)) == 19


def test_another_consumers_receipt_is_refused(broker: SqliteBroker) -> None:
    broker.send([job("a")])
    holder, other = broker.consume(["a"], limit=1), broker.consume(["a"], limit=1)
    (delivery,) = receive(holder, 1)

    with pytest.raises(ReceiptLost):
        other.settle([(delivery, Done())])

    holder.settle([(delivery, Done())])


def test_of_two_outcomes_for_one_delivery_the_first_counts(broker: SqliteBroker) -> None:
    broker.send([job("a")])
    consumer = broker.consume(["a"], limit=1)
    (delivery,) = receive(consumer, 1)

    with pytest.raises(ReceiptLost) as caught:
        consumer.settle([(delivery, RetryIn(0, delivery.message)), (delivery, Dead("failed", "boom"))])

    assert caught.value.deliveries == (delivery,)
    assert (broker.queues()[0].ready, broker.queues()[0].dead) == (1, 0)


def test_a_settle_is_one_transaction(broker: SqliteBroker) -> None:
    broker.send([job("a") for _ in range(50)])
    consumer = broker.consume(["a"], limit=50)
    got = receive(consumer, 50)
    seen: list[str] = []
    consumer._connection.set_trace_callback(seen.append)

    consumer.settle([(delivery, Done()) for delivery in got])

    assert [statement for statement in seen if statement in {"BEGIN IMMEDIATE", "COMMIT"}] == [
        "BEGIN IMMEDIATE",
        "COMMIT",
    ]


def test_what_is_got_is_handed_on_before_more_is_looked_for(
    broker: SqliteBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer = broker.consume(["a"], limit=3)
    peek, looks = claims.peek, []

    def count(*values: Any) -> list[claims.Glance]:
        looks.append(values)
        return peek(*values)

    monkeypatch.setattr(claims, "peek", count)

    def look() -> tuple[int, int]:
        looks.clear()
        return len(consumer.receive(3)), len(looks)

    assert look() == (0, 2)  # behind the second one it is woken
    assert consumer.timeout() > 0
    assert look() == (0, 1)  # it is still
    broker.send([job("a")])
    assert look() == (1, 1)
    assert consumer.timeout() == 0  # nobody tells of what came behind that look
    broker.send([job("a")])
    assert look() == (1, 1)
    assert consumer.timeout() > 0
    broker.send([job("a")])
    assert select.select([consumer], [], [], 10)[0]
    assert look() == (1, 1)


def test_paging_goes_on_from_the_beginning_when_its_place_is_gone(broker: SqliteBroker) -> None:
    broker.send([job("a", id=str(number)) for number in range(4)])
    consumer = broker.consume(["a"], limit=4)
    consumer.settle([(delivery, Dead("failed", "boom")) for delivery in receive(consumer, 4)])
    broker.drop("a", Selection(ids=frozenset({"1"})))

    assert [letter.message.id for letter in broker.dead("a", limit=2, after="1")] == ["0", "2"]


def test_replaying_more_than_a_batch_replays_each_once(broker: SqliteBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead, "BATCH", 10)
    broker.send([job("a", str(number).encode()) for number in range(25)])
    consumer = broker.consume(["a"], limit=25)
    consumer.settle([(delivery, Dead("failed", "boom")) for delivery in receive(consumer, 25)])

    assert broker.replay("a") == 25

    got = receive(consumer, 25)
    assert [int(delivery.message.body) for delivery in got] == list(range(25))
