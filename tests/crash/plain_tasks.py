"""An app without coroutines: its functions run on the main thread of their executor."""

from __future__ import annotations

import itertools
import os
import time

from dibs import Dibs, current_job
from tests.evidence import record

app = Dibs(namespace=os.environ.get("DIBS_TEST_NAMESPACE", ""))
LOG = os.environ.get("DIBS_TEST_LOG", "/dev/null")


@app.task(timeout=0.5, retries=0)
def nap(key: str, seconds: float) -> None:
    """Sleep, within half a second; a task's own `except Exception` is no way around that."""
    record(LOG, "start", key)
    try:
        time.sleep(seconds)
    except Exception:  # noqa: BLE001 -- as tasks do
        record(LOG, "swallowed", key)
    finally:
        record(LOG, "cleaned-up", key)
    record(LOG, "end", key)


@app.task(timeout=0.2, retries=0)
def hold_main_thread(key: str) -> None:
    """Run C code that lets no other thread and no signal in, for ever."""
    record(LOG, "start", key)
    sum(itertools.repeat(0))


@app.task(queue="watched")
def watch_hold(key: str) -> None:
    """Say when the job is lost, and when it is this worker's again."""
    record(LOG, "start", key)
    while not current_job().is_lost:
        time.sleep(0.01)
    record(LOG, "lost", key)
    while current_job().is_lost:
        time.sleep(0.01)
    record(LOG, "end", key)
