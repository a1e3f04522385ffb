"""Receiving from RabbitMQ: fairness, strangers' messages, and what happens when channel, queue or server go away."""

from __future__ import annotations

import select
import struct
import threading
from collections.abc import Iterator

import pika
import pytest
from pika.channel import Channel as PikaChannel

from dibs.broker import Broker, Queue
from dibs.brokers import connect
from dibs.brokers.rabbitmq import fields
from dibs.brokers.rabbitmq.bell import Bell
from dibs.brokers.rabbitmq.consumer import RabbitConsumer
from dibs.brokers.rabbitmq.holds import Holds
from dibs.errors import AccessRefused, DibsError
from dibs.outcome import Dead, Done, Released, RetryIn
from tests.rabbit_node import Node
from tests.waiting import PATIENCE, is_idle_while_full, job, receive, receive_nothing, until
from tests.worlds_rabbitmq import RabbitWorld


@pytest.fixture
def world(rabbit_node: Node) -> Iterator[RabbitWorld]:
    """A namespace of its own."""
    world = RabbitWorld(rabbit_node)
    yield world
    world.close()


class Raw(pika.BasicProperties):
    """Properties in a wire form that pika itself can't make."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def encode(self) -> list[bytes]:
        """Return the wire form. The name is pika's."""
        return [self._data]


def test_what_no_slot_is_free_for_is_given_back_once(world: RabbitWorld) -> None:
    broker = world.open()
    broker.send([job("a"), job("b"), job("c")])
    busy = broker.consume(["a", "b", "c"], limit=1)
    (held,) = receive(busy, 1)

    assert is_idle_while_full(busy)
    others = receive(world.open().consume(["a", "b", "c"], limit=2), 2)

    assert len({delivery.message.queue for delivery in (held, *others)}) == 3
    assert [delivery.returns for delivery in others] == [1, 1]


def test_a_worker_that_gave_back_takes_jobs_again_when_a_slot_falls_free(world: RabbitWorld) -> None:
    broker = world.open()
    broker.send([job("a"), job("b"), job("c")])
    consumer = broker.consume(["a", "b", "c"], limit=1)

    for _ in range(3):
        (delivery,) = receive(consumer, 1)
        assert is_idle_while_full(consumer, within=0.15)
        consumer.settle([(delivery, Done())])

    assert receive_nothing(consumer)
    assert [queue.ready for queue in broker.queues()] == [0, 0, 0]


def test_an_owner_is_woken_behind_a_giving_back(world: RabbitWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    broker = world.open()
    broker.send([job("a")])
    consumer = broker.consume(["a"], limit=1)
    assert isinstance(consumer, RabbitConsumer)
    intake, ring = consumer._intake, Bell.ring
    rung: list[tuple[int, int]] = []

    def noted(bell: Bell) -> None:
        rung.append((len(intake.arrived), intake.capacity))
        ring(bell)

    monkeypatch.setattr(Bell, "ring", noted)

    consumer.receive(1)  # subscribes; what comes is left lying

    until(lambda: rung == [(1, 1), (0, 0)])


def test_an_owner_is_woken_when_it_released_something(world: RabbitWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    broker = world.open()
    broker.send([job("a")])
    consumer = broker.consume(["a"], limit=1)
    (delivery,) = receive(consumer, 1)
    consumer.receive(0)
    monkeypatch.setattr(Holds, "settle", lambda *_: None)  # so that it does not come back, which wakes too

    consumer.settle([(delivery, Released())])

    assert select.select([consumer], [], [], PATIENCE)[0]


def test_all_slots_fill_again_after_a_giving_back(world: RabbitWorld) -> None:
    broker = world.open()
    consumer = broker.consume(["a", "b"], limit=4)
    broker.send([job("a") for _ in range(4)] + [job("b") for _ in range(4)])
    held = receive(consumer, 4)
    assert is_idle_while_full(consumer)

    consumer.settle([(held.pop(), Done())])
    held += receive(consumer, 1)
    consumer.settle([(delivery, Done()) for delivery in held])

    assert len(receive(consumer, 3)) == 3


def test_settling_in_order_takes_one_acknowledgement(world: RabbitWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    broker = world.open()
    broker.send([job("a") for _ in range(100)])
    consumer = broker.consume(["a"], limit=100)
    got = receive(consumer, 100)
    acks: list[int] = []
    ack_frame = fields.ack_frame

    def counted(channel: int, tag: int, *, is_multiple: bool = False) -> bytes:
        acks.append(tag)
        return ack_frame(channel, tag, is_multiple=is_multiple)

    monkeypatch.setattr(fields, "ack_frame", counted)

    consumer.settle([(delivery, Done()) for delivery in got])
    consumer.close()

    assert len(acks) == 1
    assert receive_nothing(broker.consume(["a"], limit=1))


def test_deliveries_take_none_of_pikas_steps(world: RabbitWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    broker = world.open()
    broker.send([job("a") for _ in range(100)])
    passed: list[object] = []
    monkeypatch.setattr(PikaChannel, "_on_deliver", lambda *arguments: passed.append(arguments))

    got = receive(broker.consume(["a"], limit=100), 100)

    assert len(got) == 100
    assert passed == []


def test_a_message_that_kills_pikas_decoder_is_delivered(world: RabbitWorld) -> None:
    broker = world.open()
    broker.declare([Queue(name="a")])
    table = b"\x04whenT" + struct.pack(">Q", 2**63)
    data = struct.pack(">H", 1 << 13) + struct.pack(">I", len(table)) + table
    with world.channel() as channel:
        channel.basic_publish("", world.stored("a"), b"poison", Raw(data))

    consumer = broker.consume(["a"], limit=1)
    (delivery,) = receive(consumer, 1)

    assert (delivery.message.body, delivery.message.headers["when"], delivery.returns) == (b"poison", 2**63, 0)
    consumer.settle([(delivery, Dead("unreadable", "x"))])
    until(lambda: len(broker.dead("a", limit=1)) == 1)
    assert receive_nothing(consumer)


def test_a_message_without_any_property_is_delivered(world: RabbitWorld) -> None:
    broker = world.open()
    broker.declare([Queue(name="a", type="classic")])
    with world.channel() as channel:
        channel.basic_publish("", world.stored("a"), b"Pune........")

    (delivery,) = receive(broker.consume(["a"], limit=1), 1)

    assert delivery.message.text == "Pune........"
    assert delivery.message.id


def test_a_foreign_message_that_would_act_again_is_retried_and_buried_whole(world: RabbitWorld) -> None:
    broker = world.open()
    broker.declare([Queue(name="a"), Queue(name="copies")])
    properties = pika.BasicProperties(  # type: ignore[no-untyped-call]  # pika's
        expiration="100000", user_id="guest", headers={"CC": [world.stored("copies")], "mine": 1}
    )
    with world.channel() as channel:
        channel.basic_publish(world.stored("dibs"), world.stored("a"), b"x", properties)
    consumer = broker.consume(["a"], limit=1)

    (delivery,) = receive(consumer, 1)
    consumer.settle([(delivery, RetryIn(0.0, delivery.message))])
    (again,) = receive(consumer, 1)
    consumer.settle([(again, Dead("failed", "boom"))])
    until(lambda: len(broker.dead("a", limit=1)) == 1)

    (letter,) = broker.dead("a", limit=1)
    assert letter.message.headers == delivery.message.headers == {"CC": [world.stored("copies")], "mine": 1}
    assert letter.message.properties == {"expiration": "100000", "user_id": "guest"}
    assert len(receive(broker.consume(["copies"], limit=5), 5, within=0.5)) == 1


def test_a_queue_that_is_deleted_under_a_consumer_is_made_again(world: RabbitWorld) -> None:
    broker = world.open()
    consumer = broker.consume(["a", "b"], limit=2)
    broker.send([job("b", b"held")])
    (held,) = receive(consumer, 1, limit=2)

    with world.channel() as channel:
        channel.queue_delete(world.stored("a"))
    until(lambda: {queue.name: queue.consumers for queue in broker.queues()} == {"a": 1, "b": 1})
    broker.send([job("a", b"after")])

    (delivery,) = receive(consumer, 1)
    assert delivery.message.body == b"after"
    consumer.settle([(held, Done()), (delivery, Done())])


def test_who_may_not_read_is_told_so(world: RabbitWorld, rabbit_node: Node) -> None:
    world.open().send([job("a")])

    with rabbit_node.user("writer", configure="^$", write=".*", read="^$") as url:
        broker = connect(url, namespace=world.namespace, may_declare=False)
        consumer = broker.consume(["a"], limit=1)
        with pytest.raises(AccessRefused, match="access to queue"):
            receive(consumer, 1)
        broker.close()


def test_closing_waits_for_outcomes_that_are_on_their_way(world: RabbitWorld) -> None:
    broker = world.open()
    broker.send([job("a") for _ in range(50)])
    consumer = broker.consume(["a"], limit=50)
    got = receive(consumer, 50)

    consumer.settle([(delivery, Dead("failed", "boom")) for delivery in got])
    consumer.close()

    assert len(broker.dead("a", limit=100)) == 50
    assert receive_nothing(broker.consume(["a"], limit=1))


def test_an_outcome_that_can_not_be_stored_leaves_the_job_in_its_queue(world: RabbitWorld, rabbit_node: Node) -> None:
    broker = world.open(handover_timeout=1.0)
    broker.send([job("a", b"first"), job("a", b"second")])
    consumer = broker.consume(["a"], limit=2)
    got = receive(consumer, 2)

    with rabbit_node.alarm():
        consumer.settle([(delivery, Dead("failed", "boom")) for delivery in got])
        consumer.close()
        left = receive(broker.consume(["a"], limit=2), 2)

    assert {delivery.message.body for delivery in left} == {b"first", b"second"}


def test_a_closed_consumer_says_so(world: RabbitWorld) -> None:
    consumer = world.open().consume(["a"], limit=1)
    consumer.close()

    with pytest.raises(DibsError, match="closed"):
        consumer.receive(1)


def test_all_comes_back_by_itself_when_the_server_is_killed(
    world: RabbitWorld, rabbit_node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    broker = world.open()
    broker.send([job("a", str(number).encode()) for number in range(20)])
    consumer = broker.consume(["a"], limit=3)
    held = receive(consumer, 3)

    rabbit_node.kill()
    sending = threading.Thread(target=broker.send, args=([job("a", b"during the outage")],), name="sender")
    sending.start()
    assert receive_nothing(consumer)
    rabbit_node.start()
    sending.join(30)
    consumer.settle([(delivery, Done()) for delivery in held])

    bodies = [delivery.message.body for delivery in held]
    while len(bodies) < 21:
        (delivery,) = receive(consumer, 1)
        bodies.append(delivery.message.body)
        consumer.settle([(delivery, Done())])
    assert not sending.is_alive()
    assert set(bodies) == {str(number).encode() for number in range(20)} | {b"during the outage"}
    said = [record.getMessage() for record in caplog.records]
    assert sum("No connection" in text for text in said) == 2  # one for each connection, not for each try
    assert not [record for record in caplog.records if record.name.startswith("pika")]


def test_a_handover_that_finds_no_server_in_time_says_that_nothing_is_stored(
    world: RabbitWorld, rabbit_node: Node
) -> None:
    broker = world.open(handover_timeout=0.5)
    broker.send([job("a", b"before")])

    rabbit_node.kill()
    with pytest.raises(DibsError, match=r"can't be reached|was lost"):
        broker.send([job("a", b"never")])
    rabbit_node.start()
    until(lambda: _can_send(broker))

    bodies = {delivery.message.body for delivery in receive(broker.consume(["a"], limit=9), 9, within=1.0)}
    assert bodies == {b"before", b"probe"}


def _can_send(broker: Broker) -> bool:
    try:
        broker.send([job("a", b"probe")])
    except DibsError:
        return False
    return True
