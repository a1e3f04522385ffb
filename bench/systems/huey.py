"""Huey on SQLite."""

from __future__ import annotations

from collections.abc import Sequence

from bench.system import Kind, Load, Store, System


def _worker(load: Load) -> Sequence[Sequence[str]]:
    # It has processes or threads, not both: several executors are processes of one slot each.
    size = (
        ["-k", "process", "-w", str(load.executors)]
        if load.executors > 1
        else ["-k", "thread", "-w", str(load.slots)]
    )
    return [["huey_consumer", "bench.apps.huey.huey", "-q", *size]]


SYSTEMS = (
    System(
        name="huey",
        kind=Kind.PEER,
        store=Store.SQLITE,
        app="bench.apps.huey",
        requirements=("huey",),
        packages=("huey",),
        statement="from huey import SqliteHuey",
        worker=_worker,
        durability="`fsync=True` (FULL, for its workers too: it offers that or OFF)",
        configuration="`-k thread -w SLOTS`, or `-k process -w EXECUTORS`",
        weaker="removes a job before it runs: a worker's death loses it",
        help_command=("huey_consumer", "--help"),
        lacks={"enqueue.bulk": "has no bulk hand-over"},
    ),
)
