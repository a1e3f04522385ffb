"""Writing RabbitMQ's ledger: what stands in it, what it costs, and that it never stands in the way of a job."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pika
import pytest

from dibs.broker import Broker
from dibs.brokers import connect
from dibs.brokers.rabbitmq import RabbitBroker
from dibs.brokers.rabbitmq.channel import Connection
from dibs.brokers.rabbitmq.consumer import RabbitConsumer
from dibs.brokers.rabbitmq.hold import Lane
from dibs.brokers.rabbitmq.ledger import entries, journal, outcomes
from dibs.brokers.rabbitmq.ledger.entries import (
    Cancel,
    Dropped,
    Ended,
    Enqueued,
    Entry,
    Noted,
    Pause,
    Purged,
    Replayed,
)
from dibs.brokers.rabbitmq.ledger.journal import Journal
from dibs.brokers.rabbitmq.link import Link
from dibs.errors import BadURL, BrokerError, LedgerUnavailable
from dibs.ledger.life import Note, Progress
from dibs.message import Delivery, Message, now_ms
from dibs.outcome import Cancelled, Dead, Done, RetryIn, Run
from dibs.selection import EVERY
from tests.conformance.asking import life, snapshot
from tests.proxy import Proxy
from tests.rabbit_node import Node
from tests.waiting import job, receive, receive_nothing, until
from tests.worlds_rabbitmq import RabbitWorld, break_channel

_E = TypeVar("_E", bound=Entry)


@pytest.fixture
def world(rabbit_node: Node) -> Iterator[RabbitWorld]:
    """A namespace of its own."""
    world = RabbitWorld(rabbit_node)
    yield world
    world.close()


def of_kind(world: RabbitWorld, kind: type[_E], count: int = 1, *, stream: str = "dibs.ledger") -> list[_E]:
    """Return the entries of a kind, once there are so many."""
    found: list[_E] = []

    def are_there() -> bool:
        found[:] = [entry for entry in world.recorded(stream) if isinstance(entry, kind)]
        return len(found) >= count

    until(are_there)
    return found


def held(broker: Broker, *messages: Message) -> tuple[RabbitConsumer, dict[str, Delivery]]:
    """Hand messages over, and return a consumer that holds all of them."""
    broker.send(messages)
    consumer = broker.consume(["a"], limit=max(1, len(messages)))
    assert isinstance(consumer, RabbitConsumer)
    return consumer, {each.message.id: each for each in receive(consumer, len(messages))}


def is_settled(world: RabbitWorld, queue: str = "a") -> bool:
    """Tell whether nothing of a queue is ready or in anybody's hands, once its consumers are gone."""
    with world.channel() as channel:
        return bool(channel.queue_declare(world.stored(queue), passive=True).method.message_count == 0)


def journal_of(broker: Broker) -> Journal:
    assert isinstance(broker, RabbitBroker)
    return broker._publisher().journal


class Calls:
    """What was called, in order."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.arguments: list[Any] = []

    def spy(
        self, patch: pytest.MonkeyPatch, owner: type, name: str, what: Callable[..., Any] = lambda *_: None
    ) -> None:
        """Note each call of a method, with what `what` makes of its arguments."""
        original = getattr(owner, name)

        def called(*arguments: Any, **named: Any) -> Any:
            self.names.append(name)
            self.arguments.append(what(*arguments))
            return original(*arguments, **named)

        patch.setattr(owner, name, called)

    def of(self, name: str) -> list[Any]:
        return [what for called, what in zip(self.names, self.arguments, strict=True) if called == name]


# What stands in it


def test_what_is_handed_over_is_recorded_with_all_that_a_list_shows(world: RabbitWorld) -> None:
    broker = world.open()
    due = now_ms() + 60_000
    message = job(
        "a",
        b'{"args": [1]}',
        task="shop.pay",
        content_type="application/json",
        priority=7,
        enqueued=1_700_000_000_123,
        due=due,
        expires=due + 1,
        keep=60.0,
    )

    broker.send([message])

    (entry,) = of_kind(world, Enqueued)
    assert entry == Enqueued(
        message.id,
        "a",
        "shop.pay",
        1_700_000_000_123,
        due,
        due + 1,
        7,
        60_000,
        False,
        b'{"args": [1]}',
        "application/json",
    )


def test_a_long_body_is_not_recorded_and_a_private_one_never(world: RabbitWorld) -> None:
    broker = world.open()

    broker.send([job("a", b"x" * 20_000), job("a", b"secret", is_private=True)])

    long, private = of_kind(world, Enqueued, 2)
    assert (long.body, private.body) == (None, None)
    assert "20000 bytes" in (long.note or "")
    assert (private.is_private, private.note) == (True, None)


def test_each_outcome_is_recorded_with_its_run(world: RabbitWorld) -> None:
    broker = world.open()
    done, retried, dead, cancelled = (job("a", enqueued=1_700_000_000_000) for _ in range(4))
    consumer, by_id = held(broker, done, retried, dead, cancelled)
    run = Run(now_ms() - 5, now_ms(), ["so far"])

    consumer.settle(
        [
            (by_id[done.id], Done(b"1", None, run)),
            (by_id[retried.id], RetryIn(30.0, retried.after_failure("boom"), run)),
            (by_id[dead.id], Dead("failed", "bang", 2, run)),
            (by_id[cancelled.id], Cancelled()),
        ]
    )
    consumer.close()

    found = {entry.id: entry for entry in of_kind(world, Ended, 4)}
    assert {entry.outcome for entry in found.values()} == {"done", "retry", "dead", "cancelled"}
    assert found[done.id].result == b"1"
    assert (found[done.id].started, found[done.id].ended, found[done.id].log) == (run.started, run.ended, ["so far"])
    assert (found[retried.id].error, found[retried.id].attempt) == ("boom", 1)
    assert 29_000 < (found[retried.id].due or 0) - found[retried.id].at <= 30_000
    assert (found[dead.id].reason, found[dead.id].error, found[dead.id].crashes) == ("failed", "bang", 2)
    assert (found[cancelled.id].started, found[cancelled.id].enqueued) == (None, 1_700_000_000_000)


def test_what_came_of_a_private_job_is_not_recorded(world: RabbitWorld) -> None:
    broker = world.open()
    done, dead = job("a", is_private=True), job("a", is_private=True)
    consumer, by_id = held(broker, done, dead)
    run = Run(1, 2, ["card 4711"])

    consumer.note([(by_id[done.id], Note(Progress(1, 2), ["card 4711"]))])
    consumer.settle([(by_id[done.id], Done(b"4711", None, run)), (by_id[dead.id], Dead("failed", "4711", run=run))])

    ended = of_kind(world, Ended, 2)
    assert {(entry.result, entry.error, tuple(entry.log)) for entry in ended} == {(None, None, ())}
    assert [note.log for note in of_kind(world, Noted)] == [None]


def test_progress_is_recorded(world: RabbitWorld) -> None:
    broker = world.open()
    message = job("a")
    consumer, by_id = held(broker, message)

    consumer.note([(by_id[message.id], Note(Progress(1, 10, "loading"), ["a line"]))])

    (note,) = of_kind(world, Noted)
    assert (note.id, note.log) == (message.id, ["a line"])
    assert note.progress is not None
    assert b"loading" in note.progress


def test_replay_drop_and_purge_are_recorded(world: RabbitWorld) -> None:
    broker = world.open()
    first, second, third = job("a"), job("a"), job("a")
    consumer, by_id = held(broker, first, second, third)
    consumer.settle([(delivery, Dead("failed", "boom")) for delivery in by_id.values()])
    consumer.close()
    until(lambda: len(broker.dead("a", limit=9)) == 3)

    broker.replay("a", EVERY.__class__(ids=frozenset([first.id])))
    broker.drop("a", EVERY.__class__(ids=frozenset([second.id])))
    broker.drop("a", EVERY)
    broker.purge("a", state="ready")

    (replayed,), dropped, (purged,) = of_kind(world, Replayed), of_kind(world, Dropped, 2), of_kind(world, Purged)
    assert (replayed.ids, replayed.queue) == ([first.id], "a")
    assert [entry.ids for entry in dropped] == [[second.id], None]
    assert purged.queue == "a"


def test_a_job_that_was_not_stored_is_told_no_more_until_it_is_handed_over_again(world: RabbitWorld) -> None:
    world.open().send([job("there")])
    broker = world.open(may_declare=False)
    broker.send([job("there")])
    refused, stored = job("missing", task="t", enqueued=now_ms()), job("there", task="t")

    with pytest.raises(BrokerError):
        broker.send([refused, stored])

    (withdrawn,) = of_kind(world, Dropped)
    assert withdrawn.ids == [refused.id]
    assert life(broker, stored.id, lambda found: found.status == "ready")
    assert broker.ledger.job(refused.id) is None
    world.open().send([job("missing")])
    broker.send([refused])
    assert life(broker, refused.id, lambda found: found.status == "ready")


# What it costs


def test_one_job_goes_with_its_record_in_one_write(world: RabbitWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    broker = world.open()
    broker.send([job("a")])
    of_kind(world, Enqueued)
    calls = Calls()
    calls.spy(monkeypatch, Connection, "write", lambda _, frames: frames.count(b"\x00\x3c\x00\x28"))

    broker.send([job("a")])

    assert calls.of("write") == [2]


def test_threads_that_hand_over_together_share_one_wake_up_one_write_and_one_record(
    world: RabbitWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = world.open()
    broker.send([job("a")])
    of_kind(world, Enqueued)
    assert isinstance(broker, RabbitBroker)
    publisher = broker._publisher()
    calls = Calls()
    calls.spy(monkeypatch, Connection, "write", lambda _, frames: frames.count(b"\x00\x3c\x00\x28"))
    calls.spy(monkeypatch, Link, "post")
    is_free = threading.Event()
    publisher.link.post(is_free.wait, 30.0)  # so that all are there before the first is taken
    threads = [threading.Thread(target=broker.send, args=([job("a")],), name=f"sender-{n}") for n in range(16)]

    for thread in threads:
        thread.start()
    until(lambda: len(publisher._inbox._flights) == 16)
    is_free.set()
    for thread in threads:
        thread.join(30)

    assert calls.of("write") == [17]
    assert len(calls.of("post")) == 2
    assert len(of_kind(world, Enqueued, 17)) == 17


def test_a_confirm_is_read_without_asking_the_socket_for_more(
    world: RabbitWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = world.open()
    broker.send([job("a")])
    of_kind(world, Enqueued)
    assert isinstance(broker, RabbitBroker)
    connection = broker._publisher().link._connection
    assert connection is not None
    receive_some, refused = connection._transport._sigint_safe_recv, []

    def received(socket: Any, most: int) -> bytes:
        try:
            return bytes(receive_some(socket, most))
        except BlockingIOError:
            refused.append(most)
            raise

    monkeypatch.setattr(connection._transport, "_sigint_safe_recv", received)

    for _ in range(20):
        broker.send([job("a")])

    assert not refused


def test_entries_that_are_gathered_are_all_there_however_many_came_together() -> None:
    bodies = [entries.encode([Pause(f"{number}-{n}", True, 0) for n in range(number)]) for number in range(1, 40)]

    gathered = entries.gather(bodies)

    assert len(gathered) < len(bodies)
    found = sorted(entry.queue for body in gathered for entry in entries.decode(body) if isinstance(entry, Pause))
    assert found == sorted(f"{number}-{n}" for number in range(1, 40) for n in range(number))


def test_a_thousand_jobs_take_ten_records_and_no_write_more(
    world: RabbitWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = world.open()
    broker.send([job("a")])
    of_kind(world, Enqueued)
    calls = Calls()
    calls.spy(monkeypatch, Connection, "write", lambda _, frames: frames.count(b"\x00\x3c\x00\x28"))

    broker.send([job("a") for _ in range(1000)])

    assert calls.of("write") == [1010]
    assert len(of_kind(world, Enqueued, 1001)) == 1001


def test_outcomes_that_end_together_take_one_record_and_are_acknowledged_together_behind_it(
    world: RabbitWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = world.open()
    consumer, by_id = held(broker, *(job("a") for _ in range(200)))
    calls = Calls()
    calls.spy(monkeypatch, Journal, "write", lambda _, record: len(entries.decode(record.body)))
    calls.spy(monkeypatch, Journal, "_answer", lambda _, record: len(entries.decode(record.body)))
    calls.spy(monkeypatch, Lane, "acknowledge", lambda _, holds: len(holds))

    consumer.settle([(delivery, Done(b"1")) for delivery in by_id.values()])
    consumer.close()

    assert list(zip(calls.names, calls.arguments, strict=True)) == [
        ("write", 200),
        ("_answer", 200),
        ("acknowledge", 200),
    ]


def test_what_ends_while_a_record_is_underway_goes_with_the_next_one(
    world: RabbitWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = world.open()
    consumer, by_id = held(broker, *(job("a") for _ in range(100)))
    calls = Calls()
    calls.spy(monkeypatch, Journal, "write", lambda _, record: len(entries.decode(record.body)))
    is_released = threading.Event()
    consumer._intake.link.post(lambda: is_released.wait(10))  # so that all of them meet there

    for delivery in by_id.values():
        consumer.settle([(delivery, Done(b"1"))])
    is_released.set()
    consumer.close()

    assert calls.of("write") == [1, 99]


def test_long_results_are_split_over_records(world: RabbitWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    broker = world.open()
    consumer, by_id = held(broker, *(job("a") for _ in range(4)))
    calls = Calls()
    calls.spy(monkeypatch, Journal, "write", lambda _, record: len(record.body))

    consumer.settle([(delivery, Done(b"1" * 200_000)) for delivery in by_id.values()])
    consumer.close()

    assert len(calls.of("write")) == 4
    assert max(calls.of("write")) < 210_000
    assert len(of_kind(world, Ended, 4)) == 4


# That it never stands in the way


def test_nothing_is_recorded_without_a_ledger(world: RabbitWorld) -> None:
    world.url += "?ledger=off"
    broker = world.open()
    message = job("a")
    consumer, by_id = held(broker, message)

    consumer.note([(by_id[message.id], Note(Progress(1)))])
    consumer.show(snapshot("host:1"))
    consumer.settle([(by_id[message.id], Done(b"1"))])
    consumer.close()
    broker.purge("a", state="ready")

    world.url = world.url.partition("?")[0]
    assert not broker.capabilities.has_ledger
    assert not world.exists("dibs.ledger")
    assert not world.exists("dibs.control")
    assert is_settled(world)
    for refused in (lambda: broker.pause("a"), lambda: broker.resume("a"), lambda: broker.cancel([message.id])):
        with pytest.raises(LedgerUnavailable, match="ledger=off"):
            refused()


@pytest.mark.parametrize("place", ["stream", "exchange"])
def test_jobs_go_on_and_the_stream_is_made_again_when_it_is_deleted(world: RabbitWorld, place: str) -> None:
    broker = world.open()
    consumer, by_id = held(broker, job("a"))
    of_kind(world, Enqueued)
    with world.channel() as channel:
        if place == "stream":
            channel.queue_delete(world.stored("dibs.ledger"))
        else:
            channel.exchange_delete(world.stored("dibs.ledger"))

    broker.send([job("b")])
    consumer.settle([(delivery, Done(b"1")) for delivery in by_id.values()])
    consumer.close()

    assert len(receive(broker.consume(["b"], limit=2), 2, within=1.0)) == 1
    assert is_settled(world)
    assert {entry.id for entry in of_kind(world, Ended)} == by_id.keys()
    assert [entry.queue for entry in of_kind(world, Enqueued)][-1] == "b"


def test_jobs_go_on_during_an_alarm_and_are_recorded_behind_it(world: RabbitWorld, rabbit_node: Node) -> None:
    broker = world.open()
    consumer, by_id = held(broker, *(job("a") for _ in range(3)))
    first, second, third = by_id.values()

    with rabbit_node.alarm():
        consumer.settle([(first, Done(b"1"))])
        consumer.settle([(second, Done(b"2"))])
        until(lambda: first.receipt.entry is None and second.receipt.entry is None)
        consumer.settle([(third, Done(b"3"))])
        consumer.close()
        assert is_settled(world)

    assert sorted(entry.result or b"" for entry in of_kind(world, Ended, 3)) == [b"1", b"2", b"3"]


def test_what_is_not_confirmed_in_time_is_let_go_of_and_told_once(
    world: RabbitWorld, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(outcomes, "_PATIENCE", 0.2)
    monkeypatch.setattr(Journal, "_on_confirm", lambda *_: None)
    broker = world.open()
    consumer, by_id = held(broker, *(job("a") for _ in range(3)))

    for delivery in by_id.values():
        consumer.settle([(delivery, Done(b"1"))])
    consumer.close()

    assert is_settled(world)
    assert sum("without it" in record.getMessage() for record in caplog.records) == 1
    assert len(of_kind(world, Ended, 3)) == 3  # it was stored; nobody heard


def test_a_record_that_a_lost_connection_left_open_is_sent_again(world: RabbitWorld, rabbit_node: Node) -> None:
    with Proxy(rabbit_node.port) as proxy:
        broker = connect(proxy.url(), namespace=world.namespace)
        world._opened.append(broker)  # type: ignore[arg-type]  # it is one
        broker.send([job("a", b"before")])
        of_kind(world, Enqueued)
        with proxy.silence("to the client"):
            sending = threading.Thread(target=lambda: broker.send([job("a", b"meanwhile")]), name="sender")
            sending.start()
            until(lambda: bool(journal_of(broker)._sent))
            proxy.cut()
        sending.join(20)

        assert {entry.body for entry in of_kind(world, Enqueued, 2)} == {b"before", b"meanwhile"}
        broker.close()


def test_what_is_lost_before_its_record_is_confirmed_is_recorded_once_and_settled_when_it_comes_again(
    world: RabbitWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[Callable[[], None]] = []
    on_confirm = Journal._on_confirm
    monkeypatch.setattr(Journal, "_on_confirm", lambda *given: heard.append(lambda: on_confirm(*given)))
    broker = world.open()
    message = job("a")
    consumer, by_id = held(broker, message)
    consumer.settle([(by_id[message.id], Done(b"1"))])
    until(lambda: len(heard) >= 2)

    break_channel(consumer)
    until(lambda: bool(consumer._intake.holds.expected._others))
    for hear in heard:
        broker._publisher().link.post(hear)  # type: ignore[attr-defined]
    assert receive_nothing(consumer, within=2.5)  # of which one second is the pause before the next channel
    consumer.close()

    assert is_settled(world)
    assert [entry.result for entry in of_kind(world, Ended)] == [b"1"]


def test_records_are_kept_within_bounds_and_what_is_missing_is_counted(
    world: RabbitWorld,
    rabbit_node: Node,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = world.open()
    consumer, by_id = held(broker, *(job("a") for _ in range(20)))
    of_kind(world, Enqueued, 20)
    monkeypatch.setattr(journal, "MOST_BYTES", 10_000)

    with rabbit_node.alarm():
        for delivery in by_id.values():
            consumer.settle([(delivery, Done(b"1" * 1000))])
            until(lambda: delivery.receipt.entry is None)  # noqa: B023 -- it is awaited in this very turn
        assert journal_of(broker)._bytes <= 10_000
        consumer.close()
        assert is_settled(world)

    def lost() -> list[int]:
        return [int(record.args[0]) for record in caplog.records if "takes records again" in record.msg]  # type: ignore[index, arg-type]

    until(lambda: bool(lost()))
    (missing,) = lost()
    assert missing > 0
    assert len(of_kind(world, Ended, 20 - missing)) == 20 - missing


def test_records_that_were_sent_and_never_confirmed_are_kept_within_bounds_too(
    world: RabbitWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outcomes, "_PATIENCE", 0.05)
    monkeypatch.setattr(journal, "MOST_BYTES", 5000)
    monkeypatch.setattr(Journal, "_on_confirm", lambda *_: None)
    broker = world.open()
    consumer, by_id = held(broker, *(job("a") for _ in range(10)))

    for delivery in by_id.values():
        consumer.settle([(delivery, Done(b"1" * 1000))])
        until(lambda: delivery.receipt.entry is None)  # noqa: B023 -- it is awaited in this very turn
    consumer.close()

    assert journal_of(broker)._bytes <= 5000
    assert journal_of(broker)._lost
    assert is_settled(world)


def test_a_record_that_is_too_large_for_the_server_holds_up_no_other(world: RabbitWorld, rabbit_node: Node) -> None:
    with rabbit_node.message_limit(3000):
        broker = world.open()
        consumer, by_id = held(broker, *(job("a") for _ in range(2)))
        large, small = by_id.values()

        consumer.settle([(large, Done(b"1" * 5000))])
        consumer.settle([(small, Done(b"2"))])
        consumer.close()

        assert is_settled(world)
        assert [entry.result for entry in of_kind(world, Ended)] == [b"2"]


def test_a_program_that_ends_at_once_is_in_the_ledger(world: RabbitWorld) -> None:
    code = (
        "import sys\n"
        "from dibs.brokers import connect\n"
        "from dibs.message import Message\n"
        "broker = connect(sys.argv[1], namespace=sys.argv[2])\n"
        "broker.send([Message(body=b'{}', queue='a', id='the-one')])\n"
    )
    world.open().declare([])

    subprocess.run([sys.executable, "-c", code, world.url, world.namespace], check=True, timeout=60)

    assert [entry.id for entry in of_kind(world, Enqueued)] == ["the-one"]
    assert len(receive(world.open().consume(["a"], limit=1), 1)) == 1


def escaped(world: RabbitWorld, *names: str) -> str:
    """Return a pattern of permissions for these names and no others."""
    return "^(" + "|".join(world.stored(name).replace(".", r"\.") for name in names) + ")$"


def test_who_may_not_write_to_the_ledger_goes_on_without_one_with_one_warning(
    world: RabbitWorld, rabbit_node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    world.open().send([job("a")])
    of_kind(world, Enqueued)

    with rabbit_node.user("plain", configure="^$", write=escaped(world, "dibs"), read=escaped(world, "a")) as url:
        broker = connect(url, namespace=world.namespace, may_declare=False)
        consumer, by_id = held(broker, job("a"))
        by_id |= {each.message.id: each for each in receive(consumer, 2 - len(by_id), within=0.2)}
        consumer.settle([(delivery, Done(b"1")) for delivery in by_id.values()])
        consumer.close()
        broker.close()

    assert len(of_kind(world, Enqueued)) == 1
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert sum("All else works" in text for text in warnings) == 1


def test_a_producer_and_a_worker_have_a_ledger_with_the_rights_that_the_guide_names(
    world: RabbitWorld, rabbit_node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    entitled = world.open()
    entitled.send([job("a")])
    entitled.consume(["b"], limit=1).close()
    of_kind(world, Enqueued)
    until(lambda: world.has_exchange("dibs.roll"))
    to_the_ledger = ("dibs", "dibs.ledger")
    message = job("a", b"by the producer")

    with rabbit_node.user("producer", configure="^$", write=escaped(world, *to_the_ledger), read="^$") as url:
        producer = connect(url, namespace=world.namespace, may_declare=False)
        producer.send([message])
        producer.close()
    roll = world.stored(r"dibs\.roll").replace(".", r"\.", 1)
    with rabbit_node.user(
        "worker",
        configure=f"^{roll}\\..*$",
        write=f"^({escaped(world, *to_the_ledger, 'dibs.reply')[2:-2]}|{roll}\\..*)$",
        read=f"^({escaped(world, 'a', 'dibs.control', 'dibs.roll')[2:-2]}|{roll}\\..*)$",
    ) as url:
        broker = connect(url, namespace=world.namespace, may_declare=False)
        consumer = broker.consume(["a"], limit=2)
        got = receive(consumer, 2)
        consumer.settle([(delivery, Done(b"1")) for delivery in got])
        consumer.close()
        broker.close()

    assert {entry.id for entry in of_kind(world, Ended, 2)} == {delivery.message.id for delivery in got}
    assert message.id in {entry.id for entry in of_kind(world, Enqueued, 2)}
    assert not [record for record in caplog.records if "All else works" in record.getMessage()]


def test_an_operator_can_ask_and_steer_with_the_rights_that_the_guide_names(
    world: RabbitWorld, rabbit_node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    entitled = world.open()
    consumer = entitled.consume(["a"], limit=1)
    consumer.show(snapshot("host:1"))
    message = job("a", task="shop.pay")
    entitled.send([message])
    of_kind(world, Enqueued)
    dibs, queues = world.stored("dibs").replace(".", r"\."), world.stored("a").replace(".", r"\.")

    with rabbit_node.user(
        "operator",
        configure=f"^{dibs}\\.(walk|reply|roll).*$",
        write=f"^{dibs}(\\.ledger|\\.control|\\.roll|\\.reply.*)?$",
        read=f"^({queues}(\\.dead)?|{dibs}\\.(dead|ledger|control|reply.*))$",
    ) as url:
        operator = connect(url, namespace=world.namespace)
        operator.pause("b")
        operator.cancel(["nobodys"])
        until(lambda: [each.worker for each in operator.ledger.workers()] == ["host:1"])
        until(lambda: operator.ledger.job(message.id) is not None)
        assert [info.name for info in operator.queues(["a"]) if info.name == "a"] == ["a"]
        operator.close()

    assert {entry.queue for entry in of_kind(world, Pause, stream="dibs.control")} == {"b"}
    assert not [record for record in caplog.records if "All else works" in record.getMessage()]


# Who waits, who asks


def test_whoever_waits_is_told_with_one_message_for_each_batch(world: RabbitWorld) -> None:
    broker = world.open()
    reply = world.stored("dibs.reply.one")
    with world.channel() as channel:
        channel.exchange_declare(world.stored("dibs.reply"), "direct", durable=True)
        channel.queue_declare(reply, exclusive=True)
        channel.queue_bind(reply, world.stored("dibs.reply"), reply)
        broker.reply_queue = reply  # type: ignore[attr-defined]
        waited, cancelled, strange = job("a"), job("a"), job("a", properties={"reply_to": "somebody's"})
        consumer, by_id = held(broker, waited, cancelled, strange)
        assert by_id[strange.id].message.properties["reply_to"] == "somebody's"

        consumer.settle(
            [
                (by_id[waited.id], Done(b"1")),
                (by_id[cancelled.id], Cancelled()),
                (by_id[strange.id], Done(b"3")),
            ]
        )

        told: list[bytes] = []

        def is_told() -> bool:
            told.append(channel.basic_get(reply, auto_ack=True)[2] or b"")
            return told[-1] != b""

        until(is_told)
        ended = [entry for entry in entries.decode(told[-1]) if isinstance(entry, Ended)]
        assert {entry.id for entry in ended} == {waited.id, cancelled.id}
        assert channel.basic_get(reply)[0] is None
    consumer.close()


def test_a_retry_is_told_to_nobody_and_keeps_who_waits(world: RabbitWorld) -> None:
    broker = world.open()
    broker.reply_queue = world.stored("dibs.reply.one")  # type: ignore[attr-defined]
    message = job("a")
    consumer, by_id = held(broker, message)

    consumer.settle([(by_id[message.id], RetryIn(0.0, by_id[message.id].message.after_failure("boom")))])

    (again,) = receive(consumer, 1)
    assert again.message.properties["reply_to"] == world.stored("dibs.reply.one")


def test_a_worker_that_is_asked_answers_with_what_it_last_said(world: RabbitWorld) -> None:
    broker = world.open()
    consumer = broker.consume(["a"], limit=1)
    consumer.show(snapshot("host:1"))
    consumer.show(snapshot("host:2"))
    reply = world.stored("dibs.reply.one")
    with world.channel() as channel:
        channel.exchange_declare(world.stored("dibs.reply"), "direct", durable=True)
        channel.queue_declare(reply, exclusive=True)
        channel.queue_bind(reply, world.stored("dibs.reply"), reply)
        properties = pika.BasicProperties(reply_to=reply, correlation_id="7")  # type: ignore[no-untyped-call]  # pika's
        answers: list[Any] = []

        def is_answered() -> bool:
            channel.basic_publish(world.stored("dibs.roll"), "", b"", properties)
            answers.append(channel.basic_get(reply, auto_ack=True))
            return answers[-1][0] is not None

        until(is_answered)

        assert answers[-1][1].correlation_id == "7"
        assert b'"host:2"' in answers[-1][2]


# Orders


def test_a_job_that_is_handed_over_after_a_cancel_of_its_id_is_not_meant(world: RabbitWorld) -> None:
    broker = world.open()
    broker.cancel(["mine"])
    consumer, by_id = held(
        broker, job("a", id="mine", enqueued=now_ms() + 5000), job("a", id="other", enqueued=now_ms())
    )

    assert broker.cancel(["other"]) == {"other": "requested"}

    until(lambda: bool(consumer.receive(0) or consumer.cancelled()))
    assert [delivery.message.id for delivery in consumer.cancelled()] == ["other"]
    assert by_id.keys() == {"mine", "other"}


def test_orders_are_heeded_though_their_stream_was_deleted_under_a_consumer(
    world: RabbitWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = world.open()
    broker.pause("b")
    consumer = broker.consume(["a"], limit=1)
    assert receive_nothing(consumer, within=0.1)
    with world.channel() as channel:
        channel.queue_delete(world.stored("dibs.control"))

    broker.pause("a")

    def is_heeded() -> bool:
        broker.send([job("a")])
        return receive_nothing(consumer)

    until(is_heeded)
    assert [entry.queue for entry in of_kind(world, Pause, stream="dibs.control")] == ["a"]


def test_cancels_are_stored_as_they_were_asked_for(world: RabbitWorld) -> None:
    world.open().cancel(["one", "two"])

    (cancel,) = of_kind(world, Cancel, stream="dibs.control")
    assert cancel.ids == ["one", "two"]
    assert abs(cancel.at - now_ms()) < 60_000


def test_who_may_not_order_anything_is_told_so(world: RabbitWorld, rabbit_node: Node) -> None:
    world.open().pause("a")

    with rabbit_node.user("reader", configure="^$", write="^$", read=".*") as url:
        broker = connect(url, namespace=world.namespace)
        with pytest.raises(LedgerUnavailable, match=r"dibs\.control"):
            broker.pause("a")
        broker.close()


@pytest.mark.parametrize(
    "query", ["ledger=on", "ledger_age=7", "ledger_age=7y", "ledger_age=0d", "ledger_bytes=5G", "ledger_bytes=10"]
)
def test_options_of_the_ledger_that_make_no_sense_are_refused(query: str) -> None:
    with pytest.raises(BadURL, match="ledger"):
        connect(f"amqp://localhost/?{query}")


def test_the_limits_of_the_url_are_those_of_the_stream(world: RabbitWorld) -> None:
    world.url += "?ledger_age=12h&ledger_bytes=8000000"
    world.open().send([job("a")])
    world.url = world.url.partition("?")[0]
    of_kind(world, Enqueued)

    with world.channel() as channel:
        channel.queue_declare(  # refused unless all of it is as here
            world.stored("dibs.ledger"),
            durable=True,
            arguments={
                "x-queue-type": "stream",
                "x-max-age": "12h",
                "x-max-length-bytes": 8_000_000,
                "x-stream-max-segment-size-bytes": 2_000_000,
            },
        )


def test_outcomes_that_follow_each_other_share_records_and_what_the_server_waits_for_is_not_held_up(
    world: RabbitWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outcomes, "_SPACING", 3600.0)
    broker = world.open()
    consumer, by_id = held(broker, *(job("a") for _ in range(100)))
    calls = Calls()
    calls.spy(monkeypatch, Journal, "write", lambda _, record: len(entries.decode(record.body)))
    deliveries = list(by_id.values())

    consumer.settle([(deliveries[0], Done())])  # the first one goes at once
    until(lambda: deliveries[0].receipt.entry is None)
    for delivery in deliveries[1:26]:
        consumer.settle([(delivery, Done())])
    until(lambda: deliveries[25].receipt.entry is None)  # a quarter has ended: the server waits for them
    consumer.settle([(deliveries[26], Done())])
    consumer.close()

    assert calls.of("write") == [1, 25, 1]


def test_what_is_over_and_not_yet_recorded_makes_nobody_ask_for_more_than_there_is_room_for(
    world: RabbitWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Journal, "_on_confirm", lambda *_: None)
    broker = world.open()
    broker.send([job("a") for _ in range(20)])
    consumer = broker.consume(["a"], limit=10)
    assert isinstance(consumer, RabbitConsumer)
    got = receive(consumer, 2, limit=2)

    consumer.settle([(delivery, Done()) for delivery in got])
    consumer.receive(2)

    until(lambda: all(delivery.receipt.is_over for delivery in got))
    consumer._intake.link.run(_nothing, 10, "waiting for what was asked")
    assert consumer._intake.capacity == 2


async def _nothing(_connection: Connection) -> None:
    """Stand behind what was posted before."""
