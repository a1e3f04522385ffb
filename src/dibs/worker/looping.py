"""An executor's slots on an event loop: coroutine functions as tasks of it, plain functions on threads."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from dibs.run import Call
from dibs.worker.executor import Executor
from dibs.worker.frames import Finished, Start, Stop


def serve_on_loop(executor: Executor) -> None:
    """Run jobs until the supervisor says stop."""
    asyncio.run(_Loop(executor).serve())


class _Loop:
    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._threads = ThreadPoolExecutor(executor.slots, thread_name_prefix="dibs-slot")
        self._running: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        executor = self._executor
        stop = asyncio.Event()
        await executor.start()
        loop = asyncio.get_running_loop()
        loop.add_reader(executor.line.fileno(), self._read, stop)
        await stop.wait()
        loop.remove_reader(executor.line.fileno())
        await executor.stop()
        self._threads.shutdown(wait=False)

    def _read(self, stop: asyncio.Event) -> None:
        for frame in self._executor.line.receive(is_waiting=False):
            match frame:
                case Start():
                    running = asyncio.create_task(self._run(frame))
                    self._running.add(running)  # the loop itself holds tasks weakly
                    running.add_done_callback(self._running.discard)
                case Stop():
                    stop.set()
                case _:
                    raise TypeError(f"The supervisor sent a {type(frame).__name__}.")

    async def _run(self, start: Start) -> None:
        begun = self._executor.runner.begin(start.message)
        if not isinstance(begun, Call):
            outcome = begun
        elif begun.is_async:
            outcome = await begun.arun()
        else:
            outcome = await asyncio.get_running_loop().run_in_executor(self._threads, begun.run)
        self._executor.line.send(Finished(start.number, outcome))
