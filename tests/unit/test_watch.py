"""Interrupts hit the run that they are meant for, and nothing else, however they race with its end."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast

import pytest

from dibs.message import Message
from dibs.outcome import JobCancelled, JobTimeout
from dibs.worker.alarms import Alarms
from dibs.worker.frames import Frame, Worn
from dibs.worker.interrupters import MainThreadInterrupter, ThreadInterrupter, cancel
from dibs.worker.line import Line
from dibs.worker.notes import Teller
from dibs.worker.watch import FunctionWatch, Interrupter

ROUNDS = 60
#: Seconds that a run may take here.
LIMIT = 0.01


class FakeLine:
    """A line that only remembers what was said."""

    def __init__(self) -> None:
        self.sent: list[Frame] = []
        self.lost: frozenset[int] = frozenset()
        self.cancelled: frozenset[int] = frozenset()
        self.on_cancel: Callable[[], None] = lambda: None

    def send(self, *frames: Frame) -> None:
        self.sent += frames

    def cancel(self, number: int) -> None:
        """Read that a run is to end."""
        self.cancelled = frozenset([number])
        self.on_cancel()

    def look(self) -> None:
        sum(range(200))  # long enough to be interrupted, were it not masked


def busy(seconds: float) -> str:
    """Work in Python for so long, and return."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        sum(range(20))
    return "done"


def surround(
    line: FakeLine, interrupter: Interrupter, *, number: int = 1, timeout: float | None = None, **fields: Any
) -> FunctionWatch:
    """Return what surrounds a run on this thread."""
    message = Message(body=b"", queue="q", id="1", **fields)
    return FunctionWatch(
        cast("Line", line), Teller(cast("Line", line), interrupter.alarms), number, message, interrupter, timeout
    )


@pytest.fixture
def line() -> FakeLine:
    return FakeLine()


@pytest.fixture
def main_thread(line: FakeLine) -> Iterator[Interrupter]:
    former = signal.getsignal(signal.SIGURG)
    yield MainThreadInterrupter(cast("Line", line), Alarms())
    signal.signal(signal.SIGURG, former)


@pytest.fixture
def threads(line: FakeLine) -> Iterator[Interrupter]:
    former = signal.getsignal(signal.SIGURG)
    made = ThreadInterrupter(Alarms())
    made.listen(cast("Line", line))
    yield made
    signal.signal(signal.SIGURG, former)


def in_threads(count: int, work: Callable[[int], None]) -> None:
    """Work in so many threads at a time."""
    made = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in made:
        thread.start()
    for thread in made:
        thread.join()


def race(line: FakeLine, interrupter: Interrupter, chance: random.Random, *, first: int = 0) -> tuple[int, int]:
    """Run functions that end before and after their limit is reached; return how many were done and interrupted."""
    ends = [0, 0]
    for number in range(first, first + ROUNDS):
        watch = surround(line, interrupter, number=number, timeout=LIMIT)
        try:
            assert watch.call(busy, (LIMIT + chance.uniform(-0.3, 1.5) * LIMIT,), {}) == "done"
            ends[0] += 1
        except JobTimeout as error:
            assert "longer than its time limit of 0.01 s" in str(error)  # noqa: PT017 -- both ends are right
            ends[1] += 1
        busy(0.0002)  # not to be hit by what was meant for the run before
    return ends[0], ends[1]


def test_on_the_main_thread_an_interrupt_hits_its_run_or_nothing(line: FakeLine, main_thread: Interrupter) -> None:
    done, interrupted = race(line, main_thread, random.Random(1))

    assert done + interrupted == ROUNDS
    assert done > 0
    assert interrupted > 0
    assert Worn() not in line.sent


def test_on_threads_an_interrupt_hits_its_run_or_nothing(line: FakeLine, threads: Interrupter) -> None:
    ends: list[tuple[int, int]] = []

    in_threads(3, lambda seed: ends.append(race(line, threads, random.Random(seed), first=seed * ROUNDS)))

    assert len(ends) == 3, "an interrupt came outside of a run and ended its thread"
    assert sum(map(sum, ends)) == 3 * ROUNDS
    assert sum(interrupted for _, interrupted in ends) > 0
    assert Worn() in line.sent


def race_cancels(line: FakeLine, interrupter: Interrupter, chance: random.Random, *, first: int = 0) -> list[int]:
    """Cancel runs from another thread before, in and after them; return how many were done and cancelled."""
    ends = [0, 0]
    for number in range(first, first + ROUNDS):
        delay = LIMIT + chance.uniform(-0.5, 0.5) * LIMIT
        alarm = interrupter.alarms.set(delay, partial(cancel, interrupter.watches, frozenset([number])))
        watch = surround(line, interrupter, number=number)
        try:
            assert watch.call(busy, (LIMIT,), {}) == "done"
            ends[0] += 1
        except JobCancelled:
            assert watch.is_cancelled
            ends[1] += 1
        alarm.cancel()
        busy(0.0002)
    return ends


def test_on_the_main_thread_a_cancel_hits_its_run_or_nothing(line: FakeLine, main_thread: Interrupter) -> None:
    done, cancelled = race_cancels(line, main_thread, random.Random(2))

    assert done + cancelled == ROUNDS
    assert done > 0
    assert cancelled > 0


def test_on_threads_a_cancel_hits_its_run_or_nothing(line: FakeLine, threads: Interrupter) -> None:
    ends: list[list[int]] = []

    in_threads(3, lambda seed: ends.append(race_cancels(line, threads, random.Random(seed), first=seed * ROUNDS)))

    assert len(ends) == 3, "an interrupt came outside of a run and ended its thread"
    assert threads.watches == {}
    assert sum(map(sum, ends)) == 3 * ROUNDS
    assert sum(cancelled for _, cancelled in ends) > 0


@pytest.mark.parametrize("kind", ["main_thread", "threads"])
def test_a_run_that_was_cancelled_before_it_began_does_not_begin(
    line: FakeLine, kind: str, request: pytest.FixtureRequest
) -> None:
    interrupter: Interrupter = request.getfixturevalue(kind)
    line.cancelled = frozenset([1])
    seen: list[str] = []

    watch = surround(line, interrupter, number=1)
    with pytest.raises(JobCancelled):
        watch.call(seen.append, ("began",), {})
    surround(line, interrupter, number=2).call(seen.append, ("next",), {})

    assert watch.is_cancelled
    assert seen == ["next"]


@pytest.mark.parametrize("kind", ["main_thread", "threads"])
def test_a_function_that_swallows_the_interrupt_and_returns_has_returned(
    line: FakeLine, kind: str, request: pytest.FixtureRequest
) -> None:
    interrupter: Interrupter = request.getfixturevalue(kind)

    def swallow() -> str:
        reader = threading.Thread(target=line.cancel, args=(1,))
        try:
            reader.start()
            while True:
                sum(range(20))
        except JobCancelled:
            reader.join()
            line.cancel(1)  # said again, it is not raised again
            return "all the same"

    assert surround(line, interrupter, number=1).call(swallow, (), {}) == "all the same"
    assert not interrupter.watches


def test_a_signal_makes_the_main_thread_read_while_a_function_runs(line: FakeLine, main_thread: Interrupter) -> None:
    class Hidden(FakeLine):
        def look(self) -> None:
            line.cancel(1)

    hidden = Hidden()
    interrupter = MainThreadInterrupter(cast("Line", hidden), Alarms())
    line.on_cancel = lambda: cancel(interrupter.watches, line.cancelled)
    alarm = interrupter.alarms.set(0.05, lambda: os.kill(os.getpid(), signal.SIGURG))

    with pytest.raises(JobCancelled):
        surround(hidden, interrupter, number=1).call(time.sleep, (60,), {})

    alarm.cancel()
    assert main_thread.watches == {}


def test_what_is_masked_is_not_interrupted_and_the_interrupt_comes_behind_it(main_thread: Interrupter) -> None:
    whole = 0

    class Looking(FakeLine):
        def look(self) -> None:
            nonlocal whole
            busy(0.003)
            whole += 1

    looks = 0

    def ask() -> None:
        nonlocal looks
        while True:
            looks += 1
            watch.is_lost()

    line = Looking()
    for number in range(50):
        watch = surround(line, main_thread, number=number, timeout=0.002)
        with pytest.raises(JobTimeout):
            watch.call(ask, (), {})

    assert looks == whole
    assert line.sent == []


@pytest.mark.parametrize("kind", ["main_thread", "threads"])
def test_what_a_tasks_own_threads_say_never_interrupts_them_nor_holds_up_the_run(
    line: FakeLine, kind: str, request: pytest.FixtureRequest
) -> None:
    interrupter: Interrupter = request.getfixturevalue(kind)
    ends: list[str] = []

    def speak(watch: FunctionWatch, end: threading.Event) -> None:
        while not end.is_set():
            watch.is_lost()
            watch.log(["line"])
            watch.progress(1, None, "")
        ends.append("whole")

    for number in range(20):
        end = threading.Event()
        watch = surround(line, interrupter, number=number, timeout=0.005)
        speaker = threading.Thread(target=speak, args=(watch, end))
        speaker.start()
        with pytest.raises(JobTimeout):
            watch.call(busy, (60,), {})
        end.set()
        speaker.join()

    assert ends == ["whole"] * 20


def test_a_system_call_on_the_main_thread_is_interrupted(line: FakeLine, main_thread: Interrupter) -> None:
    watch = surround(line, main_thread, timeout=0.05)

    with pytest.raises(JobTimeout):
        watch.call(time.sleep, (60,), {})


def test_an_alarm_that_was_cancelled_does_not_ring_and_others_ring_in_order() -> None:
    alarms, rung, last = Alarms(), list[str](), threading.Event()

    late = alarms.set(0.05, lambda: rung.append("late"))
    alarms.set(0.02, lambda: rung.append("second"))
    alarms.set(0.01, lambda: rung.append("first"))
    late.cancel()
    alarms.set(0.08, last.set)

    assert last.wait(20)
    assert rung == ["first", "second"]
