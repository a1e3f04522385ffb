"""Huey on SQLite, with every write synced."""

from __future__ import annotations

import os

from huey import SqliteHuey

from bench import job

huey = SqliteHuey(filename=os.environ["BENCH_URL"], fsync=True, timeout=30)


@huey.task()
def run(number: int, seconds: float, padding: str) -> None:
    """Do a job."""
    job.run(number, seconds, padding)


def enqueue(number: int, seconds: float, padding: str) -> None:
    """Hand over one job."""
    run(number, seconds, padding)
