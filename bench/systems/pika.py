"""Plain pika, at prefetch 1 (the tutorial's) and 100."""

from __future__ import annotations

from collections.abc import Sequence

from bench.system import Kind, Load, Store, System


def _system(prefetch: int) -> System:
    def worker(load: Load) -> Sequence[Sequence[str]]:
        return [["python", "-m", "bench.apps.pika", str(prefetch)]] * load.executors

    lacks = {"enqueue.bulk": "has no bulk hand-over", "startup.help": "has no command line"}
    if prefetch == 1:
        lacks["drain.slots"] = "runs one at a time, which stands under 1 slot"
    return System(
        name=f"pika-{prefetch}",
        kind=Kind.FLOOR,
        store=Store.RABBITMQ,
        app="bench.apps.pika",
        requirements=("pika",),
        packages=("pika",),
        statement="import pika",
        worker=worker,
        durability="quorum queue, persistent, confirmed, mandatory; acknowledged one by one after the run",
        configuration=f"the tutorial's loop, one job at a time, prefetch {prefetch}; a process for each executor",
        environment={"BENCH_QUEUE_TYPE": "quorum"},
        lacks=lacks,
    )


SYSTEMS = (_system(1), _system(100))
