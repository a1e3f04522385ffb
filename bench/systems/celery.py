"""Celery, on a quorum and on a classic queue."""

from __future__ import annotations

from collections.abc import Sequence

from bench.system import Kind, Load, Store, System


def _worker(load: Load) -> Sequence[Sequence[str]]:
    # Several slots are threads, which are its fastest pool for such jobs, and as light as those of the others.
    pool = ["--pool", "threads"] if load.slots > 1 else ["--pool", "prefork"]
    concurrency = ["--concurrency", str(load.slots if load.slots > 1 else load.executors)]
    command = ["celery", "-A", "bench.apps.celery:app", "worker", "-l", "warning", *pool, *concurrency]
    return [[*command, "-n", f"{load.name}@localhost"]]


def _system(queue_type: str, name: str) -> System:
    return System(
        name=name,
        kind=Kind.PEER,
        store=Store.RABBITMQ,
        app="bench.apps.celery",
        requirements=("celery",),
        packages=("celery", "kombu", "amqp"),
        statement="from celery import Celery",
        worker=_worker,
        durability=f"`task_acks_late`, `task_reject_on_worker_lost`, `confirm_publish`; {queue_type} queue, durable",
        configuration="prefork, a process an executor; 8 slots: threads; `worker_prefetch_multiplier=1`, no results",
        help_command=("celery", "--help"),
        environment={"BENCH_QUEUE_TYPE": queue_type},
        lacks={"enqueue.bulk": "has no bulk hand-over"},
    )


SYSTEMS = (_system("quorum", "celery"), _system("classic", "celery-classic"))
