"""An executor: a child process that imports the app and runs jobs in its slots.

It talks to its supervisor alone, never to the queue that feeds it, and dies with it. Started as
`python -m dibs.worker.executor FD`, FD being a socket's descriptor.
"""

from __future__ import annotations

import ctypes
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Iterator

from dibs.app import Dibs
from dibs.errors import DibsError
from dibs.lifespan import Lifespan, finish
from dibs.loading import load_app
from dibs.message import Message
from dibs.outcome import Outcome, clip_error
from dibs.run import Call, Runner
from dibs.worker.frames import Finished, Frame, Ready, Refused, Setup, Start, Stop
from dibs.worker.line import Line

#: From linux/prctl.h.
_PR_SET_PDEATHSIG = 1


class Executor:
    """An imported app with a line to the supervisor. How its slots run is `serve_…`'s business."""

    def __init__(self, line: Line, app: Dibs, slots: int) -> None:
        self.line = line
        self.slots = slots
        self.lifespan = Lifespan(*app.hooks)
        self.runner = Runner(app.tasks, app.listeners, unknown_task_limit=app.unknown_task_limit)
        self._app = app

    @property
    def needs_loop(self) -> bool:
        """Whether something here is async."""
        app = self._app
        return (
            self.lifespan.needs_loop
            or any(task.is_async for task in app.tasks.values())
            or any(listener.is_async for listener in app.listeners.values())
        )

    async def start(self) -> None:
        """Run the start hooks and tell the supervisor that jobs may come, or that none may."""
        app = self._app
        try:
            await self.lifespan.start()
        except BaseException:  # noqa: BLE001 -- whatever a hook raises, the supervisor must hear of it
            self.line.send(Refused(clip_error(f"An on_start hook failed.\n{traceback.format_exc()}")))
            sys.exit(1)
        self.line.send(
            Ready(
                url=app.url,
                namespace=app.namespace,
                may_declare=app.may_declare,
                queues=app.declared(),
                tasks=sorted(app.tasks),
            )
        )

    async def stop(self) -> None:
        """Run the stop hooks and let go of the broker that tasks used."""
        await self.lifespan.stop()
        self._app.close()

    def run(self, message: Message) -> Outcome:
        """Run a message whose function is plain."""
        begun = self.runner.begin(message)
        return begun.run() if isinstance(begun, Call) else begun


def main(descriptor: int) -> None:
    """Import the app, say so, and run jobs until told to stop."""
    _die_with_parent()
    line = Line(descriptor)
    executor = _load(line)
    if executor.needs_loop:
        from dibs.worker.looping import serve_on_loop  # noqa: PLC0415 -- asyncio costs 10 MB where nothing is async

        serve_on_loop(executor)
    elif executor.slots > 1:
        _serve_on_threads(executor)
    else:
        _serve_alone(executor)


def _die_with_parent() -> None:
    """Ask the kernel for SIGKILL when the supervisor ends, so that no job runs on while others have it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _load(line: Line) -> Executor:
    setup = line.receive()[0]
    if not isinstance(setup, Setup):
        raise TypeError(f"The supervisor's first frame is a {type(setup).__name__}, not Setup.")
    try:
        app = load_app(setup.app)
        app.use(setup.url, may_create=True)
        for task in app.tasks.values():
            task.signature.resolve()
        return Executor(line, app, setup.slots)
    except DibsError as error:
        line.send(Refused(str(error)))
    except BaseException:  # noqa: BLE001 -- whatever the app's module raises, the supervisor must hear of it
        line.send(Refused(clip_error(traceback.format_exc())))
    sys.exit(1)


def _serve_alone(executor: Executor) -> None:
    """Run one job at a time, on the main thread."""
    finish(executor.start())
    for start in _starts(executor.line):
        executor.line.send(Finished(start.number, executor.run(start.message)))
    finish(executor.stop())


def _serve_on_threads(executor: Executor) -> None:
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
                    raise_unexpected(frame)


def raise_unexpected(frame: Frame) -> None:
    """Raise for a frame that a supervisor never sends here."""
    raise TypeError(f"The supervisor sent a {type(frame).__name__}.")


if __name__ == "__main__":
    main(int(sys.argv[1]))
