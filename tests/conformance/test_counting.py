"""What a queue holds, and purging it."""

from __future__ import annotations

import pytest

from dibs.broker import Broker, Queue, QueueInfo
from dibs.errors import UsageError
from dibs.outcome import Dead
from tests.waiting import job, receive, until
from tests.worlds import World


def info(broker: Broker, name: str) -> QueueInfo:
    """Return what the broker says of that queue."""
    return next(queue for queue in broker.queues() if queue.name == name)


def test_a_declared_queue_is_listed_though_empty(world: World) -> None:
    broker = world.open()

    broker.declare([Queue(name="empty")])

    assert info(broker, "empty").ready == 0


def test_each_state_is_counted(world: World) -> None:
    broker = world.open()
    broker.send([job("a") for _ in range(4)])
    consumer = broker.consume(["a"], limit=2)
    dying, held = receive(consumer, 2, limit=2)
    consumer.settle([(dying, Dead("failed", "boom"))])
    broker.send([job("a", delay=3600.0)])

    until(lambda: info(broker, "a").dead == 1)
    counted = info(broker, "a")

    assert counted.consumers == 1
    if broker.capabilities.counts_held:
        assert (counted.ready, counted.running, counted.delayed) == (2, 1, 1)
    else:
        assert (counted.running, counted.delayed) == (None, None)
    assert held.message.queue == "a"


def test_purging_the_ready_leaves_what_is_running(world: World) -> None:
    broker = world.open()
    consumer = broker.consume(["a"], limit=1)
    broker.send([job("a") for _ in range(5)])
    (held,) = receive(consumer, 1)
    until(lambda: info(broker, "a").ready == 4)

    assert broker.purge("a", state="ready") == 4

    consumer.close()
    (back,) = receive(world.open().consume(["a"], limit=5), 5, within=1.0)
    assert back.message.id == held.message.id


def test_purging_the_delayed_where_the_broker_can(world: World) -> None:
    broker = world.open()
    broker.send([job("a", delay=3600.0)])

    if broker.capabilities.counts_held:
        assert broker.purge("a", state="delayed") == 1
    else:
        with pytest.raises(UsageError, match="delayed"):
            broker.purge("a", state="delayed")


def test_a_namespace_keeps_its_names_apart(world: World) -> None:
    if not world.open().capabilities.is_shared:
        return
    left, right = world.open(namespace=f"l{world.name}"), world.open(namespace=f"r{world.name}")

    left.send([job("a", b"left")])
    right.send([job("a", b"right")])

    (from_left,) = receive(left.consume(["a"], limit=2), 2, within=0.5)
    (from_right,) = receive(right.consume(["a"], limit=2), 2, within=0.5)
    assert (from_left.message.body, from_right.message.body) == (b"left", b"right")
    assert [queue.name for queue in left.queues()] == ["a"]


def test_the_location_never_shows_a_password(world: World) -> None:
    broker = world.open()

    assert "guest:guest" not in broker.location
    assert broker.location
