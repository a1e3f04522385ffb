"""What goes to a terminal, and what to a file."""

from __future__ import annotations

import io

import pytest

from dibs.trial.screen import Screen


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured, file, plain = Terminal(), io.StringIO(), Terminal()

    Screen(coloured).line(("red", "31"))
    Screen(file).line(("red", "31"))
    monkeypatch.setenv("NO_COLOR", "1")
    Screen(plain).line(("red", "31"))

    assert coloured.getvalue() == "\x1b[31mred\x1b[0m\n"
    assert file.getvalue() == plain.getvalue() == "red\n"


def test_the_progress_line_is_overwritten_on_a_terminal_and_absent_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    terminal, file = Terminal(), io.StringIO()

    for out in (terminal, file):
        screen = Screen(out)
        screen.transient("1 of 2")
        screen.transient("2 of 2")
        screen.line("done")

    assert terminal.getvalue() == "1 of 2\r\x1b[2K2 of 2\r\x1b[2Kdone\n"
    assert file.getvalue() == "done\n"
