"""Holding a job for longer than RabbitMQ's consumer_timeout, by renewing the hold in time."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator

import msgspec
import pika
import pytest
from pika import exceptions

from dibs.broker import Consumer
from dibs.brokers import connect
from dibs.brokers.rabbitmq import renewal
from dibs.brokers.rabbitmq.consumer import RabbitConsumer
from dibs.outcome import Dead, Done, Outcome, Released, RetryIn
from tests.rabbit_node import Node
from tests.waiting import job, receive, receive_nothing, until
from tests.worlds_rabbitmq import RabbitWorld, break_channel


@pytest.fixture
def world(rabbit_node: Node, caplog: pytest.LogCaptureFixture) -> Iterator[RabbitWorld]:
    """A namespace of its own."""
    caplog.set_level(logging.INFO)
    world = RabbitWorld(rabbit_node)
    yield world
    world.close()


def hurry(consumer: Consumer, timeout: float = 0.4) -> None:
    """Let the consumer know of so short a timeout, as the server tells it when it strikes."""
    assert isinstance(consumer, RabbitConsumer)
    told = Exception(f"delivery acknowledgement on channel 1 timed out. Timeout value used: {timeout * 1000:.0f} ms.")
    consumer._intake.link.post(lambda: consumer._intake._renewal.learn(told, is_lease=True))


def relax(consumer: Consumer) -> None:
    """End the hurry: what is held stays as it is from now on."""
    assert isinstance(consumer, RabbitConsumer)
    consumer._intake._renewal.interval = 3600.0


def renewals(caplog: pytest.LogCaptureFixture) -> int:
    """Return how often a hold was renewed."""
    return sum("hold on long jobs is renewed" in record.getMessage() for record in caplog.records)


def lease(world: RabbitWorld, consumer: Consumer, queue: str) -> str:
    """Return the name of the consumer's lease queue."""
    assert isinstance(consumer, RabbitConsumer)
    return consumer._intake._renewal._lease(queue)


def exists(world: RabbitWorld, queue: str) -> bool:
    """Tell whether the server has a queue of that name."""
    with world.channel() as channel:
        try:
            channel.queue_declare(queue, passive=True)
        except exceptions.ChannelClosedByBroker:
            return False
    return True


@pytest.mark.parametrize("outcome", ["done", "retry", "dead", "released"])
def test_a_job_whose_hold_was_renewed_is_settled_as_any_other(
    world: RabbitWorld, caplog: pytest.LogCaptureFixture, outcome: str
) -> None:
    broker = world.open()
    broker.send([job("a", b"x", headers={"mine": 1}, priority=3, attempt=2, error="earlier")])
    consumer = broker.consume(["a"], limit=1)
    (held,) = receive(consumer, 1)
    hurry(consumer)
    until(lambda: renewals(caplog) >= 3)
    outcomes: dict[str, Outcome] = {
        "done": Done(),
        "retry": RetryIn(0.0, msgspec.structs.replace(held.message, attempt=3)),
        "dead": Dead("failed", "boom"),
        "released": Released(),
    }

    consumer.settle([(held, outcomes[outcome])])

    if outcome in {"retry", "released"}:
        (again,) = receive(consumer, 1)
        relax(consumer)
        assert again.message == msgspec.structs.replace(held.message, attempt=3 if outcome == "retry" else 2)
        consumer.settle([(again, Done())])
    consumer.close()
    assert receive_nothing(world.open().consume(["a"], limit=1))
    assert len(broker.dead("a", limit=9)) == (outcome == "dead")
    assert not exists(world, lease(world, consumer, "a"))


def test_what_is_renewed_is_in_nobody_elses_reach_and_outlives_the_channel_it_came_by(
    world: RabbitWorld, caplog: pytest.LogCaptureFixture
) -> None:
    broker = world.open()
    broker.send([job("a"), job("b")])
    consumer = broker.consume(["a", "b"], limit=2)
    held = receive(consumer, 2)
    hurry(consumer)
    until(lambda: renewals(caplog) >= 1)
    relax(consumer)

    break_channel(consumer)

    assert receive_nothing(world.open().consume(["a", "b"], limit=2), within=0.5)
    assert consumer.lost() == ()
    consumer.settle([(delivery, Done()) for delivery in held])
    consumer.close()
    assert receive_nothing(world.open().consume(["a", "b"], limit=2))


def test_what_was_renewed_and_lost_with_the_connection_is_held_again(
    world: RabbitWorld, rabbit_node: Node, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renewal, "_TTL", 300)
    broker = world.open()
    broker.send([job("a")])
    consumer = broker.consume(["a"], limit=1)
    (held,) = receive(consumer, 1)
    hurry(consumer)
    until(lambda: renewals(caplog) >= 1)
    relax(consumer)

    rabbit_node.ctl("close_all_connections", "by a test")
    until(lambda: any("is held again" in record.getMessage() for record in caplog.records))

    assert consumer.lost() == ()
    assert receive_nothing(consumer)
    consumer.settle([(held, Done())])
    consumer.close()
    assert receive_nothing(world.open().consume(["a"], limit=1))
    with world.channel() as channel:
        channel.queue_delete(lease(world, consumer, "a"))  # dibs leaves it: what went by it is not in its hands


def test_what_a_dead_worker_held_by_a_lease_goes_to_another_one_as_it_was(
    world: RabbitWorld, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renewal, "_TTL", 300)
    broker, doomed = world.open(), world.open()
    consumer = doomed.consume(["a"], limit=1)
    with world.channel() as channel:
        properties = pika.BasicProperties(  # type: ignore[no-untyped-call]  # pika's
            message_id="theirs",
            content_type="text/plain",
            correlation_id="c",
            headers={"mine": 1, "CC": [], "x-death": [{"queue": "theirs", "count": 2}]},
        )
        channel.basic_publish(world.stored("dibs"), world.stored("a"), b"x", properties)
    (held,) = receive(consumer, 1)
    hurry(consumer)
    until(lambda: renewals(caplog) >= 2)
    assert isinstance(consumer, RabbitConsumer)

    end_without_a_word(consumer)
    (again,) = receive(broker.consume(["a"], limit=1), 1)

    assert again.message == held.message
    assert again.returns == 1
    with world.channel() as channel:
        channel.queue_delete(lease(world, consumer, "a"))


def end_without_a_word(consumer: RabbitConsumer) -> None:
    """End the connection as the death of its process does."""
    link = consumer._intake.link
    connection = link._connection
    assert connection is not None

    def cut() -> None:
        link._is_closing = True
        connection._transport._sock.shutdown(socket.SHUT_RDWR)

    link.post(cut)


def test_short_jobs_are_not_renewed(world: RabbitWorld, caplog: pytest.LogCaptureFixture) -> None:
    broker = world.open()
    broker.send([job("a") for _ in range(50)])
    consumer = broker.consume(["a"], limit=1)
    hurry(consumer, 4.0)

    for _ in range(50):
        (delivery,) = receive(consumer, 1)
        receive_nothing(consumer, within=0.05)
        consumer.settle([(delivery, Done())])

    assert renewals(caplog) == 0


def test_who_may_not_make_a_lease_queue_is_told_what_to_set_and_goes_on(
    world: RabbitWorld, rabbit_node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    world.open().send([job("a"), job("a")])

    with rabbit_node.user("worker", configure="^$", write=".*", read=".*") as url:
        broker = connect(url, namespace=world.namespace, may_declare=False)
        consumer = broker.consume(["a"], limit=2)
        (held,) = receive(consumer, 1)
        hurry(consumer)
        until(lambda: any("can't be renewed" in record.getMessage() for record in caplog.records))
        (other,) = receive(consumer, 1)
        consumer.settle([(held, Done()), (other, Done())])
        broker.close()

    said = [record for record in caplog.records if "can't be renewed" in record.getMessage()]
    assert len(said) == 1
    assert "consumer_timeout = 31536000000" in said[0].getMessage()
    assert receive_nothing(world.open().consume(["a"], limit=1))


def test_a_worker_says_once_that_the_server_limits_running_times(
    world: RabbitWorld, caplog: pytest.LogCaptureFixture
) -> None:
    broker = world.open()
    server = broker.capabilities.server
    consumer = broker.consume(["a"], limit=1)
    assert isinstance(consumer, RabbitConsumer)
    lane = consumer._intake._lane
    break_channel(consumer)
    until(lambda: consumer._intake._lane not in {lane, None})

    said = [record for record in caplog.records if "consumer_timeout" in record.getMessage()]

    assert [record.levelname for record in said] == (["INFO"] if server.startswith("RabbitMQ 3.1") else [])
