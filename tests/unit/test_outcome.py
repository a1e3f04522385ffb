"""Error texts are clipped, and the control signals are what tasks can't swallow by accident."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dibs import BadOption, Bury, Retry
from dibs.outcome import ERROR_BYTES, clip_error, is_reason


@given(st.text(), st.integers(0, 4000))
def test_a_clipped_text_fits_whatever_it_was(piece: str, times: int) -> None:
    text = piece * times

    clipped = clip_error(text)

    assert len(clipped.encode()) <= ERROR_BYTES
    if len(text.encode("utf-8", "replace")) <= ERROR_BYTES:
        assert clipped == text.encode("utf-8", "replace").decode()


def test_a_long_text_keeps_its_head_and_its_tail() -> None:
    clipped = clip_error("head " + "x" * 100_000 + " tail")

    assert clipped.startswith("head xx")
    assert clipped.endswith("xx tail")
    assert "bytes cut" in clipped


def test_text_that_utf8_can_not_carry_is_stored_nevertheless() -> None:
    assert clip_error("a\ud800b") == "a?b"


@pytest.mark.parametrize("signal", [Retry(), Bury("gone")])
def test_a_tasks_own_except_exception_does_not_swallow_a_signal(signal: BaseException) -> None:
    with pytest.raises(type(signal)):
        try:
            raise signal
        except Exception:  # noqa: BLE001 -- as a task would write it
            pytest.fail("swallowed")


def test_a_retry_may_say_when() -> None:
    assert Retry().delay is None
    assert Retry(delay=0).delay == 0
    assert Retry("busy", delay=dt.timedelta(minutes=1)).delay == 60.0


@pytest.mark.parametrize("delay", [-1, float("nan"), float("inf"), 1e10, "10", dt.timedelta(-1)])
def test_a_retry_at_an_impossible_time_is_refused_where_it_is_raised(delay: Any) -> None:
    with pytest.raises(BadOption, match="delay"):
        Retry(delay=delay)


def test_reasons_are_known_from_other_clients_texts() -> None:
    assert is_reason("failed")
    assert not is_reason("rejected")
    assert not is_reason(None)
