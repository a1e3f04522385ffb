"""The body of every job, the same for all systems: one 32-byte record, appended to a file in shared memory.

Runs in each system's own virtual environment, so it needs nothing but the standard library and costs next to nothing
to import. `bench/records.py` reads what is written here.
"""

from __future__ import annotations

import functools
import os
import struct
import time

#: The job's number, its start, its end (0: it has only begun) and its process. Times are `time.monotonic_ns`, which
#: on Linux all processes share.
RECORD = struct.Struct("<QQQQ")
#: Numbers from here up are jobs that warm something up; they are not counted.
WARM_UP = 1 << 32


def run(number: int, seconds: float = 0.0, padding: str = "") -> None:  # noqa: ARG001
    """Do the job: sleep for so many seconds, then say that it was done."""
    start = time.monotonic_ns()
    if seconds:
        _write(number, start, 0)
        time.sleep(seconds)
    _write(number, start, time.monotonic_ns())


async def arun(number: int, seconds: float = 0.0, padding: str = "") -> None:  # noqa: ARG001
    """Do the job on an event loop, for systems whose own way that is."""
    start = time.monotonic_ns()
    if seconds:
        _write(number, start, 0)
        import asyncio  # noqa: PLC0415 -- 3 MB of each process that measures memory and runs plain functions

        await asyncio.sleep(seconds)
    _write(number, start, time.monotonic_ns())


def _write(number: int, start: int, end: int) -> None:
    os.write(_file(), RECORD.pack(number, start, end, os.getpid()))  # appending so little is atomic


@functools.cache
def _file() -> int:
    return os.open(os.environ["BENCH_RECORDS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
