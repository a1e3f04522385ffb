"""What the ledger tells of a job through its life."""

from __future__ import annotations

import msgspec
import pytest

from dibs.broker import Broker, Consumer
from dibs.errors import ReceiptLost
from dibs.ledger.life import JobSelection, Note, Progress, Status
from dibs.message import Delivery, Message, new_id, now_ms
from dibs.outcome import Cancelled, Dead, Done, Outcome, Released, RetryIn
from dibs.selection import EVERY, Selection
from tests.conformance.asking import a_run, life, listed, snapshot, status
from tests.waiting import PATIENCE, job, receive, until
from tests.worlds import World


def take(broker: Broker, *messages: Message) -> tuple[Consumer, list[Delivery]]:
    """Hand over these jobs of one queue and receive them, in their order."""
    broker.send(messages)
    consumer = broker.consume([messages[0].queue], limit=len(messages))
    got = {each.message.id: each for each in receive(consumer, len(messages))}
    return consumer, [got[message.id] for message in messages]


def settled(broker: Broker, message: Message, outcome: Outcome) -> str:
    """Hand over a job and settle it so; return its id."""
    consumer, (delivery,) = take(broker, message)
    consumer.settle([(delivery, outcome)])
    consumer.close()
    return message.id


# One job


def test_a_job_that_waits_is_told_as_it_was_handed_over(world: World) -> None:
    broker = world.open()
    now = now_ms()
    message = job("a", b'{"args": [1]}', task="t", priority=7, enqueued=now, expires=now + 3_600_000)

    broker.send([message])

    found = life(world.open(), message.id, lambda found: found.status == "ready")
    assert (found.id, found.task, found.queue, found.priority) == (message.id, "t", "a", 7)
    assert (found.attempt, found.enqueued, found.expires) == (1, now, now + 3_600_000)
    assert (found.started, found.ended, found.worker, found.runs, found.log) == (None, None, None, [], [])
    assert (found.result, found.error, found.progress) == (None, None, None)
    assert (found.body, found.is_private) == (b'{"args": [1]}', False)


def test_a_delayed_job_is_told_with_its_time(world: World) -> None:
    broker = world.open()
    message = job("a", delay=3600.0)

    broker.send([message])

    assert life(broker, message.id, lambda found: found.status == "delayed").due == message.due


def test_a_delayed_job_whose_time_has_come_is_ready(world: World) -> None:
    broker = world.open()
    message = job("a", delay=0.3)

    broker.send([message])

    life(broker, message.id, lambda found: found.status == "ready")


def test_a_running_job_is_told_as_running_since_it_began(world: World) -> None:
    broker = world.open()
    before = now_ms()
    consumer, (delivery,) = take(broker, job("a", task="t"))

    consumer.show(snapshot("host:1", delivery))

    found = life(world.open(), delivery.message.id, lambda found: found.status == "running")
    assert (found.task, found.attempt, found.ended, found.runs) == ("t", 1, None, [])
    assert found.started is not None
    assert before <= found.started <= now_ms()
    consumer.settle([(delivery, Done())])


def test_a_job_that_is_done_is_told_with_its_result_and_its_run(world: World) -> None:
    broker = world.open()
    consumer, (delivery,) = take(broker, job("a", task="t"))
    run = a_run("one", "two")

    consumer.settle([(delivery, Done(b"[42]", run=run))])

    found = life(world.open(), delivery.message.id, lambda found: found.status == "done")
    assert (found.result, found.note, found.error, found.reason) == (b"[42]", None, None, None)
    assert (found.started, found.ended, found.attempt, found.log) == (run.started, run.ended, 1, ["one", "two"])
    (only,) = found.runs
    assert (only.attempt, only.started, only.ended, only.outcome) == (1, run.started, run.ended, "done")
    assert only.worker == found.worker
    assert only.worker
    assert only.error is None


def test_why_a_result_is_not_kept_is_told(world: World) -> None:
    broker = world.open()

    job_id = settled(broker, job("a"), Done(None, "it is too long", a_run()))

    found = life(broker, job_id, lambda found: found.status == "done")
    assert (found.result, found.note) == (None, "it is too long")


def test_each_attempt_is_told_with_its_error_until_the_last_one(world: World) -> None:
    broker = world.open()
    consumer, (first,) = take(broker, job("a", task="t"))
    runs = [a_run(f"log {number}", seconds=10.0 - number) for number in range(3)]

    consumer.settle([(first, RetryIn(0.0, first.message.after_failure("one"), runs[0]))])
    (second,) = receive(consumer, 1)
    consumer.settle([(second, RetryIn(0.1, second.message.after_failure("two"), runs[1]))])
    (third,) = receive(consumer, 1)
    consumer.settle([(third, Dead("failed", "three", run=runs[2]))])

    found = life(world.open(), first.message.id, lambda found: found.status == "dead")
    assert (found.reason, found.error, found.attempt) == ("failed", "three", 3)
    assert [(run.attempt, run.outcome, run.error) for run in found.runs] == [
        (1, "retry", "one"),
        (2, "retry", "two"),
        (3, "dead", "three"),
    ]
    assert [(run.started, run.ended) for run in found.runs] == [(run.started, run.ended) for run in runs]
    assert found.log == ["log 2"]


def test_a_job_that_is_to_come_again_waits_with_the_error_of_its_last_run(world: World) -> None:
    broker = world.open()
    consumer, (delivery,) = take(broker, job("a", task="t"))

    consumer.settle([(delivery, RetryIn(3600.0, delivery.message.after_failure("boom"), a_run()))])

    found = life(broker, delivery.message.id, lambda found: found.status == "delayed")
    assert (found.attempt, found.error, found.ended, len(found.runs)) == (2, "boom", None, 1)
    assert found.due is not None
    assert found.due > now_ms() + 3_000_000


def test_what_was_put_off_without_a_run_has_no_run_more(world: World) -> None:
    broker = world.open()
    consumer, (delivery,) = take(broker, job("a"))

    consumer.settle([(delivery, RetryIn(0.0, msgspec.structs.replace(delivery.message, is_suspect=True)))])
    (again,) = receive(consumer, 1)
    consumer.settle([(again, Done(b"1", run=a_run()))])

    found = life(broker, delivery.message.id, lambda found: found.status == "done")
    assert [(run.attempt, run.outcome) for run in found.runs] == [(1, "done")]


def test_what_died_without_a_run_has_none(world: World) -> None:
    broker = world.open()

    job_id = settled(broker, job("a"), Dead("expired", "too late"))

    found = life(broker, job_id, lambda found: found.status == "dead")
    assert (found.reason, found.error, found.runs) == ("expired", "too late", [])
    assert found.ended is not None


def test_a_released_job_is_ready_and_has_no_run_more(world: World) -> None:
    broker = world.open()
    consumer, (delivery,) = take(broker, job("a"))

    consumer.settle([(delivery, Released())])
    consumer.close()

    found = life(broker, delivery.message.id, lambda found: found.status == "ready")
    assert (found.attempt, found.runs) == (1, [])


def test_a_cancelled_job_is_told_with_the_run_that_was_broken_off(world: World) -> None:
    broker = world.open()
    run = a_run("so far")

    job_id = settled(broker, job("a"), Cancelled(run))

    found = life(broker, job_id, lambda found: found.status == "cancelled")
    assert [(each.outcome, each.started, each.ended) for each in found.runs] == [
        ("cancelled", run.started, run.ended)
    ]
    assert found.ended is not None
    assert found.log == ["so far"]


def test_nobody_knows_a_job_that_was_never_handed_over(world: World) -> None:
    assert world.open().ledger.job(new_id()) is None


def test_of_a_private_job_neither_arguments_nor_result_nor_error_are_told(world: World) -> None:
    broker = world.open()
    done, failed, waiting = (job("a", b"secret", task="t", is_private=True) for _ in range(3))
    consumer, (first, second, third) = take(broker, done, failed, waiting)
    consumer.settle([(third, RetryIn(3600.0, third.message.after_failure("secret"), a_run()))])
    consumer.settle([(first, Done(b'"secret"', run=a_run())), (second, Dead("failed", "secret", run=a_run()))])

    over = life(broker, done.id, lambda found: found.status == "done")
    dead = life(broker, failed.id, lambda found: found.status == "dead")
    again = life(broker, waiting.id, lambda found: found.status == "delayed")

    for found in (over, dead, again):
        assert found.is_private
        assert "secret" not in repr(found)
    endings = broker.ledger.endings([done.id, failed.id])
    assert (endings[done.id].status, endings[failed.id].status) == ("done", "dead")
    assert endings[failed.id].reason == "failed"
    assert "secret" not in repr(endings)
    assert "private" in (endings[done.id].note or "")
    assert broker.dead("a", limit=1)[0].message.body == b"secret"


def test_a_job_that_is_not_to_be_kept_is_forgotten_when_it_is_done(world: World) -> None:
    broker = world.open()

    job_id = settled(broker, job("a", keep=0.0), Done(b"1", run=a_run()))

    until(lambda: broker.ledger.job(job_id) is None)
    assert listed(broker) == []
    assert broker.ledger.endings([job_id]) == {}


# Progress, log and workers


def test_a_running_job_tells_its_progress_and_its_log(world: World) -> None:
    broker = world.open()
    consumer, (delivery,) = take(broker, job("a"))
    ledger = world.open().ledger
    consumer.show(snapshot("host:1", delivery))

    consumer.note([(delivery, Note(Progress(1, 4, "one of four"), ["begun"]))])
    consumer.note([(delivery, Note(Progress(2, 4)))])
    consumer.note([(delivery, Note(log=["begun", "half"]))])

    def is_told() -> bool:
        found = ledger.job(delivery.message.id)
        return found is not None and (found.progress, found.log) == (Progress(2, 4), ["begun", "half"])

    until(is_told)
    assert [each.progress for each in ledger.jobs(JobSelection(), limit=1).jobs] == [Progress(2, 4)]
    consumer.settle([(delivery, Done(run=a_run("begun", "half", "over")))])
    found = life(broker, delivery.message.id, lambda found: found.status == "done")
    assert (found.progress, found.log) == (Progress(2, 4), ["begun", "half", "over"])


def test_a_note_on_what_is_held_no_more_harms_nobody(world: World) -> None:
    broker = world.open()
    consumer, (delivery,) = take(broker, job("a", keep=0.0))
    consumer.settle([(delivery, Done(run=a_run()))])

    consumer.note([(delivery, Note(Progress(1, 4)))])

    until(lambda: broker.ledger.job(delivery.message.id) is None)


def test_a_worker_is_shown_as_it_says_until_it_goes(world: World) -> None:
    broker = world.open()
    consumer, (delivery,) = take(broker, job("a"))
    first, second = snapshot("host:1"), snapshot("host:1", delivery)
    ledger = world.open().ledger

    assert ledger.workers() == []
    consumer.show(first)
    until(lambda: ledger.workers() == [first])
    consumer.show(second)
    until(lambda: ledger.workers() == [second])
    consumer.close()
    until(lambda: ledger.workers() == [])


# Lists


def test_jobs_are_listed_newest_first_and_by_the_page(world: World) -> None:
    broker = world.open()
    messages = [job("a") for _ in range(7)]
    for message in messages:
        broker.send([message])
    newest_first = [message.id for message in reversed(messages)]
    until(lambda: len(listed(broker)) == 7)

    seen: list[list[str]] = []
    after: str | None = None
    while True:
        page = broker.ledger.jobs(JobSelection(), limit=3, after=after)
        seen.append([each.id for each in page.jobs])
        after = page.next
        if after is None:
            break

    assert [each for page in seen for each in page] == newest_first
    assert [len(page) for page in seen if page] == [3, 3, 1]


def test_jobs_are_listed_by_state_queue_task_and_time(world: World) -> None:
    broker = world.open()
    consumer, got = take(broker, *(job("a", task=task) for task in ("done", "dead", "cancelled", "running")))
    done, dead, cancelled, running = got
    consumer.settle(
        [
            (done, Done(b"1", run=a_run())),
            (dead, Dead("failed", "boom", run=a_run())),
            (cancelled, Cancelled(a_run())),
        ]
    )
    consumer.show(snapshot("host:1", running))
    now = now_ms()
    ready = job("b", task="done", enqueued=now)
    delayed = job("b", task="delayed", enqueued=now, delay=3600.0)
    broker.send([ready])
    broker.send([delayed])
    ids: dict[Status, str] = {
        "delayed": delayed.id,
        "ready": ready.id,
        "running": running.message.id,
        "done": done.message.id,
        "dead": dead.message.id,
        "cancelled": cancelled.message.id,
    }
    until(lambda: {status(broker, job_id) for job_id in ids.values()} == set(ids))

    for state, job_id in ids.items():
        assert listed(broker, statuses=frozenset({state})) == [job_id]
    assert set(listed(broker, statuses=frozenset({"done", "delayed"}))) == {done.message.id, delayed.id}
    assert listed(broker, queue="b") == [delayed.id, ready.id]
    assert set(listed(broker, task="done")) == {ready.id, done.message.id}
    assert listed(broker, task="done", statuses=frozenset({"ready", "dead"})) == [ready.id]
    assert listed(broker, task="done", queue="c") == []
    assert set(listed(broker)) == set(ids.values())
    assert set(listed(broker, since=now_ms() - 60_000)) == set(ids.values())
    assert listed(broker, since=now_ms() + 60_000) == []


def test_a_list_leaves_out_what_is_long(world: World) -> None:
    broker = world.open()
    job_id = settled(broker, job("a", b"body"), Done(b"1", run=a_run("line")))
    life(broker, job_id, lambda found: found.status == "done")

    (found,) = broker.ledger.jobs(JobSelection(), limit=10).jobs

    assert (found.body, found.result, found.runs, found.log) == (None, None, [], [])
    assert (found.id, found.status) == (job_id, "done")


def test_each_namespace_lists_its_own_jobs(world: World) -> None:
    if not world.open().capabilities.is_shared:
        return
    left, right = world.open(namespace=f"l{world.name}"), world.open(namespace=f"r{world.name}")
    message = job("a")

    left.send([message])

    found = life(left, message.id, lambda found: found.status == "ready")
    assert found.queue == "a"
    assert listed(left, queue="a") == [message.id]
    assert listed(right) == []
    assert right.ledger.job(message.id) is None
    consumer = left.consume(["a"], limit=1)
    assert right.ledger.watch(message.id, is_ours=False).result(PATIENCE) is None
    consumer.settle([(each, Done(b"1", run=a_run())) for each in receive(consumer, 1)])
    life(left, message.id, lambda found: found.status == "done")
    assert right.ledger.endings([message.id]) == {}
    assert right.ledger.watch(message.id, is_ours=False).result(PATIENCE) is None


# Waiting for the end


def test_whoever_waits_is_told_how_the_job_ended_by_another_ones_settle(world: World) -> None:
    waiting, working = world.open(), world.open()
    messages = [job("a") for _ in range(3)]
    waiting.send(messages)
    futures = [waiting.ledger.watch(message.id, is_ours=True) for message in messages]
    consumer = working.consume(["a"], limit=3)
    by_id = {each.message.id: each for each in receive(consumer, 3)}
    done, dead, cancelled = (by_id[message.id] for message in messages)
    assert not any(future.done() for future in futures)

    consumer.settle([(done, Done(b"42", run=a_run()))])
    consumer.settle([(dead, Dead("failed", "boom", run=a_run())), (cancelled, Cancelled(a_run()))])

    first, second, third = (future.result(PATIENCE) for future in futures)
    assert first is not None
    assert (first.status, first.result) == ("done", b"42")
    assert second is not None
    assert (second.status, second.reason, second.error) == ("dead", "failed", "boom")
    assert third is not None
    assert third.status == "cancelled"


def test_another_process_that_waits_is_told_too(world: World) -> None:
    broker = world.open()
    consumer, (delivery,) = take(broker, job("a"))
    life(broker, delivery.message.id, lambda found: True)
    future = world.open().ledger.watch(delivery.message.id, is_ours=False)

    consumer.settle([(delivery, Done(b"42", run=a_run()))])

    ending = future.result(PATIENCE)
    assert ending is not None
    assert (ending.status, ending.result) == ("done", b"42")


@pytest.mark.parametrize("is_ours", [True, False], ids=["ours", "theirs"])
def test_who_asks_after_the_end_is_told_at_once(world: World, is_ours: bool) -> None:
    broker = world.open()
    done = settled(broker, job("a"), Done(b"42", note=None, run=a_run()))
    dead = settled(broker, job("a"), Dead("buried", "no", run=a_run()))

    first = broker.ledger.watch(done, is_ours=is_ours).result(PATIENCE)
    second = broker.ledger.watch(dead, is_ours=is_ours).result(PATIENCE)

    assert first is not None
    assert (first.status, first.result) == ("done", b"42")
    assert second is not None
    assert (second.status, second.reason, second.error) == ("dead", "buried", "no")


def test_who_waits_for_an_unknown_job_is_told_that(world: World) -> None:
    assert world.open().ledger.watch(new_id(), is_ours=False).result(PATIENCE) is None


def test_a_job_that_comes_again_is_not_over(world: World) -> None:
    broker = world.open()
    consumer, (delivery,) = take(broker, job("a"))
    future = broker.ledger.watch(delivery.message.id, is_ours=True)

    consumer.settle([(delivery, RetryIn(0.0, delivery.message.after_failure("boom"), a_run()))])
    (again,) = receive(consumer, 1)
    life(broker, delivery.message.id, lambda found: found.attempt == 2)

    assert not future.done()
    consumer.settle([(again, Done(b"2", run=a_run()))])
    ending = future.result(PATIENCE)
    assert ending is not None
    assert ending.result == b"2"


def test_who_waits_for_what_is_not_kept_is_told_that_it_is_over(world: World) -> None:
    broker = world.open()
    consumer, (delivery,) = take(broker, job("a", keep=0.0))
    future = broker.ledger.watch(delivery.message.id, is_ours=True)

    consumer.settle([(delivery, Done(b"42", run=a_run()))])

    ending = future.result(PATIENCE)
    assert ending is not None
    assert ending.status in {"done", "forgotten"}


def test_many_can_wait_at_once_and_each_is_told_its_own(world: World) -> None:
    broker = world.open()
    messages = [job("a", str(number).encode()) for number in range(200)]
    broker.send(messages)
    futures = [broker.ledger.watch(message.id, is_ours=True) for message in messages]
    consumer = world.open().consume(["a"], limit=50)

    left = len(messages)
    while left:
        got = receive(consumer, min(50, left))
        consumer.settle([(each, Done(each.message.body, run=a_run())) for each in got])
        left -= len(got)

    endings = [future.result(PATIENCE) for future in futures]
    assert [ending and ending.result for ending in endings] == [message.body for message in messages]


def test_who_waits_no_more_is_left_alone(world: World) -> None:
    broker = world.open()
    consumer, (first, second) = take(broker, job("a"), job("a"))
    given_up = broker.ledger.watch(first.message.id, is_ours=True)
    kept = broker.ledger.watch(second.message.id, is_ours=True)

    assert given_up.cancel()
    consumer.settle([(first, Done(b"1", run=a_run())), (second, Done(b"2", run=a_run()))])

    ending = kept.result(PATIENCE)
    assert ending is not None
    assert ending.result == b"2"
    assert given_up.cancelled()


def test_two_who_wait_for_one_job_are_both_told(world: World) -> None:
    broker = world.open()
    consumer, (delivery,) = take(broker, job("a"))
    futures = [broker.ledger.watch(delivery.message.id, is_ours=True) for _ in range(2)]

    consumer.settle([(delivery, Done(b"1", run=a_run()))])

    assert [ending and ending.result for ending in (future.result(PATIENCE) for future in futures)] == [b"1", b"1"]


def test_endings_are_those_of_the_jobs_that_are_over(world: World) -> None:
    broker = world.open()
    consumer, (done, dead, held) = take(broker, job("a"), job("a"), job("a"))
    consumer.settle([(done, Done(b"1", run=a_run())), (dead, Dead("failed", "boom", run=a_run()))])
    ids = [each.message.id for each in (done, dead, held)]
    until(lambda: (status(broker, ids[0]), status(broker, ids[1])) == ("done", "dead"))

    endings = broker.ledger.endings([*ids, new_id()])

    assert set(endings) == {ids[0], ids[1]}
    assert (endings[ids[0]].status, endings[ids[0]].result) == ("done", b"1")
    assert (endings[ids[1]].status, endings[ids[1]].reason, endings[ids[1]].error) == ("dead", "failed", "boom")


# What starts anew, and what is forgotten


def test_a_replayed_job_starts_anew(world: World) -> None:
    broker = world.open()
    consumer, (delivery,) = take(broker, job("a", task="t"))
    consumer.note([(delivery, Note(Progress(1, 4)))])
    consumer.settle([(delivery, RetryIn(0.0, delivery.message.after_failure("one"), a_run("first")))])
    (again,) = receive(consumer, 1)
    consumer.settle([(again, Dead("failed", "two", run=a_run("second")))])
    consumer.close()
    job_id = delivery.message.id
    life(broker, job_id, lambda found: found.status == "dead")
    until(lambda: len(broker.dead("a", limit=1)) == 1)

    broker.replay("a", Selection(ids=frozenset({job_id})))

    found = life(broker, job_id, lambda found: found.status == "ready")
    assert (found.attempt, found.crashes, found.runs, found.log, found.progress) == (1, 0, [], [], None)
    assert (found.error, found.reason, found.ended, found.started) == (None, None, None, None)
    assert broker.ledger.endings([job_id]) == {}
    future = broker.ledger.watch(job_id, is_ours=False)
    consumer = broker.consume(["a"], limit=1)
    (once_more,) = receive(consumer, 1)
    consumer.settle([(once_more, Done(b"3", run=a_run()))])
    ending = future.result(PATIENCE)
    assert ending is not None
    assert (ending.status, ending.result) == ("done", b"3")


def test_what_is_purged_is_forgotten(world: World) -> None:
    broker = world.open()
    message = job("a")
    broker.send([message])
    life(broker, message.id, lambda found: found.status == "ready")

    assert broker.purge("a", state="ready") == 1

    until(lambda: broker.ledger.job(message.id) is None)
    assert listed(broker) == []


def test_a_dead_letter_that_is_dropped_is_forgotten(world: World) -> None:
    broker = world.open()
    job_id = settled(broker, job("a"), Dead("failed", "boom", run=a_run()))
    life(broker, job_id, lambda found: found.status == "dead")
    until(lambda: len(broker.dead("a", limit=1)) == 1)

    assert broker.drop("a", EVERY) == 1

    until(lambda: broker.ledger.job(job_id) is None)


def test_an_outcome_that_was_refused_is_told_to_nobody(world: World) -> None:
    broker = world.open()
    consumer, (delivery,) = take(broker, job("a"))
    consumer.settle([(delivery, Done(b"1", run=a_run()))])

    with pytest.raises(ReceiptLost):
        consumer.settle([(delivery, Dead("failed", "late", run=a_run()))])

    found = life(broker, delivery.message.id, lambda found: found.status == "done")
    assert (found.result, len(found.runs)) == (b"1", 1)


def test_the_ledger_outlives_a_restart(world: World) -> None:
    broker = world.open()
    done = settled(broker, job("a"), Done(b"1", run=a_run()))
    waiting = job("b")
    broker.send([waiting])
    life(broker, done, lambda found: found.status == "done")
    life(broker, waiting.id, lambda found: found.status == "ready")

    world.restart()

    assert life(world.open(), done, lambda found: found.status == "done").result == b"1"
    life(world.open(), waiting.id, lambda found: found.status == "ready")
