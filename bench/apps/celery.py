"""Celery, with the settings that its documentation gives for work that must not be lost."""

from __future__ import annotations

import os

from celery import Celery

from bench import job

app = Celery("bench", broker=os.environ["BENCH_URL"])
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_default_queue_type=os.environ["BENCH_QUEUE_TYPE"],
    broker_transport_options={"confirm_publish": True},
    broker_pool_limit=16,  # a connection for each of the producer's threads
    worker_prefetch_multiplier=1,
    task_ignore_result=True,
)


@app.task
def run(number: int, seconds: float, padding: str) -> None:
    """Do a job."""
    job.run(number, seconds, padding)


def enqueue(number: int, seconds: float, padding: str) -> None:
    """Hand over one job."""
    run.delay(number, seconds, padding)
