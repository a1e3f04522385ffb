"""The bar that a command shows while it takes in what was recorded."""

from __future__ import annotations

import io
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from dibs.cli import catching_up
from dibs.errors import LedgerUnavailable


class Terminal(io.StringIO):
    """A terminal's standard error."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def take_in(
    screen: io.StringIO,
    monkeypatch: pytest.MonkeyPatch,
    *,
    patience: float = 0.0,
    fails: bool = False,
    missed: int = 0,
) -> str:
    def refresh(on_progress: Callable[[int, int], None]) -> None:
        for read in (0, 500, 1000):
            on_progress(read, 1000)
        on_progress(0, 0)
        if fails:
            raise LedgerUnavailable("gone")

    ledger: Any = SimpleNamespace(refresh=refresh, missed=missed)
    monkeypatch.setattr(catching_up, "_PATIENCE", patience)
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    catching_up.catch_up(ledger)
    return screen.getvalue()


def test_somebody_who_looks_on_sees_a_bar_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = take_in(Terminal(), monkeypatch)

    lines = drawn.split("\r\x1b[2K")
    assert [line.split()[-4:] for line in lines[:3]] == [
        ["0", "of", "1,000", "records"],
        ["500", "of", "1,000", "records"],
        ["1,000", "of", "1,000", "records"],
    ]
    assert lines[1].count("█") == lines[1].count("░") == 15
    assert lines[3] == ""
    assert "\n" not in drawn


def test_what_went_before_it_was_read_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    said = take_in(io.StringIO(), monkeypatch, patience=60.0, missed=1200)

    assert said.startswith("dibs: 1,200 entries of the ledger were deleted before they were read here")


def test_where_it_takes_no_time_nothing_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    assert take_in(Terminal(), monkeypatch, patience=60.0) == ""


def test_where_nobody_looks_on_nothing_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    assert take_in(io.StringIO(), monkeypatch) == ""


def test_the_bar_is_gone_before_an_error_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()

    with pytest.raises(LedgerUnavailable):
        take_in(screen, monkeypatch, fails=True)

    assert screen.getvalue().endswith("\r\x1b[2K")
