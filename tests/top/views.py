"""Views for the tests of the drawing: at rest, busy, and with strangers' text."""

from __future__ import annotations

from typing import Any

from dibs.broker import QueueInfo
from dibs.ledger.life import Progress
from dibs.ledger.snapshot import ExecutorInfo, Running, Snapshot
from dibs.top.look import Failure, Look, Pace, Rates
from dibs.top.view import View

NOW = 1_800_000_000_000


def queue(name: str, **fields: Any) -> QueueInfo:
    return QueueInfo(**{"name": name, "ready": 0, "running": 0, "delayed": 0, "dead": 0, "consumers": 1, **fields})


def running(number: int, **fields: Any) -> Running:
    return Running(
        **{
            "id": f"job-{number}",
            "task": "tasks.resize",
            "queue": "default",
            "attempt": 1,
            "since": NOW - 3_200,
            **fields,
        }
    )


def worker(name: str = "web1:4711", *jobs: Running, **fields: Any) -> Snapshot:
    executor = ExecutorInfo(
        pid=1,
        started=NOW - 60_000,
        memory_bytes=40_000_000,
        finished=3,
        state="ready",
        running=[*jobs],
        held=len(jobs),
    )
    made = {
        "worker": name, "host": "web1", "pid": 4711, "version": "0.1.0", "app": "tasks:app",
        "started": NOW - 7_500_000, "at": NOW, "queues": ["default", "mail"], "slots": 4, "executors": [executor],
        "memory_bytes": 5_000_000,
    }  # fmt: skip
    return Snapshot(**{**made, **fields})


def failure(number: int, **fields: Any) -> Failure:
    made = {
        "id": f"dead-{number}", "task": "tasks.welcome", "queue": "mail", "attempt": 9, "at": NOW - number * 1000,
        "gist": "ConnectionError: smtp.example.com", "is_dead": True,
    }  # fmt: skip
    return Failure(**{**made, **fields})


def busy(**fields: Any) -> View:
    """Two queues, a worker with two jobs, a dead letter and a retry."""
    look = Look(
        at=NOW,
        queues=[
            queue("default", ready=1234, running=2, delayed=7, consumers=2),
            queue("mail", ready=3, dead=1, consumers=0, is_paused=True),
        ],
        workers=[
            worker(
                "web1:4711",
                running(1, progress=Progress(45, 100, "page 45")),
                running(2, task="tasks.report", attempt=3, since=NOW - 190_000),
            )
        ],
        failures=[failure(1), failure(2, is_dead=False, attempt=2, gist="TimeoutError")],
    )
    rates = Rates({"web1:4711": Pace(120.4, 0.5)}, {"default": 118.0, "mail": 0.0}, {"default": 12.0, "mail": 0.0})
    return View(**{"location": "/srv/dibs.db", "now": NOW, "look": look, "rates": rates, **fields})
