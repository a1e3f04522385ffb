"""The bare `sqlite3` module: the floor under everything on SQLite."""

from __future__ import annotations

from collections.abc import Sequence

from bench.system import Kind, Load, Store, System


def _worker(load: Load) -> Sequence[Sequence[str]]:
    return [["python", "-m", "bench.apps.sqlite3"]] * load.executors


_POLLS = "only polls: it would show its own interval"

SYSTEMS = (
    System(
        name="sqlite3",
        kind=Kind.FLOOR,
        store=Store.SQLITE,
        app="bench.apps.sqlite3",
        requirements=(),
        packages=(),
        statement="import sqlite3",
        worker=_worker,
        durability="`synchronous=FULL` to hand over, NORMAL for the worker; deleted after the run",
        configuration="one row a time; what is done is deleted and the next claimed in one commit",
        weaker="recovers nothing when a worker dies",
        lacks={
            "drain.slots": "runs one at a time",
            "latency": _POLLS,
            "redelivery": "recovers nothing",
            "startup.help": "has no command line",
        },
    ),
)
