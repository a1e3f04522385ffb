"""How much an executor may hold ahead: earned by short jobs, lost by the first long one."""

from __future__ import annotations

import pytest

from dibs.worker.window import MOST, RECALL_AFTER, Window


def end_jobs(window: Window, count: int, *, gap: float) -> None:
    """Let so many jobs end, so many seconds apart."""
    for _ in range(count):
        window.advance(window.progress + gap)


def test_at_first_nothing_is_held_ahead() -> None:
    assert Window(4).size == 4


def test_it_grows_while_jobs_are_short() -> None:
    window = Window(1)

    end_jobs(window, 1000, gap=0.00002)

    assert window.size == MOST


def test_a_few_short_jobs_prove_nothing() -> None:
    window = Window(1)

    end_jobs(window, 7, gap=0.00002)

    assert window.size == 1


def test_one_long_job_ends_it() -> None:
    window = Window(2)
    end_jobs(window, 1000, gap=0.00002)

    end_jobs(window, 1, gap=0.2)

    assert window.size == 2


def test_long_and_short_in_turn_never_hold_anything_ahead() -> None:
    window = Window(1)

    for _ in range(100):
        end_jobs(window, 1, gap=0.2)
        end_jobs(window, 1, gap=0.001)

        assert window.size == 1


def test_what_is_held_ahead_is_done_within_a_moment() -> None:
    for gap in (0.0001, 0.0005, 0.001, 0.002, 0.004):
        window = Window(8)

        end_jobs(window, 2000, gap=gap)

        assert (window.size - 8) * gap <= 0.021


def test_what_is_ahead_of_a_long_job_is_stale_and_what_fills_the_slots_is_not() -> None:
    window = Window(2)
    window.begin(100.0)

    assert not window.is_stale(2, 200.0)
    assert not window.is_stale(3, 100.0 + RECALL_AFTER / 2)
    assert window.is_stale(3, 100.0 + RECALL_AFTER)
    assert window.patience(2, 100.0) is None
    assert window.patience(3, 100.0) == pytest.approx(RECALL_AFTER)
