"""potatoq, on both brokers."""

from __future__ import annotations

from collections.abc import Sequence

from bench.system import Kind, Load, Store, System


def _worker(load: Load) -> Sequence[Sequence[str]]:
    size = ["-c", str(load.executors), "-t", str(load.slots)]
    return [["potatoq", "-A", "bench.apps.potatoq:app", "worker", "-l", "WARNING", "-n", load.name, *size]]


_CONFIGURATION = "`-c EXECUTORS -t SLOTS`"

SYSTEMS = (
    System(
        name="potatoq",
        kind=Kind.PEER,
        store=Store.SQLITE,
        app="bench.apps.potatoq",
        requirements=("potatoq",),
        packages=("potatoq",),
        statement="from potatoq import Potatoq",
        worker=_worker,
        durability="`durable=True` (FULL) to hand over, NORMAL for the worker; acknowledged after the run, as always",
        configuration=f"{_CONFIGURATION}; results are kept, as it comes",
        help_command=("potatoq", "--help"),
    ),
    System(
        name="potatoq-rabbitmq",
        kind=Kind.PEER,
        store=Store.RABBITMQ,
        app="bench.apps.potatoq",
        requirements=("potatoq[rabbitmq]",),
        packages=("potatoq", "pika"),
        statement="from potatoq import Potatoq",
        worker=_worker,
        durability="the only way: quorum queue, confirmed, mandatory; acknowledged after the run",
        configuration=_CONFIGURATION,
        help_command=("potatoq", "--help"),
        lacks={"enqueue.bulk": "hands over one by one here"},
    ),
)
