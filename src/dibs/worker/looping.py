"""An executor's slots on an event loop: coroutine functions as tasks of it, plain functions on threads."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from dibs.outcome import Cancelled, JobTimeout, Outcome
from dibs.run import Call, overtime_text
from dibs.worker.executor import Executor, end_with
from dibs.worker.frames import Finished, Overdue, Start
from dibs.worker.interrupters import ThreadInterrupter, cancel
from dibs.worker.options import TIMEOUT_PATIENCE
from dibs.worker.watch import Watch


def serve_on_loop(executor: Executor) -> None:
    """Run jobs until the supervisor says stop."""
    with executor.line.reading:  # the loop alone reads; a function on a thread must not take its frames
        asyncio.run(_Loop(executor).serve())


class _Loop:
    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._line = executor.line
        self._threads = ThreadPoolExecutor(executor.slots, thread_name_prefix="dibs-slot")
        self._interrupter = ThreadInterrupter(executor.alarms)
        self._running: set[asyncio.Task[None]] = set()
        self._coroutines: dict[int, _CoroutineWatch] = {}
        self._stop = asyncio.Event()

    async def serve(self) -> None:
        await self._executor.start()
        self._loop = asyncio.get_running_loop()
        self._line.on_cancel = self._cancel
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
            outcome = await self._await(start.number, begun)
        else:
            outcome = await self._loop.run_in_executor(
                self._threads, self._executor.call, start.number, begun, self._interrupter
            )
        self._line.send(Finished(start.number, outcome))

    async def _await(self, number: int, call: Call) -> Outcome:
        """Run a coroutine function, which is cancelled when its time is over."""
        timeout = call.policy.timeout
        if timeout is not None:
            self._executor.announce(number, call, timeout)
        watch = _CoroutineWatch(self._executor, number, call)
        self._coroutines[number] = watch
        try:
            if number in self._line.cancelled:
                return Cancelled()  # asked for before it began
            return await call.arun(watch)
        finally:
            del self._coroutines[number]
            watch.end()

    def _cancel(self) -> None:
        cancel(self._interrupter.watches, self._line.cancelled)
        for number in self._line.cancelled:
            if (watch := self._coroutines.get(number)) is not None:
                watch.cancel()


class _CoroutineWatch(Watch):
    """Surrounds the run of a coroutine function: cancels it when its time is over or its job is cancelled."""

    def __init__(self, executor: Executor, number: int, call: Call) -> None:
        super().__init__(executor.line, executor.teller, number, call.message)
        self._timeout = call.policy.timeout
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._timer = None if self._timeout is None else self._loop.call_later(self._timeout, self._expire)
        self._is_overdue = False

    def why_cancelled(self, error: BaseException) -> BaseException | None:
        """Return that its time is over, if it is; else it cancelled itself, as nobody else cancels a run."""
        if not self._is_overdue:
            return error
        overtime = JobTimeout(overtime_text(self._timeout or 0.0))
        overtime.__cause__ = error  # shows where it was
        return overtime

    def cancel(self) -> None:
        """Cancel the run because its job is cancelled; once."""
        if not self.is_cancelled and self._task is not None:
            self.is_cancelled = True
            self._task.cancel()

    def end(self) -> None:
        """Count no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _expire(self) -> None:
        self._is_overdue = True
        if self._task is not None:
            self._task.cancel()
        self._timer = self._loop.call_later(TIMEOUT_PATIENCE, lambda: self._line.send(Overdue(self._number)))
