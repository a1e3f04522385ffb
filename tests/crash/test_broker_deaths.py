"""The broker itself is killed: what was confirmed is there, and workers come back by themselves (P1, P2)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from dibs.outcome import Done
from tests.crash.conftest import Stage
from tests.rabbit_node import Node
from tests.waiting import job, receive, until
from tests.worlds_rabbitmq import RabbitWorld

JOBS = 1000


@pytest.fixture
def rabbit_node(each_rabbit_node: Node) -> Node:
    """The node of each release in turn."""
    return each_rabbit_node


@pytest.fixture
def stage(rabbit_node: Node, tmp_path: Path) -> Iterator[Stage]:
    """A stage on RabbitMQ, whose server the test kills."""
    world = RabbitWorld(rabbit_node)
    with ExitStack() as stack:
        made = Stage(world, tmp_path / "stage", stack)
        made.directory.mkdir()
        yield made
        made.app.close()
    world.close()


def enqueue(stage: Stage) -> set[str]:
    """Hand a thousand jobs over and return their keys."""
    work = stage.app.get_task("tests.crash.tasks.work")
    stage.app.enqueue_many([work.prepare(str(number)) for number in range(JOBS)])
    return {str(number) for number in range(JOBS)}


def done(stage: Stage) -> set[str]:
    """Return the keys of the jobs that were done."""
    return {event.key for event in stage.events("end")}


def test_a_thousand_confirmed_jobs_survive_a_killed_server(stage: Stage, rabbit_node: Node) -> None:
    keys = enqueue(stage)

    rabbit_node.kill()
    rabbit_node.start()

    assert stage.worker("--burst", "-p", "2").wait() == 0
    assert done(stage) == keys


def test_a_worker_goes_on_when_the_killed_server_is_back(stage: Stage, rabbit_node: Node) -> None:
    worker = stage.worker("-p", "2")
    keys = enqueue(stage)
    until(lambda: len(done(stage)) > 50)

    rabbit_node.kill()
    rabbit_node.start()

    until(lambda: done(stage) == keys, within=60.0)
    assert worker.executors


def test_delayed_jobs_survive_a_killed_server_and_none_comes_early(rabbit_node: Node) -> None:
    world = RabbitWorld(rabbit_node)
    broker = world.open()
    consumer = broker.consume(["a"], limit=50)
    broker.send([job("a", str(n).encode(), delay=0.1 + n / 50) for n in range(250)])  # on six levels
    came: dict[str, float] = {}

    def take() -> None:
        """Take some, and note by how much the first delivery of each was late."""
        got = receive(consumer, 1)
        assert got
        for each in got:
            came.setdefault(each.message.text, time.time() - (each.message.due or 0) / 1000)
        consumer.settle([(each, Done()) for each in got])

    while len(came) < 50:
        take()
    rabbit_node.kill()
    rabbit_node.start()
    while len(came) < 250:
        take()

    assert min(came.values()) >= 0
    world.close()
