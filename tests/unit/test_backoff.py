"""Backoff grows, has a ceiling, and takes a random point of the upper half."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dibs import Backoff, BadOption

BACKOFFS = st.builds(
    lambda first, factor, more, jitter: Backoff(first=first, factor=factor, limit=first + more, jitter=jitter),
    st.floats(0, 1000),
    st.floats(1, 100),
    st.floats(0, 1e6),
    st.booleans(),
)


@given(BACKOFFS, st.integers(1, 100_000))
def test_no_wait_is_below_zero_or_over_the_limit(backoff: Backoff, attempt: int) -> None:
    delay = backoff.delay_after(attempt)

    assert 0 <= delay <= backoff.limit


@given(BACKOFFS, st.integers(1, 50))
def test_jitter_takes_a_point_of_the_upper_half(backoff: Backoff, attempt: int) -> None:
    plain = Backoff(first=backoff.first, factor=backoff.factor, limit=backoff.limit, jitter=False)
    jittery = Backoff(first=backoff.first, factor=backoff.factor, limit=backoff.limit)

    full = plain.delay_after(attempt)

    assert full / 2 <= jittery.delay_after(attempt) <= full


def test_waits_double_up_to_the_limit() -> None:
    backoff = Backoff(first=15, factor=2, limit=100, jitter=False)

    assert [backoff.delay_after(attempt) for attempt in range(1, 6)] == [15, 30, 60, 100, 100]


def test_the_default_spreads_eight_retries_over_about_an_hour() -> None:
    backoff = Backoff(jitter=False)

    total = sum(backoff.delay_after(attempt) for attempt in range(1, 9))

    assert 3000 <= total <= 4500


@pytest.mark.parametrize(
    "wrong",
    [
        {"first": -1},
        {"first": float("nan")},
        {"factor": 0.5},
        {"factor": float("nan")},
        {"first": 10, "limit": 5},
        {"limit": float("inf")},
        {"limit": 500 * 86400},
        {"first": "15"},
        {"limit": None},
    ],
    ids=str,
)
def test_a_backoff_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadOption, match="makes no sense"):
        Backoff(**wrong)
