"""Who holds a file lock, read from the system for people to see. Nothing is decided by it."""

from __future__ import annotations

import os
from pathlib import Path

_LOCKS = Path("/proc/locks")


def holders(path: Path, *, at: int) -> list[int]:
    """Return the process ids that have byte `at` of a file locked; empty where the system does not tell.

    Source: proc(5), /proc/locks: "1: POSIX ADVISORY WRITE 5433 08:01:7864448 128 128"; "->" marks those who wait.
    """
    try:
        found = path.stat()
        lines = _LOCKS.read_text().splitlines()
    except OSError:
        return []
    place = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    pids = []
    for fields in (line.split() for line in lines):
        if len(fields) == 8 and fields[3] == "WRITE" and fields[5] == place:
            end = float("inf") if fields[7] == "EOF" else int(fields[7])
            if int(fields[6]) <= at <= end:
                pids.append(int(fields[4]))
    return pids
