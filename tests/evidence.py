"""What tasks leave behind for the tests to read: one line an event, appended whole, by whichever process."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple


class Event(NamedTuple):
    """Something that a task did."""

    kind: str
    #: What the test called the job.
    key: str
    #: The executor that it did it in.
    pid: int
    #: Seconds since 1970.
    at: float


def record(path: str, kind: str, key: str) -> None:
    """Append an event; a line this short is never torn by another process's."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, f"{kind}\t{key}\t{os.getpid()}\t{time.time()}\n".encode())
    finally:
        os.close(descriptor)


def events(path: Path, kind: str | None = None) -> list[Event]:
    """Return what was recorded so far, in order."""
    if not path.exists():
        return []
    found = []
    whole, _, _ = path.read_text().rpartition("\n")  # a line over a page's end can be seen half written
    for line in whole.splitlines():
        name, key, pid, at = line.split("\t")
        if kind in (None, name):
            found.append(Event(name, key, int(pid), float(at)))
    return found
