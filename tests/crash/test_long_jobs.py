"""Jobs that run for long: with the GIL held, and beyond the server's consumer_timeout (P4)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.crash.conftest import Stage
from tests.rabbit_node import Node
from tests.waiting import until
from tests.worlds import World
from tests.worlds_rabbitmq import RabbitWorld

#: Seconds after which the impatient server takes a job away, give or take its tick of one second.
TIMEOUT = 3.0


@pytest.fixture(scope="module")
def impatient_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A server that gives a worker a few seconds."""
    config = f"consumer_timeout = {TIMEOUT * 1000:.0f}\n"
    with Node(tmp_path_factory.mktemp("impatient"), config=config) as node:
        node.start()
        node.ctl("eval", "application:set_env(rabbit, channel_tick_interval, 1000).")  # of channels from now on
        yield node


@pytest.fixture
def impatient_stage(impatient_node: Node, tmp_path: Path) -> Iterator[Stage]:
    """A stage on that server. What it makes there goes with the server."""
    with ExitStack() as stack:
        made = Stage(RabbitWorld(impatient_node), tmp_path / "stage", stack)
        made.directory.mkdir()
        yield made
        made.app.close()


def test_a_job_longer_than_the_consumer_timeout_runs_once(impatient_stage: Stage) -> None:
    stage = impatient_stage
    worker = stage.worker("-p", "1")

    stage.enqueue("work", "long", 3 * TIMEOUT)
    stage.wait_for("end", 1, within=60)
    stage.enqueue("work", "next")
    stage.wait_for("end", 2)

    assert [event.key for event in stage.events("start")] == ["long", "next"]
    if stage.app.broker.capabilities.server.startswith("RabbitMQ 3.1"):  # later ones heed the queue's own timeout
        assert "consumer_timeout = 31536000000" in worker.log
        assert "The hold on long jobs is renewed" in worker.log
    assert not any(info.ready for info in stage.app.broker.queues(["default"]))


def test_a_job_whose_worker_dies_after_a_renewal_is_done_by_another_worker(impatient_stage: Stage) -> None:
    stage = impatient_stage
    doomed = stage.worker("-p", "1")
    stage.enqueue("work", "long", 3 * TIMEOUT)
    stage.wait_for("start", 1)
    if stage.app.broker.capabilities.server.startswith("RabbitMQ 3.1"):
        until(lambda: "The hold on long jobs is renewed" in doomed.log, within=60)
    stage.worker("-p", "1")

    killed = time.time()
    doomed.kill()

    starts = stage.wait_for("start", 2)
    assert starts[1].at - killed < 20.0  # at the latest when the copy's 5 s are over; the rest is for a busy machine


def test_a_job_that_holds_the_gil_for_longer_than_three_heartbeats_runs_once(
    shared_world: World, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        if isinstance(shared_world, RabbitWorld):
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            patch.setattr(shared_world, "url", f"{shared_world.url}?heartbeat=1")
        stage = Stage(shared_world, tmp_path / "stage", stack)
        stage.directory.mkdir()
        worker = stage.worker("-p", "1", "-c", "2")

        stage.enqueue("hog", "hog", 6.0)
        (end,) = stage.wait_for("end", 1, within=60)
        stage.enqueue("work", "next")
        stage.wait_for("end", 2)

        assert [event.key for event in stage.events("start")] == ["hog", "next"]
        assert end.at - stage.events("start")[0].at > 3.0
        assert worker.executors == [end.pid]
        assert "No connection" not in worker.log
        stage.app.close()
