"""The demo's own app: one task that takes as long as it is told to, and writes down when it began and ended."""

from __future__ import annotations

import os
import time
from pathlib import Path

from dibs.app import Dibs
from dibs.demo import evidence

#: Put before every name in the broker, so that the demo touches nothing of anybody else's.
NAMESPACE = "dibs-demo"
QUEUE = "jobs"
#: The environment variables by which a worker is told its number and where the log is.
WORKER_VARIABLE = "DIBS_DEMO_WORKER"
LOG_VARIABLE = "DIBS_DEMO_LOG"

#: Who plays with a demo does not wait half a minute to hear that there is no server.
app = Dibs(namespace=NAMESPACE, handover_timeout=5.0)


@app.on_start
def get_ready() -> None:
    """Write down that an executor is about to receive jobs."""
    _write("ready")


@app.task(queue=QUEUE, retries=0)
def work(job: str, seconds: float) -> None:
    """Take that long."""
    _write("start", job)
    time.sleep(seconds)
    _write("end", job)


def _write(kind: evidence.Kind, job: str = "") -> None:
    evidence.write(Path(os.environ[LOG_VARIABLE]), kind, int(os.environ[WORKER_VARIABLE]), job)
