"""`dibs chaos` on the command line: what can't be is refused at once, in one line. What it does: tests/crash/."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Shell


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--jobs", "0"], "--jobs 0"),
        (["--seconds", "1"], "--seconds 1"),
        (["--seconds", "nan"], "--seconds nan"),
        (["--patience", "0"], "--patience 0"),
        (["--kill-broker", "true", "--url", "amqp://localhost"], "--start-broker"),
        (["--start-broker", "true", "--url", "amqp://localhost"], "--kill-broker"),
        (["--kill-broker", "true", "--start-broker", "true"], "SQLite has no server"),
        (["--kill-broker", "true", "--start-broker", "true", "--url", "SQLITE:///a.db"], "SQLite has no server"),
        (["--url", "memory://"], "one process"),
        (["--url", "redis://localhost"], "Unknown scheme"),
    ],
    ids=str,
)
def test_what_can_not_be_is_refused_in_one_line(shell: Shell, arguments: list[str], text: str) -> None:
    assert text in shell.refused("chaos", *arguments)


@pytest.mark.parametrize("arguments", [["--jobs", "many"], ["--seed", "x"], ["--seconds", "soon"]])
def test_what_is_no_number_is_refused_with_the_usage(shell: Shell, arguments: list[str]) -> None:
    ran = shell.dibs("chaos", *arguments)

    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("usage: dibs chaos")


def test_a_broker_that_can_not_be_reached_is_one_line(shell: Shell) -> None:
    assert "can't be reached" in shell.refused("chaos", "--url", "amqp://localhost:1", code=1)
