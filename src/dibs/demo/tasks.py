"""The demo's own app: one task that takes as long as it is told to, and writes down when it began and ended."""

from __future__ import annotations

import time

from dibs.app import Dibs
from dibs.trial.evidence import Pen

#: Put before every name in the broker, so that the demo touches nothing of anybody else's.
NAMESPACE = "dibs-demo"
QUEUE = "jobs"

#: Who plays with a demo does not wait half a minute to hear that there is no server.
app = Dibs(namespace=NAMESPACE, handover_timeout=5.0)
PEN = Pen.from_environment()


@app.on_start
def get_ready() -> None:
    """Write down that an executor is about to receive jobs."""
    PEN.write("ready")


@app.task(queue=QUEUE, retries=0)
def work(job: str, seconds: float) -> None:
    """Take that long."""
    PEN.write("start", job)
    time.sleep(seconds)
    PEN.write("end", job)
