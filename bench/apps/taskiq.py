"""TaskIQ on aio-pika."""

from __future__ import annotations

import os

from taskiq_aio_pika import AioPikaBroker, Queue, QueueType

from bench import job

_TYPE = QueueType(os.environ["BENCH_QUEUE_TYPE"])
broker = AioPikaBroker(
    os.environ["BENCH_URL"],
    qos=int(os.environ.get("BENCH_SLOTS", "1")),
    task_queues=[Queue(name="bench", type=_TYPE)],
    dead_letter_queue=Queue(name="bench.dead", type=_TYPE),
)


@broker.task
async def run(number: int, seconds: float, padding: str) -> None:
    """Do a job."""
    await job.arun(number, seconds, padding)


async def astart() -> None:
    """Connect."""
    await broker.startup()


async def astop() -> None:
    """Let go of the connection."""
    await broker.shutdown()


async def aenqueue(number: int, seconds: float, padding: str) -> None:
    """Hand over one job."""
    await run.kiq(number, seconds, padding)
