"""tarsk, the build for RabbitMQ. It declares classic queues and offers no other."""

from __future__ import annotations

from collections.abc import Sequence

from bench.system import Kind, Load, Store, System


def _worker(load: Load) -> Sequence[Sequence[str]]:
    size = ["--children", str(load.executors), "--slots", str(load.slots)]
    return [["tarsk", "worker", "--app", "bench.apps.tarsk:app", "--broker", load.url, *size]]


SYSTEMS = (
    System(
        name="tarsk",
        kind=Kind.PEER,
        store=Store.RABBITMQ,
        app="bench.apps.tarsk",
        requirements=("tarsk-amqp",),
        packages=("tarsk-amqp",),
        statement="from tarsk import App",
        worker=_worker,
        durability="the only way: classic queue, durable, confirmed; acknowledged after the run",
        configuration="`--children EXECUTORS --slots SLOTS`",
        help_command=("tarsk", "--help"),
        lacks={"enqueue.bulk": "has no bulk hand-over"},
    ),
)
