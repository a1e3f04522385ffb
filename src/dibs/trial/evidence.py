"""What processes write down that may be killed at any moment: one line an event, appended by a single write.

Each process has a file of its own. A SIGKILL can cut a write in two where it crosses a page, so of a process that
was killed the last line may be half; in a file that others share, somebody's next line would be joined to it.
The files know no broker, so what they say is evidence for or against one. Times are those of the machine's
monotonic clock, which all processes share.
"""

from __future__ import annotations

import os
import time
from functools import cached_property
from pathlib import Path

import msgspec

_DIRECTORY, _NUMBER = "DIBS_TRIAL_EVIDENCE", "DIBS_TRIAL_NUMBER"


class Event(msgspec.Struct, frozen=True, array_like=True):
    """Something that happened in a process."""

    kind: str
    #: Seconds on the monotonic clock.
    at: float
    #: Number of the worker or producer, from 1.
    number: int
    #: The id of the process that it happened in.
    pid: int
    #: The job; empty where the event is about none.
    job: str = ""
    #: Tells this run of the job from every other one; empty where the event is about none.
    run: str = ""


def environment(directory: Path, number: int) -> dict[str, str]:
    """Return the variables by which a process that is started is told where to write, and as whom."""
    return {_DIRECTORY: str(directory), _NUMBER: str(number)}


class Pen:
    """Writes for one process, into a file that is made at the first event."""

    def __init__(self, directory: Path, number: int) -> None:
        #: Where the evidence is.
        self.directory = directory
        #: Number of the worker or producer that this process belongs to.
        self.number = number

    @classmethod
    def from_environment(cls) -> Pen:
        """Return the pen that `environment` tells of. A process that was told of none can't write."""
        return cls(Path(os.environ.get(_DIRECTORY, os.devnull)), int(os.environ.get(_NUMBER, "0")))

    @cached_property
    def _descriptor(self) -> int:
        path = self.directory / f"{os.getpid()}-{time.monotonic_ns()}.jsonl"
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def write(self, kind: str, *jobs: str, run: str = "") -> None:
        """Append an event for each of these jobs, or one that is about none.

        Raises:
            OSError: it can't be written, or not all of it.
        """
        at, pid = time.monotonic(), os.getpid()
        events = [Event(kind, at, self.number, pid, job, run) for job in jobs or ("",)]
        data = b"".join(msgspec.json.encode(event) + b"\n" for event in events)
        if (written := os.write(self._descriptor, data)) < len(data):
            raise OSError(f"Only {written} of {len(data)} bytes of evidence could be written; is the disk full?")


class Evidence:
    """Reads what all processes have written, as it grows."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        #: How far each file was read.
        self._read: dict[str, int] = {}

    def news(self) -> list[Event]:
        """Return what was written since the last call, by time within each process.

        A half line at the end of a file is left for the next call: it is still being written, or its writer is dead.

        Raises:
            OSError: a line that is not the last one can't be read.
        """
        found: list[Event] = []
        with os.scandir(self._directory) as entries:
            for entry in entries:
                begin = self._read.get(entry.path, 0)
                if entry.stat().st_size > begin:
                    found += self._read_on(entry.path, begin)
        return sorted(found, key=lambda event: event.at)

    def _read_on(self, path: str, begin: int) -> list[Event]:
        with Path(path).open("rb") as file:
            file.seek(begin)
            whole, newline, _ = file.read().rpartition(b"\n")
        self._read[path] = begin + len(whole) + len(newline)
        try:
            return [msgspec.json.decode(line, type=Event) for line in whole.splitlines()]
        except msgspec.DecodeError as error:
            raise OSError(f"The evidence in {path} is damaged: {error}.") from error
