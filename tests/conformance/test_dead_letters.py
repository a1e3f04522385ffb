"""Nothing is dropped: what is set aside can be seen, replayed and dropped (P7)."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest

from dibs.broker import Broker
from dibs.errors import UnknownQueue
from dibs.message import now_ms
from dibs.outcome import Dead, Done, Reason
from dibs.selection import EVERY, Selection
from tests.waiting import job, receive, receive_nothing, until
from tests.worlds import World


def bury(broker: Broker, queue: str, bodies: list[bytes]) -> None:
    """Set messages with these bodies aside."""
    broker.send([job(queue, body, id=body.decode(), task="t", headers={"tenant": "x"}) for body in bodies])
    consumer = broker.consume([queue], limit=len(bodies))
    got = receive(consumer, len(bodies))
    consumer.settle([(delivery, Dead("failed", f"boom {delivery.message.id}")) for delivery in got])
    consumer.close()
    until(lambda: len(broker.dead(queue, limit=len(bodies))) >= len(bodies))


def named(*ids: str) -> Selection:
    """Return the selection of these ids."""
    return Selection(ids=frozenset(ids))


def bury_kinds(broker: Broker) -> None:
    """Set four messages aside: two tasks, two reasons, and between the halves a moment that `middle` finds."""
    for half in ("1", "2"):
        broker.send([job("a", id=f"{task}{half}", task=task) for task in ("t", "u")])
        consumer = broker.consume(["a"], limit=2)
        for delivery in receive(consumer, 2):
            reason: Reason = "failed" if delivery.message.task == "t" else "crashed"
            consumer.settle([(delivery, Dead(reason, "boom"))])
        consumer.close()
        until(lambda: now_ms() > max(letter.died or 0 for letter in broker.dead("a", limit=9)))


def middle(broker: Broker) -> int:
    """Return when the second half of `bury_kinds` began to die."""
    return min(letter.died or 0 for letter in broker.dead("a", limit=9) if letter.message.id.endswith("2"))


#: What each selection leaves of `bury_kinds`; the number stands for the middle.
KINDS = [
    (EVERY, {"t1", "t2", "u1", "u2"}),
    (named("t1", "u2", "x"), {"t1", "u2"}),
    (named(), set()),
    (Selection(task="t"), {"t1", "t2"}),
    (Selection(reason="crashed"), {"u1", "u2"}),
    (Selection(died_before=0), {"t1", "u1"}),
    (Selection(died_since=0), {"t2", "u2"}),
    (Selection(died_since=0, task="u", reason="crashed", ids=frozenset({"u1", "u2", "t2"})), {"u2"}),
    (Selection(died_since=0, died_before=0), set()),
    (Selection(task="t", reason="crashed"), set()),
]


@pytest.mark.parametrize(("selection", "ids"), KINDS, ids=range(len(KINDS)))
def test_a_selection_means_the_same_to_listing_replaying_and_dropping(
    world: World, selection: Selection, ids: set[str]
) -> None:
    broker = world.open()
    bury_kinds(broker)
    for name in ("died_before", "died_since"):
        if getattr(selection, name) is not None:
            selection = msgspec.structs.replace(selection, **{name: middle(broker)})
    everything = {"t1", "t2", "u1", "u2"}

    listed = [letter.message.id for letter in broker.each_dead("a", selection)]
    assert broker.replay("a", selection) == len(ids)
    replayed = {delivery.message.id for delivery in receive(broker.consume(["a"], limit=4), len(ids))}

    assert listed == sorted(ids, key=lambda job_id: job_id[::-1])
    assert replayed == ids
    assert {letter.message.id for letter in broker.dead("a", limit=9)} == everything - ids
    if ids != everything:
        rest = Selection(ids=frozenset(everything - ids))
        assert broker.drop("a", rest) == len(everything - ids)
    assert broker.dead("a", limit=9) == []


def test_dropping_every_one_leaves_none(world: World) -> None:
    broker = world.open()
    bury(broker, "a", [b"one", b"two"])

    assert broker.drop("a", EVERY) == 2

    assert broker.dead("a", limit=9) == []
    assert receive_nothing(broker.consume(["a"], limit=1))


def test_pages_may_be_of_a_selection(world: World) -> None:
    broker = world.open()
    bury_kinds(broker)

    (first,) = broker.dead("a", Selection(task="u"), limit=1)
    (second,) = broker.dead("a", Selection(task="u"), limit=5, after=first.message.id)

    assert (first.message.id, second.message.id) == ("u1", "u2")


def test_a_page_behind_one_that_is_gone_begins_at_the_oldest(world: World) -> None:
    broker = world.open()
    bury(broker, "a", [b"one", b"two"])
    broker.drop("a", named("one"))

    assert [letter.message.id for letter in broker.dead("a", limit=5, after="one")] == ["two"]


def test_who_has_seen_enough_disturbs_nothing(world: World) -> None:
    broker = world.open()
    names = [f"n{number:03}" for number in range(300)]
    bury(broker, "a", [name.encode() for name in names])
    ordered = [letter.message.id for letter in broker.each_dead("a")]

    for limit in (1, 150, 299):
        letters = broker.each_dead("a")
        assert [next(letters).message.id for _ in range(limit)] == ordered[:limit]
        letters.close()
        assert [letter.message.id for letter in broker.each_dead("a")] == ordered


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

    assert broker.replay("a", named("one")) == 1

    (again,) = receive(consumer, 1)
    assert (again.message.id, again.message.attempt, again.message.crashes) == ("one", 1, 0)
    assert not again.message.is_suspect
    assert (again.message.error, again.message.body, again.message.task) == (None, b"x", "t")
    assert again.message.headers == {"k": "v"}
    assert broker.dead("a", limit=1) == []


def test_replay_of_some_leaves_the_others(world: World) -> None:
    broker = world.open()
    bury(broker, "a", [b"one", b"two", b"three"])

    assert broker.replay("a", named("two", "no-such")) == 1

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

    assert broker.drop("a", named("one")) == 1

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
