"""What `dibs doctor` finds in RabbitMQ: each fault is made for real."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dibs.broker import Queue
from dibs.brokers import connect
from dibs.brokers.rabbitmq.topology import QUORUM
from dibs.doctor.finding import Finding
from dibs.message import new_id
from tests.doctor.looking import found, look
from tests.rabbit_node import Node
from tests.waiting import job, until
from tests.worlds_rabbitmq import RabbitWorld

QUEUES = [Queue(name="a")]


@pytest.fixture
def rabbit(each_rabbit_node: Node) -> Iterator[RabbitWorld]:
    """A namespace in the node of each release."""
    with closing(RabbitWorld(each_rabbit_node)) as world:
        yield world


@pytest.fixture(scope="module")
def managed_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node with the management API."""
    with Node(tmp_path_factory.mktemp("managed"), has_management=True) as node:
        node.start()
        yield node


def findings(world: RabbitWorld, url: str | None = None, **options: Any) -> dict[str, Finding]:
    return found(look(url or world.url, QUEUES, namespace=world.namespace, **options))


def test_a_server_that_knows_no_limit_of_a_queues_own_is_noted(rabbit: RabbitWorld) -> None:
    rabbit.open().declare(QUEUES)
    version = rabbit.open().capabilities.server

    told = findings(rabbit)

    assert ("consumer-timeout" in told) == version.startswith(("RabbitMQ 3.10", "RabbitMQ 3.11"))


@pytest.mark.parametrize(
    ("arguments", "argument", "values"),
    [
        ({}, "x-queue-type", ("'classic'", "'quorum'")),
        (QUORUM | {"x-delivery-limit": 5}, "x-delivery-limit", ("'5'", "'2147483647'")),
    ],
    ids=["classic", "delivery-limit"],
)
def test_a_queue_in_another_form_is_told_with_both_values(
    rabbit: RabbitWorld, arguments: dict[str, Any], argument: str, values: tuple[str, str]
) -> None:
    with rabbit.channel() as channel:
        channel.queue_declare(rabbit.stored("a"), durable=True, arguments=arguments)
    rabbit.open().declare(QUEUES)

    told = findings(rabbit)["other-form"]

    assert told.severity == "warning"
    assert argument in told.what
    assert all(value in told.what for value in values)


def test_a_queue_of_plain_messages_in_their_form_is_as_it_should_be(rabbit: RabbitWorld) -> None:
    plain = [Queue(name="a", type="classic")]
    rabbit.open().declare(plain)

    assert "other-form" not in found(look(rabbit.url, plain, namespace=rabbit.namespace))


def test_a_delay_level_of_another_length_is_a_problem(rabbit: RabbitWorld) -> None:
    rabbit.open().send([job("a", delay=3.0)])
    assert "other-level" not in findings(rabbit)
    level = rabbit.stored("dibs.delay.00")
    with rabbit.channel() as channel:
        channel.queue_delete(level)
        channel.queue_declare(level, durable=True, arguments={"x-queue-type": "quorum", "x-message-ttl": 60_000})

    told = findings(rabbit)["other-level"]

    assert told.severity == "problem"
    assert level in told.what


def test_a_delay_level_that_is_missing_is_a_problem(rabbit: RabbitWorld) -> None:
    rabbit.open().send([job("a", delay=3.0)])
    assert "missing-levels" not in findings(rabbit)
    with rabbit.channel() as channel:
        channel.exchange_delete(rabbit.stored("dibs.delay.01"))

    told = findings(rabbit)["missing-levels"]

    assert told.severity == "problem"
    assert "dibs.delay.01" in told.what


def test_delayed_jobs_whose_queue_is_gone_are_a_problem(rabbit: RabbitWorld) -> None:
    rabbit.open().declare(QUEUES)
    with rabbit.channel() as channel:
        channel.confirm_delivery()
        channel.basic_publish(rabbit.stored("dibs.delay.lost"), "x", b"{}")

        until(lambda: "lost-jobs" in findings(rabbit))
        channel.queue_purge(rabbit.stored("dibs.dead"))

    assert "lost-jobs" not in findings(rabbit)


def test_a_ledger_that_is_gone_is_told_and_not_made(rabbit: RabbitWorld) -> None:
    broker = rabbit.open()
    broker.send([job("a")])
    broker.pause("a")
    until(lambda: rabbit.exists("dibs.ledger"))
    with rabbit.channel() as channel:
        channel.queue_delete(rabbit.stored("dibs.ledger"))

    assert findings(rabbit)["no-ledger"].severity == "warning"
    assert not rabbit.exists("dibs.ledger")
    url = f"{rabbit.url}?ledger=off"
    assert "no-ledger" not in findings(rabbit, url)


def test_a_server_that_was_never_used_stays_so(rabbit: RabbitWorld) -> None:
    told = findings(rabbit)

    assert set(told) <= {"consumer-timeout"}
    assert not any(
        rabbit.exists(name)
        for name in ("a", "a.dead", "dibs.dead", "dibs.ledger", "dibs.control", "dibs.roll.x", "dibs.reply.x")
    )
    assert not any(rabbit.has_exchange(name) for name in ("dibs", "dibs.reply", "dibs.roll", "dibs.ledger"))


def test_an_alarm_is_a_problem(rabbit: RabbitWorld, each_rabbit_node: Node) -> None:
    rabbit.open().declare(QUEUES)
    with each_rabbit_node.alarm():
        until(lambda: "alarm" in findings(rabbit))
        told = findings(rabbit)["alarm"]

    assert told.severity == "problem"
    assert "low on memory" in told.what
    until(lambda: "alarm" not in findings(rabbit))


@pytest.mark.parametrize("may_declare", [True, False])
def test_missing_rights_are_told_with_the_line_that_gives_them(
    rabbit: RabbitWorld, each_rabbit_node: Node, may_declare: bool
) -> None:
    rabbit.open().send([job("a")])
    rabbit.open().ledger.workers()
    until(lambda: rabbit.exists("dibs.ledger"))
    name = f"u{new_id()[-8:]}"
    with each_rabbit_node.user(name, configure="^$", write="^$", read="^$") as url:
        told = findings(rabbit, url, may_declare=may_declare)["missing-rights"]
        each_rabbit_node.ctl(*shlex.split(told.mend)[1:])

        assert told.severity == "problem"
        assert f"write {rabbit.stored('dibs')}" in told.what
        assert f"read {rabbit.stored('a')}" in told.what
        assert (f"configure {rabbit.stored('a')}," in told.what) == may_declare
        assert not {"missing-rights", "unreadable"} & set(findings(rabbit, url, may_declare=may_declare))


def test_what_a_producer_needs_no_right_for_is_a_warning(rabbit: RabbitWorld, each_rabbit_node: Node) -> None:
    rabbit.open().declare(QUEUES)
    name, prefix = f"u{new_id()[-8:]}", rabbit.stored("dibs").replace(".", r"\.")
    with each_rabbit_node.user(name, configure="^$", write=rf"^{prefix}(\.ledger)?$", read="^$") as url:
        told = findings(rabbit, url, may_declare=False)["missing-rights"]

    assert told.severity == "warning"


def test_looking_counts_as_no_delivery(rabbit: RabbitWorld) -> None:
    rabbit.open().send([job("a")])
    for _ in range(3):
        findings(rabbit)

    with rabbit.channel() as channel:
        method, properties, _ = channel.basic_get(rabbit.stored("a"))
        assert method is not None
        assert properties is not None
        assert not method.redelivered
        assert not (properties.headers or {}).get("x-delivery-count")
        channel.basic_nack(method.delivery_tag)


def test_policies_that_drop_and_alarms_are_read_from_the_management_api(managed_node: Node) -> None:
    with closing(RabbitWorld(managed_node)) as world:
        world.open().declare(QUEUES)
        managed_node.ctl("set_policy", "short", f"^{world.namespace}", '{"message-ttl":60000,"max-length":10}')

        until(lambda: "dropping-policy" in findings(world))  # what it tells is some seconds old
        told = findings(world)
        managed_node.ctl("clear_policy", "short")
        until(lambda: "dropping-policy" not in findings(world))
        with managed_node.alarm():
            alarm = findings(world)["alarm"]
        scene = look(world.url, QUEUES, namespace=world.namespace)

    assert told["dropping-policy"].severity == "problem"
    assert "60000 ms" in told["dropping-policy"].what
    assert "resource memory" in alarm.what
    assert scene.facts.not_asked == []
    assert scene.facts.rabbitmq is not None
    assert scene.facts.rabbitmq.management is not None
    assert abs(scene.facts.rabbitmq.management.clock_offset or 99) < 5


def test_where_there_is_no_management_api_that_is_said(rabbit: RabbitWorld) -> None:
    (said,) = look(rabbit.url, namespace=rabbit.namespace).facts.not_asked

    assert said.startswith("the management API")


def test_a_server_that_does_not_answer_is_an_error(tmp_path: Path) -> None:
    from dibs.errors import BrokerUnavailable

    broker = connect("amqp://127.0.0.1:1/", handover_timeout=1.0, may_declare=False)
    with closing(broker), pytest.raises(BrokerUnavailable):
        broker.examine()
