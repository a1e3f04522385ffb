"""Dramatiq with publisher confirms."""

from __future__ import annotations

import os

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker

from bench import job

broker = RabbitmqBroker(url=os.environ["BENCH_URL"], confirm_delivery=True)
dramatiq.set_broker(broker)


@dramatiq.actor
def run(number: int, seconds: float, padding: str) -> None:
    """Do a job."""
    job.run(number, seconds, padding)


def enqueue(number: int, seconds: float, padding: str) -> None:
    """Hand over one job."""
    run.send(number, seconds, padding)
