"""An executor's inside: an imported app, its hooks, and a line to the supervisor."""

from __future__ import annotations

import os
import sys
import traceback
from typing import NoReturn

from dibs.app import Dibs
from dibs.lifespan import Lifespan
from dibs.outcome import Dead, Outcome, RetryIn, clip_error
from dibs.run import Call, make_runner
from dibs.worker.alarms import Alarms
from dibs.worker.frames import Began, Ready, Refused, Start
from dibs.worker.joblog import listen
from dibs.worker.line import Line
from dibs.worker.notes import Teller
from dibs.worker.watch import FunctionWatch, Interrupter


class Executor:
    """What the ways to serve (`serving.py`, `looping.py`) have in common."""

    def __init__(self, line: Line, app: Dibs, slots: int) -> None:
        self.line = line
        self.slots = slots
        self.alarms = Alarms()
        self.teller = Teller(line, self.alarms)
        self.lifespan = Lifespan(*app.hooks)
        limit = app.unknown_task_limit
        self.runner = make_runner(app.tasks, app.listeners, app.tracing, unknown_task_limit=limit)
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
        listen()  # behind the hooks, which may be what configures logging
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

    def run(self, start: Start, interrupter: Interrupter) -> Outcome:
        """Run a job whose function is plain."""
        begun = self.runner.begin(start.message)
        return self.call(start.number, begun, interrupter) if isinstance(begun, Call) else begun

    def call(self, number: int, call: Call, interrupter: Interrupter) -> Outcome:
        """Run a plain function, within its time limit if it has one."""
        timeout = call.policy.timeout
        if timeout is not None:
            self.announce(number, call, timeout)
        return call.run(FunctionWatch(self.line, self.teller, number, call.message, interrupter, timeout))

    def announce(self, number: int, call: Call, timeout: float) -> None:
        """Tell the supervisor that a limited run begins: this process may be unable to say so when it is over."""
        match call.judge_overtime():
            case RetryIn(delay=delay):
                self.line.send(Began(number, timeout, delay, "failed"))
            case Dead(reason=reason):
                self.line.send(Began(number, timeout, None, reason))
            case other:
                raise TypeError(f"A run that took too long can't be {other}.")


def end_with(error: BaseException | None) -> NoReturn:
    """End this process here and now: a run can't be told of, and its supervisor would wait for it for ever."""
    traceback.print_exception(error)
    sys.stderr.flush()
    os._exit(70)
