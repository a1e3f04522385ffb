"""Bringing a file of version 1 to this version: nothing is lost, whatever happens in between."""

from __future__ import annotations

import resource
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from dibs.brokers.sqlite import migration
from dibs.brokers.sqlite.store import Store
from dibs.errors import StoreGone, StoreUnusable
from dibs.message import DEFAULT_KEEP, now_ms
from dibs.outcome import Done
from tests.conformance.asking import status
from tests.waiting import job, receive
from tests.worlds_sqlite import Process, SqliteWorld

_VERSION_1 = Path(__file__).with_name("sqlite_version_1.sql")
_ADD = """
INSERT INTO dibs_jobs (seq, id, queue, state, priority, due, receipt, attempt, crashes, suspect, enqueued, task,
                       error, reason, death_error, died, worker, body)
VALUES (?, ?, 'a', ?, 4, ?, ?, ?, 0, 0, 1000, 't', ?, ?, ?, ?, ?, ?)
"""
_DUE = now_ms() + 3_600_000


@pytest.fixture
def world(tmp_path: Path) -> Iterator[SqliteWorld]:
    """A file of version 1 with a job in each of the four states that it had."""
    made = SqliteWorld(tmp_path)
    with closing(sqlite3.connect(made.path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(_VERSION_1.read_text())
        connection.execute("INSERT INTO dibs_queues VALUES ('a')")
        connection.execute("INSERT INTO dibs_workers VALUES (7, 0, 'host', 1, 'earlier', 1, '1:1', '[\"a\"]')")
        connection.executemany(
            _ADD,
            [
                (3, "ready", 0, None, None, 2, "once", None, None, None, None, b"1"),
                (5, "delayed", 1, _DUE, None, 1, None, None, None, None, None, b"2"),
                (6, "running", 2, None, 7 << 40 | 1, 1, None, None, None, None, None, b"3"),
                (9, "dead", 3, None, None, 3, "twice", "failed", "boom", 2000, "host:1", b"x" * 9000),
            ],
        )
        connection.commit()
    yield made
    made.close()


def version(path: Path) -> int:
    """Return the version of the schema that a file says it has."""
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("SELECT version FROM dibs_meta").fetchone()[0])


def copy_of(world: SqliteWorld) -> Path:
    """Return where the copy of the old file is to be."""
    return world.path.with_name("dibs.db.v1")


def refill(world: SqliteWorld, count: int) -> None:
    """Put that many more jobs of 4 KiB into the old file."""
    with closing(sqlite3.connect(world.path)) as connection, connection:
        connection.executemany(
            "INSERT INTO dibs_jobs (id, queue, state, priority, attempt, crashes, suspect, body) "
            "VALUES (?, 'a', 0, 4, 1, 0, 0, zeroblob(4096))",
            [(f"more-{number}",) for number in range(count)],
        )


def test_jobs_in_each_state_are_there_after_it_as_before(world: SqliteWorld) -> None:
    broker = world.open()

    states = {name: status(broker, name) for name in ("ready", "delayed", "running", "dead")}

    assert states == {name: name for name in states}
    (letter,) = broker.dead("a", limit=2)
    assert (letter.message.id, letter.message.body) == ("dead", b"x" * 9000)
    assert (letter.reason, letter.error, letter.died, letter.worker) == ("failed", "boom", 2000, "host:1")
    delayed = broker.ledger.job("delayed")
    assert delayed is not None
    assert (delayed.due, delayed.enqueued, delayed.task) == (_DUE, 1000, "t")


def test_what_waited_runs_and_what_ran_goes_to_another_worker(world: SqliteWorld) -> None:
    broker = world.open()
    consumer = broker.consume(["a"], limit=5)

    got = {delivery.message.id: delivery for delivery in receive(consumer, 2)}

    assert set(got) == {"ready", "running"}
    assert (got["ready"].message.attempt, got["ready"].message.error, got["ready"].returns) == (2, "once", 0)
    assert (got["running"].message.attempt, got["running"].returns) == (1, 1)
    assert got["ready"].message.keep == DEFAULT_KEEP
    consumer.settle([(delivery, Done(b"1")) for delivery in got.values()])
    assert (status(broker, "ready"), status(broker, "running")) == ("done", "done")


def test_new_jobs_come_behind_the_old_ones_and_new_workers_get_new_ids(world: SqliteWorld) -> None:
    broker = world.open()
    broker.send([job("a", b"new")])
    consumer = broker.consume(["a"], limit=5)

    got = receive(consumer, 3)

    assert [delivery.message.body for delivery in got] == [b"1", b"3", b"new"]
    assert consumer._membership.id > 7


def test_a_copy_of_the_file_as_it_was_is_kept_for_its_owner_alone(world: SqliteWorld) -> None:
    world.open().queues()

    assert version(world.path) == 2
    assert version(copy_of(world)) == 1
    assert stat.S_IMODE(copy_of(world).stat().st_mode) == 0o600
    with closing(sqlite3.connect(copy_of(world))) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("SELECT id FROM dibs_jobs ORDER BY seq").fetchall() == [
            ("ready",),
            ("delayed",),
            ("running",),
            ("dead",),
        ]
    assert [path.name for path in world.path.parent.glob("*.part")] == []


def test_the_new_tables_are_those_of_a_new_file(world: SqliteWorld, tmp_path: Path) -> None:
    world.open().queues()
    fresh = SqliteWorld(tmp_path / "fresh")
    fresh.path.parent.mkdir()
    fresh.open().queues()

    def schema(path: Path) -> list[tuple[str, str]]:
        with closing(sqlite3.connect(path)) as connection:
            return sorted(connection.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL"))

    assert schema(world.path) == schema(fresh.path)
    with closing(sqlite3.connect(world.path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    fresh.close()


def test_a_process_of_the_old_version_is_told_and_changes_nothing(
    world: SqliteWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("dibs.brokers.sqlite.store.SCHEMA_VERSION", 1)
        patched.setattr(migration, "OLDER", 0)
        old = Store(world.path, timeout=5.0, may_create=False, may_share=False, is_checked=True)
        connection = old.connect(synchronous="FULL")
        with old.write(connection):
            connection.execute("UPDATE dibs_queues SET name = name")

        patched.undo()
        world.open().queues()
        patched.setattr("dibs.brokers.sqlite.store.SCHEMA_VERSION", 1)

        with pytest.raises(StoreGone, match="changed to schema version 2"), old.write(connection):
            connection.execute("UPDATE dibs_queues SET name = 'b'")
    old.close()
    assert [queue.name for queue in world.open().queues()] == ["a"]


def test_many_that_open_the_file_at_once_migrate_it_once(world: SqliteWorld) -> None:
    refill(world, 2000)
    script = "sys.stdin.readline(); broker.queues(); say(broker.ledger.job('ready').status)"
    with ExitStack() as stack:
        processes = [stack.enter_context(Process(world.url, script)) for _ in range(4)]
        for process in processes:
            process.tell("go\n")
        assert [process.heard() for process in processes] == ["ready"] * 4

    assert version(world.path) == 2
    assert version(copy_of(world)) == 1
    assert world.open().queues()[0].ready == 2001


@pytest.mark.parametrize("step", ["copied", "moved", "brought"])
def test_who_is_killed_in_the_middle_leaves_the_old_file_and_the_next_one_migrates_it(
    world: SqliteWorld, step: str
) -> None:
    place = {"copied": "_MOVE_AWAY", "moved": "_BRING", "brought": "_BRING"}[step]
    script = f"""
from dibs.brokers.sqlite import migration
statements = migration.{place}
class Killing:
    def __iter__(self):
        if {step == "brought"}:
            yield from statements
        os.kill(os.getpid(), signal.SIGKILL)
migration.{place} = Killing()
broker.queues()
"""
    with Process(world.url, script) as process:
        assert process.end() == -9

    assert version(world.path) == 1
    assert version(copy_of(world)) == 1
    assert status(world.open(), "ready") == "ready"
    assert version(world.path) == 2


def test_a_full_disk_is_told_and_nothing_is_changed(world: SqliteWorld) -> None:
    refill(world, 500)
    script = f"""
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, ({1024 * 1024}, resource.RLIM_INFINITY))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
try:
    broker.queues()
except Exception as error:
    say(type(error).__name__)
    say(str(error))
"""
    with Process(world.url, script) as process:
        assert process.heard() == "StoreUnusable"
        assert "nothing was stored" in process.heard()

    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    assert version(world.path) == 1
    assert list(world.path.parent.glob("*.v1*")) == []
    assert status(world.open(), "ready") == "ready"


def test_a_file_of_no_version_that_is_known_is_refused(world: SqliteWorld) -> None:
    with closing(sqlite3.connect(world.path)) as connection, connection:
        connection.execute("UPDATE dibs_meta SET version = 0")

    with pytest.raises(StoreUnusable, match="version 0"):
        world.open().queues()
