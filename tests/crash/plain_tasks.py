"""An app without coroutines: its functions run on the main thread of their executor."""

from __future__ import annotations

import itertools
import logging
import os
import pathlib
import time

from dibs import Backoff, Dibs, current_job
from tests.evidence import record

app = Dibs(namespace=os.environ.get("DIBS_TEST_NAMESPACE", ""))
LOG = os.environ.get("DIBS_TEST_LOG", "/dev/null")
log = logging.getLogger("shop")


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


@app.task
def sleep_on(key: str) -> None:
    """Sleep until somebody ends it, and clean up."""
    record(LOG, "start", key)
    try:
        time.sleep(600)
    finally:
        record(LOG, "cleaned-up", key)


@app.task
def spin_on(key: str) -> None:
    """Count in Python until somebody ends it, and clean up."""
    record(LOG, "start", key)
    try:
        while True:
            sum(range(100))
    finally:
        record(LOG, "cleaned-up", key)


@app.task
def resist_on(key: str) -> None:
    """Swallow whatever is raised in it."""
    record(LOG, "start", key)
    while True:
        try:
            time.sleep(0.1)
        except BaseException:  # noqa: BLE001 -- that is the point
            record(LOG, "resisted", key)


@app.task
def hold_on(key: str) -> None:
    """Run C code that lets no other thread and no signal in, for ever."""
    record(LOG, "start", key)
    sum(itertools.repeat(0))


@app.task
def wait_for_file(key: str, path: str) -> str:
    """Run until the test makes a file."""
    record(LOG, "start", key)
    while not pathlib.Path(path).exists():
        time.sleep(0.01)
    record(LOG, "end", key)
    return key


@app.task
def tell(key: str, path: str) -> None:
    """Say how far it is, and log, until the test makes a file; then say a last word."""
    record(LOG, "start", key)
    count = 0
    while not pathlib.Path(path).exists():
        count += 1
        current_job().progress(count, None, "on the way")
        if count % 1000 == 0:
            log.info("line\x1b %d", count)
        time.sleep(0.0001)
    current_job().progress(7, 7, "all there")
    log.warning("%d of them", "many")  # a mistake of the task's, which is not to hurt it
    log.info("last line")


@app.task(backoff=Backoff(first=0.5, jitter=False))
def fail(key: str, seconds: float) -> None:
    """Take so long, and fail."""
    record(LOG, "start", key)
    time.sleep(seconds)
    raise ValueError(key)
