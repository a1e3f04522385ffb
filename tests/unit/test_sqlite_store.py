"""The file: what it may be, what is wrong with it, and going on when that is mended."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dibs.brokers.sqlite import filesystem
from dibs.brokers.sqlite.errors import translate
from dibs.errors import BadURL, BrokerBusy, StoreGone, StoreUnusable
from dibs.outcome import Done
from tests.waiting import job, receive
from tests.worlds_sqlite import Process, SqliteWorld


@pytest.fixture
def world(tmp_path: Path) -> Iterator[SqliteWorld]:
    """One database file."""
    made = SqliteWorld(tmp_path)
    yield made
    made.close()


def test_nothing_is_opened_before_its_first_use(world: SqliteWorld) -> None:
    broker = world.open()

    assert broker.location == str(world.path)
    assert broker.capabilities.server == f"SQLite {sqlite3.sqlite_version}"

    assert not world.path.exists()


def test_all_files_are_the_users_own(world: SqliteWorld) -> None:
    old = os.umask(0)
    try:
        broker = world.open()
        broker.consume(["a"], limit=1)
        broker.send([job("a")])
    finally:
        os.umask(old)

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in world.path.parent.rglob("*")}
    assert modes.pop("dibs.db-run") == 0o700
    assert len(modes) >= 8
    assert set(modes.values()) == {0o600}


def test_a_missing_file_is_named_with_its_absolute_path(world: SqliteWorld) -> None:
    with pytest.raises(StoreUnusable, match=f"no database {world.path}"):
        world.open(may_create=False).send([job("a")])

    assert not world.path.exists()


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreUnusable, match="no/such does not exist"):
        SqliteWorld(tmp_path / "no" / "such").open().queues()


def test_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "dibs.db").mkdir()

    with pytest.raises(StoreUnusable, match="is a directory"):
        SqliteWorld(tmp_path).open().queues()


def test_what_is_no_database_is_refused_and_left_as_it_is(world: SqliteWorld) -> None:
    world.path.write_bytes(b"my diary, dear to me. " * 100)

    with pytest.raises(StoreUnusable, match="not an SQLite database"):
        world.open().send([job("a")])

    assert world.path.read_bytes() == b"my diary, dear to me. " * 100
    assert list(world.path.parent.iterdir()) == [world.path]


def test_a_foreign_database_is_refused_unless_it_may_be_shared(world: SqliteWorld) -> None:
    with sqlite3.connect(world.path) as connection:
        connection.execute("CREATE TABLE users (name)")
    connection.close()

    with pytest.raises(StoreUnusable, match=r"not dibs'.*users.*share=1"):
        world.open().send([job("a")])

    world.url += "?share=1"
    world.open().send([job("a")])


def test_a_newer_schema_is_refused_and_not_touched(world: SqliteWorld) -> None:
    broker = world.open()
    broker.send([job("a")])
    consumer = broker.consume(["a"], limit=1)
    with sqlite3.connect(world.path) as connection:
        connection.execute("UPDATE dibs_meta SET version = 3")
    connection.close()

    with pytest.raises(StoreGone, match="version 3"):
        broker.send([job("a")])
    with pytest.raises(StoreGone, match="version 3"):
        consumer.receive(1)
    with pytest.raises(StoreUnusable, match="version 3") as refused:
        world.open().queues()
    assert not isinstance(refused.value, StoreGone)  # the file may be used, by another dibs


def test_an_unknown_option_is_refused(tmp_path: Path) -> None:
    world = SqliteWorld(tmp_path)
    world.url += "?shared=1"

    with pytest.raises(BadURL, match="shared"):
        world.open()


@pytest.mark.parametrize("target", ["file", "directory"])
def test_read_only_is_said_so(target: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        world = SqliteWorld(Path(directory))
        world.open().send([job("a")])
        world.close()
        shutil.rmtree(f"{world.path}-run")
        Path(directory).chmod(0o555 if target == "directory" else 0o777)
        world.path.chmod(0o444)
        script = (
            "import os, dibs.brokers.sqlite\nfrom dibs.brokers import connect\nfrom tests.waiting import job\n"
            "if os.getuid() == 0: os.setuid(65534)  # to root nothing is read-only\n"
            f"connect({world.url!r}).send([job('a')])"
        )

        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2]
        )

    assert "StoreUnusable" in done.stderr.splitlines()[-1]
    assert "needs write access to the file" in done.stderr


def test_a_full_disk_is_said_so_and_work_goes_on_when_there_is_space(world: SqliteWorld) -> None:
    broker = world.open()
    broker.send([job("a")])
    connection = broker._open().commits._connection
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")

    with pytest.raises(StoreUnusable, match=r"full.*nothing was stored"):
        broker.send([job("a", b"x" * 100_000)])

    connection.execute("PRAGMA max_page_count = 1000000")
    broker.send([job("a", b"later")])
    got = receive(broker.consume(["a"], limit=5), 5, within=0.3)
    assert [delivery.message.body for delivery in got] == [b"{}", b"later"]


def test_a_failed_transaction_leaves_nothing_behind(world: SqliteWorld) -> None:
    broker = world.open()
    store = broker._open().store
    connection = store.connect(synchronous="FULL")

    with pytest.raises(KeyboardInterrupt), store.write(connection):
        connection.execute("INSERT INTO dibs_queues (name) VALUES ('half')")
        raise KeyboardInterrupt

    assert not connection.in_transaction
    assert world.open(handover_timeout=0.1).queues() == []


def test_what_is_handed_over_is_synced_and_what_is_claimed_need_not_be(world: SqliteWorld) -> None:
    broker = world.open()
    consumer = broker.consume(["a"], limit=1)

    full, normal = (2,), (1,)
    assert broker._open().commits._connection.execute("PRAGMA synchronous").fetchone() == full
    assert broker._open()._connection.execute("PRAGMA synchronous").fetchone() == full
    assert consumer._connection.execute("PRAGMA synchronous").fetchone() == normal


def test_a_file_that_was_replaced_while_open_is_noticed(world: SqliteWorld) -> None:
    broker = world.open()
    broker.send([job("a", b"old")])
    for path in world.path.parent.glob("dibs.db*"):
        if path.is_file():
            path.unlink()

    with pytest.raises(StoreGone, match="removed or replaced"):
        broker.send([job("a", b"lost, had it been taken")])

    broker.send([job("a", b"new")])
    assert [delivery.message.body for delivery in receive(broker.consume(["a"], limit=2), 1)] == [b"new"]


def test_a_consumer_waits_two_seconds_at_the_most_and_a_producer_as_long_as_he_likes(world: SqliteWorld) -> None:
    broker = world.open(handover_timeout=30.0)
    broker.send([job("a")])
    consumer = broker.consume(["a"], limit=2)
    foreign = sqlite3.connect(world.path, isolation_level=None)
    foreign.execute("BEGIN IMMEDIATE")
    sender = threading.Thread(target=broker.send, args=([job("a")],))
    sender.start()

    with pytest.raises(BrokerBusy, match="for 2 s"):
        consumer.receive(1)

    assert sender.is_alive()
    foreign.execute("ROLLBACK")
    foreign.close()
    sender.join(20.0)
    assert len(receive(consumer, 2)) == 2


def test_a_lock_of_another_program_ends_as_broker_busy(world: SqliteWorld) -> None:
    broker = world.open(handover_timeout=0.3)
    broker.send([job("a")])
    foreign = sqlite3.connect(world.path, isolation_level=None)
    foreign.execute("BEGIN IMMEDIATE")

    with pytest.raises(BrokerBusy, match=f"by process {os.getpid()} for 0.3 s"):
        broker.send([job("a")])

    foreign.execute("ROLLBACK")
    foreign.close()
    broker.send([job("a")])


def test_a_process_stopped_inside_its_transaction_is_named(world: SqliteWorld) -> None:
    broker = world.open(handover_timeout=0.5)
    broker.send([job("a")])
    script = """
store = broker._open().store
with store.write(store.connect(synchronous="FULL")):
    say("inside")
    sys.stdin.read()
"""
    with Process(world.url, script) as other:
        assert other.heard() == "inside"
        other.stop()

        with pytest.raises(BrokerBusy, match=f"by process {other.pid} "):
            broker.send([job("a")])

        other.go_on()
        assert other.end() == 0
    broker.send([job("a")])


def test_a_process_stopped_in_the_line_is_passed_over(world: SqliteWorld) -> None:
    broker = world.open(handover_timeout=10.0)
    broker.send([job("a")])
    script = """
import time
with broker._open().store.line.turn(time.monotonic() + 10):
    say("inside")
    sys.stdin.read()
"""
    with Process(world.url, script) as other:
        assert other.heard() == "inside"
        other.stop()

        for _ in range(3):
            broker.send([job("a")])

        other.go_on()
        assert other.end() == 0
    broker.send([job("a")])
    assert broker.queues()[0].ready == 5


def test_no_checkpoint_happens_but_inside_the_write_lock(world: SqliteWorld) -> None:
    broker = world.open()
    broker.send([job("a", b"x" * 1_000_000) for _ in range(6)])
    consumer = broker.consume(["a"], limit=1)
    store = broker._open().store
    assert store._gate is not None

    for connection in store._connections:
        assert connection.execute("PRAGMA wal_autocheckpoint").fetchone() == (0,)
    store._gate.execute("BEGIN IMMEDIATE")
    seen: list[str] = []
    consumer._connection.set_trace_callback(seen.append)
    with pytest.raises(sqlite3.OperationalError):
        store._checkpoint(consumer._connection)

    assert seen == []
    store._gate.execute("ROLLBACK")


def test_the_wal_does_not_grow_with_what_is_sent(world: SqliteWorld) -> None:
    broker = world.open()
    consumer = broker.consume(["a"], limit=10)
    wal = world.path.with_name("dibs.db-wal")

    for _ in range(40):
        broker.send([job("a", b"x" * 100_000) for _ in range(10)])
        consumer.settle([(delivery, Done()) for delivery in receive(consumer, 10)])

    assert wal.stat().st_size < 20_000_000


@pytest.mark.parametrize(
    ("mountinfo", "kind"),
    [
        ("24 1 8:1 / / rw - ext4 /dev/sda rw\n30 24 0:5 / /data rw shared:1 - nfs4 host:/x rw", "nfs4"),
        ("24 1 8:1 / / rw - ext4 /dev/sda rw\n30 24 0:5 / /data/deeper rw - nfs4 host:/x rw", "ext4"),
        ("24 1 8:1 / / rw - ext4 /dev/sda rw\n30 24 0:5 / /dat rw - 9p host rw", "ext4"),
        ("24 1 8:1 / /da\\164a rw - virtiofs share rw", "virtiofs"),
        ("", ""),
    ],
)
def test_the_file_system_is_that_of_the_longest_mount_point(mountinfo: str, kind: str) -> None:
    assert filesystem.filesystem_of(Path("/data/app"), mountinfo) == kind


def test_a_network_file_system_is_refused_unless_told_otherwise(
    world: SqliteWorld, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text("24 1 8:1 / / rw - nfs4 host:/x rw\n")
    monkeypatch.setattr(filesystem, "_MOUNTS", mounts)

    with pytest.raises(StoreUnusable, match=r"nfs4 file system.*unsafe_fs=1"):
        world.open().send([job("a")])

    world.url += "?unsafe_fs=1"
    world.open().send([job("a")])


def test_damage_is_said_so() -> None:
    error = sqlite3.DatabaseError("database disk image is malformed")
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT

    assert "is damaged" in str(translate(error, Path("/x.db")))


def test_a_symbolic_link_leads_to_the_same_runtime_directory(world: SqliteWorld, tmp_path: Path) -> None:
    world.open().send([job("a")])
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "link.db").symlink_to(world.path)
    linked = SqliteWorld(tmp_path)
    linked.url = f"sqlite:///{tmp_path}/elsewhere/link.db"

    linked.open().send([job("a")])

    linked.close()
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["link.db"]
