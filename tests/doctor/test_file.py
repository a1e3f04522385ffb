"""What `dibs doctor` finds in an SQLite database: each fault is made for real."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from dibs.brokers import connect
from dibs.brokers.sqlite import filesystem
from dibs.doctor.finding import Finding
from tests.doctor.looking import found, look
from tests.waiting import job, receive
from tests.worlds_sqlite import Process, SqliteWorld


@pytest.fixture
def world(tmp_path: Path) -> Iterator[SqliteWorld]:
    """A database with one queue, `mail`, in which nothing waits."""
    made = SqliteWorld(tmp_path)
    with closing(connect(made.url)) as broker:
        broker.send([job("mail")])
        broker.purge("mail", state="ready")
    yield made
    made.close()


def findings(world: SqliteWorld, *, is_deep: bool = False) -> dict[str, Finding]:
    return found(look(world.url, is_deep=is_deep))


def test_nothing_is_wrong_with_a_healthy_database(world: SqliteWorld) -> None:
    before = sorted(path.name for path in world.path.parent.iterdir())

    assert findings(world, is_deep=True) == {}
    assert sorted(path.name for path in world.path.parent.iterdir()) == before


def test_a_file_that_is_not_there_is_a_problem_and_is_not_made(tmp_path: Path) -> None:
    path = tmp_path / "none.db"

    assert found(look(f"sqlite:///{path}"))["store-unusable"].severity == "problem"
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "text.db"
    path.write_text("not a database, but long enough to be taken for one " * 50)

    assert "not an SQLite database" in found(look(f"sqlite:///{path}"))["store-unusable"].what


def test_a_database_of_others_has_no_tables(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE users (name)")

    told = found(look(f"sqlite:///{path}"))

    assert set(told) - {"open-to-all"} == {"no-tables"}
    assert not path.with_name("other.db-run").exists()


def test_an_older_schema_is_told_and_not_migrated(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((Path(__file__).parents[1] / "unit" / "sqlite_version_1.sql").read_text())
        connection.execute("PRAGMA journal_mode = WAL")
    path.with_name("old.db-run").mkdir()

    told = found(look(f"sqlite:///{path}"))

    assert told["older-schema"].severity == "warning"
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT version FROM dibs_meta").fetchone() == (1,)


def test_a_newer_schema_is_a_problem(world: SqliteWorld) -> None:
    with closing(sqlite3.connect(world.path, isolation_level=None)) as connection:
        connection.execute("UPDATE dibs_meta SET version = 99")

    assert findings(world)["newer-schema"].severity == "problem"


def test_what_a_migration_left_behind_is_a_note(world: SqliteWorld) -> None:
    copy = world.path.with_name(world.path.name + ".v1")
    shutil.copy(world.path, copy)

    note = findings(world)["old-copy"]

    assert (note.severity, note.mend) == ("note", f"rm {copy}")


def test_a_network_file_system_is_a_problem(world: SqliteWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    # None can be mounted here: the system's own table is replaced by one that says it is.
    mounts = world.path.with_name("mounts")
    mounts.write_text(f"30 1 0:30 / {world.path.parent} rw - nfs4 server:/export rw\n")
    monkeypatch.setattr(filesystem, "_MOUNTS", mounts)

    told = findings(world)["network-filesystem"]

    assert told.severity == "problem"
    assert "nfs4" in told.what


@pytest.mark.parametrize(("megabytes", "severity"), [(8, "problem"), (200, "warning"), (2000, None)])
def test_a_disk_with_little_room_is_told(tmp_path: Path, megabytes: int, severity: str | None) -> None:
    dibs = f"{sys.executable} -m dibs.cli.main"
    script = (
        f"mount -t tmpfs -o size={megabytes}m tmpfs {tmp_path} && export DIBS_URL=sqlite:///{tmp_path}/dibs.db && "
        f"{dibs} send mail hello && {dibs} doctor --json"
    )

    # In a mount namespace of its own, which nobody but it sees.
    ran = subprocess.run(["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, check=False)

    told = {each["name"]: each["severity"] for each in json.loads(ran.stdout.splitlines()[-1])["findings"]}
    assert told.get("disk-full") == severity


def test_a_transaction_that_keeps_the_wal_from_being_emptied_is_named(world: SqliteWorld) -> None:
    script = (
        "import sqlite3\n"
        f"reader = sqlite3.connect({str(world.path)!r}, isolation_level=None)\n"
        "reader.execute('PRAGMA wal_autocheckpoint = 0'); reader.execute('BEGIN')\n"
        "reader.execute('SELECT count(*) FROM dibs_jobs').fetchone()\n"
        "say('reading'); sys.stdin.read()\n"
    )
    with Process(world.url, script) as reader:
        assert reader.heard() == "reading"
        producer = world.open()
        for _ in range(9):
            producer.send([job("big", bytes(1024 * 1024)) for _ in range(8)])

        told = findings(world)["wal-grows"]

    assert told.severity == "warning"
    assert f"Process {reader.pid} " in told.what


def test_files_of_several_users_are_a_problem(world: SqliteWorld) -> None:
    holder = world.open()
    holder.send([job("mail")])
    wal = world.path.with_name(world.path.name + "-wal")
    os.chown(wal, 12345, 12345)

    told = findings(world)["file-access"]

    assert told.severity == "problem"
    assert "12345" in told.what
    assert str(wal) in told.mend


@pytest.mark.parametrize(("mode", "severity"), [(0o604, "note"), (0o606, "warning")])
def test_files_that_are_open_to_all_are_told(world: SqliteWorld, mode: int, severity: str) -> None:
    world.path.chmod(mode)

    told = findings(world)["open-to-all"]

    assert (told.severity, told.mend) == (severity, f"chmod o-rwx {world.path}")


def test_a_missing_run_directory_is_told_and_not_made(world: SqliteWorld) -> None:
    directory = world.path.with_name(world.path.name + "-run")
    shutil.rmtree(directory)

    assert findings(world)["no-run-directory"].severity == "warning"
    assert not directory.exists()


def test_a_worker_of_whom_nobody_can_tell_whether_it_lives_is_a_problem(world: SqliteWorld) -> None:
    broker = world.open()
    broker.send([job("mail")])
    consumer = broker.consume(["mail"], limit=1)
    receive(consumer, 1)
    (lock,) = world.path.with_name(world.path.name + "-run").glob("*.lock")
    lock.unlink()

    told = findings(world)["unproven-worker"]
    subprocess.run(told.mend.partition(": ")[2], shell=True, check=True)  # what it says works

    assert told.severity == "problem"
    assert "unproven-worker" not in findings(world)


def test_a_stopped_worker_that_holds_jobs_is_a_problem(world: SqliteWorld) -> None:
    script = (
        "broker.send([job('mail')]); consumer = broker.consume(['mail'], limit=1)\n"
        "receive(consumer, 1); say('held'); sys.stdin.read()\n"
    )
    with Process(world.url, script) as worker:
        assert worker.heard() == "held"
        assert "stopped-worker" not in findings(world)
        worker.stop()

        told = findings(world)["stopped-worker"]

    assert (told.severity, told.mend) == ("problem", f"kill -CONT {worker.pid}")
    assert "holds 1 job" in told.what


def test_rows_in_a_state_that_there_is_not_are_counted(world: SqliteWorld) -> None:
    world.open().send([job("mail"), job("mail"), job("mail")])
    with closing(sqlite3.connect(world.path, isolation_level=None)) as connection:
        connection.execute("UPDATE dibs_jobs SET state = 17 WHERE seq IN (SELECT min(seq) FROM dibs_jobs)")
        connection.execute("UPDATE dibs_jobs SET state = -1 WHERE seq IN (SELECT max(seq) FROM dibs_jobs)")

    told = findings(world)["strange-rows"]
    shown = subprocess.run(told.mend, shell=True, check=True, capture_output=True, text=True).stdout

    assert told.what.startswith("2 rows")
    assert len(shown.splitlines()) == 2


def test_damage_is_found_by_a_deep_look(world: SqliteWorld) -> None:
    world.open().send([job("mail", bytes(3000)) for _ in range(300)])
    world.restart()
    with world.path.open("r+b") as file:
        file.seek(20 * 4096)
        file.write(os.urandom(60 * 4096))

    assert "damaged" not in findings(world)
    assert findings(world, is_deep=True)["damaged"].severity == "problem"


def test_a_file_that_is_shared_with_others_is_a_note(world: SqliteWorld) -> None:
    with closing(sqlite3.connect(world.path, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE users (name)")

    told = findings(world)

    if sqlite3.sqlite_version_info < (3, 51, 3):
        assert told["shared-file"].severity == "note"
        assert "users" in told["shared-file"].what
    else:
        assert told == {}
