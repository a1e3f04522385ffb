"""RQ on a Redis that syncs every write."""

from __future__ import annotations

import os
from collections.abc import Sequence

from redis import Redis
from rq import Queue

from bench import job

queue = Queue("bench", connection=Redis.from_url(os.environ["BENCH_URL"]))


def enqueue(number: int, seconds: float, padding: str) -> None:
    """Hand over one job."""
    queue.enqueue(job.run, number, seconds, padding)


def enqueue_many(calls: Sequence[tuple[int, float, str]]) -> None:
    """Hand over many jobs at once."""
    queue.enqueue_many([Queue.prepare_data(job.run, call) for call in calls])
