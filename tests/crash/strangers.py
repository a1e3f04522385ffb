"""The app that strangers' messages are sent to: each run that ended well leaves the digest of its body."""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import os
from typing import Any

from dibs import Backoff, Dibs, Message, current_job
from tests.evidence import record

app = Dibs(namespace=os.environ.get("DIBS_TEST_NAMESPACE", ""), unknown_task_limit=0)
LOG = os.environ.get("DIBS_TEST_LOG", "/dev/null")
_AT_ONCE = Backoff(first=0.001, limit=0.001)


def digest(body: bytes) -> str:
    """Return what a body is known by."""
    return hashlib.sha256(body).hexdigest()


def ran() -> None:
    """Say that the job that runs here has run."""
    record(LOG, "ran", digest(current_job()._message.body))


@app.task(queue="jobs", name="nothing")
def nothing() -> None:
    """Take nothing."""
    ran()


@app.task(queue="jobs", name="anything", retries=0)
def anything(value: Any) -> Any:
    """Take whatever comes and give it back."""
    ran()
    return value


@app.task(queue="jobs", name="everything", retries=0)
async def everything(*args: Any, **kwargs: Any) -> Any:
    """Take all that comes, in a coroutine."""
    await asyncio.sleep(0)
    ran()
    return args, kwargs


@app.task(queue="jobs", name="choosy", retries=0)
def choosy(number: int, when: dt.datetime, *, name: str = "") -> None:
    """Take values of certain types."""
    ran()


@app.task(queue="jobs", name="twice", retries=1, backoff=_AT_ONCE)
def twice(*args: Any) -> None:
    """Fail the first time, so that the message is published again."""
    if current_job().attempt == 1:
        raise ValueError("not yet")
    ran()


@app.consumer("plain", retries=0)
def plain(message: Message) -> Any:
    """Take a plain message and give back what is odd about it."""
    ran()
    return message.headers


@app.consumer("again", retries=1, backoff=_AT_ONCE)
def again(message: Message) -> None:
    """Fail the first time."""
    if message.attempt == 1:
        raise ValueError(f"not yet: {message}")
    ran()
