"""Handing over: shared commits, forks, deaths between commits, and the caller's own transaction (P1)."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dibs import Dibs
from dibs.brokers.sqlite import SqliteBroker, rows
from dibs.brokers.sqlite.errors import translated
from dibs.errors import BrokerBusy, DibsError, HandoverUncertain, JobExists, StoreUnusable, UsageError
from dibs.message import Message, now_ms
from tests.waiting import job, receive, until
from tests.worlds_sqlite import Process, SqliteWorld


@pytest.fixture
def world(tmp_path: Path) -> Iterator[SqliteWorld]:
    """One database file."""
    made = SqliteWorld(tmp_path)
    yield made
    made.close()


def count_commits(broker: SqliteBroker) -> list[str]:
    """Return a list that grows by one with each commit of the broker's sends."""
    commits: list[str] = []

    def note(statement: str) -> None:
        if statement == "COMMIT":
            commits.append(statement)

    broker._open().commits._connection.set_trace_callback(note)
    return commits


def send_at_once(broker: SqliteBroker, batches: list[list[Message]]) -> list[Exception | None]:
    """Send from a thread each, all of them lined up before the first one gets its turn; return their errors."""
    errors: list[Exception | None] = [None] * len(batches)
    commits = broker._open().commits

    def send(number: int) -> None:
        try:
            broker.send(batches[number])
        except Exception as error:  # noqa: BLE001  # whatever it is, the test looks at it
            errors[number] = error

    threads = [threading.Thread(target=send, args=(number,)) for number in range(len(batches))]
    with commits._turn:
        for thread in threads:
            thread.start()
        until(lambda: len(commits._waiting) == len(batches))
    for thread in threads:
        thread.join()
    return errors


def in_fork(action: Callable[[], None]) -> int:
    """Run `action` in a forked child; return its exit code, 1 if it raised."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            action()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_concurrent_sends_share_a_commit(world: SqliteWorld) -> None:
    broker = world.open()
    broker.send([job("a")])
    commits = count_commits(broker)

    errors = send_at_once(broker, [[job("a")] for _ in range(20)])

    assert errors == [None] * 20
    assert len(commits) == 1
    assert broker.queues()[0].ready == 21


def test_sixteen_threads_that_send_one_by_one_meet_in_the_same_commits(world: SqliteWorld) -> None:
    broker = world.open()
    broker.send([job("a")])
    commits = count_commits(broker)

    def send() -> None:
        for _ in range(50):
            broker.send([job("a")])

    threads = [threading.Thread(target=send) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert broker.queues()[0].ready == 801
    assert len(commits) <= 800 / 4  # about 60 where nothing else is going on


def test_a_send_that_fails_harms_none_of_those_it_shares_a_commit_with(world: SqliteWorld) -> None:
    broker = world.open()
    broker.send([job("a", id="taken")])
    wrong_type = job("a", task=object())

    errors = send_at_once(
        broker, [[job("a")], [job("a"), job("a", id="taken")], [job("a"), wrong_type], [job("a", id="2"), job("a")]]
    )

    assert (errors[0], errors[3]) == (None, None)
    assert isinstance(errors[1], JobExists)
    assert errors[1].ids == ("taken",)
    assert isinstance(errors[2], UsageError)
    assert broker.queues()[0].ready == 4


def test_an_id_twice_in_one_call_is_refused(world: SqliteWorld) -> None:
    with pytest.raises(JobExists, match="twice") as caught:
        world.open().send([job("a", id="x"), job("a", id="y"), job("a", id="x")])

    assert caught.value.ids == ("x",)
    assert world.open().queues() == []


def test_one_who_waits_too_long_for_other_threads_is_told_what_became_of_it(world: SqliteWorld) -> None:
    broker = world.open(handover_timeout=0.1)
    broker.send([job("a")])
    commits = broker._open().commits

    def take_along() -> None:
        until(lambda: bool(commits._waiting))
        commits._waiting.clear()

    with commits._turn, pytest.raises(BrokerBusy, match="nothing was stored"):
        broker.send([job("a")])
    with commits._turn:
        taken = threading.Thread(target=take_along)
        taken.start()
        with pytest.raises(HandoverUncertain) as caught:
            broker.send([job("a", id="in-doubt")])
        taken.join()

    assert caught.value.ids == ("in-doubt",)


def test_a_single_send_is_one_transaction_of_four_statements(world: SqliteWorld) -> None:
    broker = world.open()
    broker.send([job("a")])
    seen: list[str] = []
    broker._open().commits._connection.set_trace_callback(seen.append)

    broker.send([job("a")])

    assert [statement.split()[0] for statement in seen] == ["BEGIN", "SELECT", "INSERT", "COMMIT"]


def test_a_single_send_writes_less_than_four_pages(world: SqliteWorld) -> None:
    broker = world.open()
    broker.send([job("a")])
    wal = world.path.with_name("dibs.db-wal")
    before = wal.stat().st_size

    for _ in range(200):  # fewer than lead to a checkpoint, behind which the WAL is written from its beginning
        broker.send([job("a")])

    pages = (wal.stat().st_size - before) / (24 + 4096)
    # The row, its id and its place in the line, one page each; now and then one of them needs another page.
    assert 3 * 200 <= pages < 4 * 200


def test_a_single_send_stands_in_line_and_looks_for_other_files_once(
    world: SqliteWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = world.open()
    broker.send([job("a")])
    calls: list[str] = []

    def count(module: ModuleType, name: str) -> None:
        real = getattr(module, name)

        def counted(*args: object) -> object:
            calls.append(name)
            return real(*args)

        patch.setattr(module, name, counted)

    hour_ago = time.time() - 3600  # long since anything was made or removed there
    os.utime(world.path.parent, (hour_ago, hour_ago))
    broker.send([job("a")])
    with monkeypatch.context() as patch:
        for name in ("getpid", "stat"):
            count(os, name)
        count(fcntl, "flock")

        broker.send([job("a")])

    assert calls == ["getpid", *["flock"] * 3, "stat", "flock"]


def test_only_what_a_job_says_is_bound_to_its_insert(world: SqliteWorld) -> None:
    broker = world.open()
    later = now_ms() + 3_600_000
    plain = job(
        "a", b"{}", task="t", content_type="application/json", priority=7, enqueued=5, keep=3, is_private=True
    )
    more: dict[str, Any] = {"attempt": 2, "crashes": 1, "is_suspect": True, "error": "e", "unknown_since": 1}
    more |= {"due": later, "expires": later, "headers": {"h": 1}, "properties": {"reply_to": "r"}}

    statements = [broker._to_handover([plain]).statement]
    statements += [broker._to_handover([job("a", **{name: value})]).statement for name, value in more.items()]
    statements += [broker._to_handover([job("a"), job("a", due=0)]).statement]

    assert statements == [rows.INSERT_NEW, *[rows.INSERT] * 10]
    broker.send([plain])
    assert [each.message for each in receive(broker.consume(["a"], limit=1), 1)] == [plain]


def test_jobs_of_several_forms_that_share_a_commit_keep_their_order(world: SqliteWorld) -> None:
    broker = world.open()
    batches = [[job("a")], [job("a", headers={"h": 1})], [job("a"), job("a", error="e")], [job("a")]]
    ids = [message.id for batch in batches for message in batch]
    handovers = [broker._to_handover(batch) for batch in batches]

    broker._open().commits._waiting.extend(handovers[1:])
    broker._open().commits.send(handovers[0])

    assert all(handover.is_over for handover in handovers)
    got = receive(broker.consume(["a"], limit=9), 5)
    assert [each.message.id for each in got] == ids


def test_a_forked_child_sends_and_leaves_the_parents_connections_alone(world: SqliteWorld) -> None:
    broker = world.open()
    broker.send([job("a", b"before")])
    parents = broker._open()

    code = in_fork(lambda: broker.send([job("a", b"child")]))

    assert code == 0
    broker.send([job("a", b"after")])
    assert broker._open() is parents
    got = receive(broker.consume(["a"], limit=3), 3)
    assert [delivery.message.body for delivery in got] == [b"before", b"child", b"after"]


def test_a_fork_while_a_thread_is_sending_does_not_block_the_child(world: SqliteWorld) -> None:
    broker = world.open()
    broker.send([job("a")])

    with broker._open().commits._turn, broker._open()._mutex, broker._open().store.line._mutex:
        code = in_fork(lambda: broker.send([job("a", b"child")]))

    assert code == 0
    assert broker.queues()[0].ready == 2


def test_a_child_that_closes_leaves_the_parents_connections_open(world: SqliteWorld) -> None:
    broker = world.open()
    broker.send([job("a")])

    def close_in_child() -> None:
        parents = broker._opened
        assert parents is not None
        broker.close()
        parents.commits._connection.execute("SELECT 1")  # raises if it was closed

    assert in_fork(close_in_child) == 0

    assert world.path.with_name("dibs.db-wal").exists()
    broker.send([job("a")])
    assert broker.queues()[0].ready == 2


def test_a_consumer_says_that_a_child_cannot_use_it(world: SqliteWorld) -> None:
    consumer = world.open().consume(["a"], limit=1)

    def misuse() -> None:
        with pytest.raises(DibsError, match="belongs to process"):
            consumer.receive(1)

    assert in_fork(misuse) == 0
    assert consumer.receive(1) == []


def test_what_was_confirmed_survives_the_producers_death(world: SqliteWorld) -> None:
    script = """
for number in range(100_000):
    broker.send([job("a", str(number).encode())])
    say(number)
"""
    for _ in range(3):
        with Process(world.url, script) as producer:
            confirmed = -1
            while confirmed < 50:
                confirmed = int(producer.heard())
            producer.kill()

        broker = world.open()
        got = receive(broker.consume(["a"], limit=100_000), 100_000, within=0.2)
        assert [int(delivery.message.body) for delivery in got][: confirmed + 1] == list(range(confirmed + 1))
        world.close()
        world.path.unlink()


def test_writers_of_several_processes_all_get_their_turns(world: SqliteWorld) -> None:
    script = "for _ in range(100): broker.send([job('a')])"
    processes = [Process(world.url, script) for _ in range(4)]
    try:
        assert [process.end() for process in processes] == [0] * 4
    finally:
        for process in processes:
            process.kill()
            process.__exit__(None, None, None)

    assert world.open().queues()[0].ready == 400


@pytest.mark.parametrize("isolation", ["DEFERRED", None])
def test_jobs_in_the_callers_transaction_share_its_fate(world: SqliteWorld, isolation: None) -> None:
    broker = world.open()
    broker.send([job("other")])
    connection = sqlite3.connect(world.path, isolation_level=isolation)
    connection.execute("CREATE TABLE orders (name)")
    connection.commit()
    for ends in (connection.rollback, connection.commit):
        if isolation is None:
            connection.execute("BEGIN")
        connection.execute("INSERT INTO orders VALUES ('one')")
        broker.send_in(connection, [job("a", ends.__name__.encode())])
        ends()
    connection.close()

    got = receive(broker.consume(["a"], limit=2), 2, within=0.3)
    assert [delivery.message.body for delivery in got] == [b"commit"]


def test_a_job_in_the_callers_transaction_is_noticed_though_nobody_is_woken(world: SqliteWorld) -> None:
    broker = world.open()
    consumer = broker.consume(["a"], limit=1)
    assert consumer.receive(1) == []
    connection = sqlite3.connect(world.path)

    broker.send_in(connection, [job("a")])
    connection.commit()
    connection.close()

    assert consumer.timeout() <= 1.0
    assert len(receive(consumer, 1)) == 1


def test_an_app_enqueues_in_a_transaction_that_holds_the_write_lock_already(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shop.db'}?share=1"
    Dibs(url).broker.declare([])  # as an earlier process did
    app = Dibs(url, handover_timeout=0.5)
    task = app.task(name="invoice")(lambda: None)
    connection = sqlite3.connect(tmp_path / "shop.db")
    connection.execute("CREATE TABLE orders (id TEXT)")

    with connection:
        connection.execute("INSERT INTO orders VALUES ('one')")
        app.enqueue_in(connection, [task.prepare()])

    connection.close()
    assert [info.ready for info in app.broker.queues()] == [1]
    app.close()


def test_a_taken_id_leaves_the_callers_transaction_as_it_was(world: SqliteWorld) -> None:
    broker = world.open()
    broker.send([job("a", id="taken")])
    connection = sqlite3.connect(world.path)
    connection.row_factory = lambda cursor, row: {"a": row}
    connection.execute("INSERT INTO dibs_queues (name) VALUES ('mine')")

    with pytest.raises(JobExists):
        broker.send_in(connection, [job("a", id="new"), job("a", id="taken")])

    assert connection.in_transaction
    connection.commit()
    connection.close()
    assert [(queue.name, queue.ready) for queue in broker.queues()] == [("a", 1), ("mine", 0)]


def test_the_callers_connection_must_lead_to_the_same_file_and_not_commit_by_itself(
    world: SqliteWorld, tmp_path: Path
) -> None:
    broker = world.open()
    for place in (":memory:", str(tmp_path / "other.db")):
        connection = sqlite3.connect(place)
        with pytest.raises(UsageError, match="same file"):
            broker.send_in(connection, [job("a")])
        connection.close()
    connection = sqlite3.connect(world.path, isolation_level=None)

    with pytest.raises(UsageError, match="BEGIN"):
        broker.send_in(connection, [job("a")])

    connection.close()


def test_a_newer_schema_is_refused_in_the_callers_transaction_too(world: SqliteWorld) -> None:
    broker = world.open()
    broker.send([job("a")])
    connection = sqlite3.connect(world.path)
    connection.execute("UPDATE dibs_meta SET version = 3")
    connection.commit()

    with pytest.raises(StoreUnusable, match="version 3"):
        broker.send_in(connection, [job("a")])

    assert not connection.in_transaction
    connection.close()


def test_a_commit_that_fails_behind_its_last_write_leaves_a_doubt_and_says_so(
    world: SqliteWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = world.open()
    broker.send([job("a")])

    @contextmanager
    def write(*_: object, **__: object) -> Iterator[None]:  # no disk here refuses to sync
        with translated(world.path):
            yield
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
            raise error

    monkeypatch.setattr(broker._open().store, "write", write)

    with pytest.raises(HandoverUncertain, match="nobody can tell whether they are stored") as doubt:
        broker.send([job("a", id="doubtful")])
    assert doubt.value.ids == ("doubtful",)
