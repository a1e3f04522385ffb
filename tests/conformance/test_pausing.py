"""Pausing a queue: nothing of it is started, by nobody, until it is resumed."""

from __future__ import annotations

from dibs.broker import Broker, Consumer
from dibs.outcome import Done
from tests.conformance.asking import status
from tests.waiting import PATIENCE, job, receive, receive_nothing, until
from tests.worlds import World


def is_paused(broker: Broker, name: str) -> bool:
    """Tell whether the broker says that this queue is paused."""
    return any(queue.is_paused for queue in broker.queues([name]) if queue.name == name)


def see_that_nothing_comes(broker: Broker, consumer: Consumer, queue: str) -> int:
    """Hand over jobs until one does not come: where a pause is heard of moments later, a few do.

    Returns how many wait in the end: 1.
    """

    def is_heard() -> bool:
        broker.send([job(queue)])
        return receive_nothing(consumer)

    until(is_heard)
    assert receive_nothing(consumer)
    return 1


def test_nothing_of_a_paused_queue_is_received_until_it_is_resumed(world: World) -> None:
    broker = world.open()
    broker.send([job("a") for _ in range(3)])

    broker.pause("a")

    until(lambda: is_paused(broker, "a"))
    consumer = world.open().consume(["a"], limit=5)
    assert receive_nothing(consumer)
    broker.resume("a")
    assert len(receive(consumer, 3)) == 3
    until(lambda: not is_paused(broker, "a"))


def test_a_consumer_that_waits_hears_of_a_pause_and_of_its_end(world: World) -> None:
    broker = world.open()
    consumer = broker.consume(["a"], limit=100)
    assert receive_nothing(consumer, within=0.1)

    world.open().pause("a")

    count = see_that_nothing_comes(broker, consumer, "a")
    world.open().resume("a")
    assert len(receive(consumer, count)) == count


def test_the_other_queues_of_a_consumer_go_on(world: World) -> None:
    broker = world.open()
    broker.pause("a")
    consumer = broker.consume(["a", "b"], limit=5)
    broker.send([job("a", b"a"), job("b", b"b")])

    (delivery,) = receive(consumer, 1)

    assert delivery.message.body == b"b"
    assert receive_nothing(consumer)


def test_what_runs_goes_on(world: World) -> None:
    broker = world.open()
    broker.send([job("a")])
    consumer = broker.consume(["a"], limit=1)
    (held,) = receive(consumer, 1)

    broker.pause("a")
    consumer.receive(0)
    consumer.settle([(held, Done(b"1"))])

    ending = broker.ledger.watch(held.message.id, is_ours=True).result(PATIENCE)
    assert ending is not None
    assert ending.status == "done"


def test_delayed_jobs_of_a_paused_queue_wait(world: World) -> None:
    broker = world.open()
    broker.pause("a")
    consumer = broker.consume(["a"], limit=1)
    message = job("a", delay=0.3)
    broker.send([message])

    until(lambda: status(broker, message.id) == "ready")
    assert receive_nothing(consumer)
    broker.resume("a")

    (delivery,) = receive(consumer, 1)
    assert delivery.message.id == message.id


def test_a_pause_outlives_a_restart(world: World) -> None:
    broker = world.open()
    broker.send([job("a")])
    broker.pause("a")

    world.restart()

    again = world.open()
    consumer = again.consume(["a"], limit=1)
    assert receive_nothing(consumer, within=1.0)
    until(lambda: is_paused(again, "a"))
    again.resume("a")
    assert len(receive(consumer, 1)) == 1


def test_a_queue_that_does_not_exist_yet_can_be_paused(world: World) -> None:
    broker = world.open()

    broker.pause("later")

    broker.send([job("later")])
    consumer = broker.consume(["later"], limit=1)
    assert receive_nothing(consumer)
    assert is_paused(broker, "later")
    broker.resume("later")
    assert len(receive(consumer, 1)) == 1


def test_resuming_what_is_not_paused_does_nothing(world: World) -> None:
    broker = world.open()
    broker.send([job("a")])

    broker.resume("a")
    broker.resume("never-there")

    assert len(receive(broker.consume(["a"], limit=1), 1)) == 1


def test_pausing_twice_is_ended_by_one_resume(world: World) -> None:
    broker = world.open()
    broker.send([job("a")])

    broker.pause("a")
    broker.pause("a")
    broker.resume("a")

    assert len(receive(broker.consume(["a"], limit=1), 1)) == 1


def test_what_is_given_back_to_a_paused_queue_waits(world: World) -> None:
    broker = world.open()
    broker.send([job("a")])
    consumer = broker.consume(["a"], limit=1)
    assert len(receive(consumer, 1)) == 1
    broker.pause("a")
    consumer.close()

    other = world.open().consume(["a"], limit=1)

    assert receive_nothing(other)
    broker.resume("a")
    assert len(receive(other, 1)) == 1
