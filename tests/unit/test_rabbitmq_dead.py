"""The dead letters of RabbitMQ: many of them, strangers' ones, several that look, and walkers that are killed."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pika
import pytest

from dibs.broker import Broker, Queue
from dibs.brokers import connect
from dibs.brokers.rabbitmq.topology import Names
from dibs.brokers.rabbitmq.walk import Walk
from dibs.errors import BrokerBusy
from dibs.outcome import Dead
from dibs.selection import EVERY, Selection
from dibs.url import parse
from tests.rabbit_node import Node
from tests.waiting import receive, until
from tests.worlds_rabbitmq import RabbitWorld
from tests.worlds_sqlite import Process

MANY = 10_000


@pytest.fixture
def world(rabbit_node: Node) -> Iterator[RabbitWorld]:
    """A namespace of its own."""
    world = RabbitWorld(rabbit_node)
    yield world
    world.close()


def lay(world: RabbitWorld, count: int) -> list[str]:
    """Put so many dead letters into queue "a" as another client would, and return their ids."""
    ids = [f"{number:05}" for number in range(count)]
    with world.channel() as channel:
        for number, job_id in enumerate(ids):
            reason = "crashed" if number % 2 else "failed"
            properties = pika.BasicProperties(  # type: ignore[no-untyped-call]  # pika's
                message_id=job_id, delivery_mode=2, headers={"dibs-reason": reason, "dibs-error": "boom"}
            )
            channel.basic_publish("", world.stored("a.dead"), b"x" * 100, properties)
        until(lambda: channel.queue_declare(world.stored("a.dead"), passive=True).method.message_count == count)
    return ids


def seen(broker: Broker, selection: Selection = EVERY) -> list[str]:
    """Return the ids of all dead letters that are meant."""
    return [letter.message.id for letter in broker.each_dead("a", selection)]


def open_empty(world: RabbitWorld) -> Broker:
    """Return a handle, with the queue "a" made."""
    broker = world.open()
    broker.declare([Queue(name="a")])
    return broker


def test_ten_thousand_are_listed_replayed_and_dropped_by_the_letter(world: RabbitWorld) -> None:
    broker = open_empty(world)
    ids = lay(world, MANY)

    assert seen(broker) == seen(broker) == ids
    assert [letter.message.id for letter in broker.dead("a", limit=3, after=ids[7000])] == ids[7001:7004]
    assert seen(broker) == ids
    assert broker.drop("a", Selection(reason="crashed")) == MANY // 2
    assert sorted(seen(broker)) == ids[::2]  # each window's letters in order, but not the windows
    some = frozenset(ids[::20])
    assert broker.replay("a", Selection(ids=some)) == len(some)
    assert sorted(seen(broker)) == [job_id for job_id in ids[::2] if job_id not in some]
    assert {delivery.message.id for delivery in receive(broker.consume(["a"], limit=500), len(some))} == some


@pytest.mark.parametrize("count", [50, 2600, MANY - 1])
def test_a_walker_that_is_killed_loses_nothing(world: RabbitWorld, count: int) -> None:
    broker = open_empty(world)
    ids = lay(world, MANY)
    script = (
        f"broker = connect({world.url!r}, namespace={world.namespace!r})\n"
        "letters = broker.each_dead('a')\n"
        f"taken = [next(letters) for _ in range({count})]\n"
        "say('there')\n"
        "sys.stdin.read()\n"
    )

    with Process("memory://", script) as walker:
        assert walker.heard() == "there"
        walker.kill()

    assert seen(broker) == ids


@pytest.mark.parametrize("verb", ["replay", "drop"])
@pytest.mark.parametrize("moment", ["before", "behind"])
def test_one_that_is_killed_while_it_changes_loses_nothing(world: RabbitWorld, verb: str, moment: str) -> None:
    broker = open_empty(world)
    ids = lay(world, 3000)
    script = (
        "from dibs.brokers.rabbitmq.walk import Walk\n"
        "from dibs.selection import Selection\n"
        f"broker = connect({world.url!r}, namespace={world.namespace!r})\n"
        "delete, count = Walk.delete, []\n"
        "def deadly(self, holds):\n"
        "    count.append(1)\n"
        f"    if len(count) < 3 or {moment!r} == 'behind':\n"
        "        delete(self, holds)\n"
        "    if len(count) == 3:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "Walk.delete = deadly\n"
        f"broker.{verb}('a', Selection(reason='failed'))\n"
    )

    with Process("memory://", script) as walker:
        assert walker.heard() == ""  # it is dead

    dead = seen(broker)
    ready = [delivery.message.id for delivery in receive(broker.consume(["a"], limit=3000), 3000, within=1.0)]
    assert len(set(dead)) == len(dead)
    assert set(ids[1::2]) <= set(dead)
    if verb == "replay":
        assert set(ready) | set(dead) == set(ids)  # some may be both: P6
        assert ready
    assert broker.replay("a") == len(dead)


def test_two_who_look_at_once_both_see_all(world: RabbitWorld) -> None:
    broker = open_empty(world)
    ids = lay(world, 2000)
    lists: list[list[str]] = []
    threads = [threading.Thread(target=lambda: lists.append(seen(broker)), name="looker") for _ in range(3)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert lists == [ids] * 3


def test_who_waits_too_long_for_another_one_is_told(world: RabbitWorld) -> None:
    broker, impatient = open_empty(world), world.open(handover_timeout=0.3)
    ids = lay(world, 3)

    letters = broker.each_dead("a")
    next(letters)
    with pytest.raises(BrokerBusy, match="looking at the dead letters of 'a'"):
        impatient.dead("a", limit=1)
    letters.close()

    assert seen(impatient) == ids


def test_an_operator_without_the_right_to_declare_can_look_and_replay(world: RabbitWorld, rabbit_node: Node) -> None:
    open_empty(world)
    ids = lay(world, 3)
    exchange = f"^{world.stored('dibs')}$".replace(".", r"\.")

    with rabbit_node.user("operator", configure="^$", write=exchange, read=".*") as url:
        operator = connect(url, namespace=world.namespace)
        try:
            assert seen(operator) == ids
        finally:
            operator.close()


def test_strangers_letters_are_listed_and_can_be_named_whatever_is_in_them(world: RabbitWorld) -> None:
    broker = open_empty(world)
    headers = {"deep": {"list": [1, None, {"x": True}]}, "dibs-attempt": "many", "dibs-reason": 7}
    with world.channel() as channel:
        for body, properties in (
            (b"same", None),
            (b"same", None),
            (b"\xff", pika.BasicProperties(headers=headers, user_id="guest")),  # type: ignore[no-untyped-call]
        ):
            channel.basic_publish("", world.stored("a.dead"), body, properties)
        until(lambda: channel.queue_declare(world.stored("a.dead"), passive=True).method.message_count == 3)

    first, second = list(broker.each_dead("a")), list(broker.each_dead("a"))

    assert first == second  # their ids too, though they came without
    assert len({letter.message.id for letter in first}) == 3
    assert [letter.message.body for letter in first] == [b"same", b"same", b"\xff"]
    assert (first[2].message.headers, first[2].message.properties) == (headers, {"user_id": "guest"})
    assert {(letter.reason, letter.died, letter.worker) for letter in first} == {("", None, None)}
    assert broker.drop("a", Selection(ids=frozenset({first[0].message.id}))) == 1
    assert broker.replay("a", Selection(reason="")) == 2
    assert sorted(d.message.body for d in receive(broker.consume(["a"], limit=2), 2)) == [b"same", b"\xff"]


def test_an_id_that_is_there_twice_is_paged_through_without_end_and_replayed_once(world: RabbitWorld) -> None:
    broker = open_empty(world)
    with world.channel() as channel:
        for job_id in ("one", "two", "one", "three"):
            properties = pika.BasicProperties(message_id=job_id)  # type: ignore[no-untyped-call]  # pika's
            channel.basic_publish("", world.stored("a.dead"), b"x", properties)
        until(lambda: channel.queue_declare(world.stored("a.dead"), passive=True).method.message_count == 4)

    pages: list[str] = []
    while page := broker.dead("a", limit=1, after=pages[-1] if pages else None):
        pages += [letter.message.id for letter in page]

    assert pages == ["one", "two", "three"]
    assert seen(broker) == ["one", "two", "one", "three"]
    assert broker.replay("a") == 3
    assert seen(broker) == ["one"]


def test_a_replay_restores_what_the_sender_had_set_and_nothing_of_the_history(world: RabbitWorld) -> None:
    broker = open_empty(world)
    broker.declare([Queue(name="copies")])
    properties = pika.BasicProperties(  # type: ignore[no-untyped-call]  # pika's
        message_id="one", expiration="100000", user_id="guest", headers={"CC": [world.stored("copies")], "mine": 1}
    )
    with world.channel() as channel:
        channel.basic_publish(world.stored("dibs"), world.stored("a"), b"x", properties)
    consumer = broker.consume(["a"], limit=1)
    (delivery,) = receive(consumer, 1)
    consumer.settle([(delivery, Dead("failed", "boom"))])
    consumer.close()
    until(lambda: bool(broker.dead("a", limit=1)))

    assert broker.replay("a") == 1

    with world.channel() as channel:
        until(lambda: channel.queue_declare(world.stored("a"), passive=True).method.message_count == 1)
        _, raw, _ = channel.basic_get(world.stored("a"))
    assert raw is not None
    assert raw.headers is not None
    assert raw.headers.keys() - {"x-delivery-count"} == {"mine", "dibs-put", "dibs-original"}
    assert (raw.expiration, raw.user_id) == (None, None)  # they would act again
    (again,) = receive(broker.consume(["a"], limit=1), 1)
    assert again.message.headers == {"CC": [world.stored("copies")], "mine": 1}
    assert again.message.properties == {"expiration": "100000", "user_id": "guest"}
    assert (again.message.attempt, again.message.crashes, again.message.error) == (1, 0, None)
    assert len(receive(broker.consume(["copies"], limit=5), 5, within=0.5)) == 1


def test_nothing_that_the_dead_lie_in_drops_any(world: RabbitWorld, rabbit_node: Node) -> None:
    open_empty(world)

    listed = rabbit_node.ctl("list_queues", "--silent", "name", "type", "durable", "arguments")

    (line,) = [line for line in listed.splitlines() if line.startswith(f"{world.stored('a.dead')}\t")]
    assert "\tquorum\ttrue\t" in line.replace("rabbit_quorum_queue", "quorum")
    assert '{"x-delivery-limit",2147483647}' in line
    assert not any(word in line for word in ("ttl", "max-length", "expires", "overflow", "x-dead-letter"))


def test_a_walk_holds_few_of_large_letters(world: RabbitWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dibs.brokers.rabbitmq.walk._WINDOW_BYTES", 20 * 200)
    broker = open_empty(world)
    ids = lay(world, 400)

    with Walk("a", Names(world.namespace), parse(world.url), deletes=False, may_declare=True, timeout=20.0) as walk:
        sizes = [len(batch) for batch in walk.batches()]

    assert max(sizes[1:]) <= 40
    assert sum(sizes) == 400
    assert seen(broker) == ids
