"""What the ledger sums up of late: by the minute, and as runs in order."""

from __future__ import annotations

from collections import Counter

from dibs.broker import Broker
from dibs.ledger.statistics import MINUTE, Minute, PastRun
from dibs.message import Message, now_ms
from dibs.outcome import Cancelled, Dead, Done, Outcome, Released, RetryIn, Run
from tests.conformance.asking import a_run
from tests.waiting import job, receive, until
from tests.worlds import World

HOUR = 60 * MINUTE


def settle(broker: Broker, *settled: tuple[Message, Outcome]) -> None:
    """Hand over these jobs and settle them all in one batch."""
    broker.send([message for message, _ in settled])
    queues = list(dict.fromkeys(message.queue for message, _ in settled))
    consumer = broker.consume(queues, limit=len(settled))
    got = {each.message.id: each for each in receive(consumer, len(settled))}
    consumer.settle([(got[message.id], outcome) for message, outcome in settled])
    consumer.close()


def total(broker: Broker, queue: str = "a") -> Minute:
    """Return the sum of the last hour's minutes of a queue."""
    sums: Counter[str] = Counter()
    longest = 0
    for minute in broker.ledger.minutes(now_ms() - HOUR):
        if minute.queue == queue:
            assert minute.start % MINUTE == 0
            longest = max(longest, minute.longest)
            for field in ("done", "retried", "dead", "cancelled", "runs", "ran", "waits", "waited"):
                sums[field] += getattr(minute, field)
    return Minute(start=0, queue=queue, longest=longest, **sums)


def past_runs(broker: Broker, since: int = 0, limit: int = 100) -> list[PastRun]:
    """Return the runs that the ledger tells."""
    return broker.ledger.runs(since or now_ms() - HOUR, limit=limit).runs


def test_outcomes_are_counted_by_queue_and_kind(world: World) -> None:
    broker = world.open()
    again = job("a")

    settle(
        broker,
        (job("a"), Done(run=a_run())),
        (job("a"), Done(run=a_run())),
        (again, RetryIn(3600.0, again.after_failure("boom"), a_run())),
        (job("a"), Dead("failed", "boom", run=a_run())),
        (job("a"), Cancelled()),
        (job("b"), Done(run=a_run())),
    )

    until(lambda: total(broker, "b").done == 1)
    found = total(world.open())
    assert (found.done, found.retried, found.dead, found.cancelled, found.runs) == (2, 1, 1, 1, 4)
    assert total(broker, "c") == Minute(start=0, queue="c")


def test_what_never_ran_is_no_outcome(world: World) -> None:
    broker = world.open()
    put_off = job("a")

    settle(broker, (job("a"), Released()), (put_off, RetryIn(3600.0, put_off)), (job("a"), Done(run=a_run())))

    until(lambda: total(broker).done == 1)
    assert total(broker) == total(broker)
    assert (total(broker).retried, total(broker).runs) == (0, 1)


def test_running_and_waiting_times_are_summed_up(world: World) -> None:
    broker = world.open()
    now = now_ms() // 1000 * 1000 + 1  # to the ms, which a message on the wire does not carry

    settle(
        broker,
        (job("a", enqueued=now - 9000), Done(run=Run(now - 5000, now - 3000))),
        (job("a", enqueued=now - 9000), Done(run=Run(now - 8000, now - 7500))),
    )

    until(lambda: total(broker).done == 2)
    found = total(broker)
    assert (found.runs, found.ran) == (2, 2500)
    assert (found.waits, found.waited, found.longest) == (2, 5000, 4000)


def test_minutes_before_the_time_that_is_asked_for_are_left_out(world: World) -> None:
    broker = world.open()
    settle(broker, (job("a"), Done(run=a_run())))
    until(lambda: total(broker).done == 1)

    assert broker.ledger.minutes(now_ms() + 2 * MINUTE) == []


def test_runs_are_told_the_latest_end_first(world: World) -> None:
    broker = world.open()
    now = now_ms()
    done, dead, again = job("a", task="t"), job("b", task="t"), job("a", task="t")

    settle(
        broker,
        (done, Done(run=Run(now - 9000, now - 2000))),
        (dead, Dead("failed", "boom", run=Run(now - 8000, now - 1000))),
        (again, RetryIn(3600.0, again.after_failure("boom"), Run(now - 7000, now - 3000))),
    )

    until(lambda: len(past_runs(broker)) == 3)
    found = past_runs(broker)
    assert [(run.id, run.outcome) for run in found] == [(dead.id, "dead"), (done.id, "done"), (again.id, "retry")]
    assert [(run.started, run.ended, run.attempt) for run in found] == [
        (now - 8000, now - 1000, 1),
        (now - 9000, now - 2000, 1),
        (now - 7000, now - 3000, 1),
    ]
    assert {(run.queue, run.task) for run in found} == {("a", "t"), ("b", "t")}
    assert all(run.worker for run in found)
    assert [run.id for run in past_runs(broker, now - 1500)] == [dead.id]


def test_of_too_many_runs_those_that_failed_are_told_all_the_same(world: World) -> None:
    broker = world.open()
    now = now_ms()
    failed = job("a")

    settle(
        broker,
        (failed, Dead("failed", "boom", run=Run(now - 50_000, now - 49_000))),
        *((job("a"), Done(run=Run(now - 40_000, now - 1000 * number))) for number in range(1, 9)),
    )

    until(lambda: len(past_runs(broker)) == 9)
    cut = broker.ledger.runs(now - HOUR, limit=4)
    assert [run.ended for run in cut.runs if run.outcome == "done"] == [now - 1000 * number for number in range(1, 5)]
    assert [run.id for run in cut.runs if run.outcome == "dead"] == [failed.id]
    assert cut.whole_since == now - 4000


def test_of_too_many_runs_that_failed_the_latest_are_told_whatever_their_queues(world: World) -> None:
    broker = world.open()
    now = now_ms()
    dead = [
        (job("ab"[number % 2]), Dead("failed", "boom", run=Run(now - 40_000, now - 1000 * number)))
        for number in range(1, 9)
    ]

    settle(broker, *dead)

    until(lambda: len(past_runs(broker)) == 8)
    cut = broker.ledger.runs(now - HOUR, limit=3)
    assert [run.ended for run in cut.runs] == [now - 1000, now - 2000, now - 3000]
