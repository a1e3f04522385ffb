"""potatoq, on SQLite and on RabbitMQ."""

from __future__ import annotations

import os
from collections.abc import Sequence

from potatoq import Potatoq, group

from bench import job

_URL = os.environ["BENCH_URL"]
_IS_FILE = "://" not in _URL
app = Potatoq("bench", broker=f"sqlite:///{_URL}" if _IS_FILE else _URL)
if _IS_FILE and os.environ["BENCH_ROLE"] == "producer":
    app.conf.broker_transport_options = {
        "durable": True
    }  # synchronous=FULL; its workers stay with NORMAL, as dibs' do


@app.task
def run(number: int, seconds: float, padding: str) -> None:
    """Do a job."""
    job.run(number, seconds, padding)


def enqueue(number: int, seconds: float, padding: str) -> None:
    """Hand over one job."""
    run.delay(number, seconds, padding)


def enqueue_many(calls: Sequence[tuple[int, float, str]]) -> None:
    """Hand over many jobs at once: a group is one transaction."""
    group([run.s(*call) for call in calls]).apply_async()
