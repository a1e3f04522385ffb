"""An executor's slots on an event loop: coroutine functions as tasks of it, plain functions on threads."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from dibs.run import Call
from dibs.worker.executor import Executor, end_with
from dibs.worker.frames import Finished, Start


def serve_on_loop(executor: Executor) -> None:
    """Run jobs until the supervisor says stop."""
    asyncio.run(_Loop(executor).serve())


class _Loop:
    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._line = executor.line
        self._threads = ThreadPoolExecutor(executor.slots, thread_name_prefix="dibs-slot")
        self._running: set[asyncio.Task[None]] = set()
        self._stop = asyncio.Event()

    async def serve(self) -> None:
        await self._executor.start()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._line.fileno(), self._read)
        self._loop.add_reader(self._line.permits, self._take)
        await self._stop.wait()
        self._loop.remove_reader(self._line.fileno())
        self._loop.remove_reader(self._line.permits)
        await self._executor.stop()
        self._threads.shutdown(wait=False)

    def _read(self) -> None:
        self._line.read()
        if self._line.is_stopped:
            self._stop.set()
        self._take()

    def _take(self) -> None:
        """Start what may be started; while all slots are taken, permits are left to the supervisor."""
        while len(self._running) < self._executor.slots:
            start = self._line.take()
            if start is None:
                return
            running = asyncio.create_task(self._run(start))
            self._running.add(running)  # the loop itself holds tasks weakly
            running.add_done_callback(self._finish)
        self._loop.remove_reader(self._line.permits)

    def _finish(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if task.cancelled() or task.exception() is not None:
            end_with(task.exception() if not task.cancelled() else None)
        if len(self._running) == self._executor.slots - 1 and not self._stop.is_set():
            self._loop.add_reader(self._line.permits, self._take)
            self._take()

    async def _run(self, start: Start) -> None:
        begun = self._executor.runner.begin(start.message)
        if not isinstance(begun, Call):
            outcome = begun
        elif begun.is_async:
            try:
                outcome = await begun.arun()
            except asyncio.CancelledError as error:  # by the task itself: nobody else cancels a run
                outcome = begun.judge(error)
        else:
            outcome = await self._loop.run_in_executor(self._threads, begun.run)
        self._line.send(Finished(start.number, outcome))
