"""Nothing is dropped: what is set aside can be seen, replayed and dropped (P7)."""

from __future__ import annotations

import time
from typing import Any

import pytest

from dibs.broker import Broker
from dibs.errors import UnknownQueue
from dibs.outcome import Dead, Done
from tests.waiting import job, receive, receive_nothing, until
from tests.worlds import World


def bury(broker: Broker, queue: str, bodies: list[bytes]) -> None:
    """Set messages with these bodies aside."""
    broker.send([job(queue, body, id=body.decode(), task="t", headers={"tenant": "x"}) for body in bodies])
    consumer = broker.consume([queue], limit=len(bodies))
    got = receive(consumer, len(bodies))
    consumer.settle([(delivery, Dead("failed", f"boom {delivery.message.id}")) for delivery in got])
    consumer.close()
    until(lambda: len(broker.dead(queue, limit=1000)) >= len(bodies))


def test_a_dead_letter_has_its_reason_error_time_and_message(world: World) -> None:
    broker = world.open()
    before = int(time.time() * 1000) - 1000

    bury(broker, "a", [b"one"])

    (letter,) = world.open().dead("a", limit=10)
    assert (letter.reason, letter.error) == ("failed", "boom one")
    assert (letter.message.id, letter.message.body, letter.message.task) == ("one", b"one", "t")
    assert letter.message.headers == {"tenant": "x"}
    assert letter.message.queue == "a"
    assert letter.died is not None
    assert letter.died >= before
    assert letter.worker


def test_a_dead_letter_counts_its_last_crash(world: World) -> None:
    broker = world.open()
    broker.send([job("a", crashes=2)])
    consumer = broker.consume(["a"], limit=1)
    (delivery,) = receive(consumer, 1)

    consumer.settle([(delivery, Dead("crashed", "boom", crashes=3))])

    until(lambda: bool(broker.dead("a", limit=1)))
    (letter,) = broker.dead("a", limit=1)
    assert (letter.reason, letter.message.crashes) == ("crashed", 3)


def test_the_dead_are_not_received(world: World) -> None:
    broker = world.open()

    bury(broker, "a", [b"one"])

    assert receive_nothing(broker.consume(["a"], limit=1))


def test_listing_pages_through_all_and_disturbs_nothing(world: World) -> None:
    broker = world.open()
    names = [f"n{number:02}".encode() for number in range(12)]
    bury(broker, "a", names)

    for _ in range(5):
        seen: list[str] = []
        while page := broker.dead("a", limit=5, after=seen[-1] if seen else None):
            seen += [letter.message.id for letter in page]
        assert sorted(seen) == [name.decode() for name in names]


def test_fifty_listings_lose_nothing(world: World) -> None:
    broker = world.open()
    bury(broker, "a", [b"one", b"two"])

    for _ in range(50):
        broker.dead("a", limit=10)

    assert {letter.message.id for letter in broker.dead("a", limit=10)} == {"one", "two"}


def test_replay_keeps_the_id_and_starts_at_attempt_one(world: World) -> None:
    broker = world.open()
    past: dict[str, Any] = {"attempt": 9, "crashes": 2, "is_suspect": True, "error": "old"}
    broker.send([job("a", b"x", id="one", task="t", headers={"k": "v"}, **past)])
    consumer = broker.consume(["a"], limit=1)
    (delivery,) = receive(consumer, 1)
    consumer.settle([(delivery, Dead("failed", "boom"))])
    until(lambda: bool(broker.dead("a", limit=1)))

    assert broker.replay("a", ["one"]) == 1

    (again,) = receive(consumer, 1)
    assert (again.message.id, again.message.attempt, again.message.crashes) == ("one", 1, 0)
    assert not again.message.is_suspect
    assert (again.message.error, again.message.body, again.message.task) == (None, b"x", "t")
    assert again.message.headers == {"k": "v"}
    assert broker.dead("a", limit=1) == []


def test_replay_of_some_leaves_the_others(world: World) -> None:
    broker = world.open()
    bury(broker, "a", [b"one", b"two", b"three"])

    assert broker.replay("a", ["two", "no-such"]) == 1

    assert {letter.message.id for letter in broker.dead("a", limit=10)} == {"one", "three"}
    (again,) = receive(broker.consume(["a"], limit=1), 1)
    assert again.message.id == "two"


def test_replay_of_all(world: World) -> None:
    broker = world.open()
    bury(broker, "a", [b"one", b"two"])

    assert broker.replay("a") == 2

    assert len(receive(broker.consume(["a"], limit=2), 2)) == 2
    assert broker.dead("a", limit=10) == []


def test_a_replayed_job_can_die_again(world: World) -> None:
    broker = world.open()
    bury(broker, "a", [b"one"])
    broker.replay("a")
    consumer = broker.consume(["a"], limit=1)
    (again,) = receive(consumer, 1)

    consumer.settle([(again, Dead("buried", "enough"))])

    until(lambda: [letter.reason for letter in broker.dead("a", limit=5)] == ["buried"])


def test_drop_deletes_for_good(world: World) -> None:
    broker = world.open()
    bury(broker, "a", [b"one", b"two"])

    assert broker.drop("a", ["one"]) == 1

    assert [letter.message.id for letter in broker.dead("a", limit=10)] == ["two"]
    assert receive_nothing(broker.consume(["a"], limit=1))


def test_the_dead_survive_a_restart(world: World) -> None:
    broker = world.open()
    if not broker.capabilities.is_durable:
        return
    bury(broker, "a", [b"one"])

    world.restart()

    assert [letter.message.id for letter in world.open().dead("a", limit=10)] == ["one"]


def test_an_unknown_queue_is_named(world: World) -> None:
    broker = world.open()

    with pytest.raises(UnknownQueue, match="no-such-queue"):
        broker.dead("no-such-queue", limit=1)
    with pytest.raises(UnknownQueue, match="no-such-queue"):
        broker.purge("no-such-queue", state="ready")


def test_a_done_job_leaves_no_dead_letter(world: World) -> None:
    broker = world.open()
    broker.send([job("a")])
    consumer = broker.consume(["a"], limit=1)
    (delivery,) = receive(consumer, 1)

    consumer.settle([(delivery, Done())])

    assert broker.dead("a", limit=1) == []
