"""Who holds a file lock, read from the system for people to see. Nothing is decided by it."""

from __future__ import annotations

import os
from pathlib import Path

_LOCKS = Path("/proc/locks")


#: The bytes of a -shm that those who read lock, each his own. Source: https://sqlite.org/walformat.html
_READERS = range(123, 128)


def holders(path: Path, *, at: int) -> list[int]:
    """Return the process ids that have byte `at` of a file locked; empty where the system does not tell."""
    return _holders(path, "WRITE", range(at, at + 1))


def readers(shm: Path) -> list[int]:
    """Return the process ids that read an SQLite database in WAL mode at this moment."""
    return sorted(set(_holders(shm, "READ", _READERS)))


def _holders(path: Path, kind: str, wanted: range) -> list[int]:
    """Return the process ids that have a byte in `wanted` locked.

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
        if len(fields) == 8 and fields[3] == kind and fields[5] == place:
            end = float("inf") if fields[7] == "EOF" else int(fields[7])
            if int(fields[6]) < wanted.stop and wanted.start <= end:
                pids.append(int(fields[4]))
    return pids
