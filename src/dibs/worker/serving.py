"""An executor's slots without an event loop: on the main thread, or on threads."""

from __future__ import annotations

import threading

from dibs.lifespan import finish
from dibs.worker.executor import Executor, end_with
from dibs.worker.frames import Finished
from dibs.worker.interrupters import MainThreadInterrupter, ThreadInterrupter
from dibs.worker.relay import Relay, Runner


def serve_alone(executor: Executor) -> None:
    """Run one job at a time, on the main thread."""
    finish(executor.start())
    line = executor.line
    interrupter = MainThreadInterrupter(line, executor.alarms)
    while not line.is_stopped:
        start = line.take()
        if start is None:
            line.wait()
        else:
            line.send(Finished(start.number, executor.run(start, interrupter)))
    finish(executor.stop())


def serve_on_threads(executor: Executor) -> None:
    """Run a job per slot at a time, each on a thread that takes the next one itself: no hand-over between threads."""
    finish(executor.start())
    line = executor.line
    relay = Relay(line)
    interrupter = ThreadInterrupter(executor.alarms)
    interrupter.listen(executor.line)

    def serve() -> None:
        try:
            runner = Runner(relay)
            while (start := runner.take()) is not None:
                line.send(Finished(start.number, executor.run(start, interrupter)))
        except BaseException as error:  # noqa: BLE001 -- a slot without its thread would hold its job for ever
            end_with(error)

    slots = [threading.Thread(target=serve, name=f"dibs-slot-{number}") for number in range(executor.slots)]
    for slot in slots:
        slot.start()
    for slot in slots:
        slot.join()
    finish(executor.stop())
