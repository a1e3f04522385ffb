"""Real workers as real processes, for tests that kill them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType

from tests.waiting import until

ROOT = Path(__file__).parent.parent


class Worker:
    """One `dibs worker`. Its log goes to a file; what is left of it at the end is killed."""

    def __init__(self, *arguments: str, directory: Path, env: dict[str, str], cwd: Path = ROOT) -> None:
        directory.mkdir(exist_ok=True)
        self._log = directory / f"worker-{len(list(directory.iterdir()))}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "dibs.cli.main", "worker", *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **env, "PYTHONUNBUFFERED": "1"},
                cwd=cwd,
            )

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self.kill()
        print(f"--- {self._log.name}\n{self.log}")  # pytest shows it where the test failed

    @property
    def pid(self) -> int:
        """The supervisor's process id."""
        return self._process.pid

    @property
    def log(self) -> str:
        """What it has said so far."""
        return self._log.read_text()

    @property
    def executors(self) -> list[int]:
        """Process ids of its executors."""
        found = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [int(pid) for pid in found]

    def wait_ready(self) -> Worker:
        """Wait until it consumes."""
        until(lambda: "worker ready" in self.log or self._process.poll() is not None)
        assert self._process.poll() is None, self.log
        return self

    def signal(self, number: signal.Signals) -> None:
        """Send the supervisor a signal."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """Kill the supervisor, and see that nothing of its tree is left."""
        executors = self.executors
        self._process.kill()
        self._process.wait()
        until(lambda: not any(is_alive(pid) for pid in executors))

    def wait(self, timeout: float = 30.0) -> int:
        """Wait for its end and return the exit code."""
        return self._process.wait(timeout)


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
