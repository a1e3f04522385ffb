"""Threads that take turns at jobs: one of them alone while jobs are short, all of them as soon as one is not."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import cast

from dibs.message import Message
from dibs.worker.frames import Start
from dibs.worker.line import Line
from dibs.worker.relay import Relay, Runner
from tests.waiting import PATIENCE, until

SLOTS = 8


class FakeLine:
    """A line whose frames and permits come from this process."""

    def __init__(self) -> None:
        self.starts: deque[Start] = deque()
        self._news = threading.Condition()
        self.is_stopped = False
        #: How many threads wait for news.
        self.waiting = 0

    def put(self, count: int) -> None:
        """Let so many jobs come at once."""
        with self._news:
            self.starts += [Start(number, 0, Message(body=b"", queue="q", id="1")) for number in range(count)]
            self._news.notify_all()

    def stop(self) -> None:
        """Say that no job will follow."""
        with self._news:
            self.is_stopped = True
            self._news.notify_all()

    def take(self) -> Start | None:
        time.sleep(0)  # lets go of the interpreter, as reading a permit does
        return self.starts.popleft() if self.starts else None

    def wait(self) -> None:
        with self._news:
            self.waiting += 1
            self._news.wait_for(lambda: bool(self.starts) or self.is_stopped, PATIENCE)
            self.waiting -= 1


class Crew:
    """Threads that run the jobs of one line, and remember which of them ran each job."""

    def __init__(self, line: FakeLine) -> None:
        self.line = line
        #: What a job does.
        self.work: Callable[[], object] = bool
        self.ran_by: list[int] = []
        self._relay = Relay(cast("Line", line))
        self.threads = [threading.Thread(target=self._serve) for _ in range(SLOTS)]

    def _serve(self) -> None:
        runner = Runner(self._relay)
        while runner.take() is not None:
            self.work()
            self.ran_by.append(threading.get_ident())

    def has_run(self, count: int) -> bool:
        """Tell whether so many jobs have ended, and all threads wait for more."""
        return len(self.ran_by) == count and self.line.waiting == 1


@contextmanager
def crew() -> Iterator[Crew]:
    """Yield threads at work; they have ended when the block has."""
    made = Crew(FakeLine())
    for thread in made.threads:
        thread.start()
    try:
        yield made
    finally:
        made.line.stop()
        for thread in made.threads:
            thread.join(PATIENCE)
        assert not any(thread.is_alive() for thread in made.threads)


def changes(ran_by: list[int]) -> int:
    """Return how often a job was run by another thread than the one before."""
    return sum(one != other for one, other in pairwise(ran_by))


def test_short_jobs_are_run_by_one_thread_after_the_other() -> None:
    with crew() as threads:
        threads.line.put(4000)
        until(lambda: threads.has_run(4000))

        assert changes(threads.ran_by) <= 4000 / 2  # some: a job takes long where another program has the processor


def test_jobs_that_wait_for_each_other_run_all_at_once_behind_short_ones() -> None:
    all_at_once = threading.Barrier(SLOTS)

    with crew() as threads:
        for _ in range(5):
            threads.work = bool
            threads.line.put(1000)
            until(lambda: threads.has_run(1000))
            threads.work = lambda: all_at_once.wait(PATIENCE)

            threads.line.put(SLOTS)  # unless they all run, none of them ends

            until(lambda: threads.has_run(1000 + SLOTS))
            threads.ran_by.clear()


def test_a_job_that_is_long_among_short_ones_holds_none_of_them_up() -> None:
    is_over = threading.Event()
    numbers = iter(range(10_000))

    with crew() as threads:
        threads.work = lambda: next(numbers) % 1000 == 500 and is_over.wait(PATIENCE)
        threads.line.put(5000)

        until(lambda: len(threads.ran_by) == 4995)
        is_over.set()

        until(lambda: threads.has_run(5000))


def test_threads_that_wait_for_jobs_sleep() -> None:
    with crew() as threads:
        threads.line.put(1000)
        until(lambda: threads.has_run(1000))
        until(lambda: _switches(threads) == _switches(threads, after=0.05))

        before = _switches(threads)
        after = _switches(threads, after=0.2)

        assert after == before


def _switches(threads: Crew, *, after: float = 0.0) -> int:
    """Return how often, so many seconds later, the threads will have gone to sleep."""
    threading.Event().wait(after)
    count = 0
    for thread in threads.threads:
        for line in Path(f"/proc/self/task/{thread.native_id}/status").read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches"):
                count += int(line.split()[1])
    return count
