"""The app of the interop tests: what it received it writes into a file."""

from __future__ import annotations

import os

from dibs import Dibs, Message
from tests.evidence import record

app = Dibs()
LOG = os.environ.get("DIBS_TEST_LOG", "/dev/null")


@app.consumer("task_queue")
def take(message: Message) -> None:
    """Take a plain message."""
    record(LOG, "plain", message.text)


@app.task(queue="pictures")
def resize(path: str, width: int = 800) -> None:
    """Take a job, its arguments decoded."""
    record(LOG, "job", f"{path} {width}")
