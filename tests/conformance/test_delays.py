"""Delays live in the broker."""

from __future__ import annotations

import time

import pytest

from dibs.outcome import Done
from tests.waiting import job, receive, receive_nothing
from tests.worlds import World


def test_a_delayed_job_comes_when_it_is_due_and_not_before(world: World) -> None:
    broker = world.open()
    consumer = broker.consume(["a"], limit=1)
    due = time.time() + 1.0
    broker.send([job("a", due=int(due * 1000))])

    (delivery,) = receive(consumer, 1)

    assert time.time() >= int(due * 1000) / 1000
    assert delivery.message.due == int(due * 1000)


def test_many_short_delays_come_once_each_and_none_before_its_time(world: World) -> None:
    broker = world.open()
    consumer = broker.consume(["a"], limit=20)
    broker.send([job("a", str(n).encode(), delay=0.02 + n / 100) for n in range(200)])
    came: list[tuple[int, float]] = []

    while len(came) < 200:
        got = receive(consumer, 1)
        assert got
        came += [(int(each.message.body), time.time() - (each.message.due or 0) / 1000) for each in got]
        consumer.settle([(each, Done()) for each in got])

    assert sorted(number for number, _ in came) == list(range(200))
    assert min(late for _, late in came) >= 0
    assert max(late for _, late in came) < 10  # what is promised is 1 s, on a machine that has nothing else to do


def test_a_long_delay_does_not_hold_up_a_short_one(world: World) -> None:
    broker = world.open()
    consumer = broker.consume(["a"], limit=2)

    broker.send([job("a", b"long", delay=3600.0)])
    broker.send([job("a", b"short", delay=0.5)])

    assert [delivery.message.body for delivery in receive(consumer, 1)] == [b"short"]
    assert receive_nothing(consumer)


def test_delays_end_in_the_order_in_which_they_are_due(world: World) -> None:
    broker = world.open()
    consumer = broker.consume(["a"], limit=3)

    broker.send([job("a", str(delay).encode(), delay=delay) for delay in (2.2, 0.3, 1.2)])

    assert [delivery.message.body for delivery in receive(consumer, 3)] == [b"0.3", b"1.2", b"2.2"]


@pytest.mark.parametrize("queue", ["mail", "eu.mail"])
def test_a_delayed_job_reaches_its_own_queue_only(world: World, queue: str) -> None:
    broker = world.open()
    consumers = {name: broker.consume([name], limit=1) for name in ("mail", "eu.mail")}

    broker.send([job(queue, delay=0.3)])

    assert len(receive(consumers.pop(queue), 1)) == 1
    (other,) = consumers.values()
    assert receive_nothing(other)


def test_a_due_time_in_the_past_is_now(world: World) -> None:
    broker = world.open()

    broker.send([job("a", delay=-100.0)])

    assert len(receive(broker.consume(["a"], limit=1), 1)) == 1


def test_a_delay_survives_a_restart(world: World) -> None:
    broker = world.open()
    if not broker.capabilities.is_durable:
        return
    broker.send([job("a", b"later", delay=1.0)])

    world.restart()

    (delivery,) = receive(world.open().consume(["a"], limit=1), 1)
    assert delivery.message.body == b"later"


def test_a_delay_of_over_a_year_is_taken_and_holds_nothing_up(world: World) -> None:
    broker = world.open()

    broker.send([job("a", delay=400 * 86400.0)])
    broker.send([job("a", b"soon", delay=0.2)])

    consumer = broker.consume(["a"], limit=2)
    assert [delivery.message.body for delivery in receive(consumer, 1)] == [b"soon"]
    assert receive_nothing(consumer)
