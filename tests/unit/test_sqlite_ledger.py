"""The ledger in the file: forgetting at a bounded cost, waiting without polling, steering."""

from __future__ import annotations

import itertools
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from dibs.brokers.sqlite import SqliteBroker, cancels, claims, waiting, wake
from dibs.brokers.sqlite import broker as brokers
from dibs.brokers.sqlite import consumer as consumers
from dibs.brokers.sqlite.consumer import SqliteConsumer
from dibs.errors import BrokerUnavailable, JobExists
from dibs.ledger import history
from dibs.ledger.life import Ending, Note, Progress
from dibs.message import new_id, now_ms
from dibs.outcome import Done, RetryIn, Run
from tests.conformance.asking import a_run, listed, snapshot, status
from tests.waiting import PATIENCE, job, receive, until
from tests.worlds_sqlite import Process, SqliteWorld

_WAIT = "say(repr(broker.ledger.watch(sys.stdin.readline().strip(), is_ours=False).result(20).result))"
_HOLD_AND_SHOW = """
from tests.conformance.asking import snapshot
consumer = broker.consume(["a"], limit=5)
held = receive(consumer, 1)
consumer.show(snapshot("host:9", *held))
say("shown")
time.sleep(60)
"""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[SqliteWorld]:
    """One database file."""
    made = SqliteWorld(tmp_path)
    yield made
    made.close()


#: So long ago that what is not kept for decades is to be forgotten.
_LONG_AGO = Run(1, 2)


def end_jobs(
    broker: SqliteBroker, consumer: SqliteConsumer, count: int, *, run: Run | None = None, **fields: object
) -> list[str]:
    """Hand over so many jobs and settle them as done; return their ids."""
    messages = [job("a", **fields) for _ in range(count)]  # type: ignore[arg-type]  # a test's own keyword arguments
    broker.send(messages)
    consumer.settle([(delivery, Done(b"1", run=run or a_run())) for delivery in receive(consumer, count)])
    return [message.id for message in messages]


def rows(world: SqliteWorld, table: str) -> int:
    """Return how many rows a table has."""
    with closing(sqlite3.connect(world.path)) as connection:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


# Forgetting


def test_a_job_is_forgotten_with_all_that_was_kept_of_it_when_its_time_is_over(world: SqliteWorld) -> None:
    broker = world.open()
    broker.send([job("a", keep=0.1)])
    consumer = broker.consume(["a"], limit=1)
    (first,) = receive(consumer, 1)
    consumer.note([(first, Note(Progress(1, 2), ["line"]))])
    consumer.settle([(first, RetryIn(0.0, first.message.after_failure("boom"), a_run()))])
    (again,) = receive(consumer, 1)
    consumer.settle([(again, Done(b"1", run=a_run("line")))])
    assert (rows(world, "dibs_runs"), rows(world, "dibs_notes")) == (1, 1)

    until(lambda: consumer.receive(0) == [] and broker.ledger.job(first.message.id) is None)

    assert [rows(world, table) for table in ("dibs_jobs", "dibs_runs", "dibs_notes")] == [0, 0, 0]


def test_only_a_few_are_forgotten_at_once_and_no_other_job_is_looked_at(
    world: SqliteWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumers, "_PRUNED_AT_ONCE", 10)
    broker = world.open()
    consumer = broker.consume(["a"], limit=5000)
    end_jobs(broker, consumer, 30, run=_LONG_AGO)

    def steps() -> int:
        """Return how many instructions of SQLite's machine a look after what is to be forgotten takes."""
        consumer._next_pruning = 0.0
        count = itertools.count()
        consumer._connection.set_progress_handler(lambda: next(count) and 0, 1)
        consumer._prune()
        consumer._connection.set_progress_handler(None, 1)
        return next(count)

    steps()
    assert rows(world, "dibs_jobs") == 20
    among_few = steps()
    assert rows(world, "dibs_jobs") == 10
    end_jobs(broker, consumer, 5000)
    consumer._next_pruning = float("inf")
    consumer._is_behind = False
    assert steps() <= among_few * 1.1
    assert rows(world, "dibs_jobs") == 5000
    assert steps() < among_few / 10


def test_forgetting_keeps_up_with_what_ends(world: SqliteWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumers, "_PRUNED_AT_ONCE", 10)
    monkeypatch.setattr(consumers, "_PRUNE_EVERY", 3600.0)
    broker = world.open()
    consumer = broker.consume(["a"], limit=50)
    end_jobs(broker, consumer, 40, run=_LONG_AGO)
    consumer._next_pruning = 0.0

    consumer.receive(0)
    assert rows(world, "dibs_jobs") == 30
    consumer.receive(0)
    assert rows(world, "dibs_jobs") == 30
    for _ in range(10):
        end_jobs(broker, consumer, 5, run=_LONG_AGO)
    consumer.receive(0)

    assert rows(world, "dibs_jobs") <= 15  # of 30 and 50 more


def test_the_room_of_what_was_forgotten_is_used_again(world: SqliteWorld) -> None:
    broker = world.open()
    consumer = broker.consume(["a"], limit=200)

    def pages() -> int:
        end_jobs(broker, consumer, 200, run=_LONG_AGO)
        until(lambda: consumer.receive(0) == [] and rows(world, "dibs_jobs") == 0)
        consumer._next_pruning = 0.0
        with closing(sqlite3.connect(world.path)) as connection:
            return int(connection.execute("PRAGMA page_count").fetchone()[0])

    first = pages()

    assert max(pages() for _ in range(4)) <= first + 2


def test_a_process_without_a_worker_forgets_nothing(world: SqliteWorld) -> None:
    broker = world.open()
    consumer = broker.consume(["a"], limit=5)
    end_jobs(broker, consumer, 5, run=_LONG_AGO)
    consumer.close()

    other = world.open()
    other.send([job("b")])
    other.queues()
    listed(other)

    assert rows(world, "dibs_jobs") == 6


def test_an_id_is_taken_until_its_job_is_forgotten(world: SqliteWorld) -> None:
    broker = world.open()
    consumer = broker.consume(["a"], limit=1)
    (job_id,) = end_jobs(broker, consumer, 1, keep=0.5)

    with pytest.raises(JobExists):
        broker.send([job("a", id=job_id)])

    until(lambda: consumer.receive(0) == [] and broker.ledger.job(job_id) is None)
    broker.send([job("a", id=job_id)])
    assert len(receive(consumer, 1)) == 1


def test_what_is_not_kept_leaves_nothing_at_all(world: SqliteWorld) -> None:
    broker = world.open()
    broker.send([job("a", keep=0.0)])
    consumer = broker.consume(["a"], limit=1)
    (first,) = receive(consumer, 1)
    consumer.note([(first, Note(Progress(1, 2)))])
    consumer.settle([(first, RetryIn(0.0, first.message.after_failure("boom"), a_run()))])
    (again,) = receive(consumer, 1)

    consumer.settle([(again, Done(b"1", run=a_run("line")))])

    assert [rows(world, table) for table in ("dibs_jobs", "dibs_runs", "dibs_notes")] == [0, 0, 0]


def test_of_a_private_job_nothing_stands_in_the_file_once_it_is_over(world: SqliteWorld) -> None:
    broker = world.open()
    broker.send([job("a", b"secret", is_private=True)])
    consumer = broker.consume(["a"], limit=1)
    (first,) = receive(consumer, 1)
    consumer.settle([(first, RetryIn(0.0, first.message.after_failure("secret"), a_run()))])
    (again,) = receive(consumer, 1)

    consumer.settle([(again, Done(b'"secret"', run=a_run()))])

    with closing(sqlite3.connect(world.path)) as connection:
        (row,) = connection.execute("SELECT * FROM dibs_jobs").fetchall()
        (run,) = connection.execute("SELECT * FROM dibs_runs").fetchall()
    assert "secret" not in repr((row, run))


# Waiting


def test_another_process_is_told_of_the_end(world: SqliteWorld) -> None:
    broker = world.open()
    broker.send([job("a")])
    consumer = broker.consume(["a"], limit=1)
    (held,) = receive(consumer, 1)
    with Process(world.url, _WAIT) as process:
        process.tell(held.message.id + "\n")
        until(lambda: any(broker._open().waiters._words))

        consumer.settle([(held, Done(b"42", run=a_run()))])

        assert process.heard() == "b'42'"


def test_nobody_is_poked_while_nobody_waits_and_one_look_is_enough(
    world: SqliteWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    poked: list[Path] = []
    monkeypatch.setattr(waiting, "poke", lambda path, what: poked.append(path))
    monkeypatch.setattr(waiting, "mask_of", lambda *_, **__: pytest.fail("the ids were looked at"))
    broker = world.open()

    end_jobs(broker, broker.consume(["a"], limit=5), 5)

    assert poked == []


def test_who_waits_is_woken_once_however_much_ends_before_it_looks(
    world: SqliteWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    poked: list[Path] = []
    monkeypatch.setattr(waiting, "poke", lambda path, what: poked.append(path))
    broker = world.open()
    waiters = broker._open().waiters if broker.queues() == [] else pytest.fail("not empty")
    waiters.write(3, 2**64 - 1)

    end_jobs(broker, broker.consume(["a"], limit=5), 5)
    end_jobs(broker, broker.consume(["a"], limit=5), 5)

    assert [path.name for path in poked] == ["waiting.3"]


def test_the_end_is_noticed_though_its_hint_was_lost(world: SqliteWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    broker = world.open()
    broker.send([job("a")])
    consumer = broker.consume(["a"], limit=1)
    (held,) = receive(consumer, 1)
    future = broker.ledger.watch(held.message.id, is_ours=True)
    monkeypatch.setattr(waiting.Waiters, "wake", lambda *_: None)

    consumer.settle([(held, Done(b"42", run=a_run()))])

    ending = future.result(PATIENCE)
    assert ending is not None
    assert ending.result == b"42"


def test_who_finds_no_room_on_the_board_looks_by_itself(world: SqliteWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "SLOTS", 0)
    broker = world.open()
    broker.send([job("a")])
    consumer = broker.consume(["a"], limit=1)
    (held,) = receive(consumer, 1)
    future = broker.ledger.watch(held.message.id, is_ours=True)
    assert broker._open().waiting("")._slot is None

    consumer.settle([(held, Done(b"42", run=a_run()))])

    assert future.result(PATIENCE) is not None


def test_a_place_on_the_board_is_free_again_when_its_process_died(world: SqliteWorld) -> None:
    broker = world.open()
    broker.send([job("a")])
    (job_id,) = listed(broker)
    with Process(world.url, _WAIT) as process:
        process.tell(job_id + "\n")
        until(lambda: broker._open().waiters._words[0] != 0)
        process.kill()

    broker.ledger.watch(job_id, is_ours=True)

    assert broker._open().waiting("")._slot == 0
    other = world.open()
    other.ledger.watch(job_id, is_ours=True)
    assert other._open().waiting("")._slot == 1


def test_one_thread_waits_for_all_and_ends_with_the_broker(world: SqliteWorld) -> None:
    def threads() -> int:
        return sum(thread.name == "dibs-waiting" for thread in threading.enumerate())

    broker = world.open()
    messages = [job("a") for _ in range(200)]
    broker.send(messages)
    assert threads() == 0

    futures = [broker.ledger.watch(message.id, is_ours=True) for message in messages]

    assert threads() == 1
    broker.close()
    assert threads() == 0
    for future in futures:
        with pytest.raises(BrokerUnavailable, match="closed"):
            future.result(0)


def test_a_forked_child_waits_by_itself(world: SqliteWorld) -> None:
    script = """
from tests.conformance.asking import a_run
first, second = job("a"), job("a")
broker.send([first, second])
future = broker.ledger.watch(first.id, is_ours=True)
child = os.fork()
if not child:
    say(repr(broker.ledger.watch(second.id, is_ours=False).result(20).result))
    os._exit(0)
consumer = broker.consume(["a"], limit=2)
time.sleep(0.2)
consumer.settle([(each, Done(each.message.id.encode(), run=a_run())) for each in receive(consumer, 2)])
os.waitpid(child, 0)
say(repr(future.result(20).result))
say(f"{first.id} {second.id}")
"""
    with Process(world.url, script) as process:
        child, parent, ids = process.heard(), process.heard(), process.heard().split()

    assert [parent, child] == [repr(each.encode()) for each in ids]


@pytest.mark.parametrize("how", ["purged", "not kept"])
def test_who_waits_for_what_vanishes_is_told_that_it_is_forgotten(world: SqliteWorld, how: str) -> None:
    broker = world.open()
    message = job("a", keep=0.0)
    broker.send([message])
    future = broker.ledger.watch(message.id, is_ours=False)

    if how == "purged":
        broker.purge("a", state="ready")
    else:
        consumer = broker.consume(["a"], limit=1)
        consumer.settle([(delivery, Done(b"1", run=a_run())) for delivery in receive(consumer, 1)])

    assert future.result(PATIENCE) == Ending(status="forgotten")


def test_a_job_of_ones_own_that_is_not_there_was_forgotten(world: SqliteWorld) -> None:
    ledger = world.open().ledger

    assert ledger.watch(new_id(), is_ours=True).result(PATIENCE) == Ending(status="forgotten")
    assert ledger.watch(new_id(), is_ours=False).result(PATIENCE) is None


def test_who_waits_in_a_file_that_is_gone_is_told_so(world: SqliteWorld) -> None:
    broker = world.open()
    message = job("a")
    broker.send([message])
    future = broker.ledger.watch(message.id, is_ours=True)

    world.path.rename(world.path.with_name("away.db"))

    with pytest.raises(Exception, match="removed or replaced"):
        future.result(PATIENCE)


# Workers, and steering


def test_a_dead_worker_is_not_shown_and_its_snapshot_goes_with_it(world: SqliteWorld) -> None:
    broker = world.open()
    broker.send([job("a")])
    (job_id,) = listed(broker)
    with Process(world.url, _HOLD_AND_SHOW) as worker:
        assert worker.heard() == "shown"
        assert [each.worker for each in broker.ledger.workers()] == ["host:9"]
        running = broker.ledger.job(job_id)
        assert running is not None
        assert (running.status, running.worker) == ("running", f"{running.worker}".split(":")[0] + f":{worker.pid}")
        worker.kill()

    assert broker.ledger.workers() == []
    broker.consume(["a"], limit=1).receive(0)
    assert list(world.path.with_name("dibs.db-run").glob("*.json")) == []


def test_a_damaged_snapshot_is_left_out(world: SqliteWorld) -> None:
    broker = world.open()
    consumer = broker.consume(["a"], limit=1)
    consumer.show(snapshot("host:1"))
    (path,) = world.path.with_name("dibs.db-run").glob("*.json")

    path.write_bytes(b'{"worker": 5')

    assert broker.ledger.workers() == []


def test_a_cancel_is_noticed_though_its_hint_was_lost(world: SqliteWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    broker = world.open()
    broker.send([job("a")])
    consumer = broker.consume(["a"], limit=1)
    (held,) = receive(consumer, 1)
    monkeypatch.setattr(brokers, "poke", lambda *_: None)

    broker.cancel([held.message.id])

    consumer.receive(0)
    assert list(consumer.cancelled()) == []
    consumer._membership._next_look = 0.0  # 5 s later
    consumer.receive(0)
    assert list(consumer.cancelled()) == [held]


def test_no_request_is_left_over_however_the_job_ended(world: SqliteWorld) -> None:
    broker = world.open()
    messages = [job("a") for _ in range(3)]
    broker.send(messages)
    consumer = broker.consume(["a"], limit=3)
    done, failed, given_back = receive(consumer, 3)

    broker.cancel([message.id for message in messages])
    consumer.settle(
        [(done, Done(run=a_run())), (failed, RetryIn(5.0, failed.message.after_failure("boom"), a_run()))]
    )
    assert status(broker, failed.message.id) == "cancelled"
    assert rows(world, "dibs_cancels") == 1
    consumer.close()

    assert rows(world, "dibs_cancels") == 0
    assert [status(broker, each.message.id) for each in (done, failed, given_back)] == [
        "done",
        "cancelled",
        "cancelled",
    ]


def test_a_cancelled_job_that_is_not_kept_leaves_nothing(world: SqliteWorld) -> None:
    broker = world.open()
    message = job("a", keep=0.0)
    broker.send([message])
    future = broker.ledger.watch(message.id, is_ours=True)

    assert broker.cancel([message.id]) == {message.id: "cancelled"}

    assert future.result(PATIENCE) == Ending(status="forgotten")
    assert rows(world, "dibs_jobs") == 0


def test_a_cancel_reaches_no_job_of_another_namespace(world: SqliteWorld) -> None:
    left, right = world.open(namespace="l"), world.open(namespace="r")
    message = job("a")
    left.send([message])

    assert right.cancel([message.id]) == {message.id: "unknown"}

    assert status(left, message.id) == "ready"


def test_a_look_for_requests_is_taken_once_a_batch(world: SqliteWorld) -> None:
    broker = world.open()
    broker.send([job("a") for _ in range(50)])
    consumer = broker.consume(["a"], limit=50)
    got = receive(consumer, 50)
    seen: list[str] = []
    consumer._connection.set_trace_callback(seen.append)

    consumer.settle([(delivery, Done(b"1", run=Run(1, 2))) for delivery in got])

    consumer._connection.set_trace_callback(None)
    assert seen.count(cancels._ASKED) == 1
    assert len(seen) <= 50 + 10


def test_a_claim_takes_nothing_of_a_queue_that_was_paused_a_moment_ago(world: SqliteWorld) -> None:
    broker = world.open()
    broker.send([job("a")])
    consumer = broker.consume(["a"], limit=1)

    broker.pause("a")  # between another one's look and its claim

    with consumer._store.write(consumer._connection):
        assert claims.claim(consumer._connection, "a", name="a", receipt=1, limit=1) == []


def test_a_paused_queue_costs_its_workers_a_look_and_no_transaction(world: SqliteWorld) -> None:
    broker = world.open()
    broker.send([job("a", delay=0.05)])
    (job_id,) = listed(broker)
    broker.send([job("a")])
    broker.pause("a")
    consumer = broker.consume(["a"], limit=1)

    until(lambda: status(broker, job_id) == "ready")
    seen: list[str] = []
    consumer._connection.set_trace_callback(seen.append)

    assert consumer.receive(1) == []

    consumer._connection.set_trace_callback(None)
    assert "BEGIN IMMEDIATE" not in seen
    assert consumer._due is None


def test_a_word_on_the_board_is_as_wide_as_its_mask() -> None:
    assert wake.mask_of([str(number) for number in range(5000)], bits=64) == 2**64 - 1
    assert wake.mask_of([str(number) for number in range(5000)]) == 2**32 - 1


def test_brokers_that_were_waited_with_leave_nothing_behind_for_forks(
    world: SqliteWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    hooks: list[object] = []
    monkeypatch.setattr(os, "register_at_fork", lambda **given: hooks.append(given))

    for _ in range(3):
        broker = world.open()
        assert broker.ledger.watch(new_id(), is_ours=False).result(PATIENCE) is None
        broker.close()

    assert hooks == []


def test_what_failed_in_many_queues_is_read_no_further_than_it_is_wanted(world: SqliteWorld) -> None:
    broker = world.open()
    end_jobs(broker, broker.consume(["a"], limit=5), 1)

    def steps(queues: int) -> int:
        with closing(sqlite3.connect(world.path)) as connection:
            for queue in range(queues):
                connection.execute("INSERT OR IGNORE INTO dibs_queues (name) VALUES (?)", (f"q{queue}",))
                connection.executemany(
                    "INSERT INTO dibs_jobs (id, queue, state, priority, attempt, crashes, suspect, keep, private, "
                    "started, ended, body) VALUES (?, ?, 3, 0, 1, 0, 0, 1000, 0, ?, ?, x'')",
                    [(new_id(), f"q{queue}", at, at + 1) for at in range(50)],
                )
            count = itertools.count()
            connection.set_progress_handler(lambda: next(count) and 0, 1)
            found = history.runs(connection, 0, now=now_ms(), limit=50)
            connection.set_progress_handler(None, 1)
            assert sum(run.outcome == "dead" for run in found.runs) == 50
            return next(count)

    few, many = steps(5), steps(85)

    assert (many - few) / 80 < 150  # a look into each, and no row of it beyond the first
