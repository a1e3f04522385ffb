"""The app that the crash tests run: its tasks leave evidence in a file, and misbehave on demand."""

from __future__ import annotations

import asyncio
import ctypes
import itertools
import os
import pathlib
import signal
import stat
import time

from dibs import Backoff, Bury, Dibs, Message, current_job
from tests.evidence import record

app = Dibs(namespace=os.environ.get("DIBS_TEST_NAMESPACE", ""))
#: What `grow` keeps.
HOARD: list[bytes] = []
LOG = os.environ.get("DIBS_TEST_LOG", "/dev/null")

for name in ("left", "middle", "right"):
    app.queue(name)


@app.task
def work(key: str, seconds: float = 0.0) -> None:
    """Take so long, and say when it began and ended."""
    record(LOG, "start", key)
    time.sleep(seconds)
    record(LOG, "end", key)


@app.task
def hog(key: str, seconds: float) -> None:
    """Keep the GIL for about so long: no other thread of this process runs meanwhile."""
    record(LOG, "start", key)
    fastest = min(_sum_for(5_000_000) for _ in range(5))  # the machine may be busy just now, and not later
    _sum_for(int(5_000_000 * seconds / fastest))
    record(LOG, "end", key)


def _sum_for(count: int) -> float:
    began = time.perf_counter()
    sum(range(count))  # one call of C, which never looks up
    return time.perf_counter() - began


@app.task
def wait_for_file(key: str, path: str) -> None:
    """Run until the test makes a file."""
    record(LOG, "start", key)
    while not pathlib.Path(path).exists():
        time.sleep(0.01)
    record(LOG, "end", key)


@app.task(queue="async")
async def awork(key: str, seconds: float = 0.0) -> None:
    """Take so long without blocking the loop."""
    record(LOG, "start", key)
    await asyncio.sleep(seconds)
    record(LOG, "end", key)


@app.task(queue="async")
async def asleep_on(key: str) -> None:
    """Sleep until somebody ends it, and clean up."""
    record(LOG, "start", key)
    try:
        await asyncio.sleep(600)
    finally:
        record(LOG, "cleaned-up", key)


@app.task(queue="async")
async def aresist_on(key: str) -> None:
    """Swallow its cancellation."""
    record(LOG, "start", key)
    while True:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            record(LOG, "resisted", key)


@app.task
def spin_on(key: str) -> None:
    """Count in Python until somebody ends it, and clean up."""
    record(LOG, "start", key)
    try:
        while True:
            sum(range(100))
    finally:
        record(LOG, "cleaned-up", key)


@app.task(queue="async", retries=0)
async def cancel_itself(key: str) -> None:
    """Cancel the coroutine that runs, as a misused timeout does."""
    record(LOG, "start", key)
    current = asyncio.current_task()
    assert current is not None
    current.cancel()
    await asyncio.sleep(60)


@app.task
def babble(key: str) -> None:
    """Write text to descriptors that are not its own."""
    record(LOG, "start", key)
    for descriptor in range(3, 64):
        try:
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                os.write(descriptor, b"hello, world\n" * 10)
        except OSError:
            continue
    time.sleep(60)


@app.task
def die(key: str, how: str) -> None:
    """End the executor."""
    record(LOG, "start", key)
    match how:
        case "exit":
            os._exit(7)
        case "segfault":
            ctypes.string_at(0)
        case "close":  # a task that closes descriptors which are not its own
            os.closerange(3, 256)
            time.sleep(60)
        case _:
            os.kill(os.getpid(), signal.SIGKILL)


@app.task
def die_once(key: str) -> None:
    """End the executor at the first run only."""
    record(LOG, "start", key)
    job = current_job()
    if job.attempt == 1 and job.last_error is None:
        os.kill(os.getpid(), signal.SIGKILL)
    record(LOG, "end", key)


@app.task(backoff=Backoff(first=0.2, factor=1, jitter=False))
def fail_once(key: str) -> None:
    """Raise at the first run only."""
    record(LOG, "start", key)
    if current_job().attempt == 1:
        raise ValueError(key)
    record(LOG, "end", key)


@app.task
def bury(key: str) -> None:
    """Be set aside."""
    record(LOG, "start", key)
    raise Bury(key)


@app.task
def spawn(key: str) -> None:
    """Start a child that would outlive the job, and wait."""
    record(LOG, "start", key)
    pid = os.fork()
    if pid == 0:
        record(LOG, "child", key)
        time.sleep(60)
        os._exit(0)
    time.sleep(60)


@app.task(timeout=0.5, retries=1, backoff=Backoff(first=0.1, jitter=False))
def spin(key: str) -> None:
    """Count for ever, in Python."""
    record(LOG, "start", key)
    while True:
        sum(range(100))


@app.task(queue="async", timeout=0.5, retries=0)
async def anap(key: str, seconds: float) -> None:
    """Sleep, within half a second."""
    record(LOG, "start", key)
    try:
        await asyncio.sleep(seconds)
    finally:
        record(LOG, "cleaned-up", key)
    record(LOG, "end", key)


@app.task(timeout=0.2, retries=0)
def resist(key: str) -> None:
    """Swallow whatever is raised in it."""
    record(LOG, "start", key)
    while True:
        try:
            time.sleep(0.1)
        except BaseException:  # noqa: BLE001 -- that is the point
            record(LOG, "resisted", key)


@app.task(timeout=0.2, retries=0)
def hold_interpreter(key: str) -> None:
    """Run C code that lets no other thread and no signal in, for ever."""
    record(LOG, "start", key)
    sum(itertools.repeat(0))


@app.task(timeout=30)
def quick(key: str) -> None:
    """End long before the time limit."""
    record(LOG, "end", key)


@app.task
def grow(key: str, megabytes: int) -> None:
    """Keep so much memory for ever."""
    HOARD.append(os.urandom(1_000_000) * megabytes)
    record(LOG, "end", key)


@app.task
def kill_worker(key: str) -> None:
    """Kill the supervisor, and so the whole worker."""
    record(LOG, "start", key)
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)


@app.task
def exhaust(key: str, cgroup: str) -> None:
    """Use more memory than the cgroup allows."""
    record(LOG, "start", key)
    pathlib.Path(cgroup, "cgroup.procs").write_text(str(os.getpid()))
    while True:
        HOARD.append(os.urandom(1_000_000) * 10)


@app.consumer("plain")
def take(message: Message) -> None:
    """Say what came."""
    record(LOG, "plain", message.text)
