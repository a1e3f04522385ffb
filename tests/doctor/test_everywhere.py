"""What `dibs doctor` finds on every broker: each fault is made for real."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version

import msgspec
import pytest

from dibs.broker import Broker, Consumer, Queue
from dibs.doctor.finding import Finding
from dibs.ledger.snapshot import Snapshot
from dibs.message import now_ms
from dibs.outcome import Dead, Done, Run
from tests.conformance.asking import a_run, life, snapshot, status
from tests.doctor.looking import found, look
from tests.waiting import job, receive, receive_nothing, until
from tests.worlds import World

QUEUES = [Queue(name="a")]
#: What is said of every server before 3.12.
OLD = {"consumer-timeout"}


def namespace_of(world: World) -> str:
    return getattr(world, "namespace", "")


def findings(world: World) -> dict[str, Finding]:
    return found(look(world.url, QUEUES, namespace=namespace_of(world)))


def find(world: World, name: str) -> Finding:
    """Return a finding, once it is there: records and answers are on their way for a moment."""
    told: dict[str, Finding] = {}

    def is_there() -> bool:
        told.update(findings(world))
        return name in told

    until(is_there, within=30)
    return told[name]


def show(consumer: Consumer, **changes: object) -> Snapshot:
    """Have a consumer say that it is a worker with four idle slots."""
    idle = {"version": version("dibs"), "tasks": ["known"], "executors": []}
    shown = msgspec.structs.replace(snapshot("host:7"), **(idle | changes))
    consumer.show(shown)
    return shown


def wait_for_answer(broker: Broker) -> None:
    """Wait until the worker answers who asks."""
    until(lambda: broker.ledger.workers() != [])


def send_and_see(broker: Broker, **fields: object) -> str:
    """Hand a job over to queue `a`, and wait until the ledger has it."""
    sent = job("a", **fields)  # type: ignore[arg-type]  # a test's own keyword arguments
    broker.send([sent])
    until(lambda: status(broker, sent.id) is not None)
    return sent.id


def test_nothing_is_wrong_where_work_is_done(shared_world: World) -> None:
    broker = shared_world.open()
    broker.declare(QUEUES)
    consumer = broker.consume(["a"], limit=4)
    show(consumer)
    job_id = send_and_see(broker, task="known")
    consumer.settle([(each, Done(run=a_run())) for each in receive(consumer, 1)])
    life(broker, job_id, lambda info: info.status == "done")
    wait_for_answer(broker)

    assert set(findings(shared_world)) - OLD == set()


def test_jobs_that_nobody_consumes_are_a_problem(shared_world: World) -> None:
    broker = shared_world.open()
    send_and_see(broker)

    told = findings(shared_world)["nobody-consumes"]

    assert (told.severity, told.mend) == ("problem", "dibs worker module:app -q a")
    assert "1 job ready in queue 'a'" in told.what


def test_a_paused_queue_in_which_jobs_wait_is_told(shared_world: World) -> None:
    broker = shared_world.open()
    send_and_see(broker)
    broker.pause("a")

    told = findings(shared_world)

    assert (told["paused"].severity, told["paused"].mend) == ("warning", "dibs resume a")
    assert "nobody-consumes" not in told


def test_a_task_that_no_worker_knows_is_a_problem(shared_world: World) -> None:
    broker = shared_world.open()
    consumer = broker.consume(["a"], limit=1)
    show(consumer)
    wait_for_answer(broker)
    send_and_see(broker, task="known")
    send_and_see(broker, task="gone")

    told = find(shared_world, "unknown-task")

    assert told.severity == "problem"
    assert "1 job of task 'gone'" in told.what


def test_nothing_is_said_of_tasks_where_a_worker_does_not_say_what_it_knows(shared_world: World) -> None:
    broker = shared_world.open()
    consumer = broker.consume(["a"], limit=1)
    show(consumer, tasks=None)
    wait_for_answer(broker)
    send_and_see(broker, task="gone")

    assert "unknown-task" not in findings(shared_world)


def test_a_job_that_waits_though_a_worker_is_idle_is_a_problem(shared_world: World) -> None:
    broker = shared_world.open()
    consumer = broker.consume(["a"], limit=1)
    show(consumer)
    wait_for_answer(broker)
    job_id = send_and_see(broker, task="known", enqueued=now_ms() - 120_000)

    told = find(shared_world, "stuck")

    assert told.severity == "problem"
    assert job_id in told.what


def test_a_consumer_that_does_not_say_how_it_is_is_a_note(shared_world: World) -> None:
    broker = shared_world.open()
    broker.declare(QUEUES)
    assert receive_nothing(broker.consume(["a"], limit=1))

    told = find(shared_world, "silent-consumer")

    assert told.severity == "note"


def test_workers_of_another_version_are_told(shared_world: World) -> None:
    broker = shared_world.open()
    consumer = broker.consume(["a"], limit=1)
    show(consumer, version="0.0.1")
    wait_for_answer(broker)

    told = findings(shared_world)["versions-differ"]

    assert told.severity == "warning"
    assert "host:7 0.0.1" in told.what


def test_a_worker_whose_clock_is_ahead_is_told(shared_world: World) -> None:
    broker = shared_world.open()
    consumer = broker.consume(["a"], limit=1)
    show(consumer, at=now_ms() + 90_000)
    wait_for_answer(broker)

    told = findings(shared_world)["clock-skew"]

    assert told.severity == "warning"
    assert "host:7" in told.what


def test_a_job_that_was_started_before_it_was_handed_over_tells_of_a_wrong_clock(shared_world: World) -> None:
    broker = shared_world.open()
    consumer = broker.consume(["a"], limit=1)
    job_id = send_and_see(broker, enqueued=now_ms())
    early = now_ms() - 3_600_000
    consumer.settle([(each, Done(run=Run(early, early + 10))) for each in receive(consumer, 1)])
    life(broker, job_id, lambda info: info.status == "done")

    told = findings(shared_world)["clock-skew"]

    assert "36" in told.what
    assert "before it was handed over" in told.what


@pytest.mark.parametrize(
    ("count", "name", "severity"), [(12, "dead-letters-grow", "warning"), (3, "dead-letters", "note")]
)
def test_dead_letters_are_a_note_and_many_in_an_hour_a_warning(
    shared_world: World, count: int, name: str, severity: str
) -> None:
    broker = shared_world.open()
    consumer = broker.consume(["a"], limit=count)
    broker.send([job("a", task="known") for _ in range(count)])
    dead = [(each, Dead("failed", "boom", run=a_run())) for each in receive(consumer, count)]
    consumer.settle(dead)
    for delivery, _ in dead:
        life(broker, delivery.message.id, lambda info: info.status == "dead")
    until(lambda: _dead_letters(broker) == count)

    told = findings(shared_world)

    assert told[name].severity == severity
    assert f"{count} " in told[name].what
    assert {"dead-letters-grow", "dead-letters"} & set(told) == {name}


def _dead_letters(broker: Broker) -> int:
    return next(queue.dead for queue in broker.queues(["a"]) if queue.name == "a")


def test_jobs_that_kill_their_executor_are_told(shared_world: World) -> None:
    broker = shared_world.open()
    consumer = broker.consume(["a"], limit=1)
    job_id = send_and_see(broker, task="segfault")
    consumer.settle([(each, Dead("crashed", "SIGSEGV", crashes=3, run=a_run())) for each in receive(consumer, 1)])
    life(broker, job_id, lambda info: info.status == "dead")

    told = findings(shared_world)["crashes"]

    assert told.severity == "warning"
    assert "segfault (1)" in told.what
    assert job_id in told.mend


@pytest.mark.parametrize(
    "make", [lambda broker: None, lambda broker: broker.declare(QUEUES)], ids=["unused", "empty"]
)
def test_a_look_leaves_everything_as_it_was(shared_world: World, make: Callable[[Broker], None]) -> None:
    broker = shared_world.open()
    broker.queues(["a"])
    make(broker)

    first, second = findings(shared_world), findings(shared_world)

    assert first == second
    assert set(first) - OLD <= {"no-ledger"}
