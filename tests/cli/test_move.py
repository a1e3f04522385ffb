"""`dibs move` at the command line. What it does to jobs is tested in `tests/crash/test_moving.py`."""

from __future__ import annotations

from tests.cli.conftest import Shell

_HERE, _THERE = "sqlite:///queue.db", "sqlite:///other.db"


def test_a_dry_run_shows_what_there_is_and_moves_nothing(shell: Shell) -> None:
    shell.make_dead("one", "two")

    shown = shell.ok("move", _HERE, _THERE, "--dry-run", "--json").json()

    assert shown == [{"queue": "fragile", "ready": 0, "delayed": 0, "dead": 2, "running": 0}]
    assert shell.counts("fragile") == (0, 0, 2)


def test_what_was_moved_is_counted(shell: Shell) -> None:
    shell.make_dead("one", "two")

    moved = shell.ok("move", _HERE, _THERE, "--yes")

    lines = [line.split() for line in moved.out.splitlines()]
    assert lines == [["queue", "state", "moved", "left"], ["fragile", "dead", "2", "0"]]
    assert moved.err == ""
    assert len(shell.ok("dead", "list", "fragile", "--json", DIBS_URL=_THERE).json()) == 2


def test_nothing_is_moved_without_a_yes(shell: Shell) -> None:
    shell.make_dead("one")

    assert shell.dibs("move", _HERE, _THERE).code == 3
    declined = shell.at_terminal("move", _HERE, _THERE, answer="n\n")

    assert declined.code == 3
    assert "Move fragile from" in declined.out
    assert shell.counts("fragile") == (0, 0, 1)


def test_a_move_that_can_not_be_is_told_in_one_line(shell: Shell) -> None:
    shell.make_dead("one")

    assert "nothing to move" in shell.refused("move", _HERE, "sqlite:///./queue.db", "--yes")
    assert "'nothing'" in shell.refused("move", _HERE, _THERE, "-q", "nothing", "--yes")
    assert "There is no database" in shell.refused("move", "sqlite:///typo.db", _THERE, "--yes", code=1)
    assert "in one process alone" in shell.refused("move", _HERE, "memory://", "--yes")
