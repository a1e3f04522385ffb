"""P9: programs in other languages enqueue dibs jobs, and what dibs enqueues they can read."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable

import pika
import pytest

from tests.interop import tasks
from tests.interop.conftest import EXAMPLES, Bench
from tests.rabbit_node import Node

#: Runs the program of a language: queue, task, arguments as JSON texts. Returns the exit code.
Enqueue = Callable[..., int]


@pytest.fixture(params=["python", "go", "node", "shell"])
def enqueue(request: pytest.FixtureRequest, bench: Bench) -> Enqueue:
    """Each language in turn; what it needs is set up only when it is its turn."""
    match request.param:
        case "python":
            command = [sys.executable, str(EXAMPLES / "enqueue_job.py")]
        case "go":
            command = [str(request.getfixturevalue("go_programs") / "enqueue_job")]
        case "node":
            command = request.getfixturevalue("node_program")
        case _:
            command = [str(EXAMPLES / "enqueue_job.sh")]
            api = request.getfixturevalue("management_api")

            def run_shell(queue: str, task: str, *args: str) -> int:
                return bench.run([*command, queue, task, f"[{', '.join(args)}]"], RABBITMQ_API=api).returncode

            return run_shell

    def run(queue: str, task: str, *args: str) -> int:
        return bench.run([*command, queue, task, *args]).returncode

    return run


def test_a_job_from_any_language_runs(bench: Bench, enqueue: Enqueue) -> None:
    bench.dibs_worker()

    code = enqueue("pictures", "tests.interop.tasks.resize", "\"Málaga '26'.png\"", "200")

    assert code == 0
    assert [event.key for event in bench.wait_for("job")] == ["Málaga '26'.png 200"]


def test_a_producer_in_any_language_learns_that_there_is_no_queue(enqueue: Enqueue) -> None:
    assert enqueue("pictures", "tests.interop.tasks.resize", '"a.png"') != 0


def test_a_job_with_wrong_arguments_is_dead_and_the_worker_goes_on(bench: Bench, enqueue: Enqueue) -> None:
    bench.dibs_worker()

    enqueue("pictures", "tests.interop.tasks.resize", '"a.png"', '"wide"')
    enqueue("pictures", "tests.interop.tasks.resize", '"b.png"')

    assert [event.key for event in bench.wait_for("job")] == ["b.png 800"]
    (letter,) = bench.app.broker.dead("pictures", limit=10)
    assert letter.reason == "bad-arguments"
    assert "width" in letter.error


def test_a_job_of_dibs_is_a_message_that_any_client_can_read(rabbit_node: Node, bench: Bench) -> None:
    resize = bench.app.task(queue="pictures", name="resize")(tasks.resize.function)
    job = resize.using(priority=7).enqueue("a.png", width=200)

    with contextlib.closing(pika.BlockingConnection(pika.URLParameters(rabbit_node.url))) as connection:
        _, properties, body = connection.channel().basic_get("pictures", auto_ack=True)

    assert body is not None
    assert properties is not None
    assert json.loads(body) == {"args": ["a.png", 200], "kwargs": {}}
    assert properties.message_id == job.id
    assert properties.type == "resize"
    assert properties.content_type == "application/json"
    assert properties.delivery_mode == 2
    assert properties.priority == 7
    assert properties.app_id == "dibs"
    assert [name for name in properties.headers or {} if name.startswith("dibs-")] == ["dibs-put"]
