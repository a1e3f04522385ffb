"""The apps that the workers run: tasks that write down each of their runs, and fail or die as they are told."""

from __future__ import annotations

import asyncio
import ctypes
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

from dibs.app import Dibs
from dibs.backoff import Backoff
from dibs.chaos.plan import Order
from dibs.current import current_job
from dibs.message import new_id
from dibs.outcome import Retry
from dibs.task import AnyTask, Task
from dibs.trial.evidence import Pen

P = ParamSpec("P")
R = TypeVar("R")

#: Put before every name in the broker, so that nothing of anybody else's is touched.
NAMESPACE = "dibs-chaos"
#: Where plain functions wait, and where coroutines do.
PLAIN, ASYNC = "plain", "async"
#: Retries come soon: nobody wants to wait for them.
_SOON = Backoff(first=0.2, limit=1.0)

#: With a coroutine among its tasks, so its executors run everything on an event loop or beside it.
app = Dibs(namespace=NAMESPACE, handover_timeout=5.0)
#: Without, so its executors run one job at a time on their main thread, or several on threads.
plain_app = Dibs(namespace=NAMESPACE, handover_timeout=5.0)
PEN = Pen.from_environment()


@app.on_start
@plain_app.on_start
def get_ready() -> None:
    """Write down that an executor is about to receive jobs."""
    PEN.write("ready")


def _task(*, retries: int = 8) -> Callable[[Callable[P, R]], Task[P, R, R]]:
    def register(function: Callable[P, R]) -> Task[P, R, R]:
        plain_app.task(queue=PLAIN, retries=retries, backoff=_SOON)(function)
        made: Task[P, R, R] = app.task(queue=PLAIN, retries=retries, backoff=_SOON)(function)
        return made

    return register


@_task()
def work(seconds: float) -> None:
    """Take that long."""
    with _recorded():
        time.sleep(seconds)


@app.task(queue=ASYNC, backoff=_SOON)
async def awork(seconds: float) -> None:
    """Take that long without blocking the loop."""
    with _recorded():
        await asyncio.sleep(seconds)


@_task()
def flaky(how: str) -> None:
    """Fail at the first run, by an exception or by asking for another one."""
    with _recorded():
        if current_job().attempt == 1:
            if how == "retry":
                raise Retry(delay=0.1)
            raise ValueError("The first run of this job fails.")


@_task(retries=1)
def hopeless() -> None:
    """Fail always."""
    with _recorded():
        raise ValueError("Every run of this job fails.")


@_task()
def killer(how: str) -> None:
    """Kill the executor, once."""
    with _recorded():
        try:
            (PEN.directory.parent / f"killed-{current_job().id}").mkdir()
        except FileExistsError:
            return
        _die(how)


@_task()
def poison(how: str) -> None:
    """Kill the executor, always."""
    with _recorded():
        _die(how)


def call_of(order: Order) -> tuple[AnyTask, tuple[Any, ...]]:
    """Return the task and the arguments that an order stands for."""
    match order.kind:
        case "async":
            return awork, (order.seconds,)
        case "flaky":
            return flaky, (order.how,)
        case "hopeless":
            return hopeless, ()
        case "killer":
            return killer, (order.how,)
        case "poison":
            return poison, (order.how,)
        case _:
            return work, (order.seconds,)


@contextmanager
def _recorded() -> Iterator[None]:
    """Write down that a run begins, and how it ends. Of one that is cut off there is only the beginning."""
    job, run = current_job().id, new_id()
    PEN.write("start", job, run=run)
    try:
        yield
    except BaseException:
        PEN.write("fail", job, run=run)
        raise
    PEN.write("end", job, run=run)


def _die(how: str) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # nobody wants a hundred core files
    match how:
        case "exit":
            os._exit(7)
        case "segfault":
            ctypes.string_at(0)
        case _:
            os.kill(os.getpid(), signal.SIGKILL)
