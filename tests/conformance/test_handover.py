"""Handing over: what `send` promises (P1)."""

from __future__ import annotations

import threading

import pytest

from dibs.errors import JobExists
from dibs.message import Message
from tests.waiting import job, receive
from tests.worlds import World


def test_what_is_sent_is_received_as_it_was(world: World) -> None:
    broker = world.open()
    sent = Message(
        id="id-1",
        body=b'{"args": [1], "kwargs": {}}',
        queue="mail",
        task="app.welcome",
        content_type="application/json",
        headers={"tenant": "a", "n": 7, "nested": {"list": [1, "x", None]}},
        priority=7,
        attempt=3,
        crashes=2,
        enqueued=1_700_000_000_000,
        expires=4_000_000_000_000,
        unknown_since=1_700_000_100_000,
        error="boom",
    )

    broker.send([sent])

    (delivery,) = receive(broker.consume(["mail"], limit=1), 1)
    assert delivery.message == sent
    assert delivery.returns == 0


def test_a_plain_message_is_received_as_it_was(world: World) -> None:
    broker = world.open()
    sent = Message(id="p-1", body=b"\x00\xff Pune", queue="plain", content_type="application/octet-stream")

    broker.send([sent])

    (delivery,) = receive(broker.consume(["plain"], limit=1), 1)
    assert (delivery.message.body, delivery.message.task) == (sent.body, None)
    assert (delivery.message.id, delivery.message.content_type) == (sent.id, sent.content_type)


def test_another_handle_receives_what_one_sent(world: World) -> None:
    world.open().send([job("a", b"1")])

    (delivery,) = receive(world.open().consume(["a"], limit=1), 1)

    assert delivery.message.body == b"1"


def test_a_batch_arrives_whole_and_in_order(world: World) -> None:
    broker = world.open()

    broker.send([job("a", str(number).encode()) for number in range(500)])

    got = receive(broker.consume(["a"], limit=500), 500)
    assert [int(delivery.message.body) for delivery in got] == list(range(500))


def test_one_batch_may_go_to_several_queues(world: World) -> None:
    broker = world.open()

    broker.send([job("a"), job("b"), job("eu.mail")])

    for queue in ("a", "b", "eu.mail"):
        (delivery,) = receive(broker.consume([queue], limit=1), 1)
        assert delivery.message.queue == queue


def test_an_empty_batch_is_nothing(world: World) -> None:
    world.open().send([])


def test_threads_may_share_a_broker(world: World) -> None:
    broker = world.open()

    def send() -> None:
        for _ in range(25):
            broker.send([job("a")])

    threads = [threading.Thread(target=send, name=f"sender-{number}") for number in range(8)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    got = receive(broker.consume(["a"], limit=200), 200)
    assert len({delivery.message.id for delivery in got}) == 200


def test_a_duplicate_id_is_refused_where_the_broker_can_know_it(world: World) -> None:
    broker = world.open()
    broker.send([job("a", b"first", id="same")])

    if broker.capabilities.refuses_duplicates:
        with pytest.raises(JobExists, match="same"):
            broker.send([job("a", b"other"), job("a", b"second", id="same")])
        expected = [b"first"]
    else:
        broker.send([job("a", b"second", id="same")])
        expected = [b"first", b"second"]

    got = receive(broker.consume(["a"], limit=3), 3, within=0.5)
    assert [delivery.message.body for delivery in got] == expected


def test_a_body_of_a_mebibyte_passes(world: World) -> None:
    broker = world.open()
    body = bytes(range(256)) * 4096

    broker.send([job("a", body)])

    (delivery,) = receive(broker.consume(["a"], limit=1), 1)
    assert delivery.message.body == body


def test_what_was_sent_survives_a_restart(world: World) -> None:
    broker = world.open()
    if not broker.capabilities.is_durable:
        return
    broker.send([job("a", str(number).encode()) for number in range(20)])

    world.restart()

    got = receive(world.open().consume(["a"], limit=20), 20)
    assert sorted(int(delivery.message.body) for delivery in got) == list(range(20))


def test_names_at_the_limit_pass(world: World) -> None:
    broker = world.open()
    queue, task, job_id = "q" * 180, "t" * 200, "i" * 200

    broker.send([job(queue, task=task, id=job_id)])

    (delivery,) = receive(broker.consume([queue], limit=1), 1)
    assert (delivery.message.queue, delivery.message.task, delivery.message.id) == (queue, task, job_id)


def test_names_in_any_script_pass(world: World) -> None:
    broker = world.open()

    broker.send([job("büro.пошта", task="módulo.função", id="наряд-1")])

    (delivery,) = receive(broker.consume(["büro.пошта"], limit=1), 1)
    assert (delivery.message.task, delivery.message.id) == ("módulo.função", "наряд-1")
