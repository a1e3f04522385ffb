"""The demo's workers: `dibs worker` as anybody would start it, each a process tree of its own."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from types import TracebackType

from dibs.trial.evidence import environment
from dibs.trial.process import Process

#: Seconds that workers get to end in order.
_PATIENCE = 10.0


class Fleet:
    """Workers, numbered from 1. Use it as a context: none of them outlives it."""

    def __init__(self, directory: Path, *, url: str, log: Path) -> None:
        self._directory = directory
        self._url = url
        self._log = log
        self._workers: list[Process] = []

    def __enter__(self) -> Fleet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.kill()

    @property
    def pids(self) -> list[int]:
        """The supervisors' process ids."""
        return [worker.pid for worker in self._workers]

    @property
    def is_alive(self) -> bool:
        """Whether every worker runs that was not killed."""
        return all(worker.code in (None, -signal.SIGKILL) for worker in self._workers)

    def start(self) -> None:
        """Start one more worker: one executor with one slot."""
        number = len(self._workers) + 1
        env = environment(self._log, number) | {"DIBS_URL": self._url}
        command = ("dibs.cli.main", "worker", "dibs.demo.tasks:app", "-p", "1", "-c", "1")
        self._workers.append(Process(*command, env=env, output=self._directory / f"worker-{number}.log"))

    def kill(self, number: int) -> None:
        """Kill a worker's supervisor (SIGKILL); that its executor dies with it is its own business."""
        self._workers[number - 1].signal(signal.SIGKILL)

    def stop(self) -> bool:
        """Tell all to stop (SIGTERM) and wait for their ends; tell whether they ended in order."""
        for worker in self._workers:
            worker.signal(signal.SIGTERM)
        deadline = time.monotonic() + _PATIENCE
        return all(worker.wait(deadline - time.monotonic()) in (0, -signal.SIGKILL) for worker in self._workers)

    def said(self) -> str:
        """Return the workers' output, for when something went wrong."""
        return "\n".join(f"--- worker {number}\n{worker.said()}" for number, worker in enumerate(self._workers, 1))
