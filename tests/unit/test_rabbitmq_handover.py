"""Handing over to RabbitMQ: routing, confirms, refusals and limits."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from dibs.broker import Queue
from dibs.brokers import connect
from dibs.brokers.rabbitmq import RabbitBroker
from dibs.brokers.rabbitmq.channel import Channel
from dibs.brokers.rabbitmq.consumer import RabbitConsumer
from dibs.errors import (
    AccessRefused,
    BadName,
    BadOption,
    BadURL,
    BrokerBusy,
    BrokerError,
    BrokerUnavailable,
    DibsError,
    HandoverUncertain,
    MessageTooLarge,
)
from dibs.message import new_id
from dibs.outcome import Dead, Done, RetryIn
from tests.proxy import Proxy
from tests.rabbit_node import Node
from tests.waiting import job, receive, until
from tests.worlds_rabbitmq import RabbitWorld


@pytest.fixture
def world(rabbit_node: Node) -> Iterator[RabbitWorld]:
    """A namespace of its own."""
    world = RabbitWorld(rabbit_node)
    yield world
    world.close()


def test_a_message_whose_queue_was_deleted_makes_it_again(world: RabbitWorld) -> None:
    broker = world.open()
    broker.send([job("a", b"before")])
    with world.channel() as channel:
        channel.queue_delete(world.stored("a"))

    broker.send([job("a", b"after")])

    (delivery,) = receive(broker.consume(["a"], limit=1), 1)
    assert delivery.message.body == b"after"


def test_a_message_is_sent_though_the_exchange_was_deleted(world: RabbitWorld) -> None:
    broker = world.open()
    broker.send([job("a", b"before")])
    with world.channel() as channel:
        channel.exchange_delete(world.stored("dibs"))

    broker.send([job("a", b"after")])

    got = receive(broker.consume(["a"], limit=2), 2)
    assert b"after" in {delivery.message.body for delivery in got}


def test_a_thousand_messages_are_written_in_a_few_pieces(world: RabbitWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    broker = world.open()
    broker.send([job("a")])
    writes: list[int] = []
    publish = Channel.publish

    def counted(channel: Channel, letters: Any, behind: bytes = b"") -> None:
        writes.append(len(letters))
        publish(channel, letters, behind)

    monkeypatch.setattr(Channel, "publish", counted)

    broker.send([job("a") for _ in range(1000)])

    assert writes == [1000]


def test_a_batch_larger_than_the_window_is_stored_whole(world: RabbitWorld) -> None:
    broker = world.open()

    broker.send([job("a") for _ in range(5000)])

    until(lambda: broker.queues()[0].ready == 5000)


def test_a_queue_of_strangers_is_used_as_it_is_with_a_warning(
    world: RabbitWorld, caplog: pytest.LogCaptureFixture
) -> None:
    broker = world.open()
    with world.channel() as channel:
        channel.queue_declare(world.stored("task_queue"), durable=True)

    broker.send([job("task_queue", b"1"), job("task_queue", b"2")])

    got = receive(broker.consume(["task_queue"], limit=2), 2)
    assert {delivery.message.body for delivery in got} == {b"1", b"2"}
    warnings = [record.getMessage() for record in caplog.records if "another form" in record.getMessage()]
    assert "x-queue-type" in warnings[0]


def test_a_classic_queue_is_declared_as_strangers_declare_it(world: RabbitWorld) -> None:
    broker = world.open()
    broker.declare([Queue(name="task_queue", type="classic")])

    with world.channel() as channel:
        channel.queue_declare(world.stored("task_queue"), durable=True)
        channel.basic_publish("", world.stored("task_queue"), b"Pune....")

    (delivery,) = receive(broker.consume(["task_queue"], limit=1), 1)
    assert (delivery.message.text, delivery.message.task) == ("Pune....", None)


def test_a_stream_is_refused(world: RabbitWorld) -> None:
    with world.channel() as channel:
        channel.queue_declare(world.stored("log"), durable=True, arguments={"x-queue-type": "stream"})

    with pytest.raises(BrokerError, match="stream"):
        world.open().send([job("log")])


def test_who_may_not_declare_is_told_that_the_queue_is_missing(world: RabbitWorld) -> None:
    world.open().send([job("there")])
    broker = world.open(may_declare=False)

    broker.send([job("there")])

    with pytest.raises(BrokerError, match=r"missing.*may not make"):
        broker.send([job("missing")])


def test_a_missing_permission_is_named(world: RabbitWorld, rabbit_node: Node) -> None:
    world.open().send([job("a")])

    with rabbit_node.user("reader", configure="^$", write="^$", read=".*") as url:
        declaring = connect(url, namespace=world.namespace)
        with pytest.raises(AccessRefused, match="access to queue"):
            declaring.send([job("a")])
        declaring.close()
        publishing = connect(url, namespace=world.namespace, may_declare=False)
        with pytest.raises(AccessRefused, match="access to exchange"):
            publishing.send([job("a")])
        publishing.close()


def test_a_producer_needs_no_right_but_to_write_to_the_exchange(world: RabbitWorld, rabbit_node: Node) -> None:
    broker = world.open()
    broker.send([job("a")])
    exchange = world.stored("dibs").replace(".", r"\.")

    with rabbit_node.user("producer", configure="^$", write=f"^{exchange}$", read="^$") as url:
        producer = connect(url, namespace=world.namespace, may_declare=False)
        producer.send([job("a")])
        producer.close()

    assert len(receive(broker.consume(["a"], limit=2), 2)) == 2


@pytest.mark.parametrize("login", ["guest:wrong@{host}/", "nobody:guest@{host}/", "guest:guest@{host}/no-such-host"])
def test_a_refused_login_is_told_at_once(rabbit_node: Node, login: str) -> None:
    broker = connect("amqp://" + login.format(host=f"127.0.0.1:{rabbit_node.port}"), handover_timeout=60.0)

    with pytest.raises(AccessRefused) as caught:
        broker.send([job("a")])
    with pytest.raises(AccessRefused):
        broker.send([job("a")])
    with pytest.raises(AccessRefused):
        broker.consume(["a"], limit=1)

    assert "wrong@" not in str(caught.value)
    broker.close()


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("amqp://guest:secret@127.0.0.1:1/", "refused"),
        ("amqp://guest:secret@no-such-host.invalid/", "can't be reached"),
        ("amqps://guest:secret@127.0.0.1:{port}/", "can't be reached"),
    ],
)
def test_an_unreachable_server_is_told_with_the_reason(rabbit_node: Node, place: str, reason: str) -> None:
    broker = connect(place.format(port=rabbit_node.port), handover_timeout=0.5)

    with pytest.raises(BrokerUnavailable, match=reason) as caught:
        broker.send([job("a")])
    with pytest.raises(BrokerUnavailable, match=reason):
        broker.send([job("a")])

    assert "secret" not in str(caught.value)
    broker.close()


def test_any_host_that_answers_will_do(world: RabbitWorld, rabbit_node: Node) -> None:
    url = f"amqp://guest:guest@127.0.0.1:1,127.0.0.1:{rabbit_node.port}/"

    for _ in range(4):  # the hosts are shuffled
        broker = connect(url, namespace=world.namespace)
        broker.send([job("a")])
        broker.close()


def test_too_large_is_told_before_anything_is_sent(world: RabbitWorld) -> None:
    broker = world.open()
    limit = broker.capabilities.body_bytes

    with pytest.raises(MessageTooLarge, match="large-one"):
        broker.send([job("a"), job("a", bytes(limit + 1), id="large-one")])
    with pytest.raises(MessageTooLarge, match="headers"):
        broker.send([job("a"), job("a", headers={"x": "y" * 70_000})])

    broker.send([job("a")])
    assert [queue.ready for queue in broker.queues()] == [1]


def test_a_lower_limit_of_the_server_is_told_and_spares_the_others(world: RabbitWorld, rabbit_node: Node) -> None:
    broker = world.open()
    broker.send([job("a")])
    with rabbit_node.message_limit(1000):
        lowered = world.open()
        with pytest.raises(MessageTooLarge):
            lowered.send([job("a", bytes(2000))])
        lowered.send([job("a", bytes(500))])

    assert len(receive(broker.consume(["a"], limit=2), 2)) == 2


def test_a_full_queue_is_tried_again_until_there_is_room(world: RabbitWorld) -> None:
    arguments = {"x-queue-type": "quorum", "x-max-length": 1, "x-overflow": "reject-publish"}
    with world.channel() as channel:
        channel.queue_declare(world.stored("small"), durable=True, arguments=arguments)
    impatient, patient = world.open(handover_timeout=1.5), world.open(handover_timeout=20.0)

    with pytest.raises((BrokerBusy, HandoverUncertain)):
        for _ in range(10):
            impatient.send([job("small")])
    consumer = impatient.consume(["small"], limit=10)
    waiting = threading.Thread(target=patient.send, args=([job("small", b"last")],), name="patient")
    waiting.start()
    bodies: set[bytes] = set()
    while b"last" not in bodies:
        (delivery,) = receive(consumer, 1)
        bodies.add(delivery.message.body)
        consumer.settle([(delivery, Done())])

    waiting.join(10)
    assert not waiting.is_alive()


def test_an_alarm_blocks_producers_and_not_consumers(world: RabbitWorld, rabbit_node: Node) -> None:
    broker = world.open(handover_timeout=1.0)
    broker.send([job("a", b"before")])
    consumer = broker.consume(["a"], limit=2)

    with rabbit_node.alarm():
        with pytest.raises(HandoverUncertain) as caught:
            broker.send([job("a", b"first", id="first")])  # only now does the server say that it is blocked
        with pytest.raises(BrokerBusy, match="memory"):
            broker.send([job("a", b"second")])
        (delivery,) = receive(consumer, 1)
        consumer.settle([(delivery, Done())])

    assert caught.value.ids == ("first",)
    assert delivery.message.body == b"before"
    broker.send([job("a", b"third")])
    got = receive(consumer, 2)
    assert {delivery.message.body for delivery in got} == {b"first", b"third"}


def test_closing_ends_a_handover_that_waits(world: RabbitWorld, rabbit_node: Node) -> None:
    broker = world.open(handover_timeout=60.0)
    broker.send([job("a")])
    caught: list[BrokerError] = []

    def send() -> None:
        try:
            broker.send([job("a")])
        except BrokerError as error:
            caught.append(error)

    with rabbit_node.alarm():
        sending = threading.Thread(target=send, name="sender")
        sending.start()
        assert isinstance(broker, RabbitBroker)
        publisher = broker._publisher()
        until(lambda: bool(publisher._awaited))
        broker.close()
        sending.join(10)

    assert isinstance(caught[0], HandoverUncertain)


def test_a_delay_beyond_the_levels_is_refused(world: RabbitWorld) -> None:
    with pytest.raises(BadOption, match="777"):
        world.open().send([job("a", delay=800 * 86400.0)])


def test_a_delayed_job_whose_queue_is_gone_is_kept(world: RabbitWorld) -> None:
    broker = world.open()
    broker.send([job("eu.mail", b"kept", delay=0.5)])
    with world.channel() as channel:
        channel.queue_delete(world.stored("eu.mail"))

    until(lambda: bool(broker.dead("dibs", limit=1)))

    (letter,) = broker.dead("dibs", limit=5)
    until(lambda: ("dibs", 1) in [(queue.name, queue.dead) for queue in broker.queues()])
    assert (letter.message.body, letter.message.queue) == (b"kept", "eu.mail")
    assert broker.replay("dibs") == 1
    (delivery,) = receive(broker.consume(["eu.mail"], limit=1), 1)
    assert delivery.message.body == b"kept"


def test_a_delayed_job_for_a_dotted_queue_misses_the_queue_named_like_its_last_word(world: RabbitWorld) -> None:
    broker = world.open(namespace="")
    last, dotted = world.namespace, f"eu.{world.namespace}"
    broker.send([job(last, delay=0.2), job(dotted, delay=0.2)])

    until(lambda: sum(queue.ready for queue in broker.queues()) >= 2)

    assert {queue.name: queue.ready for queue in broker.queues()} == {last: 1, dotted: 1}
    with world.channel() as channel:
        for name in (last, dotted, f"{last}.dead", f"{dotted}.dead"):
            channel.queue_delete(name)


def test_a_name_that_leaves_no_room_for_the_levels_is_refused(world: RabbitWorld) -> None:
    with pytest.raises(BadName, match="namespace"):
        world.open(namespace="n" * 30).send([job("q" * 180)])


@pytest.mark.parametrize("query", ["nonsense=1", "heartbeat=soon", "cacert=/x"])
def test_a_wrong_option_is_refused_before_anything_is_opened(query: str) -> None:
    with pytest.raises(BadURL):
        connect(f"amqp://guest:secret@127.0.0.1:1/?{query}")


def test_a_forked_child_has_a_connection_of_its_own(world: RabbitWorld) -> None:
    broker = world.open()
    consumer = broker.consume(["a"], limit=4)
    broker.send([job("a", b"parent")])

    child = os.fork()
    if child == 0:
        code = 1
        with contextlib.suppress(BaseException):
            try:
                consumer.receive(1)
            except DibsError:
                broker.send([job("a", b"child")])
                broker.close()
                code = 0
        os._exit(code)
    _, status = os.waitpid(child, 0)
    broker.send([job("a", b"parent again")])

    assert os.waitstatus_to_exitcode(status) == 0
    got = receive(consumer, 3)
    assert {delivery.message.body for delivery in got} == {b"parent", b"child", b"parent again"}
    consumer.settle([(delivery, Done()) for delivery in got])


def test_what_was_sent_and_never_answered_for_is_in_doubt(world: RabbitWorld, rabbit_node: Node) -> None:
    broker = world.open(handover_timeout=2.0)
    broker.send([job("a")])
    caught: list[BrokerError] = []

    def send() -> None:
        try:
            broker.send([job("a", id="one"), job("a", id="two")])
        except BrokerError as error:
            caught.append(error)

    rabbit_node.freeze()  # so that it takes the bytes and never answers
    sending = threading.Thread(target=send, name="sender")
    sending.start()
    assert isinstance(broker, RabbitBroker)
    publisher = broker._publisher()
    until(lambda: bool(publisher._awaited))
    rabbit_node.kill()
    sending.join(20)
    rabbit_node.start()

    (error,) = caught
    assert isinstance(error, HandoverUncertain)
    assert error.ids == ("one", "two")


def test_a_connection_that_is_cut_again_and_again_is_told_once(
    rabbit_node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    with Proxy(rabbit_node.port) as proxy:
        broker = connect(proxy.url(), namespace=new_id())
        broker.send([job("a")])
        for _ in range(5):
            until(lambda: proxy.connections > 0)
            proxy.cut()
        broker.send([job("a")])
        broker.close()

    assert [record.levelname for record in caplog.records if record.name == "dibs.rabbitmq"] == ["WARNING"]


def test_closing_takes_seconds_where_packets_vanish(rabbit_node: Node, caplog: pytest.LogCaptureFixture) -> None:
    with Proxy(rabbit_node.port) as proxy:
        established = connect(proxy.url(), namespace=new_id())
        established.send([job("a")])
        with proxy.silence():
            connecting = connect(proxy.url(), handover_timeout=0.5)
            with pytest.raises(BrokerUnavailable):
                connecting.send([job("a")])

            for broker in (established, connecting):
                broker.close()

            assert "dibs-rabbitmq-publisher" not in {thread.name for thread in threading.enumerate()}
    assert not caplog.records


def test_an_outcome_that_is_too_large_for_the_server_holds_up_no_other(
    world: RabbitWorld, rabbit_node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    broker = world.open()
    broker.send([job("a", bytes(2000), id="large"), job("a", b"{}", id="small")])
    consumer = broker.consume(["a"], limit=3)
    held = {delivery.message.id: delivery for delivery in receive(consumer, 2)}

    rabbit_node.ctl("eval", "application:set_env(rabbit, max_message_size, 1000).")
    try:
        renewed = world.open()  # the limit is that of channels opened after it was set
        assert isinstance(renewed, RabbitBroker)
        assert isinstance(consumer, RabbitConsumer)
        consumer._intake.holds.records._publisher = renewed._publisher
        consumer.settle([(held["large"], RetryIn(0.0, held["large"].message))])
        until(lambda: "can't be stored" in caplog.text)
        consumer.settle([(held["small"], RetryIn(0.0, held["small"].message))])
        (small,) = receive(consumer, 1)
        consumer.settle([(small, Dead("failed", "boom"))])
        until(lambda: len(broker.dead("a", limit=2)) == 1)
        consumer.close()  # does not wait for what is refused for good
    finally:
        rabbit_node.ctl("eval", "application:set_env(rabbit, max_message_size, 134217728).")

    (large,) = receive(broker.consume(["a"], limit=2), 2, within=1.0)
    assert large.message.id == "large"
    assert caplog.text.count("can't be stored") < 4


def test_a_dead_letter_without_a_place_holds_up_no_other_outcome(
    world: RabbitWorld, rabbit_node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    world.open().send([job("a", id="dead"), job("a", id="retried")])
    with rabbit_node.user("worker", configure=".*", write=".*", read=".*") as url:
        broker = connect(url, namespace=world.namespace)
        consumer = broker.consume(["a"], limit=2)
        held = {delivery.message.id: delivery for delivery in receive(consumer, 2)}
        with world.channel() as channel:
            channel.queue_delete(world.stored("a.dead"))
        rabbit_node.ctl("set_permissions", "worker", r"^(?!.*\.a\.dead$)", ".*", ".*")

        consumer.settle([(held["dead"], Dead("failed", "boom"))])
        until(lambda: "can't be stored" in caplog.text)
        consumer.settle([(held["retried"], RetryIn(0.0, held["retried"].message))])
        (retried,) = receive(consumer, 1)
        consumer.settle([(retried, Done())])
        rabbit_node.ctl("set_permissions", "worker", ".*", ".*", ".*")
        until(lambda: [queue.dead for queue in broker.queues()] == [1])
        broker.close()

    assert retried.message.id == "retried"
    assert "a.dead" in caplog.text
    assert caplog.text.count("can't be stored") < 4
