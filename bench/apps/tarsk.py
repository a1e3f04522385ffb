"""tarsk, the build for RabbitMQ."""

from __future__ import annotations

import os

from tarsk import App

from bench import job

app = App(broker=os.environ["BENCH_URL"])


@app.task()
def run(number: int, seconds: float, padding: str) -> None:
    """Do a job."""
    job.run(number, seconds, padding)


def enqueue(number: int, seconds: float, padding: str) -> None:
    """Hand over one job."""
    run.send(number, seconds, padding)
