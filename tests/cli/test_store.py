"""A database that can't be used: what a user is told."""

from __future__ import annotations

import sqlite3

import pytest

from tests.cli.conftest import Shell


def test_a_file_that_is_no_database_is_left_alone(shell: Shell) -> None:
    file = shell.directory / "notes.txt"
    file.write_text("not a database, but somebody's notes\n" * 100)

    said = shell.refused("send", "q", "x", "--url", "sqlite:///notes.txt", code=1)

    assert "notes.txt" in said
    assert file.read_text().startswith("not a database")


def test_somebody_elses_database_is_left_alone(shell: Shell) -> None:
    file = shell.directory / "theirs.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE users (name)")
    connection.close()

    said = shell.refused("send", "q", "x", "--url", "sqlite:///theirs.db", code=1)

    assert "theirs.db" in said
    with sqlite3.connect(file) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("users",)]
    connection.close()


@pytest.mark.parametrize("folder", ["nosuch", "/proc"])
def test_a_place_where_no_file_can_be_made_is_told(shell: Shell, folder: str) -> None:
    said = shell.refused("send", "q", "x", "--url", f"sqlite:///{folder}/queue.db", code=1)

    assert folder in said


@pytest.mark.parametrize(
    "url", ["sqlite://queue.db", "sqlite:///", "sqlite:///queue.db?sahre=1", "sqlite:///:memory:"]
)
def test_a_url_with_a_typo_is_told(shell: Shell, url: str) -> None:
    said = shell.refused("queues", "--url", url)

    assert "sqlite" in said or "SQLite" in said
