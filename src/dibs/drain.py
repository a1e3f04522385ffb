"""Running what is ready in this process: the worker of a test."""

from __future__ import annotations

import asyncio
import select
import threading
from typing import TYPE_CHECKING

from dibs.broker import Broker, Consumer
from dibs.lifespan import Lifespan
from dibs.message import Delivery
from dibs.outcome import Outcome, Released
from dibs.run import Call, Runner

if TYPE_CHECKING:
    from dibs.app import Dibs

#: How long an empty queue must stay silent to count as empty, in seconds: RabbitMQ pushes what it has.
_SILENCE = 0.1


def drain(app: Dibs) -> list[Outcome]:
    """Run what is ready and return the outcomes. See `Dibs.drain`."""
    if not _has_running_loop():
        return _drain(app)
    outcomes: list[Outcome] = []
    thread = threading.Thread(target=lambda: outcomes.extend(_drain(app)), name="dibs-drain")
    thread.start()
    thread.join()
    return outcomes


def _has_running_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _drain(app: Dibs) -> list[Outcome]:
    runner = Runner(app.tasks, app.listeners, unknown_task_limit=app.unknown_task_limit)
    lifespan = Lifespan(*app.hooks)
    consumer = app.broker.consume(sorted(app.queue_names), limit=1)
    try:
        with asyncio.Runner() as loop:
            loop.run(lifespan.start())
            outcomes = []
            while delivery := _next(app.broker, consumer):
                outcomes.append(_run(runner, loop, consumer, delivery))
            loop.run(lifespan.stop())
            return outcomes
    finally:
        consumer.close()


def _next(broker: Broker, consumer: Consumer) -> Delivery | None:
    """Return the next ready delivery; None when the queues are empty."""
    while True:
        if received := consumer.receive(1):
            return received[0]
        if select.select([consumer], [], [], 0 if broker.capabilities.has_atomic_settle else _SILENCE)[0]:
            continue
        if received := consumer.receive(1):
            return received[0]
        return None


def _run(runner: Runner, loop: asyncio.Runner, consumer: Consumer, delivery: Delivery) -> Outcome:
    outcome: Outcome = Released()
    try:
        begun = runner.begin(delivery.message)
        if not isinstance(begun, Call):
            outcome = begun
        elif begun.is_async:
            outcome = loop.run(begun.arun())
        else:
            outcome = begun.run()
    finally:
        consumer.settle([(delivery, outcome)])
    return outcome
