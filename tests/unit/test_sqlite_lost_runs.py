"""What a worker that died leaves in the record: a run that was lost, with the job's next one behind it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dibs.message import now_ms
from dibs.outcome import Done
from tests.conformance.asking import a_run
from tests.waiting import job, receive
from tests.worlds_sqlite import Process, SqliteWorld

_HOLD = """
held = receive(broker.consume(["a"], limit=9), 1)
say(len(held))
sys.stdin.read()
"""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[SqliteWorld]:
    """One database file."""
    made = SqliteWorld(tmp_path)
    yield made
    made.close()


def test_a_killed_workers_run_is_told_as_lost_and_the_next_one_as_it_was(world: SqliteWorld) -> None:
    broker, message = world.open(), job("a", task="t")
    before = now_ms()
    broker.send([message])
    with Process(world.url, _HOLD) as worker:
        assert worker.heard() == "1"
        worker.kill()
    consumer = broker.consume(["a"], limit=1)

    (delivery,) = receive(consumer, 1)
    consumer.settle([(delivery, Done(run=a_run()))])

    found = broker.ledger.job(message.id)
    assert found is not None
    assert [(run.outcome, run.attempt) for run in found.runs] == [("lost", 1), ("done", 1)]
    lost = found.runs[0]
    assert lost.started is not None
    assert lost.ended is not None
    assert before <= lost.started <= lost.ended <= now_ms()
    assert str(lost.worker).endswith(f":{worker.pid}")
    assert [run.outcome for run in broker.ledger.runs(before, limit=9).runs if run.id == message.id].count(
        "lost"
    ) == 1


def test_a_worker_that_gives_back_what_it_holds_loses_nothing(world: SqliteWorld) -> None:
    broker, message = world.open(), job("a")
    broker.send([message])
    first = broker.consume(["a"], limit=1)
    receive(first, 1)

    first.close()

    found = broker.ledger.job(message.id)
    assert found is not None
    assert found.runs == []


def test_the_first_batch_of_a_minute_counts_how_many_wait(world: SqliteWorld) -> None:
    broker = world.open()
    broker.send([job("a"), job("a"), job("a"), job("a", delay=3600.0), job("b")])
    consumer = broker.consume(["a"], limit=1)

    for _ in range(2):
        (delivery,) = receive(consumer, 1)
        consumer.settle([(delivery, Done())])

    depths = [minute.depth for minute in broker.ledger.minutes(0) if minute.queue == "a"]
    assert depths[0] == 3  # two that are ready, one that is delayed; the second batch counted no more
