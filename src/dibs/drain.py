"""Running what is ready in this process: the worker of a test."""

from __future__ import annotations

import asyncio
import select
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import msgspec

from dibs.broker import Broker, Consumer
from dibs.lifespan import Lifespan
from dibs.message import Delivery
from dibs.outcome import Cancelled, Outcome, Released
from dibs.run import Call, Runner, Unwatched

#: How long an empty queue must stay silent to count as empty, in seconds: RabbitMQ pushes what it has.
_SILENCE = 0.1


def drain(broker: Broker, queues: Sequence[str], runner: Runner, lifespan: Lifespan) -> list[Outcome]:
    """Run what is ready in these queues and return the outcomes. See `Dibs.drain`.

    They are recorded with their runs and returned without: two that came to the same are to be equal.
    """
    stop = Event()
    if not _has_running_loop():
        return _drain(broker, queues, runner, lifespan, stop)
    with ThreadPoolExecutor(1, thread_name_prefix="dibs-drain") as thread:
        try:
            return thread.submit(_drain, broker, queues, runner, lifespan, stop).result()
        except KeyboardInterrupt:
            stop.set()  # Ctrl-C comes to the main thread; the job that runs can't be interrupted, but it is the last
            raise


def _has_running_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _drain(broker: Broker, queues: Sequence[str], runner: Runner, lifespan: Lifespan, stop: Event) -> list[Outcome]:
    consumer = broker.consume(queues, limit=1)
    try:
        with asyncio.Runner() as loop:
            loop.run(lifespan.start())
            outcomes = []
            try:
                while not stop.is_set() and (delivery := _next(broker, consumer)):
                    outcomes.append(_without_run(_run(runner, loop, consumer, delivery)))
            finally:
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
        if any(asked.receipt == delivery.receipt for asked in consumer.cancelled()):
            outcome = Cancelled()
        elif not isinstance(begun := runner.begin(delivery.message), Call):
            outcome = begun
        elif begun.is_async:
            outcome = loop.run(begun.arun(Unwatched()))
        else:
            outcome = begun.run(Unwatched(), passing=(KeyboardInterrupt,))
    finally:
        consumer.settle([(delivery, outcome)])
    return outcome


def _without_run(outcome: Outcome) -> Outcome:
    return outcome if isinstance(outcome, Released) else msgspec.structs.replace(outcome, run=None)
