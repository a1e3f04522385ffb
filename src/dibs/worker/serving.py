"""An executor's slots without an event loop: on the main thread, or on threads."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator

from dibs.lifespan import finish
from dibs.worker.executor import Executor
from dibs.worker.frames import Finished, Start, Stop
from dibs.worker.line import Line


def serve_alone(executor: Executor) -> None:
    """Run one job at a time, on the main thread."""
    finish(executor.start())
    for start in _starts(executor.line):
        executor.line.send(Finished(start.number, executor.run(start.message)))
    finish(executor.stop())


def serve_on_threads(executor: Executor) -> None:
    """Run a job per slot at a time, each on a thread."""
    finish(executor.start())
    waiting: queue.SimpleQueue[Start] = queue.SimpleQueue()
    sending = threading.Lock()

    def serve() -> None:
        while True:
            start = waiting.get()
            finished = Finished(start.number, executor.run(start.message))
            with sending:
                executor.line.send(finished)

    for number in range(executor.slots):
        threading.Thread(target=serve, name=f"dibs-slot-{number}", daemon=True).start()
    for start in _starts(executor.line):
        waiting.put(start)
    finish(executor.stop())


def _starts(line: Line) -> Iterator[Start]:
    """Yield what is to be started, until the supervisor says stop."""
    while True:
        for frame in line.receive():
            match frame:
                case Start():
                    yield frame
                case Stop():
                    return
                case _:
                    raise TypeError(f"The supervisor sent a {type(frame).__name__}.")
