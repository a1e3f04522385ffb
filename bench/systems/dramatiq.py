"""Dramatiq. It declares classic queues and offers no other."""

from __future__ import annotations

from collections.abc import Sequence

from bench.system import Kind, Load, Store, System


def _worker(load: Load) -> Sequence[Sequence[str]]:
    return [["dramatiq", "bench.apps.dramatiq", "--processes", str(load.executors), "--threads", str(load.slots)]]


SYSTEMS = (
    System(
        name="dramatiq",
        kind=Kind.PEER,
        store=Store.RABBITMQ,
        app="bench.apps.dramatiq",
        requirements=("dramatiq[rabbitmq]",),
        packages=("dramatiq", "pika"),
        statement="import dramatiq",
        worker=_worker,
        durability="`confirm_delivery=True`; classic queue, durable; acknowledged after the run, as always",
        configuration="`--processes EXECUTORS --threads SLOTS`",
        help_command=("dramatiq", "--help"),
        lacks={"enqueue.bulk": "has no bulk hand-over"},
    ),
)
