"""When a worker dies its jobs go to others at once; when nobody can tell, they stay (P3, P4)."""

from __future__ import annotations

import logging
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dibs.brokers.sqlite.consumer import SqliteConsumer
from dibs.brokers.sqlite.liveness import Standing, Worker, examine
from dibs.errors import StoreGone
from dibs.outcome import Done
from tests.waiting import job, receive, receive_nothing, until
from tests.worlds_sqlite import Process, SqliteWorld

_HOLD = """
consumer = broker.consume(["a"], limit=9)
held = receive(consumer, 2)
say(len(held))
sys.stdin.read()
"""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[SqliteWorld]:
    """One database file."""
    made = SqliteWorld(tmp_path)
    yield made
    made.close()


def told_within(consumer: SqliteConsumer, seconds: float) -> bool:
    """Tell whether the descriptor becomes readable in that time."""
    return bool(select.select([consumer], [], [], seconds)[0])


def worker_id(world: SqliteWorld, pid: int) -> int:
    """Return the id that a process has as a worker."""
    rows = world.open()._open().store.connect(synchronous="FULL").execute("SELECT pid, id FROM dibs_workers")
    return int(dict(rows.fetchall())[pid])


def test_a_killed_workers_jobs_go_to_another_one_at_once(world: SqliteWorld) -> None:
    broker = world.open()
    broker.send([job("a"), job("a")])
    with Process(world.url, _HOLD) as worker:
        assert worker.heard() == "2"
        consumer = broker.consume(["a"], limit=2)
        assert consumer.receive(2) == []

        worker.kill()

        assert told_within(consumer, 0.5)
        again = receive(consumer, 2, within=0.5)
        assert [delivery.returns for delivery in again] == [1, 1]
        assert [delivery.message.attempt for delivery in again] == [1, 1]


def test_a_death_is_noticed_by_a_worker_that_was_there_before(world: SqliteWorld) -> None:
    broker = world.open()
    consumer = broker.consume(["a"], limit=2)
    consumer.receive(0)
    broker.send([job("a"), job("a")])
    with Process(world.url, _HOLD) as worker:
        assert worker.heard() == "2"
        consumer.receive(0)

        worker.kill()

        assert told_within(consumer, 0.5)
        assert len(receive(consumer, 2, within=0.5)) == 2


def test_a_full_worker_takes_over_too_and_wakes_an_idle_one(world: SqliteWorld) -> None:
    broker = world.open()
    broker.send([job("a"), job("a")])
    with Process(world.url, _HOLD) as worker:
        assert worker.heard() == "2"
        idle, full = broker.consume(["a"], limit=2), broker.consume(["b"], limit=2)
        assert idle.receive(2) == []
        full.receive(0)
        idle.receive(0)  # it does not wait, so nothing but its neighbour's word can reach it
        assert idle.receive(2) == []

        worker.kill()

        assert select.select([full, idle], [], [], 0.5)[0]
        full.receive(0)
        assert len(receive(idle, 2, within=0.5)) == 2


def test_the_next_death_is_noticed_as_well(world: SqliteWorld) -> None:
    broker = world.open()
    broker.send([job("a") for _ in range(4)])
    with Process(world.url, _HOLD) as one, Process(world.url, _HOLD) as other:
        assert (one.heard(), other.heard()) == ("2", "2")
        consumer = broker.consume(["a"], limit=4)
        # The two hold still, so let the next one in the ring, which this one watches, die first.
        first, second = sorted((one, other), key=lambda worker: worker_id(world, worker.pid))
        consumer.receive(0)

        first.kill()
        assert told_within(consumer, 0.5)
        assert len(receive(consumer, 2, within=0.5)) == 2
        consumer.receive(0)
        second.kill()

        assert told_within(consumer, 0.5)
        assert len(receive(consumer, 2, within=0.5)) == 2


def test_a_death_is_noticed_at_once_though_one_of_those_who_watch_is_stopped(world: SqliteWorld) -> None:
    broker = world.open()
    with Process(world.url, _HOLD.replace("2", "0")) as watching:
        assert watching.heard() == "0"
        broker.send([job("a"), job("a")])
        with Process(world.url, _HOLD) as doomed:
            assert doomed.heard() == "2"
            consumer = broker.consume(["a"], limit=2)
            assert consumer.receive(2) == []
            watching.stop()

            doomed.kill()

            assert told_within(consumer, 0.5)
            assert len(receive(consumer, 2, within=0.5)) == 2
            watching.go_on()


def test_an_executor_that_outlives_its_worker_delays_the_takeover(world: SqliteWorld) -> None:
    broker = world.open()
    broker.send([job("a"), job("a")])
    leftover = """
consumer = broker.consume(["a"], limit=9)
receive(consumer, 2)
import subprocess
child = subprocess.Popen(["sleep", "60"], pass_fds=consumer.keep_open())
say(child.pid)
sys.stdin.read()
"""
    with Process(world.url, leftover) as worker:
        executor = int(worker.heard())
        consumer = broker.consume(["a"], limit=2)
        worker.kill()
        try:
            assert receive_nothing(consumer, within=0.5)
        finally:
            os.kill(executor, 9)

        assert told_within(consumer, 0.5)
        assert len(receive(consumer, 2, within=0.5)) == 2


def test_a_worker_whose_lock_file_is_missing_is_reported_and_left_alone(
    world: SqliteWorld, caplog: pytest.LogCaptureFixture
) -> None:
    broker = world.open()
    broker.send([job("a"), job("a")])
    with Process(world.url, _HOLD) as worker:
        assert worker.heard() == "2"
        (lock,) = world.path.with_name("dibs.db-run").glob("*.lock")
        lock.unlink()
        worker.kill()

        with caplog.at_level(logging.WARNING, "dibs.sqlite"):
            consumer = broker.consume(["a"], limit=2)
            assert receive_nothing(consumer)

        assert "Nobody can tell" in caplog.text


def test_a_worker_whose_lock_file_was_replaced_is_left_alone(world: SqliteWorld) -> None:
    broker = world.open()
    broker.send([job("a"), job("a")])
    with Process(world.url, _HOLD) as worker:
        assert worker.heard() == "2"
        (lock,) = world.path.with_name("dibs.db-run").glob("*.lock")
        lock.rename(lock.with_suffix(".old"))
        lock.touch()

        assert receive_nothing(broker.consume(["a"], limit=2))


def test_a_worker_whose_lock_file_can_not_be_opened_is_left_alone(
    world: SqliteWorld, caplog: pytest.LogCaptureFixture
) -> None:
    broker = world.open()
    broker.send([job("a"), job("a"), job("a")])
    with Process(world.url, _HOLD) as worker:
        assert worker.heard() == "2"
        (lock,) = world.path.with_name("dibs.db-run").glob("*.lock")
        (fifo,) = lock.parent.glob("*.wake")
        for path in (lock, fifo):
            path.unlink()
            path.mkdir()  # to root no file is another user's, but a directory can't be opened

        with caplog.at_level(logging.WARNING, "dibs.sqlite"):
            consumer = broker.consume(["a"], limit=9)
            assert len(receive(consumer, 9, within=0.3)) == 1

        assert "can't be opened" in caplog.text


def test_a_worker_makes_its_lock_file_anew(world: SqliteWorld, caplog: pytest.LogCaptureFixture) -> None:
    broker = world.open()
    consumer = broker.consume(["a"], limit=1)
    shutil.rmtree(world.path.with_name("dibs.db-run"))

    for _ in range(2):
        consumer._membership._next_look = 0.0
        consumer.receive(0)

    assert caplog.text.count("it has made another one") == 1
    (row,) = consumer._connection.execute("SELECT id, host, pid, boot, lock, queues FROM dibs_workers")
    with examine(broker._open().store.directory, Worker(*row)) as standing:
        assert standing is Standing.ALIVE


def test_who_has_not_lived_through_a_restart_of_the_machine_is_dead(world: SqliteWorld) -> None:
    broker = world.open()
    broker.send([job("a"), job("a")])
    with Process(world.url, _HOLD) as worker:
        assert worker.heard() == "2"
        worker.kill()
    (lock,) = world.path.with_name("dibs.db-run").glob("*.lock")
    lock.unlink()
    broker._open().store.connect(synchronous="FULL").execute("UPDATE dibs_workers SET boot = 'an earlier one'")

    assert len(receive(broker.consume(["a"], limit=2), 2)) == 2


def test_a_stopped_worker_keeps_what_it_holds(world: SqliteWorld) -> None:
    broker = world.open()
    broker.send([job("a"), job("a")])
    with Process(world.url, _HOLD) as worker:
        assert worker.heard() == "2"
        worker.stop()

        assert receive_nothing(broker.consume(["a"], limit=2), within=1.0)


def test_only_one_of_many_takes_over(world: SqliteWorld) -> None:
    broker = world.open()
    broker.send([job("a"), job("a")])
    with Process(world.url, _HOLD) as worker:
        assert worker.heard() == "2"
        consumers = [broker.consume(["a"], limit=2) for _ in range(4)]
        worker.kill()

    got = [delivery for consumer in consumers for delivery in receive(consumer, 2, within=0.3)]

    assert [delivery.returns for delivery in got] == [1, 1]


def test_a_dead_worker_is_not_counted_and_leaves_no_files(world: SqliteWorld) -> None:
    broker = world.open()
    broker.send([job("a"), job("a")])
    with Process(world.url, _HOLD) as worker:
        assert worker.heard() == "2"
        assert broker.queues()[0].consumers == 1
        worker.kill()
    assert broker.queues()[0].consumers == 0

    broker.consume(["a"], limit=1).receive(0)
    world.close()

    left = {path.name for path in world.path.with_name("dibs.db-run").iterdir()}
    assert left == {"door", "line", "idle", "waiting"}


def test_a_job_from_another_process_wakes_a_waiting_worker(world: SqliteWorld) -> None:
    consumer = world.open().consume(["a"], limit=1)
    assert consumer.receive(1) == []
    assert not told_within(consumer, 0.05)

    with Process(world.url, "broker.send([job('a')])") as producer:
        assert producer.end() == 0

    assert told_within(consumer, 0.0)
    assert len(consumer.receive(1)) == 1
    assert not told_within(consumer, 0.0)


def test_only_as_many_are_woken_as_there_are_jobs_for(world: SqliteWorld) -> None:
    broker = world.open()
    right = [broker.consume(["a"], limit=1) for _ in range(3)]
    other = broker.consume(["b"], limit=1)
    for consumer in (*right, other, *right):
        assert consumer.receive(1) == []

    broker.send([job("a"), job("a")])

    assert sum(told_within(consumer, 0.0) for consumer in right) == 2
    assert not told_within(other, 0.0)


def test_a_job_that_nobody_announced_is_found_within_a_second(world: SqliteWorld) -> None:
    broker = world.open()
    consumer = broker.consume(["a"], limit=1)
    assert consumer.receive(1) == []
    broker._open().board.clear(0)  # as if the sender had died between its commit and its word

    broker.send([job("a")])

    assert not told_within(consumer, 0.0)
    assert consumer.timeout() <= 1.0
    assert len(consumer.receive(1)) == 1


def test_an_idle_worker_opens_no_write_transaction(world: SqliteWorld) -> None:
    consumer = world.open().consume(["a", "b"], limit=1)
    consumer.receive(1)
    seen: list[str] = []
    consumer._connection.set_trace_callback(seen.append)

    for _ in range(3):
        assert consumer.receive(1) == []

    assert seen
    assert not [statement for statement in seen if "BEGIN" in statement]


def test_leaving_gives_back_at_no_cost(world: SqliteWorld) -> None:
    broker = world.open()
    broker.send([job("a")])
    leaving, waiting = broker.consume(["a"], limit=1), broker.consume(["a"], limit=1)
    assert len(leaving.receive(1)) == 1
    assert waiting.receive(1) == []

    leaving.close()

    assert told_within(waiting, 0.5)
    (delivery,) = waiting.receive(1)
    assert delivery.returns == 0
    waiting.settle([(delivery, Done())])


def test_descriptors_do_not_leak_into_other_programs(world: SqliteWorld) -> None:
    consumer = world.open().consume(["a"], limit=1)

    assert not any(os.get_inheritable(descriptor) for descriptor in (*consumer.keep_open(), consumer.fileno()))
    script = "import os\nfor name in os.listdir('/proc/self/fd'): print(os.path.realpath('/proc/self/fd/' + name))"
    listing = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "dibs.db" not in listing.stdout


def test_a_worker_whose_database_was_removed_is_told_though_it_only_waits(world: SqliteWorld) -> None:
    broker = world.open()
    consumer = broker.consume(["a"], limit=1)
    consumer.receive(1)

    world.path.unlink()

    with pytest.raises(StoreGone, match="removed or replaced"):
        until(lambda: bool(consumer.receive(1)))


def test_an_idle_worker_is_told_of_a_migration(world: SqliteWorld) -> None:
    broker = world.open()
    consumer = broker.consume(["a"], limit=1)
    consumer.receive(1)

    with broker._open().connection() as connection:
        connection.execute("UPDATE dibs_meta SET version = 3")
    consumer._membership._next_look = 0.0

    with pytest.raises(StoreGone, match="changed to schema version 3"):
        consumer.receive(1)
