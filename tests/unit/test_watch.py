"""Interrupts hit the run that they are meant for, and nothing else, however they race with its end."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Iterator
from typing import cast

import pytest

from dibs.outcome import JobTimeout
from dibs.worker.alarms import Alarms
from dibs.worker.frames import Frame, Worn
from dibs.worker.line import Line
from dibs.worker.interrupters import MainThreadInterrupter, ThreadInterrupter, cancel
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

    def send(self, frame: Frame) -> None:
        self.sent.append(frame)

    def look(self) -> None:
        sum(range(200))  # long enough to be interrupted, were it not masked


def busy(seconds: float) -> str:
    """Work in Python for so long, and return."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        sum(range(20))
    return "done"


@pytest.fixture
def main_thread() -> Iterator[Interrupter]:
    former = signal.getsignal(signal.SIGURG)
    yield MainThreadInterrupter(Alarms())
    signal.signal(signal.SIGURG, former)


def race(line: FakeLine, interrupter: Interrupter, chance: random.Random) -> tuple[int, int]:
    """Run functions that end before and after their limit is reached; return how many were done and interrupted."""
    ends = [0, 0]
    for number in range(ROUNDS):
        watch = LimitedWatch(cast("Line", line), number, LIMIT, interrupter)
        try:
            assert watch.call(busy, (LIMIT + chance.uniform(-0.3, 1.5) * LIMIT,), {}) == "done"
            ends[0] += 1
        except JobTimeout as error:
            assert "longer than its time limit of 0.01 s" in str(error)  # noqa: PT017 -- both ends are right
            ends[1] += 1
        busy(0.0002)  # not to be hit by what was meant for the run before
    return ends[0], ends[1]


def test_on_the_main_thread_an_interrupt_hits_its_run_or_nothing(main_thread: Interrupter) -> None:
    line = FakeLine()

    done, interrupted = race(line, main_thread, random.Random(1))

    assert done + interrupted == ROUNDS
    assert done > 0
    assert interrupted > 0
    assert Worn() not in line.sent


def test_on_threads_an_interrupt_hits_its_run_or_nothing() -> None:
    line, interrupter = FakeLine(), ThreadInterrupter(Alarms())
    ends: list[tuple[int, int]] = []

    threads = [
        threading.Thread(target=lambda seed=seed: ends.append(race(line, interrupter, random.Random(seed))))
        for seed in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(ends) == 3, "an interrupt came outside of a run and ended its thread"
    assert sum(map(sum, ends)) == 3 * ROUNDS
    assert sum(interrupted for _, interrupted in ends) > 0
    assert Worn() in line.sent


def test_what_is_masked_is_not_interrupted_and_the_interrupt_comes_behind_it(main_thread: Interrupter) -> None:
    line = FakeLine()
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

    for number in range(50):
        watch = LimitedWatch(cast("Line", Looking()), number, 0.002, main_thread)
        with pytest.raises(JobTimeout):
            watch.call(ask, (), {})

    assert looks == whole
    assert line.sent == []


def test_a_system_call_on_the_main_thread_is_interrupted(main_thread: Interrupter) -> None:
    watch = LimitedWatch(cast("Line", FakeLine()), 1, 0.05, main_thread)

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
