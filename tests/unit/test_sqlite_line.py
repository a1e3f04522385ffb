"""The line in front of the write lock: fair, bounded, and never in the way of correctness."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dibs.brokers.sqlite import line
from dibs.brokers.sqlite.errors import Busy
from dibs.brokers.sqlite.line import Line
from tests.waiting import until


@pytest.fixture
def lines(tmp_path: Path) -> Iterator[tuple[Line, Line]]:
    """The lines of two processes: each opens the files for itself."""
    one, other = Line(tmp_path), Line(tmp_path)
    yield one, other
    one.close()
    other.close()


def soon() -> float:
    """Return a deadline that nothing here should reach."""
    return time.monotonic() + 20.0


def in_turn(line: Line, done: list[str], name: str) -> threading.Thread:
    """Take a turn in a thread, and note its name inside."""

    def take() -> None:
        with line.turn(soon()):
            done.append(name)

    thread = threading.Thread(target=take)
    thread.start()
    return thread


def test_who_just_had_his_turn_cannot_jump_ahead_of_who_waits(lines: tuple[Line, Line]) -> None:
    one, other = lines
    done: list[str] = []

    with one.turn(soon()):
        waiting = in_turn(other, done, "other")
        until(lambda: other._waiting is not None and not one._step_in())
    with one.turn(soon()):
        done.append("one")
    waiting.join()

    assert done == ["other", "one"]


def test_a_stuck_line_is_passed_over_with_one_thread_however_often(
    lines: tuple[Line, Line], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = lines
    monkeypatch.setattr(line, "_PATIENCE", 0.01)
    other._patience = 0.01
    before = threading.active_count()

    with one.turn(soon()):
        for _ in range(5):
            with other.turn(soon()):
                pass

        assert threading.active_count() == before + 1
    until(lambda: threading.active_count() == before)


def test_a_line_that_moves_again_is_waited_in_again(lines: tuple[Line, Line]) -> None:
    one, other = lines
    other._patience = 0.01
    with one.turn(soon()), other.turn(soon()):
        place = other._waiting
    assert place is not None
    until(lambda: place.is_over)
    done: list[str] = []

    with one.turn(soon()):
        waiting = in_turn(other, done, "other")
        until(lambda: other._waiting is not place)
        time.sleep(0.05)  # longer than the short patience
        assert done == []
    waiting.join()

    assert done == ["other"]


def test_a_place_that_is_reached_while_nobody_wants_it_is_given_up(lines: tuple[Line, Line]) -> None:
    one, other = lines
    other._patience = 0.01

    with one.turn(soon()), other.turn(soon()):
        pass

    until(one._step_in)


def test_a_line_whose_files_were_removed_is_passed_over(lines: tuple[Line, Line], tmp_path: Path) -> None:
    one, other = lines
    for path in tmp_path.iterdir():
        path.unlink()
    tmp_path.rmdir()

    with one.turn(soon()), other.turn(soon()):
        pass


def test_threads_of_one_process_wait_no_longer_than_they_may(lines: tuple[Line, Line]) -> None:
    one, _ = lines

    with one.turn(soon()), pytest.raises(Busy), one.turn(time.monotonic() + 0.01):
        pass
