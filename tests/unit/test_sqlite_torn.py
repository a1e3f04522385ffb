"""A -wal or -shm that is removed while the database is open: SQLite would destroy it; nothing is lost."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dibs.errors import StoreGone
from tests.waiting import job
from tests.worlds_sqlite import Process, SqliteWorld

#: Sends three jobs; when told, another one, and says how that went; ends with its input.
_SENDER = """
from dibs.errors import StoreGone
broker.send([job("a") for _ in range(3)])
say("sent")
if sys.stdin.read(1):
    try:
        broker.send([job("a")])
    except StoreGone as error:
        say(error)
    sys.stdin.read(1)
"""
#: What another process makes of the file.
_COUNT = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
print(connection.execute("SELECT count(*) FROM dibs_jobs").fetchone()[0])
print(connection.execute("PRAGMA integrity_check").fetchone()[0])
"""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[SqliteWorld]:
    """One database file."""
    made = SqliteWorld(tmp_path)
    yield made
    made.close()


def remove(world: SqliteWorld, *suffixes: str) -> None:
    """Remove files beside the database."""
    for suffix in suffixes:
        Path(f"{world.path}{suffix}").unlink()


def found(world: SqliteWorld) -> list[str]:
    """Return how many jobs a fresh process finds, and whether the file is whole."""
    command = [sys.executable, "-c", _COUNT, str(world.path)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.parametrize("suffixes", [("-wal",), ("-shm",), ("-wal", "-shm")])
def test_what_was_committed_is_brought_back_by_who_notices(world: SqliteWorld, suffixes: tuple[str, ...]) -> None:
    with Process(world.url, _SENDER) as sender:
        assert sender.heard() == "sent"
        remove(world, *suffixes)
        sender.tell("x")
        assert f"{world.path}{suffixes[0]} was removed or replaced" in sender.heard()

        sender.kill()

    assert found(world) == ["3", "ok"]


@pytest.mark.parametrize("is_noticed", [True, False])
@pytest.mark.parametrize("end", ["broker.close()", ""])
def test_who_has_another_wal_than_the_rest_ends_without_touching_the_file(
    world: SqliteWorld, end: str, is_noticed: bool
) -> None:
    with Process(world.url, _SENDER) as idle, Process(world.url, _SENDER + end) as sender:
        assert (idle.heard(), sender.heard()) == ("sent", "sent")
        remove(world, "-wal")
        idle.tell("x")
        assert "was removed" in idle.heard()
        idle.kill()
        with Process(world.url, "broker.send([job('a')]); say('sent')") as newcomer:
            assert newcomer.heard() == "sent"
        if is_noticed:
            sender.tell("x")
            assert "was removed" in sender.heard()

        assert sender.end() == 0

    assert found(world) == ["7", "ok"]


def test_a_process_with_a_removed_shm_does_not_open_the_file_again(world: SqliteWorld) -> None:
    broker = world.open()
    broker.send([job("a")])
    remove(world, "-shm")
    with pytest.raises(StoreGone, match=r"-shm was removed.*Restart this program"):
        broker.send([job("a")])

    broker.close()

    with pytest.raises(StoreGone, match=r"-shm was removed.*Restart this program"):
        broker.send([job("a")])
    with pytest.raises(StoreGone):
        world.open().queues()
    assert found(world) == ["1", "ok"]
