"""RQ on Redis, for reference: another kind of store."""

from __future__ import annotations

from collections.abc import Sequence

from bench.system import Kind, Load, Store, System


def _worker(load: Load) -> Sequence[Sequence[str]]:
    return [["rq", "worker-pool", "bench", "--url", load.url, "-n", str(load.slots * load.executors), "-q"]]


SYSTEMS = (
    System(
        name="rq",
        kind=Kind.PEER,
        store=Store.REDIS,
        app="bench.apps.rq",
        requirements=("rq",),
        packages=("rq", "redis"),
        statement="from rq import Queue",
        worker=_worker,
        durability="Redis with `appendonly yes`, `appendfsync always`",
        configuration="`rq worker-pool -n` SLOTS × EXECUTORS; a process forked for each job, as it comes",
        weaker="a killed worker's job is not run again",
        help_command=("rq", "--help"),
    ),
)
