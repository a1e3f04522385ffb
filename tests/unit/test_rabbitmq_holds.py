"""What a worker holds on RabbitMQ when channel, connection or server goes away: held again, settled once."""

from __future__ import annotations

import contextlib
import select
from collections.abc import Callable, Iterator

import msgspec
import pika
import pytest

from dibs.broker import Consumer, Queue
from dibs.brokers.rabbitmq import RabbitBroker
from dibs.brokers.rabbitmq.consumer import RabbitConsumer
from dibs.brokers.rabbitmq.hold import Hold
from dibs.brokers.rabbitmq.returns import Returns
from dibs.errors import ReceiptLost
from dibs.message import Delivery
from dibs.outcome import Dead, Done, Outcome, Released, RetryIn
from tests.rabbit_node import Node
from tests.waiting import is_idle_while_full, job, receive, receive_nothing, until
from tests.worlds_rabbitmq import RabbitWorld, break_channel


@pytest.fixture
def world(rabbit_node: Node) -> Iterator[RabbitWorld]:
    """A namespace of its own."""
    world = RabbitWorld(rabbit_node)
    yield world
    world.close()


def by_channel(consumer: Consumer, node: Node) -> None:
    """Have the server close the channel, as it does when a delivery times out."""
    break_channel(consumer)


def by_connection(consumer: Consumer, node: Node) -> None:
    """Have the server close all connections, as an operator does."""
    node.ctl("close_all_connections", "by a test")


def by_server(consumer: Consumer, node: Node) -> None:
    """Stop the server. Whoever calls this starts it again.

    Not by a kill: of a queue that was made a moment before, RabbitMQ 3.10.8 elects no leader any more after that.
    """
    node.stop()


def by_kill(consumer: Consumer, node: Node) -> None:
    """Kill the server. Whoever calls this starts it again."""
    node.kill()


#: How a consumer can lose what it holds.
Loss = Callable[[Consumer, Node], None]


def lose(consumer: Consumer, how: Loss, node: Node) -> None:
    """Have the consumer lose all that it holds, and wait until it knows."""
    assert isinstance(consumer, RabbitConsumer)
    before = consumer._intake._lane
    how(consumer, node)
    until(lambda: consumer._intake._lane is not before)


def tend_until(consumer: Consumer, condition: Callable[[], bool]) -> None:
    """Do as a supervisor with one free slot does, until a condition holds. Nothing may come."""
    until(lambda: condition() or consumer.receive(1) != [])
    assert condition()


def wait_until_held_again(consumer: Consumer) -> None:
    """Wait as a supervisor without a free slot does, until nothing is lost any more."""
    until(lambda: consumer.receive(0) == [] and consumer.lost() == ())


def has_none_left(world: RabbitWorld) -> bool:
    """Tell whether nothing is left in queue "a". Whoever held it has closed, and so has given back what it had."""
    return receive_nothing(world.open().consume(["a"], limit=1))


@pytest.mark.parametrize("how", [by_channel, by_connection])
def test_what_is_held_when_it_is_lost_is_held_again_and_settled(
    world: RabbitWorld, rabbit_node: Node, how: Loss
) -> None:
    broker = world.open()
    broker.send([job("a", b"1"), job("a", b"2")])
    consumer = broker.consume(["a"], limit=2)
    first, second = receive(consumer, 2)

    lose(consumer, how, rabbit_node)
    wait_until_held_again(consumer)
    consumer.settle([(first, Done()), (second, Dead("failed", "boom"))])

    assert receive_nothing(consumer)
    consumer.close()
    assert has_none_left(world)
    assert [letter.message.body for letter in broker.dead("a", limit=9)] == [b"2"]


@pytest.mark.parametrize("how", [by_channel, by_server])
def test_what_is_settled_while_it_is_lost_is_settled_when_it_comes_back(
    world: RabbitWorld, rabbit_node: Node, how: Loss
) -> None:
    broker = world.open()
    broker.send([job("a", name) for name in (b"done", b"dead", b"retry")])
    consumer = broker.consume(["a"], limit=3)
    by_name = {delivery.message.body: delivery for delivery in receive(consumer, 3)}
    retry = msgspec.structs.replace(by_name[b"retry"].message, attempt=2)
    lose(consumer, how, rabbit_node)

    consumer.settle(
        [
            (by_name[b"done"], Done()),
            (by_name[b"dead"], Dead("failed", "boom")),
            (by_name[b"retry"], RetryIn(0.0, retry)),
        ]
    )
    rabbit_node.start()

    (again,) = receive(consumer, 1)
    assert (again.message.body, again.message.attempt) == (b"retry", 2)
    until(lambda: len(broker.dead("a", limit=9)) == 1)
    consumer.settle([(again, Done())])
    assert receive_nothing(consumer)
    consumer.close()
    assert has_none_left(world)
    assert [letter.message.body for letter in broker.dead("a", limit=9)] == [b"dead"]


def test_an_acknowledgement_that_never_arrived_is_made_good(world: RabbitWorld, rabbit_node: Node) -> None:
    broker = world.open()
    broker.send([job("a", str(number).encode()) for number in range(5)])
    consumer = broker.consume(["a"], limit=5)
    got = receive(consumer, 5)

    rabbit_node.freeze()
    consumer.settle([(delivery, Done()) for delivery in got])
    until(lambda: holds(consumer) == 0)  # the acknowledgements are on their way to a server that is dead
    lose(consumer, by_kill, rabbit_node)
    assert isinstance(consumer, RabbitConsumer)
    expected = consumer._intake.holds.expected._others
    assert len(expected) == 5
    rabbit_node.start()

    tend_until(consumer, lambda: not expected)  # all of them have come again, and none was handed out
    consumer.close()
    assert has_none_left(world)


def test_the_owner_is_told_what_is_lost_and_what_came_back(world: RabbitWorld) -> None:
    broker = world.open()
    broker.send([job("a")])
    consumer = broker.consume(["a"], limit=1)
    (held,) = receive(consumer, 1)
    consumer.receive(0)

    break_channel(consumer)

    assert select.select([consumer], [], [], 10)[0]
    assert consumer.lost() == (held,)
    assert wait_readable_until(consumer, lambda: consumer.lost() == ())
    consumer.settle([(held, Done())])


def test_what_comes_back_to_another_one_is_run_there_and_the_losers_outcome_harms_nobody(
    world: RabbitWorld, rabbit_node: Node
) -> None:
    broker = world.open()
    broker.send([job("a")])
    loser = broker.consume(["a"], limit=1)
    (lost,) = receive(loser, 1)
    winner = world.open().consume(["a"], limit=1)
    winner.receive(1)

    lose(loser, by_channel, rabbit_node)
    (held,) = receive(winner, 1)
    loser.settle([(lost, Dead("failed", "late"))])
    assert loser.lost() == ()
    winner.settle([(held, Done())])

    assert held.message == lost.message
    assert receive_nothing(loser, within=1.5)  # it has a channel again by then
    loser.close()
    winner.close()
    assert has_none_left(world)
    assert broker.dead("a", limit=1) == []


def test_a_callers_own_id_that_is_used_twice_is_not_swallowed(world: RabbitWorld, rabbit_node: Node) -> None:
    broker = world.open()
    broker.send([job("a", b"first", id="mine")])
    consumer = broker.consume(["a"], limit=2)
    (first,) = receive(consumer, 1)
    lose(consumer, by_channel, rabbit_node)
    broker.send([job("a", b"second", id="mine")])

    (second,) = receive(consumer, 1)
    wait_until_held_again(consumer)

    assert (first.message.body, second.message.body) == (b"first", b"second")
    consumer.settle([(first, Done()), (second, Done())])
    consumer.close()
    assert has_none_left(world)


@pytest.mark.parametrize("change", [{"attempt": 2}, {"crashes": 1}, {}], ids=["attempt", "crashes", "put"])
def test_a_job_of_the_same_id_that_was_returned_is_not_taken_for_the_lost_one(
    world: RabbitWorld, rabbit_node: Node, change: dict[str, int]
) -> None:
    broker = world.open()
    original = job("a", b"original")
    broker.send([original])
    consumer, other, thief = (world.open().consume(["a"], limit=1) for _ in range(3))
    (held,) = receive(consumer, 1)
    broker.send([msgspec.structs.replace(original, body=b"twin", **change)])
    receive(other, 1)
    thief.receive(1)
    lose(consumer, by_channel, rabbit_node)
    receive(thief, 1)
    other.close()  # what it gives back is flagged as redelivered, and has the id of what is lost

    (again,) = receive(consumer, 1)

    assert (again.message.id, again.message.body) == (held.message.id, b"twin")
    consumer.settle([(held, Done()), (again, Done())])


def test_a_replay_is_not_taken_for_what_was_lost(world: RabbitWorld, rabbit_node: Node) -> None:
    broker = world.open()
    broker.send([job("a")])
    consumer = broker.consume(["a"], limit=1)
    (held,) = receive(consumer, 1)
    lose(consumer, by_channel, rabbit_node)
    consumer.settle([(held, Dead("failed", "boom"))])
    tend_until(consumer, lambda: len(broker.dead("a", limit=1)) == 1)

    broker.replay("a")

    (again,) = receive(consumer, 1)
    assert (again.message.id, again.message.attempt) == (held.message.id, 1)
    lose(consumer, by_channel, rabbit_node)
    wait_until_held_again(consumer)
    consumer.settle([(again, Done())])
    consumer.close()
    assert has_none_left(world)


def test_a_strangers_message_is_not_recognised_and_runs_again(world: RabbitWorld, rabbit_node: Node) -> None:
    broker = world.open()
    broker.declare([Queue(name="a", type="classic")])
    with world.channel() as channel:
        properties = pika.BasicProperties(message_id="1")  # type: ignore[no-untyped-call]  # pika's
        channel.basic_publish("", world.stored("a"), b"x", properties)
    consumer = broker.consume(["a"], limit=2)
    (held,) = receive(consumer, 1)

    lose(consumer, by_channel, rabbit_node)
    (again,) = receive(consumer, 1)

    assert consumer.lost() == (held,)
    with pytest.raises(ReceiptLost) as caught:
        consumer.settle([(held, Done()), (again, Done())])
    assert caught.value.deliveries == (held,)
    assert consumer.lost() == ()
    consumer.close()
    assert has_none_left(world)


def test_a_lost_job_that_is_released_is_handed_out_when_it_comes_back(world: RabbitWorld, rabbit_node: Node) -> None:
    broker = world.open()
    broker.send([job("a")])
    consumer = broker.consume(["a"], limit=1)
    (held,) = receive(consumer, 1)
    lose(consumer, by_channel, rabbit_node)

    consumer.settle([(held, Released())])

    (again,) = receive(consumer, 1)
    assert again.message == held.message


@pytest.mark.parametrize("outcome", ["retry", "dead", "suspect"])
def test_outcomes_on_their_way_when_the_channel_is_lost_are_recorded_once(
    world: RabbitWorld, rabbit_node: Node, outcome: str
) -> None:
    broker = world.open()
    jobs = [job("a", str(number).encode(), is_suspect=outcome == "suspect") for number in range(50)]
    broker.send(jobs)
    consumer = broker.consume(["a"], limit=50)
    got = receive(consumer, 50)

    break_channel(consumer)
    consumer.settle([(delivery, outcome_of(delivery, outcome)) for delivery in got])

    if outcome == "dead":
        tend_until(consumer, lambda: len(broker.dead("a", limit=99)) == 50)
        assert receive_nothing(consumer, within=2.0)
        assert {letter.message.id for letter in broker.dead("a", limit=99)} == {each.id for each in jobs}
    else:
        again = receive(consumer, 60, limit=60, within=3.0)
        assert sorted(delivery.message.id for delivery in again) == sorted(each.id for each in jobs)
        assert {delivery.message.attempt for delivery in again} == {2 if outcome == "retry" else 1}
        consumer.settle([(delivery, Done()) for delivery in again])
    consumer.close()
    assert has_none_left(world)


def outcome_of(delivery: Delivery, name: str) -> Outcome:
    """Return an outcome that is recorded before the delivery is let go of."""
    match name:
        case "retry":
            return retried(delivery)
        case "dead":
            return Dead("failed", "boom")
        case _:
            return Released()


def test_an_outcome_that_was_not_sent_waits_for_its_job_to_come_back(world: RabbitWorld, rabbit_node: Node) -> None:
    broker = world.open()
    broker.send([job("a", b"first"), job("a", b"second")])
    consumer = broker.consume(["a"], limit=2)
    first, second = receive(consumer, 2)
    assert isinstance(broker, RabbitBroker)

    with rabbit_node.alarm():
        consumer.settle([(first, retried(first))])  # is sent, and with it the server says that it takes nothing
        until(lambda: broker._publisher()._alarm is not None)
        consumer.settle([(second, retried(second))])
        lose(consumer, by_channel, rabbit_node)
        elsewhere = receive(world.open().consume(["a"], limit=2), 2)
    again = receive(consumer, 3, within=2.0)

    assert sorted(delivery.message.body for delivery in elsewhere) == [b"first", b"second"]
    assert [(delivery.message.body, delivery.message.attempt) for delivery in again] == [(b"first", 2)]


def retried(delivery: Delivery) -> Outcome:
    """Return the outcome of a failed first attempt."""
    return RetryIn(0.0, msgspec.structs.replace(delivery.message, attempt=2))


def test_a_suspect_is_never_given_back_by_a_return(world: RabbitWorld) -> None:
    broker = world.open()
    broker.send([job("a", is_suspect=True, attempt=2)])
    consumer = broker.consume(["a"], limit=1)
    (held,) = receive(consumer, 1)

    consumer.settle([(held, Released())])
    (again,) = receive(consumer, 1)
    consumer.close()
    (last,) = receive(broker.consume(["a"], limit=1), 1)

    assert [again.returns, last.returns] == [0, 0]
    assert held.message == again.message == last.message


def test_a_suspect_that_no_slot_is_free_for_goes_on_without_a_return(world: RabbitWorld) -> None:
    broker = world.open()
    broker.send([job("a", is_suspect=True), job("b", is_suspect=True)])
    busy = broker.consume(["a", "b"], limit=1)
    (held,) = receive(busy, 1)

    assert is_idle_while_full(busy)
    (other,) = receive(world.open().consume(["a", "b"], limit=1), 1)

    assert other.message.queue != held.message.queue
    assert other.message.is_suspect
    assert other.returns == 0


def test_what_a_consumer_sent_back_or_lost_itself_is_not_held_against_a_job(
    world: RabbitWorld, rabbit_node: Node
) -> None:
    broker = world.open()
    broker.send([job("a")])
    consumer = broker.consume(["a"], limit=1)

    seen = []
    for _ in range(5):
        (held,) = receive(consumer, 1)
        seen.append(held.returns)
        consumer.settle([(held, Released())])
    (held,) = receive(consumer, 1)
    lose(consumer, by_channel, rabbit_node)
    wait_until_held_again(consumer)
    consumer.settle([(held, Released())])
    (held,) = receive(consumer, 1)

    assert [*seen, held.returns] == [0] * 6
    assert isinstance(consumer, RabbitConsumer)
    assert held.receipt.returns == 7  # as the server counts


def test_what_others_sent_back_is_counted(world: RabbitWorld) -> None:
    world.open().send([job("a")])
    other = world.open().consume(["a"], limit=1)
    (held,) = receive(other, 1)
    other.settle([(held, Released())])
    other.close()
    consumer = world.open().consume(["a"], limit=1)
    (first,) = receive(consumer, 1)

    consumer.settle([(first, Released())])
    (second,) = receive(consumer, 1)

    assert first.returns
    assert second.returns == first.returns


def test_own_returns_are_remembered_within_bounds() -> None:
    returns, most = Returns(), 10_000
    for number in range(most + 1):
        returns.leave(Hold(("a", str(number), 1, 0, "put")))

    forgotten, known = Hold(("a", "0", 1, 0, "put")), Hold(("a", "1", 1, 0, "put"))

    assert [returns.arrive(forgotten, 1), returns.arrive(known, 1)] == [1, 0]


def test_what_is_over_is_remembered_within_bounds(world: RabbitWorld, rabbit_node: Node) -> None:
    broker = world.open()
    broker.send([job("a", str(number).encode()) for number in range(200)])
    consumer = broker.consume(["a"], limit=10)

    for _ in range(20):
        consumer.settle([(delivery, Done()) for delivery in receive(consumer, 10)])
    lose(consumer, by_channel, rabbit_node)

    assert isinstance(consumer, RabbitConsumer)
    assert len(consumer._intake.holds.expected._others) == 10


def holds(consumer: Consumer) -> int:
    """Return how many messages the consumer has by its channels."""
    assert isinstance(consumer, RabbitConsumer)
    return sum(len(lane.open) for lane in consumer._intake.holds.lanes)


def wait_readable_until(consumer: Consumer, condition: Callable[[], bool]) -> bool:
    """Wait on the descriptor alone until a condition holds, as a supervisor does."""
    with contextlib.suppress(TimeoutError):
        while not condition():
            if not select.select([consumer], [], [], 10)[0]:
                return False
            consumer.receive(0)
    return True
