"""Receiving and settling: one owner at a time, receipts that fence (P2, P6)."""

from __future__ import annotations

import msgspec
import pytest

from dibs.errors import ReceiptLost
from dibs.outcome import Dead, Done, Released, RetryIn
from tests.waiting import is_idle_while_full, job, receive, receive_nothing
from tests.worlds import World


def test_a_job_is_held_by_one_consumer_at_a_time(world: World) -> None:
    broker = world.open()
    first, second = broker.consume(["a"], limit=10), world.open().consume(["a"], limit=10)
    broker.send([job("a") for _ in range(10)])

    got = receive(first, 10, within=1.0) + receive(second, 10, within=1.0)

    assert len(got) == 10
    assert len({delivery.message.id for delivery in got}) == 10


def test_receive_gives_at_most_what_was_asked_for(world: World) -> None:
    broker = world.open()
    broker.send([job("a") for _ in range(5)])
    consumer = broker.consume(["a"], limit=5)

    assert consumer.receive(0) == []
    assert len(receive(consumer, 2, limit=2)) == 2
    assert len(receive(consumer, 3, limit=3)) == 3


def test_a_done_job_is_gone(world: World) -> None:
    broker = world.open()
    broker.send([job("a")])
    consumer = broker.consume(["a"], limit=1)
    (delivery,) = receive(consumer, 1)

    consumer.settle([(delivery, Done(b"42"))])
    consumer.close()

    assert receive_nothing(world.open().consume(["a"], limit=1))


def test_a_released_job_comes_again_unchanged(world: World) -> None:
    broker = world.open()
    broker.send([job("a", attempt=2, error="earlier")])
    consumer = broker.consume(["a"], limit=1)
    (delivery,) = receive(consumer, 1)

    consumer.settle([(delivery, Released())])

    (again,) = receive(consumer, 1)
    assert again.message == delivery.message


def test_a_released_job_keeps_its_place(world: World) -> None:
    broker = world.open()
    broker.send([job("a", str(number).encode()) for number in range(3)])
    consumer = broker.consume(["a"], limit=1)
    (delivery,) = receive(consumer, 1)

    consumer.settle([(delivery, Released())])

    (again,) = receive(consumer, 1)
    assert again.message.body == b"0"


def test_a_retried_job_comes_again_as_the_outcome_says(world: World) -> None:
    broker = world.open()
    broker.send([job("a", task="t")])
    consumer = broker.consume(["a"], limit=1)
    (delivery,) = receive(consumer, 1)
    changed = msgspec.structs.replace(delivery.message, attempt=2, crashes=1, error="boom", unknown_since=5)

    consumer.settle([(delivery, RetryIn(0.0, changed))])

    (again,) = receive(consumer, 1)
    assert again.message == changed


def test_the_mark_of_a_suspect_is_stored_with_the_job(world: World) -> None:
    broker = world.open()
    broker.send([job("a")])
    consumer = broker.consume(["a"], limit=1)
    (delivery,) = receive(consumer, 1)
    assert not delivery.message.is_suspect

    consumer.settle([(delivery, RetryIn(0.0, msgspec.structs.replace(delivery.message, is_suspect=True)))])

    (again,) = receive(consumer, 1)
    assert again.message.is_suspect
    assert again.returns == 0
    assert again.message == msgspec.structs.replace(delivery.message, is_suspect=True)


def test_a_job_that_lost_no_consumer_has_no_returns_and_is_not_lost(world: World) -> None:
    broker = world.open()
    broker.send([job("a")])
    consumer = broker.consume(["a"], limit=1)

    (delivery,) = receive(consumer, 1)

    assert delivery.returns == 0
    assert consumer.lost() == ()


def test_a_retry_with_a_delay_waits_for_it(world: World) -> None:
    broker = world.open()
    broker.send([job("a")])
    consumer = broker.consume(["a"], limit=1)
    (delivery,) = receive(consumer, 1)

    consumer.settle([(delivery, RetryIn(1.0, msgspec.structs.replace(delivery.message, attempt=2)))])

    assert receive_nothing(consumer, within=0.7)
    (again,) = receive(consumer, 1)
    assert again.message.attempt == 2


def test_a_batch_may_have_every_kind_of_outcome(world: World) -> None:
    broker = world.open()
    broker.send([job("a", name.encode()) for name in ("done", "retry", "dead", "release")])
    consumer = broker.consume(["a"], limit=4)
    got = receive(consumer, 4)
    by_name = {delivery.message.body: delivery for delivery in got}

    consumer.settle(
        [
            (by_name[b"done"], Done()),
            (by_name[b"retry"], RetryIn(0.0, msgspec.structs.replace(by_name[b"retry"].message, attempt=2))),
            (by_name[b"dead"], Dead("failed", "boom")),
            (by_name[b"release"], Released()),
        ]
    )

    again = receive(consumer, 2)
    assert {(delivery.message.body, delivery.message.attempt) for delivery in again} == {
        (b"retry", 2),
        (b"release", 1),
    }
    consumer.settle([(delivery, Done()) for delivery in again])
    consumer.close()
    assert [letter.message.body for letter in world.open().dead("a", limit=5)] == [b"dead"]


def test_settling_in_any_order_settles_each(world: World) -> None:
    broker = world.open()
    broker.send([job("a", str(number).encode()) for number in range(20)])
    consumer = broker.consume(["a"], limit=20)
    got = receive(consumer, 20)
    kept = got[3]

    consumer.settle([(delivery, Done()) for delivery in reversed(got[10:])])
    consumer.settle([(delivery, Done()) for delivery in got[:10] if delivery is not kept])
    consumer.close()

    (left,) = receive(world.open().consume(["a"], limit=20), 20, within=1.0)
    assert left.message.id == kept.message.id


def test_a_second_settle_is_refused_and_harms_nobody(world: World) -> None:
    broker = world.open()
    broker.send([job("a"), job("a")])
    consumer = broker.consume(["a"], limit=2)
    first, second = receive(consumer, 2)
    consumer.settle([(first, Released())])
    (again,) = receive(consumer, 1)

    with pytest.raises(ReceiptLost) as caught:
        consumer.settle([(first, Done()), (second, Done())])

    assert [delivery.message.id for delivery in caught.value.deliveries] == [first.message.id]
    consumer.settle([(again, Done())])
    consumer.close()
    assert receive_nothing(world.open().consume(["a"], limit=2))


def test_a_stale_receipt_does_not_touch_the_next_hold(world: World) -> None:
    broker = world.open()
    broker.send([job("a")])
    loser = broker.consume(["a"], limit=1)
    (stale,) = receive(loser, 1)
    loser.settle([(stale, Released())])
    winner = world.open().consume(["a"], limit=1)
    (held,) = receive(winner, 1) or receive(loser, 1)

    with pytest.raises(ReceiptLost):
        loser.settle([(stale, Dead("failed", "late"))])

    assert held.message.id == stale.message.id
    assert world.open().dead("a", limit=1) == []


def test_closing_a_consumer_gives_back_what_it_holds(world: World) -> None:
    broker = world.open()
    broker.send([job("a") for _ in range(3)])
    consumer = broker.consume(["a"], limit=3)
    held = receive(consumer, 3)

    consumer.close()
    consumer.close()

    again = receive(world.open().consume(["a"], limit=3), 3)
    assert {delivery.message.id for delivery in again} == {delivery.message.id for delivery in held}
    assert {delivery.message.attempt for delivery in again} == {1}


def test_a_consumer_is_woken_by_what_another_sends(world: World) -> None:
    consumer = world.open().consume(["a"], limit=1)
    assert consumer.receive(1) == []

    world.open().send([job("a")])

    assert len(receive(consumer, 1)) == 1


def test_a_consumer_gets_only_its_queues(world: World) -> None:
    broker = world.open()
    broker.send([job("a", b"a"), job("b", b"b"), job("c", b"c")])
    consumer = broker.consume(["a", "c"], limit=3)

    got = receive(consumer, 3, within=1.0)

    assert sorted(delivery.message.body for delivery in got) == [b"a", b"c"]


def test_what_a_full_consumer_was_handed_beyond_its_slots_goes_to_an_idle_one(world: World) -> None:
    broker = world.open()
    full = broker.consume(["a", "b", "c"], limit=1)
    broker.send([job(queue) for queue in ("a", "b", "c")])
    (held,) = receive(full, 1)
    full.receive(0)
    idle = world.open().consume(["a", "b", "c"], limit=2)

    others = receive(idle, 2)

    assert len({held.message.id, *(delivery.message.id for delivery in others)}) == 3


def test_after_giving_its_surplus_back_a_consumer_goes_on_when_a_slot_is_free(world: World) -> None:
    broker = world.open()
    consumer = broker.consume(["a", "b", "c"], limit=1)
    broker.send([job(queue) for queue in ("a", "b", "c")])
    seen = set()

    for _ in range(3):
        (held,) = receive(consumer, 1)
        assert is_idle_while_full(consumer)
        seen.add(held.message.queue)
        consumer.settle([(held, Done())])

    assert seen == {"a", "b", "c"}


def test_higher_priority_comes_first_as_far_as_the_broker_tells_them_apart(world: World) -> None:
    broker = world.open()
    levels = broker.capabilities.priorities
    broker.send([job("a", str(priority).encode(), priority=priority) for priority in range(10)])

    got = receive(broker.consume(["a"], limit=1), 1)

    if levels == 10:
        assert got[0].message.priority == 9
    else:
        assert len(got) == 1
