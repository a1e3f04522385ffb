"""What jobs say of themselves: however often, the last word arrives, and little besides."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from typing import cast

import pytest

from dibs import BadOption, CurrentJob
from dibs.ledger.life import Note, Progress
from dibs.message import Delivery, Message
from dibs.outcome import LOG_LINES
from dibs.worker.alarms import Alarms
from dibs.worker.child import Child
from dibs.worker.frames import Frame, Said
from dibs.worker.line import Line
from dibs.worker.notes import Teller
from dibs.worker.noting import Noting
from dibs.worker.supply import Supply
from dibs.worker.watch import Watch
from tests.waiting import until


class FakeLine:
    """A line that only remembers what was said."""

    def __init__(self) -> None:
        self.sent: list[Frame] = []

    def send(self, *frames: Frame) -> None:
        self.sent += frames

    @property
    def said(self) -> list[Said]:
        return [frame for frame in self.sent if isinstance(frame, Said)]


@pytest.fixture
def line() -> FakeLine:
    return FakeLine()


def surround(line: FakeLine, *, number: int = 1, teller: Teller | None = None) -> tuple[Watch, CurrentJob]:
    """Return what surrounds a run, and what its task sees."""
    message = Message(body=b"", queue="q", id="1")
    teller = teller or Teller(cast("Line", line), Alarms())
    watch = Watch(cast("Line", line), teller, number, message)
    return watch, CurrentJob(message, watch)


def test_of_a_hundred_thousand_words_a_few_are_told_and_the_last_one_with_the_end(line: FakeLine) -> None:
    watch, job = surround(line)

    began = time.monotonic()
    for number in range(100_000):
        job.progress(number, 100_000, "on the way")
    job.progress(7, None)
    assert watch.lines() == []
    took = time.monotonic() - began

    assert len(line.said) <= took / 0.25 + 2
    assert line.said[-1] == Said(1, Note(Progress(7), None))


def test_the_last_word_is_told_while_the_run_goes_on(line: FakeLine) -> None:
    _, job = surround(line)

    job.progress(1)
    until(lambda: len(line.said) == 1)
    job.progress(2)
    job.progress(3, 9, "tab\there")

    until(lambda: len(line.said) == 2)
    assert line.said[-1].note == Note(Progress(3, 9, "tab\\there"), None)


def test_of_threads_that_speak_at_once_no_last_word_is_lost(line: FakeLine) -> None:
    teller = Teller(cast("Line", line), Alarms())
    made = [surround(line, number=number, teller=teller) for number in range(4)]

    def speak(job: CurrentJob) -> None:
        for count in range(2001):
            job.progress(count)
            time.sleep(0.0002)

    threads = [threading.Thread(target=speak, args=(job,)) for _, job in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for watch, _ in made:
        watch.lines()

    last = {said.number: said.note.progress for said in line.said}
    assert last == dict.fromkeys(range(4), Progress(2000))


def test_the_log_is_told_while_the_run_goes_on_and_its_last_lines_at_the_end(line: FakeLine) -> None:
    watch, _ = surround(line)

    watch.log(["first"])
    until(lambda: bool(line.said))
    watch.log([str(number) for number in range(2 * LOG_LINES)])

    assert line.said[0].note == Note(None, ["first"])
    assert watch.lines() == [str(number) for number in range(LOG_LINES, 2 * LOG_LINES)]


def test_a_run_that_says_nothing_costs_no_thread_and_no_frame(line: FakeLine) -> None:
    before = threading.active_count()
    watch, _ = surround(line)

    assert watch.lines() == []

    assert line.sent == []
    assert threading.active_count() == before


def test_in_a_process_that_a_task_forks_nothing_is_told_and_nobody_waits(line: FakeLine) -> None:
    teller = Teller(cast("Line", line), Alarms())
    watch, job = surround(line, teller=teller)

    with teller.opening:  # as another thread may hold it at that moment
        pid = os.fork()
    if pid == 0:
        job.progress(1)
        watch.log(["line"])
        os._exit(threading.active_count())

    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 1
    assert line.sent == []


@pytest.mark.parametrize(
    ("done", "total", "note", "text"),
    [
        (-1, None, "", "done=-1"),
        (float("nan"), None, "", "done=nan"),
        (float("inf"), None, "", "done=inf"),
        ("3", None, "", "done='3'"),
        (2**60, None, "", "done="),
        (1, -1, "", "total=-1"),
        (1, "many", "", "total='many'"),
        (1, 2, None, "note=None"),
        (1, 2, "x" * 301, "301 characters"),
    ],
)
def test_progress_that_is_none_is_refused(line: FakeLine, done: float, total: float, note: str, text: str) -> None:
    _, job = surround(line)

    with pytest.raises(BadOption) as raised:
        job.progress(done, total, note)

    assert text in str(raised.value)
    assert line.sent == []


class FakeSupply:
    """A broker's side that remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[dict[str, Note]] = []

    def note(self, notes: Sequence[tuple[Delivery, Note]]) -> None:
        self.told.append({delivery.message.id: note for delivery, note in notes})


class FakeChild:
    def __init__(self, *names: str) -> None:
        self.running = {
            number: Delivery(message=Message(body=b"", queue="q", id=name), receipt=name)
            for number, name in enumerate(names)
        }


def make(*names: str) -> tuple[Noting, FakeSupply, Child]:
    supply = FakeSupply()
    return Noting(cast("Supply", supply)), supply, cast("Child", FakeChild(*names))


def test_the_ledger_is_told_of_all_jobs_at_once_and_no_more_often_than_it_is_due() -> None:
    noting, supply, child = make("a", "b")

    noting.hear(child, 0, Note(Progress(1), None))
    noting.hear(child, 1, Note(None, ["line"]))
    noting.hear(child, 0, Note(Progress(2), ["other"]))
    noting.tell()
    noting.hear(child, 0, Note(Progress(3), None))
    noting.tell()

    assert supply.told == [{"a": Note(Progress(2), ["other"]), "b": Note(None, ["line"])}]
    patience = noting.patience(time.monotonic())
    assert patience is not None
    assert patience > 0


def test_words_of_one_run_are_put_together() -> None:
    noting, supply, child = make("a")

    noting.hear(child, 0, Note(Progress(1), None))
    noting.hear(child, 0, Note(None, ["line"]))
    noting.tell()

    assert supply.told == [{"a": Note(Progress(1), ["line"])}]
    assert noting.patience(time.monotonic()) is None
    assert noting.progress == {0: Progress(1)}


def test_the_last_word_of_a_run_that_ends_is_told_at_once() -> None:
    noting, supply, child = make("a")
    noting.hear(child, 0, Note(Progress(1), None))
    noting.tell()

    noting.hear(child, 0, Note(Progress(2), ["line"]))
    noting.end(0)
    noting.tell()

    assert supply.told[1:] == [{"a": Note(Progress(2), None)}]  # the log comes with the outcome
    assert noting.progress == {}
    assert noting.patience(time.monotonic()) is None


def test_of_many_short_runs_that_speak_the_ledger_is_told_now_and_then() -> None:
    noting, supply, child = make(*map(str, range(100)))

    for number in range(100):
        noting.hear(child, number, Note(Progress(1), None))
        noting.end(number)
        noting.tell()

    assert len(supply.told) < 10
    assert noting.progress == {}


def test_what_comes_late_is_left_out() -> None:
    noting, supply, child = make()

    noting.hear(child, 5, Note(Progress(1), None))
    noting.tell()

    assert supply.told == []
    assert noting.progress == {}
