"""A worker's processes, all of them: started, looked at and killed as one, whatever sessions they make of themselves.

Linux only: it reads /proc.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

_MARK = "BENCH_TREE"
_GONE_WITHIN = 20.0


class Tree:
    """The processes that some commands started, and all that these started in turn."""

    def __init__(
        self, commands: Sequence[Sequence[str]], *, environment: Mapping[str, str], directory: Path, log: Path
    ) -> None:
        """Start the commands."""
        self._mark = secrets.token_hex(8)
        self._log = log
        self._processes: list[subprocess.Popen[bytes]] = []
        #: When the first one was started, on the clock of `bench.records`.
        self.started = time.monotonic_ns()
        with log.open("ab") as output:
            for command in commands:
                process = subprocess.Popen(
                    command,
                    env={**environment, _MARK: self._mark},
                    cwd=directory,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
                self._processes.append(process)

    @property
    def has_ended(self) -> bool:
        """Whether one of the commands has ended by itself."""
        return any(process.poll() is not None for process in self._processes)

    @property
    def output(self) -> str:
        """The end of what the processes printed, on one line."""
        return " / ".join(self._log.read_text(errors="replace").strip().splitlines()[-3:])[-400:]

    def members(self) -> set[int]:
        """Return the pids of all living processes of the tree: told by descent, or by a mark in the environment."""
        parents = dict(_parents())
        mark = f"{_MARK}={self._mark}".encode()
        found = {process.pid for process in self._processes} | {pid for pid in parents if mark in _environment(pid)}
        while more := {pid for pid, parent in parents.items() if parent in found} - found:
            found |= more
        return found & parents.keys()

    def cpu_seconds(self) -> float:
        """Return the CPU time that the living processes have used."""
        return sum(_cpu_nanoseconds(pid) for pid in self.members()) / 1e9

    def memory_bytes(self) -> int:
        """Return the memory that the tree costs: shared pages count by their share (PSS)."""
        return sum(_pss_bytes(pid) for pid in self.members())

    def kill(self) -> int:
        """Kill all of it at once (SIGKILL); return when, and wait until it is gone."""
        members = self.members()
        killed = time.monotonic_ns()
        deadline = time.monotonic() + _GONE_WITHIN
        while members:
            for pid in members:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for process in self._processes:
                process.poll()  # reaps it, else it would stay a member
            members = self.members()
            if time.monotonic() > deadline:
                raise RuntimeError(f"Processes {sorted(members)} did not end within {_GONE_WITHIN:.0f} s of SIGKILL.")
        for process in self._processes:
            process.wait()
        return killed


def _parents() -> Iterator[tuple[int, int]]:
    """Yield each living process with its parent."""
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                # The name in brackets may hold anything, brackets and spaces too.
                state, parent = Path(entry.path, "stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
                if state not in "ZX":
                    yield int(entry.name), int(parent)


def _environment(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/environ").read_bytes()
    return b""


def _cpu_nanoseconds(pid: int) -> int:
    used = 0
    with contextlib.suppress(OSError):
        for thread in os.scandir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):  # one that ends as we look
                used += int(Path(thread.path, "schedstat").read_text().split()[0])
    return used


def _pss_bytes(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
