"""`examples/tutorial.py` as its reader would use it: three workers, and messages from a fourth terminal."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.rabbit_releases import on_one_rabbitmq
from tests.waiting import until
from tests.workers import ROOT, Worker
from tests.worlds import World

TEXTS = ["Pune..", "Agra.", "Delhi.", "Kochi.", "Goa"]


def send(world: World, *texts: str) -> None:
    """`dibs send`, as it is typed."""
    command = [sys.executable, "-m", "dibs.cli.main", "send", "task_queue", *texts]
    subprocess.run(command, env={**os.environ, "DIBS_URL": world.url}, check=True, capture_output=True, timeout=20)


@pytest.fixture
def workers(shared_world: World, tmp_path: Path) -> Iterator[list[Worker]]:
    """Three of them, on an empty queue. The tutorial has no namespace, so on RabbitMQ the queue is purged."""
    broker = shared_world.open(namespace="")
    broker.consume(["task_queue"], limit=1).close()
    broker.purge("task_queue", state="ready")
    with ExitStack() as stack:
        started = [
            stack.enter_context(
                Worker(
                    "examples/tutorial.py", "-p", "1",
                    directory=tmp_path / "logs", env={"DIBS_URL": shared_world.url}, cwd=ROOT,
                )
            )
            for _ in range(3)
        ]  # fmt: skip
        yield [worker.wait_ready() for worker in started]


def received(worker: Worker) -> list[str]:
    return re.findall(r"^ \[x\] Received (.*)$", worker.log, re.MULTILINE)


def done(worker: Worker) -> int:
    return worker.log.count(" [x] Done")


@on_one_rabbitmq
def test_three_workers_share_the_messages(shared_world: World, workers: list[Worker]) -> None:
    begin = time.monotonic()
    send(shared_world, *TEXTS)
    until(lambda: sum(map(done, workers)) == len(TEXTS))
    seconds = time.monotonic() - begin

    assert sorted(text for worker in workers for text in received(worker)) == sorted(TEXTS)
    assert all(received(worker) for worker in workers)
    assert seconds < sum(text.count(".") for text in TEXTS)


@on_one_rabbitmq
def test_the_message_of_a_killed_worker_is_received_by_another_one(
    shared_world: World, workers: list[Worker]
) -> None:
    send(shared_world, "Pune..")
    until(lambda: any(map(received, workers)))
    victim = next(worker for worker in workers if received(worker))
    others = [worker for worker in workers if worker is not victim]

    victim.kill()

    until(lambda: any(map(received, others)), within=5)
    until(lambda: sum(map(done, others)) == 1)
    assert done(victim) == 0
    assert sorted(received(worker) for worker in others) == [[], ["Pune.."]]
