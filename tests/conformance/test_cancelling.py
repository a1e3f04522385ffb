"""Cancelling a job wherever it is: the first outcome that is recorded counts, for all."""

from __future__ import annotations

import pytest

from dibs.broker import Broker
from dibs.errors import ReceiptLost
from dibs.message import new_id, now_ms
from dibs.outcome import Cancelled, Dead, Done, Outcome, Released, RetryIn
from tests.conformance.asking import a_run, cancel_what_is_asked, life, see_cancelled, status
from tests.remote import RemoteConsumer
from tests.waiting import PATIENCE, job, receive, receive_nothing, until
from tests.worlds import World


def answers(broker: Broker, exact: str) -> str:
    """Return what `cancel` is to say: this, where the broker knows at this moment."""
    return exact if broker.capabilities.is_ledger_exact else "requested"


def test_a_waiting_job_is_cancelled_and_never_run(world: World) -> None:
    broker = world.open()
    first, second = job("a"), job("a")
    broker.send([first, second])

    answered = broker.cancel([first.id])

    assert answered == {first.id: answers(broker, "cancelled")}
    consumer = broker.consume(["a"], limit=10)
    came = see_cancelled(broker, consumer, first.id)
    came += [each.message.id for each in receive(consumer, 1 - len(came))]
    assert came == [second.id]
    found = life(broker, first.id, lambda found: found.status == "cancelled")
    assert (found.runs, found.started) == ([], None)
    assert found.ended is not None


def test_a_delayed_job_is_cancelled_and_never_run(world: World) -> None:
    broker = world.open()
    message = job("a", delay=1.0)
    broker.send([message])

    answered = broker.cancel([message.id])

    assert answered == {message.id: answers(broker, "cancelled")}
    assert see_cancelled(broker, broker.consume(["a"], limit=10), message.id) == []


def test_whoever_waits_for_a_job_is_told_that_it_was_cancelled(world: World) -> None:
    broker = world.open()
    message = job("a")
    broker.send([message])
    future = broker.ledger.watch(message.id, is_ours=True)

    broker.cancel([message.id])

    consumer = broker.consume(["a"], limit=10)
    assert see_cancelled(broker, consumer, message.id) == []
    ending = future.result(PATIENCE)
    assert ending is not None
    assert ending.status == "cancelled"
    assert broker.ledger.endings([message.id])[message.id].status == "cancelled"


def test_who_runs_a_job_is_told_to_cancel_it(world: World) -> None:
    broker = world.open()
    first, second = job("a"), job("a")
    broker.send([first, second])
    consumer = broker.consume(["a"], limit=2)
    held = {each.message.id: each for each in receive(consumer, 2)}
    assert list(consumer.cancelled()) == []
    future = broker.ledger.watch(first.id, is_ours=True)

    answered = world.open().cancel([first.id])

    assert answered == {first.id: "requested"}

    def is_told() -> bool:
        consumer.receive(0)
        return list(consumer.cancelled()) == [held[first.id]]

    until(is_told)
    run = a_run("so far")
    consumer.settle([(held[first.id], Cancelled(run))])
    assert list(consumer.cancelled()) == []
    found = life(broker, first.id, lambda found: found.status == "cancelled")
    assert [each.outcome for each in found.runs] == ["cancelled"]
    ending = future.result(PATIENCE)
    assert ending is not None
    assert ending.status == "cancelled"
    consumer.settle([(held[second.id], Done())])


def test_a_job_that_is_to_be_cancelled_says_so_until_it_is(world: World) -> None:
    broker = world.open()
    first, second = job("a"), job("a")
    broker.send([first, second])
    consumer = broker.consume(["a"], limit=2)
    held = {each.message.id: each for each in receive(consumer, 2)}
    assert life(broker, first.id, lambda _: True).cancel_asked is None
    begun = now_ms()

    world.open().cancel([first.id])

    asked = life(broker, first.id, lambda found: found.cancel_asked is not None).cancel_asked
    assert asked is not None
    assert begun <= asked <= now_ms()
    assert life(broker, second.id, lambda _: True).cancel_asked is None
    consumer.settle([(held[first.id], Cancelled(a_run()))])
    assert life(broker, first.id, lambda found: found.status == "cancelled").cancel_asked is None


def test_who_waits_on_the_descriptor_is_woken_by_a_cancel(world: World) -> None:
    broker = world.open()
    broker.send([job("a")])
    consumer = broker.consume(["a"], limit=1)
    (held,) = receive(consumer, 1)

    broker.cancel([held.message.id])

    assert cancel_what_is_asked(consumer, [held], within=PATIENCE) == [held.message.id]


@pytest.mark.parametrize(
    "outcome", [Done(b"1", run=a_run()), Dead("failed", "boom", run=a_run())], ids=["done", "dead"]
)
def test_a_job_that_ends_before_it_is_cancelled_has_ended_so_for_all(world: World, outcome: Outcome) -> None:
    broker = world.open()
    message = job("a")
    broker.send([message])
    consumer = broker.consume(["a"], limit=1)
    (held,) = receive(consumer, 1)
    future = broker.ledger.watch(message.id, is_ours=True)
    wanted = "done" if isinstance(outcome, Done) else "dead"

    broker.cancel([message.id])
    consumer.settle([(held, outcome)])

    ending = future.result(PATIENCE)
    assert ending is not None
    assert ending.status == wanted
    for handle in (broker, world.open()):
        life(handle, message.id, lambda found: found.status == wanted)
        assert handle.ledger.endings([message.id])[message.id].status == wanted
    consumer.receive(0)
    assert list(consumer.cancelled()) == []


def test_a_job_that_was_cancelled_before_its_end_is_cancelled_for_all(world: World) -> None:
    broker = world.open()
    message = job("a")
    broker.send([message])
    consumer = broker.consume(["a"], limit=1)
    (held,) = receive(consumer, 1)
    broker.cancel([message.id])
    consumer.settle([(held, Cancelled(a_run()))])

    with pytest.raises(ReceiptLost):
        consumer.settle([(held, Done(b"1", run=a_run()))])

    for handle in (broker, world.open()):
        life(handle, message.id, lambda found: found.status == "cancelled")


@pytest.mark.parametrize("delay", [0.0, 1.0])
def test_a_job_that_fails_while_it_is_to_be_cancelled_does_not_come_again(world: World, delay: float) -> None:
    broker = world.open()
    message = job("a")
    broker.send([message])
    consumer = broker.consume(["a"], limit=1)
    (held,) = receive(consumer, 1)

    broker.cancel([message.id])
    consumer.settle([(held, RetryIn(delay, held.message.after_failure("boom"), a_run()))])

    assert see_cancelled(broker, consumer, message.id) == []
    found = life(broker, message.id, lambda found: found.status == "cancelled")
    assert [(each.outcome, each.error) for each in found.runs] == [("retry", "boom")]


def test_a_job_that_is_given_back_while_it_is_to_be_cancelled_is_not_run_again(world: World) -> None:
    broker = world.open()
    released, given_back = job("a"), job("a")
    broker.send([released, given_back])
    consumer = broker.consume(["a"], limit=2)
    held = {each.message.id: each for each in receive(consumer, 2)}

    broker.cancel([released.id, given_back.id])
    consumer.settle([(held[released.id], Released())])
    consumer.close()

    other = world.open().consume(["a"], limit=2)
    assert see_cancelled(broker, other, released.id) == []
    assert see_cancelled(broker, other, given_back.id) == []


def test_a_job_whose_worker_dies_while_it_is_to_be_cancelled_is_not_run_again(shared_world: World) -> None:
    broker = shared_world.open()
    message = job("a")
    broker.send([message])
    doomed = RemoteConsumer(shared_world.url, getattr(shared_world, "namespace", ""), ["a"], limit=1)
    assert len(doomed.receive(1)) == 1

    broker.cancel([message.id])
    doomed.kill()

    assert see_cancelled(broker, broker.consume(["a"], limit=1), message.id) == []


@pytest.mark.parametrize(
    "outcome", [Done(run=a_run()), Dead("failed", "boom"), Cancelled()], ids=["done", "dead", "cancelled"]
)
def test_cancelling_what_is_over_changes_nothing(world: World, outcome: Outcome) -> None:
    broker = world.open()
    message = job("a")
    broker.send([message])
    consumer = broker.consume(["a"], limit=1)
    (held,) = receive(consumer, 1)
    consumer.settle([(held, outcome)])
    before = life(broker, message.id, lambda found: found.ended is not None)

    answered = broker.cancel([message.id])

    assert answered == {message.id: answers(broker, "over")}
    assert receive_nothing(consumer)
    assert list(consumer.cancelled()) == []
    assert broker.ledger.job(message.id) == before


def test_cancelling_what_nobody_knows_says_so_where_that_is_known(world: World) -> None:
    broker = world.open()
    broker.send([job("a")])
    nobodys = new_id()

    assert broker.cancel([nobodys]) == {nobodys: answers(broker, "unknown")}
    assert broker.cancel([]) == {}


def test_each_job_is_answered_for(world: World) -> None:
    broker = world.open()
    waiting, running, nobodys = job("b"), job("a"), new_id()
    broker.send([running])
    consumer = broker.consume(["a"], limit=1)
    (held,) = receive(consumer, 1)
    broker.send([waiting])

    answered = broker.cancel([waiting.id, running.id, nobodys])

    assert answered == {
        waiting.id: answers(broker, "cancelled"),
        running.id: "requested",
        nobodys: answers(broker, "unknown"),
    }
    consumer.settle([(held, Done())])


def test_cancelling_twice_is_as_good_as_once(world: World) -> None:
    broker = world.open()
    message = job("a")
    broker.send([message])
    consumer = broker.consume(["a"], limit=1)
    (held,) = receive(consumer, 1)

    broker.cancel([message.id])
    answered = broker.cancel([message.id])

    assert answered == {message.id: "requested"}
    assert cancel_what_is_asked(consumer, [held], within=PATIENCE) == [message.id]
    life(broker, message.id, lambda found: found.status == "cancelled")


def test_a_cancel_of_a_waiting_job_outlives_a_restart(world: World) -> None:
    broker = world.open()
    waiting, delayed = job("a"), job("a", delay=1.0)
    broker.send([waiting, delayed])
    broker.cancel([waiting.id, delayed.id])

    world.restart()

    again = world.open()
    consumer = again.consume(["a"], limit=2)
    assert see_cancelled(again, consumer, waiting.id, within=3 * PATIENCE) == []
    assert see_cancelled(again, consumer, delayed.id, within=3 * PATIENCE) == []


def test_a_cancel_of_a_running_job_outlives_a_restart(world: World) -> None:
    broker = world.open()
    message = job("a")
    broker.send([message])
    consumer = broker.consume(["a"], limit=1)
    assert len(receive(consumer, 1)) == 1
    broker.cancel([message.id])
    consumer.close()

    world.restart()

    again = world.open()
    assert see_cancelled(again, again.consume(["a"], limit=1), message.id, within=3 * PATIENCE) == []


def test_a_job_that_was_cancelled_is_not_among_what_waits(world: World) -> None:
    broker = world.open()
    messages = [job("a") for _ in range(3)]
    broker.send(messages)

    broker.cancel([message.id for message in messages])

    consumer = broker.consume(["a"], limit=3)
    for message in messages:
        assert see_cancelled(broker, consumer, message.id) == []
    until(lambda: [queue.ready for queue in broker.queues() if queue.name == "a"] == [0])
    assert {status(broker, message.id) for message in messages} == {"cancelled"}
