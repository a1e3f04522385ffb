"""dibs, as its quickstart has it."""

from __future__ import annotations

import os
from collections.abc import Sequence

from bench import job
from dibs import Dibs

_URL = os.environ["BENCH_URL"]
_OPTIONS = os.environ.get("BENCH_URL_OPTIONS", "")
app = Dibs(f"{_URL}{_OPTIONS}" if "://" in _URL else f"sqlite:///{_URL}")


@app.task
def run(number: int, seconds: float, padding: str) -> None:
    """Do a job."""
    job.run(number, seconds, padding)


def enqueue(number: int, seconds: float, padding: str) -> None:
    """Hand over one job."""
    run.enqueue(number, seconds, padding)


def enqueue_many(calls: Sequence[tuple[int, float, str]]) -> None:
    """Hand over many jobs at once."""
    app.enqueue_many([run.prepare(*call) for call in calls])
