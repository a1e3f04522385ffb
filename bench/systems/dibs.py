"""dibs, on both brokers. It is the checkout's own, in the interpreter that runs the bench."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from bench.system import Kind, Load, Store, System

_APP = "bench.apps.dibs"


def _worker(load: Load) -> Sequence[Sequence[str]]:
    return [["dibs", "worker", f"{_APP}:app", "-p", str(load.executors), "-c", str(load.slots)]]


_CONFIGURATION = "`-p EXECUTORS -c SLOTS`, else as it comes"

_RABBITMQ = System(
    name="dibs-rabbitmq",
    kind=Kind.DIBS,
    store=Store.RABBITMQ,
    app=_APP,
    requirements=(),
    packages=("dibs", "msgspec", "pika"),
    statement="from dibs import Dibs",
    worker=_worker,
    durability="the only way: quorum queue, persistent, confirmed, mandatory; acknowledged after the run",
    configuration=_CONFIGURATION,
    help_command=("dibs", "--help"),
)

SYSTEMS = (
    System(
        name="dibs",
        kind=Kind.DIBS,
        store=Store.SQLITE,
        app=_APP,
        requirements=(),
        packages=("dibs", "msgspec"),
        statement="from dibs import Dibs",
        worker=_worker,
        durability="the only way: `synchronous=FULL` to hand over, NORMAL for the worker; settled after the run",
        configuration=_CONFIGURATION,
        help_command=("dibs", "--help"),
    ),
    _RABBITMQ,
    dataclasses.replace(
        _RABBITMQ,
        name="dibs-no-ledger",
        kind=Kind.WITHOUT,
        configuration=f"{_CONFIGURATION}; `?ledger=off`: nothing is recorded of jobs",
        environment={"BENCH_URL_OPTIONS": "?ledger=off"},
        scenarios=frozenset({"enqueue", "drain"}),
    ),
)
