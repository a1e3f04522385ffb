"""Waiting for jobs on RabbitMQ: told by the reply queue, or found in the stream, whatever happened before."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from dibs.broker import Broker
from dibs.brokers import connect
from dibs.brokers.rabbitmq import RabbitBroker
from dibs.brokers.rabbitmq.ledger import replies
from dibs.brokers.rabbitmq.ledger.ledger import RabbitLedger
from dibs.brokers.rabbitmq.ledger.replies import Replies, made_at
from dibs.errors import DibsError, LedgerUnavailable
from dibs.ledger.life import Ending
from dibs.message import new_id, now_ms
from dibs.outcome import Dead, Done, RetryIn
from dibs.selection import Selection
from tests.conformance.asking import a_run
from tests.rabbit_node import Node
from tests.waiting import PATIENCE, job, receive, until
from tests.worlds_rabbitmq import RabbitWorld


@pytest.fixture
def world(rabbit_node: Node) -> Iterator[RabbitWorld]:
    """A namespace of its own."""
    world = RabbitWorld(rabbit_node)
    yield world
    world.close()


def ledger_of(broker: Broker) -> RabbitLedger:
    """Return the broker's ledger, which is RabbitMQ's."""
    assert isinstance(broker.ledger, RabbitLedger)
    return broker.ledger


def replies_of(broker: Broker) -> Replies:
    """Return the broker's reply queue, made by now."""
    assert isinstance(broker, RabbitBroker)
    made = ledger_of(broker)._replies()
    until(lambda: broker.reply_queue is not None and made._channel is not None)
    return made


def finish(world: RabbitWorld, count: int = 1, outcome: Done | Dead | None = None) -> None:
    """Receive so many jobs as another process does, and settle them."""
    worker = world.open()
    consumer = worker.consume(["a"], limit=count)
    got = receive(consumer, count)
    assert len(got) == count
    consumer.settle([(each, outcome or Done(each.message.body, run=a_run())) for each in got])
    consumer.close()


def result(future: Future[Ending | None]) -> bytes | None:
    """Return what a job that is done returned."""
    ending = future.result(PATIENCE)
    assert ending is not None
    assert ending.status == "done"
    return ending.result


def has_index(broker: Broker) -> bool:
    """Tell whether an index was made for this broker."""
    return ledger_of(broker)._open_follower is not None


def test_a_thousand_who_wait_cost_one_queue_and_one_connection(world: RabbitWorld, rabbit_node: Node) -> None:
    broker = world.open()
    assert isinstance(broker, RabbitBroker)
    replies_of(broker)
    messages = [job("a", b"%d" % number) for number in range(1000)]
    broker.send(messages)

    futures = [broker.ledger.watch(message.id, is_ours=True) for message in messages]

    listed = rabbit_node.ctl("list_queues", "name", "consumers").splitlines()
    assert [line.split() for line in listed if line.startswith(world.stored("dibs.reply"))] == [
        [broker.reply_queue, "1"]
    ]
    assert sum(thread.name == "dibs-rabbitmq-replies" for thread in threading.enumerate()) == 1
    finish(world, 1000)
    assert [result(future) for future in futures] == [message.body for message in messages]
    assert not has_index(broker)
    assert replies_of(broker)._lookout._live is None


def test_a_job_that_ended_before_anybody_waited_is_found_in_the_stream_without_an_index(world: RabbitWorld) -> None:
    broker = world.open()
    over, going_on = job("a", b"1"), job("a", b"2")
    broker.send([over])
    finish(world)
    broker.send([going_on])

    futures = [broker.ledger.watch(message.id, is_ours=True) for message in (over, going_on)]

    assert result(futures[0]) == b"1"
    finish(world)
    assert result(futures[1]) == b"2"
    assert not has_index(broker)


def test_what_was_told_before_anybody_asked_is_remembered(world: RabbitWorld) -> None:
    broker = world.open()
    made = replies_of(broker)
    message = job("a", b"1")
    broker.send([message])
    finish(world)
    until(lambda: message.id in made._remembered)

    assert result(broker.ledger.watch(message.id, is_ours=True)) == b"1"
    assert made._lookout._live is None


def test_of_what_was_forgotten_the_stream_is_asked(world: RabbitWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replies, "_REMEMBERED", 2)
    broker = world.open()
    made = replies_of(broker)
    messages = [job("a", b"%d" % number) for number in range(5)]
    broker.send(messages)
    finish(world, 5)
    until(lambda: len(made._remembered) == 2)

    futures = [broker.ledger.watch(message.id, is_ours=True) for message in messages]

    assert [result(future) for future in futures] == [message.body for message in messages]


def test_what_ends_while_the_connection_is_gone_is_found_when_it_is_back(world: RabbitWorld) -> None:
    broker = world.open()
    made = replies_of(broker)
    messages = [job("a", b"%d" % number) for number in range(3)]
    broker.send(messages)
    futures = [broker.ledger.watch(message.id, is_ours=True) for message in messages[:2]]
    connection = made._link._connection
    assert connection is not None
    is_cut, held = threading.Event(), threading.Event()

    def cut() -> None:
        connection.abort()
        is_cut.set()
        held.wait(PATIENCE)  # so that it does not come back before the jobs are over

    made._link.post(cut)
    assert is_cut.wait(PATIENCE)
    finish(world, 3)
    held.set()

    assert [result(future) for future in futures] == [b"0", b"1"]
    assert result(broker.ledger.watch(messages[2].id, is_ours=True)) == b"2"
    replies_of(broker)
    after = job("a", b"after")
    broker.send([after])
    future = broker.ledger.watch(after.id, is_ours=True)
    finish(world)
    assert result(future) == b"after"


def test_a_job_that_is_tried_again_is_not_over_for_who_is_told_by_the_reply_queue(world: RabbitWorld) -> None:
    broker = world.open()
    replies_of(broker)
    sent = job("a")
    broker.send([sent])
    future = ledger_of(broker).watch(sent.id, is_ours=True)
    consumer = world.open().consume(["a"], limit=1)
    (first,) = receive(consumer, 1)

    consumer.settle([(first, RetryIn(0.0, first.message.after_failure("boom"), a_run()))])
    (again,) = receive(consumer, 1)
    consumer.settle([(again, Done(b"2", run=a_run()))])

    assert result(future) == b"2"


def test_who_asks_for_a_job_that_was_replayed_is_told_of_its_new_end(world: RabbitWorld) -> None:
    broker = world.open()
    replies_of(broker)
    message = job("a", b"1")
    broker.send([message])
    finish(world, outcome=Dead("failed", "boom", run=a_run()))
    until(lambda: len(broker.dead("a", limit=1)) == 1)
    dead = broker.ledger.watch(message.id, is_ours=True).result(PATIENCE)
    assert dead is not None
    assert (dead.status, dead.error) == ("dead", "boom")
    broker.replay("a", Selection(ids=frozenset({message.id})))
    until(lambda: (info := broker.ledger.job(message.id)) is not None and info.status == "ready")

    future = broker.ledger.watch(message.id, is_ours=True)
    finish(world)

    assert result(future) == b"1"


@pytest.mark.parametrize("is_early", [False, True], ids=["handed over before", "handed over behind"])
def test_jobs_with_ids_of_the_caller_are_waited_for_too(world: RabbitWorld, is_early: bool) -> None:
    broker = world.open()
    if is_early:
        replies_of(broker)
    over, going_on = job("a", b"1", id="order-1"), job("a", b"2", id="order-2")
    broker.send([over])
    finish(world)
    broker.send([going_on])

    futures = [broker.ledger.watch(message.id, is_ours=True) for message in (over, going_on)]

    assert result(futures[0]) == b"1"
    finish(world)
    assert result(futures[1]) == b"2"


def test_who_may_not_make_a_queue_finds_the_ends_in_the_stream(world: RabbitWorld, rabbit_node: Node) -> None:
    owner = world.open()
    message = job("a", b"1")
    owner.send([message])
    with rabbit_node.user("poor", configure="^$", write=".*", read=".*") as url:
        broker = connect(url, namespace=world.namespace, may_declare=False)
        broker.send([job("a", b"2", id=(second := new_id()))])

        futures = [broker.ledger.watch(job_id, is_ours=True) for job_id in (message.id, second)]
        finish(world, 2)

        assert [result(future) for future in futures] == [b"1", b"2"]
        with pytest.raises(DibsError):
            broker.ledger.workers()
        broker.close()


def test_who_may_neither_make_a_queue_nor_read_the_stream_is_told_that_instead_of_waiting(
    world: RabbitWorld, rabbit_node: Node
) -> None:
    owner = world.open()
    owner.send([job("a", b"0")])
    finish(world)
    with rabbit_node.user("poorest", configure="^$", write=".*", read="^$") as url:
        broker = connect(url, namespace=world.namespace, may_declare=False)
        message = job("a", b"1")
        broker.send([message])

        with pytest.raises(LedgerUnavailable, match="does not let this user read the ledger"):
            broker.ledger.watch(message.id, is_ours=True).result(PATIENCE)

        broker.close()


def test_a_producer_waits_with_the_rights_that_the_guide_names(world: RabbitWorld, rabbit_node: Node) -> None:
    owner = world.open()
    owner.send([job("a", b"0")])
    finish(world)
    dibs = world.stored("dibs").replace(".", r"\.")
    with rabbit_node.user(
        "waiter",
        configure=rf"^{dibs}\.reply.*$",
        write=rf"^{dibs}(\.ledger|\.delay\..*|\.reply.*)?$",
        read=rf"^{dibs}\.(ledger|reply.*)$",
    ) as url:
        broker = connect(url, namespace=world.namespace, may_declare=False)
        early, late = job("a", b"1"), job("a", b"2")
        broker.send([early])
        finish(world)

        first = broker.ledger.watch(early.id, is_ours=True)

        assert result(first) == b"1"
        replies_of(broker)
        broker.send([late])
        second = broker.ledger.watch(late.id, is_ours=True)
        finish(world)
        assert result(second) == b"2"
        broker.close()


def test_many_unknown_jobs_of_others_are_asked_for_together(
    world: RabbitWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = world.open()
    broker.ledger.refresh()
    asked: list[int] = []
    tell = RabbitLedger._tell

    def counted(self: RabbitLedger, questions: list[object]) -> object:
        asked.append(len(questions))
        return tell(self, questions)  # type: ignore[arg-type]  # as they are

    monkeypatch.setattr(RabbitLedger, "_tell", counted)

    futures = [broker.ledger.watch(f"unknown-{number}", is_ours=False) for number in range(500)]

    assert [future.result(PATIENCE) for future in futures] == [None] * 500
    assert len(asked) < 100


def test_who_still_waits_when_the_broker_is_closed_is_told_so(world: RabbitWorld) -> None:
    broker = world.open()
    message = job("a")
    broker.send([message])
    future = broker.ledger.watch(message.id, is_ours=True)

    broker.close()

    with pytest.raises(DibsError, match="closed"):
        future.result(PATIENCE)


def test_nobody_answers_a_roll_call_where_there_is_no_worker(world: RabbitWorld) -> None:
    assert world.open().ledger.workers() == []


def test_an_id_of_dibs_own_tells_when_it_was_made() -> None:
    before = now_ms()

    made = made_at(new_id())

    assert made is not None
    assert before <= made <= now_ms()
    assert made_at("order-1") is None
    assert made_at("6ba7b810-9dad-11d1-80b4-00c04fd430c8") is None
