"""TaskIQ on aio-pika, on a quorum and on a classic queue."""

from __future__ import annotations

from collections.abc import Sequence

from bench.system import Kind, Load, Store, System


def _worker(load: Load) -> Sequence[Sequence[str]]:
    command = [
        "taskiq",
        "worker",
        "bench.apps.taskiq:broker",
        "--log-level",
        "WARNING",
        "--ack-type",
        "when_executed",
    ]
    return [[*command, "--workers", str(load.executors), "--max-async-tasks", str(load.slots)]]


def _system(queue_type: str, name: str) -> System:
    return System(
        name=name,
        kind=Kind.PEER,
        store=Store.RABBITMQ,
        app="bench.apps.taskiq",
        requirements=("taskiq", "taskiq-aio-pika"),
        packages=("taskiq", "taskiq-aio-pika", "aio-pika"),
        statement="from taskiq_aio_pika import AioPikaBroker",
        worker=_worker,
        durability=f"`--ack-type when_executed`; confirms are always on; {queue_type} queue, durable",
        configuration="`--workers EXECUTORS --max-async-tasks SLOTS`, `qos=SLOTS`; 16 coroutines, not threads",
        help_command=("taskiq", "--help"),
        environment={"BENCH_QUEUE_TYPE": queue_type},
        lacks={"enqueue.bulk": "has no bulk hand-over"},
    )


SYSTEMS = (_system("quorum", "taskiq"), _system("classic", "taskiq-classic"))
