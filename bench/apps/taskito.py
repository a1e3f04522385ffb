"""taskito on SQLite."""

from __future__ import annotations

import os
from collections.abc import Sequence

from taskito import Queue

from bench import job

queue = Queue(db_path=os.environ["BENCH_URL"], workers=int(os.environ.get("BENCH_SLOTS", "1")))


@queue.task()
def run(number: int, seconds: float, padding: str) -> None:
    """Do a job."""
    job.run(number, seconds, padding)


def enqueue(number: int, seconds: float, padding: str) -> None:
    """Hand over one job."""
    run.delay(number, seconds, padding)


def enqueue_many(calls: Sequence[tuple[int, float, str]]) -> None:
    """Hand over many jobs at once."""
    queue.enqueue_many(run.name, [tuple(call) for call in calls])
