"""The demo's workers: `dibs worker` as anybody would start it, each a process tree of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType

from dibs.demo.tasks import LOG_VARIABLE, WORKER_VARIABLE

#: Seconds that workers get to end in order.
_PATIENCE = 10.0


class Fleet:
    """Workers, numbered from 1. Use it as a context: none of them outlives it."""

    def __init__(self, directory: Path, *, url: str, log: Path) -> None:
        self._directory = directory
        self._url = url
        self._log = log
        self._workers: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Fleet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.kill()
            worker.wait()

    @property
    def pids(self) -> list[int]:
        """The supervisors' process ids."""
        return [worker.pid for worker in self._workers]

    @property
    def is_alive(self) -> bool:
        """Whether every worker runs that was not killed."""
        return all(worker.poll() in (None, -signal.SIGKILL) for worker in self._workers)

    def start(self) -> None:
        """Start one more worker: one executor with one slot."""
        number = len(self._workers) + 1
        # The URL may hold a password, and everybody on the machine can read a process's arguments. -P: a file of
        # the user's named like a module must not shadow it.
        env = {WORKER_VARIABLE: str(number), LOG_VARIABLE: str(self._log), "DIBS_URL": self._url}
        with self._output(number).open("wb") as output:
            self._workers.append(
                subprocess.Popen(
                    [
                        sys.executable,
                        "-P",
                        "-m",
                        "dibs.cli.main",
                        "worker",
                        "dibs.demo.tasks:app",
                        "-p",
                        "1",
                        "-c",
                        "1",
                    ],
                    env={**os.environ, **env},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                )
            )

    def kill(self, number: int) -> None:
        """Kill a worker's supervisor (SIGKILL); that its executor dies with it is its own business."""
        self._workers[number - 1].kill()

    def stop(self) -> bool:
        """Tell all to stop (SIGTERM) and wait for their ends; tell whether they ended in order."""
        for worker in self._workers:
            worker.terminate()
        try:
            return all(worker.wait(_PATIENCE) in (0, -signal.SIGKILL) for worker in self._workers)
        except subprocess.TimeoutExpired:
            return False

    def said(self) -> str:
        """Return the workers' output, for when something went wrong."""
        numbers = range(1, len(self._workers) + 1)
        return "\n".join(f"--- worker {number}\n{self._output(number).read_text()}" for number in numbers)

    def _output(self, number: int) -> Path:
        return self._directory / f"worker-{number}.log"
