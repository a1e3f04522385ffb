"""litequeue: a queue, and the loop around it that its documentation shows."""

from __future__ import annotations

from collections.abc import Sequence

from bench.system import Kind, Load, Store, System


def _worker(load: Load) -> Sequence[Sequence[str]]:
    return [["python", "-m", "bench.apps.litequeue"]] * load.executors


SYSTEMS = (
    System(
        name="litequeue",
        kind=Kind.PEER,
        store=Store.SQLITE,
        app="bench.apps.litequeue",
        requirements=("litequeue",),
        packages=("litequeue",),
        statement="from litequeue import LiteQueue",
        worker=_worker,
        durability="`synchronous=FULL` set on its connection to hand over, NORMAL to work; `done()` after the run",
        configuration="pop, run, done; sleeps 10 ms when there is nothing",
        weaker="recovers nothing when a worker dies",
        lacks={
            "enqueue.bulk": "has no bulk hand-over",
            "drain.slots": "runs one at a time",
            "startup.help": "has no command line",
        },
    ),
)
