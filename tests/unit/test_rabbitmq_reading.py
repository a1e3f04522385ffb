"""Reading RabbitMQ's ledger: readers that are killed, stopped or two, and streams that change under them."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from dibs.broker import Broker
from dibs.brokers import connect
from dibs.brokers.rabbitmq import RabbitBroker
from dibs.brokers.rabbitmq.ledger import entries
from dibs.brokers.rabbitmq.ledger.entries import Enqueued, Entry
from dibs.brokers.rabbitmq.ledger.index import Index
from dibs.brokers.rabbitmq.ledger.ledger import RabbitLedger
from dibs.errors import LedgerUnavailable
from dibs.ledger.life import JobSelection
from dibs.message import new_id, now_ms
from tests.histories import History
from tests.indexes import content
from tests.rabbit_node import Node
from tests.waiting import until
from tests.worlds_rabbitmq import RabbitWorld
from tests.worlds_sqlite import Process

MANY = 20_000
_HOUR = 3_600_000


@pytest.fixture
def world(rabbit_node: Node) -> Iterator[RabbitWorld]:
    """A namespace of its own."""
    world = RabbitWorld(rabbit_node)
    yield world
    world.close()


def open_at(world: RabbitWorld, url: str) -> Broker:
    """Return a handle by another URL."""
    broker = connect(url, namespace=world.namespace)
    assert isinstance(broker, RabbitBroker)
    world._opened.append(broker)
    return broker


def ledger_of(broker: Broker) -> RabbitLedger:
    """Return the broker's ledger, which is RabbitMQ's."""
    assert isinstance(broker.ledger, RabbitLedger)
    return broker.ledger


def index_of(broker: Broker) -> Path:
    """Return where a broker's index is."""
    return ledger_of(broker)._follower().path


def writes(broker: Broker) -> bool:
    """Tell whether the index is this broker's to write."""
    return ledger_of(broker)._follower()._index is not None


def write(world: RabbitWorld, said: Sequence[Entry], *, at_a_time: int = 1) -> None:
    """Write entries into the ledger as a stranger would, and wait until they are there."""
    with world.channel() as channel:
        channel.confirm_delivery()
        for start in range(0, len(said), at_a_time):
            channel.basic_publish(world.stored("dibs.ledger"), "", entries.encode(said[start : start + at_a_time]))


def handed_over(*, body: bytes = b"{}") -> Enqueued:
    """Return the entry for a job that was handed over just now."""
    return Enqueued(new_id(), "a", "t", now_ms(), None, None, 4, 86_400_000, False, body)


def ids(broker: Broker) -> set[str]:
    """Return what a broker lists."""
    return {job.id for job in broker.ledger.jobs(JobSelection(), limit=100_000).jobs}


def place(path: Path) -> int:
    """Return how far an index is; 0 before it is one."""
    try:
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            return int(connection.execute("SELECT next FROM dibs_index").fetchone()[0])
        finally:
            connection.close()
    except (sqlite3.Error, TypeError):
        return 0


def test_a_reader_that_is_killed_twenty_times_comes_to_the_truth(world: RabbitWorld, tmp_path: Path) -> None:
    history = History(7, jobs=200, steps=MANY, begun=now_ms() - 10 * _HOUR)
    world.open().ledger.refresh()
    write(world, history.entries)
    url = f"{world.url}?index={tmp_path}/killed.db"
    script = f"connect({url!r}, namespace={world.namespace!r}).ledger.refresh()\nsay('done')\n"
    killed_at = sorted(random.Random(7).sample(range(1, len(history.entries)), 20))
    kills = 0

    for offset in killed_at:
        with Process(world.url, script) as reader:
            until(lambda offset=offset: place(tmp_path / "killed.db") >= offset)  # type: ignore[misc]
            os.kill(reader.pid, signal.SIGKILL)
            kills += 1

    assert kills == 20
    with Process(world.url, script) as reader:
        assert reader.heard() == "done"
    straight = Index(tmp_path / "straight.db", "s")
    straight.apply([(0, entries.encode(history.entries))])
    straight.close()
    assert content(tmp_path / "killed.db") == content(tmp_path / "straight.db")


def test_two_readers_of_one_index_both_see_everything_and_one_writes(world: RabbitWorld) -> None:
    first, second = world.open(), world.open()
    job = handed_over()
    first.ledger.refresh()

    write(world, [job])

    assert ids(second) == ids(first) == {job.id}
    assert writes(first)
    assert not writes(second)
    assert index_of(first) == index_of(second)


def test_the_other_reader_takes_over_when_the_first_one_goes(world: RabbitWorld) -> None:
    first, second = world.open(), world.open()
    before, after = handed_over(), handed_over()
    first.ledger.refresh()
    write(world, [before])
    assert ids(second) == {before.id}

    first.close()
    write(world, [after])

    assert ids(second) == {before.id, after.id}
    assert writes(second)


@pytest.mark.parametrize("is_writing", [False, True], ids=["idle", "in the middle of writing"])
def test_a_reader_that_is_stopped_holds_up_no_other_and_harms_nothing_when_it_goes_on(
    world: RabbitWorld, is_writing: bool
) -> None:
    mine = world.open()
    begin = "b.ledger._follower()._index._connection.execute('BEGIN IMMEDIATE')\n" if is_writing else ""
    end = "b.ledger._follower()._index._connection.execute('COMMIT')\n" if is_writing else ""
    script = (
        f"from dibs.ledger.life import JobSelection\n"
        f"b = connect({world.url!r}, namespace={world.namespace!r})\n"
        f"b.ledger.refresh()\n{begin}say('read')\nsys.stdin.readline()\n{end}"
        "while True:\n"
        "    say(len(b.ledger.jobs(JobSelection(), limit=100).jobs))\n"
        "    sys.stdin.readline()\n"
    )
    with Process(world.url, script) as other:
        assert other.heard() == "read"
        os.kill(other.pid, signal.SIGSTOP)
        job = handed_over()
        write(world, [job])

        assert ids(mine) == {job.id}
        assert writes(mine)

        os.kill(other.pid, signal.SIGCONT)
        other.tell("\n")
        assert other.heard() == "1"
        write(world, [handed_over()])
        other.tell("\n")
        assert other.heard() == "2"
    assert len(ids(mine)) == 2


def test_a_stream_that_is_made_anew_is_read_from_its_beginning(world: RabbitWorld) -> None:
    broker = world.open()
    broker.ledger.refresh()
    write(world, [handed_over() for _ in range(5)])
    assert len(ids(broker)) == 5
    with world.channel() as channel:
        channel.queue_delete(world.stored("dibs.ledger"))
    assert ids(broker) == set()
    job = handed_over()

    write(world, [job])

    assert ids(broker) == {job.id}


def test_a_stream_that_was_made_anew_meanwhile_is_told_by_what_stands_in_it(world: RabbitWorld) -> None:
    broker = world.open()
    broker.ledger.refresh()
    write(world, [handed_over() for _ in range(5)])
    assert len(ids(broker)) == 5
    broker.close()
    with world.channel() as channel:
        channel.queue_delete(world.stored("dibs.ledger"))
    again = world.open()
    others = [handed_over() for _ in range(7)]
    with world.channel() as channel:
        arguments = {"x-queue-type": "stream"}
        channel.queue_declare(world.stored("dibs.ledger"), durable=True, arguments=arguments)
        channel.queue_bind(world.stored("dibs.ledger"), world.stored("dibs.ledger"))
    write(world, others)

    assert ids(again) == {job.id for job in others}


def test_what_the_server_deleted_before_it_was_read_is_told(
    world: RabbitWorld, caplog: pytest.LogCaptureFixture
) -> None:
    with world.channel() as channel:
        arguments = {
            "x-queue-type": "stream",
            "x-max-length-bytes": 100_000,
            "x-stream-max-segment-size-bytes": 50_000,
        }
        name = world.stored("dibs.ledger")
        channel.exchange_declare(name, "fanout", durable=True)
        channel.queue_declare(name, durable=True, arguments=arguments)
        channel.queue_bind(name, name)
    broker = world.open()
    write(world, [handed_over()])
    broker.ledger.refresh()
    broker.close()
    for _ in range(10):
        write(world, [handed_over(body=b"x" * 500) for _ in range(100)])
    last = handed_over()
    write(world, [last])

    again = world.open()

    assert last.id in ids(again)
    assert ledger_of(again).missed > 100
    assert "were read: what happened then is missing" in caplog.text


def test_a_forked_child_reads_by_a_connection_of_its_own(world: RabbitWorld) -> None:
    script = (
        f"from dibs.ledger.life import JobSelection\n"
        f"b = connect({world.url!r}, namespace={world.namespace!r})\n"
        "count = lambda: len(b.ledger.jobs(JobSelection(), limit=100).jobs)\n"
        "say(count())\n"
        "sys.stdin.readline()\n"
        "if os.fork() == 0:\n"
        "    say(count())\n"
        "    os._exit(0)\n"
        "os.wait()\n"
        "say(count())\n"
        "sys.stdin.readline()\n"
        "say(count())\n"
    )
    world.open().ledger.refresh()
    with Process(world.url, script) as process:
        assert process.heard() == "0"
        write(world, [handed_over()])
        process.tell("\n")
        assert (process.heard(), process.heard()) == ("1", "1")
        write(world, [handed_over()])
        process.tell("\n")
        assert process.heard() == "2"


def test_progress_is_told_up_to_the_end(world: RabbitWorld) -> None:
    broker = world.open()
    broker.ledger.refresh()
    write(world, [handed_over() for _ in range(3000)])
    broker.close()
    Path(index_of(world.open())).unlink()
    told: list[tuple[int, int]] = []

    world.open().ledger.refresh(lambda done, total: told.append((done, total)))

    assert told[-1] == (3000, 3000)
    assert told == sorted(told)


def test_who_may_not_read_the_ledger_is_told_so_and_can_do_all_else(world: RabbitWorld, rabbit_node: Node) -> None:
    world.open().ledger.refresh()
    prefix = world.namespace
    with rabbit_node.user(
        "deaf", configure=".*", write=".*", read=rf"^{prefix}\.(a|dibs|dibs\.(delay|control).*)$"
    ) as url:
        broker = open_at(world, url)

        with pytest.raises(LedgerUnavailable, match="does not let this user read the ledger"):
            broker.ledger.refresh()
        with pytest.raises(LedgerUnavailable, match="Grant the right to read it"):
            broker.ledger.job(new_id())
        broker.queues()
        broker.close()


def test_without_a_ledger_there_is_none_to_ask(world: RabbitWorld) -> None:
    with pytest.raises(LedgerUnavailable, match="ledger=off"):
        _ = open_at(world, f"{world.url}?ledger=off").ledger


def test_an_index_that_can_not_be_written_is_told_with_its_place(world: RabbitWorld, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    broker = open_at(world, f"{world.url}?index={tmp_path}/file/index.db")

    with pytest.raises(LedgerUnavailable, match=r"file/index\.db can't be written"):
        broker.ledger.refresh()


def test_the_index_is_its_owners_alone_and_its_name_tells_no_password(world: RabbitWorld) -> None:
    broker = world.open()

    broker.ledger.refresh()

    path = index_of(broker)
    assert {each.stat().st_mode & 0o777 for each in path.parent.glob(f"{path.name}*")} == {0o600}
    assert path.parent == Path(os.environ["XDG_CACHE_HOME"]) / "dibs"
    assert "127.0.0.1" in path.name
    assert "guest" not in path.name


def test_an_index_that_is_damaged_under_its_reader_is_made_anew(world: RabbitWorld) -> None:
    broker = world.open()
    broker.ledger.refresh()
    job, other = handed_over(), handed_over()
    write(world, [job])
    assert ids(broker) == {job.id}
    broker.close()
    path = index_of(world.open())
    path.write_bytes(path.read_bytes()[:4096] + random.Random(1).randbytes(path.stat().st_size - 4096))

    again = world.open()
    write(world, [other])

    assert ids(again) == {job.id, other.id}


def test_an_index_that_is_found_damaged_only_when_it_is_asked_is_made_anew(world: RabbitWorld) -> None:
    wanted = [handed_over(body=b"x" * 900) for _ in range(300)]
    broker = world.open()
    broker.ledger.refresh()
    write(world, wanted)
    broker.ledger.refresh()
    broker.close()
    path = index_of(world.open())
    damaged = bytearray(path.read_bytes())
    damaged[-60_000:] = random.Random(1).randbytes(60_000)  # not what a writer looks at first
    path.write_bytes(damaged)

    assert ids(world.open()) == {job.id for job in wanted}


def test_an_index_that_is_removed_under_its_reader_is_made_anew(world: RabbitWorld) -> None:
    job = handed_over()
    broker = world.open()
    broker.ledger.refresh()
    write(world, [job])
    assert ids(broker) == {job.id}

    index_of(broker).unlink()

    assert ids(broker) == {job.id}


def test_a_database_that_is_no_index_is_refused_and_not_made_one(world: RabbitWorld, tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE precious (thing)")
    before = path.read_bytes()

    with pytest.raises(LedgerUnavailable, match="another database stands there"):
        open_at(world, f"{world.url}?index={path}").ledger.refresh()

    assert path.read_bytes() == before
