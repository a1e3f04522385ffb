"""What the jobs write down: one line an event, appended whole, by whichever process it happens in.

The log knows no broker, so what it says is evidence for or against one. Times are those of the machine's
monotonic clock, which all processes share.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Literal

import msgspec

Kind = Literal["ready", "start", "end"]


class Event(msgspec.Struct, frozen=True, array_like=True):
    """Something that happened in an executor."""

    kind: Kind
    #: Seconds on the monotonic clock.
    at: float
    #: Number of the worker, from 1.
    worker: int
    #: The executor's process id.
    pid: int
    #: The job's letter; empty where the event is about none.
    job: str = ""


def write(log: Path, kind: Kind, worker: int, job: str = "") -> None:
    """Append an event. A line this short is never torn by another process's."""
    line = msgspec.json.encode(Event(kind, time.monotonic(), worker, os.getpid(), job)) + b"\n"
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line)
    finally:
        os.close(descriptor)


def read(log: Path) -> list[Event]:
    """Return what was written so far, by time."""
    if not log.exists():
        return []
    whole, _, _ = log.read_bytes().rpartition(b"\n")  # a line over a page's end can be seen half written
    return sorted((msgspec.json.decode(line, type=Event) for line in whole.splitlines()), key=lambda event: event.at)
