"""`dibs move`: what arrives, what can stand in the way, and that all of it is in the one place or in the other."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dibs.broker import Broker
from dibs.errors import BrokerBusy, BrokerError, BrokerUnavailable, StoreUnusable, UnknownQueue, UsageError
from dibs.message import Message
from dibs.moving.tally import Tally
from dibs.outcome import Dead, DeadLetter, Done
from tests.crash.moving import EACH_END, ROUTES, Route
from tests.proxy import Proxy
from tests.rabbit_node import Node
from tests.rabbit_releases import Nodes
from tests.waiting import job, receive, until

_DAY_MS = 86_400_000


@pytest.fixture(params=ROUTES)
def any_route(request: pytest.FixtureRequest, rabbit_nodes: Nodes, tmp_path: Path) -> Iterator[Route]:
    """Every direction in turn."""
    with closing(Route(request.param, rabbit_nodes, tmp_path)) as made:
        yield made


@pytest.fixture(params=EACH_END)
def route(request: pytest.FixtureRequest, rabbit_nodes: Nodes, tmp_path: Path) -> Iterator[Route]:
    """Either broker as the source, and as the target."""
    with closing(Route(request.param, rabbit_nodes, tmp_path)) as made:
        yield made


@pytest.fixture
def up(rabbit_nodes: Nodes, tmp_path: Path) -> Iterator[Route]:
    """From SQLite to RabbitMQ."""
    with closing(Route("sqlite-rabbitmq", rabbit_nodes, tmp_path)) as made:
        yield made


@pytest.fixture
def down(rabbit_nodes: Nodes, tmp_path: Path) -> Iterator[Route]:
    """From RabbitMQ to SQLite."""
    with closing(Route("rabbitmq-sqlite", rabbit_nodes, tmp_path)) as made:
        yield made


def full(queue: str, **fields: Any) -> Message:
    """Return a message with something in every place."""
    now = int(time.time()) * 1000  # RabbitMQ keeps seconds of when a job was handed over
    given: dict[str, Any] = {
        "task": "shop.pay",
        "content_type": "application/json",
        "headers": {"traceparent": "00-1-2-01", "number": 7, "nested": {"list": [1, "two", None]}},
        "properties": {"correlation_id": "c-1", "expiration": "60000"},
        "priority": 7,
        "attempt": 3,
        "crashes": 1,
        "is_suspect": True,
        "enqueued": now - 5000,
        "expires": now + _DAY_MS,
        "error": "Traceback …\nValueError: boom",
        "keep": 3600.0,
        "is_private": True,
    }
    return job(queue, b'{"args": [1], "kwargs": {}}', **given | fields)


def bury(broker: Broker, *messages: Message) -> dict[str, DeadLetter]:
    """Make these dead, and return their letters by id."""
    broker.send(messages)
    queue = messages[0].queue
    with closing(broker.consume([queue], limit=len(messages))) as consumer:
        deliveries = receive(consumer, len(messages))
        consumer.settle([(each, Dead("failed", f"no {each.message.id}")) for each in deliveries])
        until(lambda: len(broker.dead(queue, limit=100)) == len(messages))
    return {letter.message.id: letter for letter in broker.dead(queue, limit=100)}


def take(broker: Broker, queue: str, count: int) -> dict[str, Message]:
    """Take so many messages of a queue away, and return them by id."""
    with closing(broker.consume([queue], limit=count)) as consumer:
        deliveries = receive(consumer, count)
        consumer.settle([(each, Done()) for each in deliveries])
    return {each.message.id: each.message for each in deliveries}


def ids_in(broker: Broker, queue: str) -> set[str]:
    """Return the ids of all that is ready, and take it away."""
    (info,) = [info for info in broker.queues([queue]) if info.name == queue]
    return set(take(broker, queue, info.ready)) if info.ready else set()


def cut_after(count: int, proxy: Proxy, tally: Tally) -> None:
    """Cut the line for good, once so many were moved."""
    if tally.total >= count:
        proxy.refuse()
        proxy.cut()


def test_all_that_waits_arrives_as_it_was(any_route: Route) -> None:
    fresh = full("mail", attempt=1, crashes=0, is_suspect=False, error=None)
    messages = [full("mail"), fresh, job("mail", b"\xff\x00")]
    any_route.origin.send(messages)

    any_route.mover().run(["mail"])

    assert take(any_route.target, "mail", 3) == {message.id: message for message in messages}
    assert any_route.origin.queues(["mail"])[0].ready == 0
    assert any_route.doubts == []


def test_what_is_delayed_is_due_at_the_same_moment(any_route: Route) -> None:
    due = int(time.time() * 1000) + 3000
    soon, later = full("mail", due=due), full("mail", due=due + _DAY_MS)
    any_route.origin.send([soon, later])

    mover = any_route.mover()
    mover.run(["mail"])

    with closing(any_route.target.consume(["mail"], limit=5)) as consumer:
        (delivery,) = receive(consumer, 1)
        came = time.time() * 1000
    assert delivery.message == soon
    assert due <= came
    assert mover.tally.moved["mail", "delayed"] == 2
    again = any_route.mover(any_route.target, any_route.origin)
    again.run(["mail"])
    assert again.tally.moved["mail", "delayed"] == 1


def test_dead_letters_keep_what_was_said_of_them(any_route: Route) -> None:
    letters = bury(any_route.origin, full("mail"), full("mail", task="shop.refund"))

    any_route.mover().run(["mail"])

    came = {letter.message.id: letter for letter in any_route.target.dead("mail", limit=10)}
    assert any_route.origin.dead("mail", limit=10) == []
    for job_id, letter in letters.items():
        # RabbitMQ has one place for what the last failure said and for what the job died of.
        error = came[job_id].message.error
        assert error in (letter.message.error, letter.error)
        assert came[job_id] == msgspec.structs.replace(
            letter, message=msgspec.structs.replace(letter.message, error=error)
        )


def test_the_counts_add_up(route: Route) -> None:
    route.origin.send([job("mail", task="t") for _ in range(1234)])
    route.origin.send([job("mail", task="t", delay=3600) for _ in range(56)])
    bury(route.origin, *(job("post", task="t") for _ in range(7)))

    mover = route.mover()
    mover.run(["mail", "post"])

    assert mover.tally.moved == {("mail", "ready"): 1234, ("mail", "delayed"): 56, ("post", "dead"): 7}
    counts = {info.name: info for info in route.target.queues(["mail", "post"])}
    assert (counts["mail"].ready, counts["post"].dead) == (1234, 7)
    left, _ = route.mover().look(["mail", "post"])
    assert not any(count for states in left.values() for count in states.values())


def test_the_source_does_not_know_any_more_what_has_left_it(route: Route) -> None:
    ready, delayed, dead = job("mail", task="t"), job("mail", task="t", delay=3600), job("post", task="t")
    bury(route.origin, dead)
    route.origin.send([ready, delayed])

    route.mover().run(["mail", "post"])

    ids = [message.id for message in (ready, delayed, dead)]
    until(lambda: not any(route.origin.ledger.job(job_id) for job_id in ids))
    found = [route.target.ledger.job(job_id) for job_id in ids]
    assert [info and info.status for info in found] == ["ready", "delayed", "dead"]
    assert [info and info.reason for info in found] == [None, None, "failed"]


def test_only_the_queues_that_are_meant_are_moved(route: Route) -> None:
    stays = [job("post", task="t"), job("post", task="t", delay=1.5)]
    route.origin.send([job("mail", task="t"), job("mail", task="t", delay=1.5), *stays])

    mover = route.mover()
    mover.run(["mail"])

    assert mover.tally.moved == {("mail", "ready"): 1, ("mail", "delayed"): 1}
    assert set(take(route.origin, "post", 2)) == {message.id for message in stays}


def test_a_queue_that_is_not_there_is_told(any_route: Route) -> None:
    any_route.origin.send([job("mail")])

    with pytest.raises(UnknownQueue, match="'nothing'"):
        any_route.mover().run(["mail", "nothing"])

    assert len(ids_in(any_route.origin, "mail")) == 1


def test_running_jobs_stay_with_their_worker_and_can_be_waited_for(up: Route) -> None:
    up.origin.send([job("mail", task="t")])
    with closing(up.origin.consume(["mail"], limit=1)) as consumer:
        (delivery,) = receive(consumer, 1)

        mover = up.mover()
        mover.run(["mail"])
        assert (mover.tally.total, mover.look(["mail"])[1]) == (0, {"mail": 1})

        waiting = up.start("-q", "mail", "--wait", "--json")
        consumer.settle([(delivery, Dead("failed", "boom"))])

    code, out, _ = waiting.end()
    assert code == 0
    assert json.loads(out)["moved"] == [{"queue": "mail", "state": "dead", "moved": 1, "left": 0}]


@pytest.mark.parametrize("how", ["same", "link", "hard link", "relative"])
def test_a_file_is_not_moved_to_itself(tmp_path: Path, how: str) -> None:
    from dibs.brokers import connect

    path, other = tmp_path / "dibs.db", tmp_path / "other.db"
    origin = connect(f"sqlite:///{path}")
    origin.send([job("mail")])
    match how:
        case "same":
            other = path
        case "link":
            other.symlink_to(path)
        case "hard link":
            other.hardlink_to(path)
        case _:
            other = Path(os.path.relpath(path))
    target = connect(f"sqlite:///{other}")

    from dibs.moving.mover import Mover

    with pytest.raises(UsageError, match="nothing to move"):
        Mover(origin, target, types={}, on_doubt=print, on_progress=print).run([])

    origin.close()


def test_a_server_is_not_moved_to_itself(down: Route, rabbit_node: Node) -> None:
    down.origin.send([job("mail")])
    target = down.open(f"amqp://guest:guest@localhost:{rabbit_node.port}/")

    with pytest.raises(UsageError, match="nothing to move"):
        down.mover(target=target).run(["mail"])


def test_a_second_mover_is_refused(any_route: Route) -> None:
    any_route.origin.send([job("mail")])
    with closing(any_route.origin.source()) as first:  # type: ignore[attr-defined]  # not part of `Broker`
        first.begin()

        with pytest.raises(BrokerBusy, match="Somebody else is moving"):
            any_route.mover().run(["mail"])

    any_route.mover().run(["mail"])
    assert len(ids_in(any_route.target, "mail")) == 1


def test_a_paused_queue_is_paused_in_the_target(route: Route) -> None:
    route.origin.pause("mail")
    route.origin.send([job("mail", task="t")])

    route.mover().run(["mail"])

    assert [info.is_paused for info in route.target.queues(["mail"]) if info.name == "mail"] == [True]


def test_what_a_dead_mover_had_marked_is_neither_run_nor_purged_nor_lost(up: Route) -> None:
    up.origin.send([job("mail", task="t") for _ in range(10)])
    walk = up.origin.source().take(["mail"], "ready")  # type: ignore[attr-defined]
    held = next(walk)

    with closing(up.origin.consume(["mail"], limit=20)) as consumer:
        assert consumer.receive(20) == []
    assert up.origin.purge("mail", state="ready") == 0

    up.origin.source().leave_in_doubt(held)  # type: ignore[attr-defined]
    mover = up.mover()
    mover.run(["mail"])
    assert sorted(up.doubts) == sorted(piece.id for piece in held)
    assert mover.tally.possibly_twice == up.doubts
    assert len(ids_in(up.target, "mail")) == 10


@pytest.mark.parametrize("has_run", [True, False])
def test_what_a_dead_mover_had_brought_is_known_by_its_proof(any_route: Route, has_run: bool) -> None:
    messages = [job("mail", task="t", keep=0.0) for _ in range(10)]
    any_route.origin.send(messages)
    source, sink = any_route.origin.source(), any_route.target.sink()  # type: ignore[attr-defined]
    source.begin()
    sink.begin(source.mark)
    walk = source.take(["mail"], "ready")
    held = next(walk)
    assert sink.store(held) == {}
    if has_run:
        take(any_route.target, "mail", 10)  # and nothing is kept of them
    source.leave_in_doubt(held)
    walk.close()
    source.close()

    mover = any_route.mover()
    mover.run(["mail"])

    assert (mover.tally.arrived.total(), mover.tally.moved.total(), any_route.doubts) == (10, 0, [])
    assert ids_in(any_route.target, "mail") == (set() if has_run else {message.id for message in messages})


def test_an_id_that_another_job_has_stays_and_is_told(down: Route) -> None:
    down.target.send([job("mail", task="t", id="daily", enqueued=1000)])
    down.origin.send([job("mail", task="t", id="daily", enqueued=9000), job("mail", task="t")])

    mover = down.mover()
    mover.run(["mail"])

    assert list(mover.tally.refused) == ["daily"]
    assert mover.tally.total == 1
    assert ids_in(down.origin, "mail") == {"daily"}


def test_the_same_job_twice_arrives_once(down: Route) -> None:
    twice = job("mail", task="t", enqueued=1000)
    down.origin.send([twice])
    down.origin.send([twice])

    down.mover().run(["mail"])

    assert take(down.target, "mail", 1) == {twice.id: twice}
    assert ids_in(down.origin, "mail") == ids_in(down.target, "mail") == set()


def test_what_is_too_large_for_the_target_stays_and_is_told(up: Route, rabbit_node: Node) -> None:
    large, small = job("mail", b"x" * 3_000_000), [job("mail") for _ in range(20)]
    up.origin.send([*small[:10], large, *small[10:]])

    with rabbit_node.message_limit(2_000_000):
        mover = up.mover()
        mover.run(["mail"])

    assert list(mover.tally.refused) == [large.id]
    assert ids_in(up.origin, "mail") == {large.id}
    assert ids_in(up.target, "mail") == {message.id for message in small}


def test_a_cancel_that_comes_while_a_job_is_on_its_way_is_carried_along(up: Route) -> None:
    meant, other = job("mail", task="t"), job("mail", task="t")
    up.origin.send([meant, other])
    source, sink = up.origin.source(), up.target.sink()  # type: ignore[attr-defined]
    walk = source.take(["mail"], "ready")
    held = next(walk)
    sink.store(held)
    assert up.origin.cancel([meant.id]) == {meant.id: "requested"}

    assert source.let_go(held) == [meant.id]
    walk.close()


def test_what_was_cancelled_is_cancelled_in_the_target(down: Route) -> None:
    meant, other = job("mail", task="t"), job("mail", task="t")
    down.origin.send([meant, other])
    down.origin.cancel([meant.id])

    down.mover().run(["mail"])

    assert ids_in(down.target, "mail") == {other.id}
    assert down.target.ledger.endings([meant.id])[meant.id].status == "cancelled"


def test_a_target_that_goes_away_costs_nothing_and_the_next_run_goes_on(up: Route, rabbit_node: Node) -> None:
    messages = [job("mail", task="t") for _ in range(5000)]
    up.origin.send(messages)
    with closing(Proxy(rabbit_node.port)) as proxy:
        target = up.open(proxy.url(), handover_timeout=1.0)
        mover = up.mover(target=target)
        mover._on_progress = partial(cut_after, 1000, proxy)

        with pytest.raises(BrokerError):
            mover.run(["mail"])

    assert 1000 <= mover.tally.total < 5000
    second = up.mover()
    second.run(["mail"])
    got = ids_in(up.target, "mail")
    assert got == {message.id for message in messages}
    assert mover.tally.total + second.tally.total == 5000
    assert set(up.doubts) <= set(mover.tally.in_doubt)


def test_a_source_that_goes_away_costs_nothing_and_the_next_run_goes_on(down: Route, rabbit_node: Node) -> None:
    messages = [job("mail", task="t") for _ in range(5000)]
    down.origin.send(messages)
    with closing(Proxy(rabbit_node.port)) as proxy:
        mover = down.mover(down.open(proxy.url(), handover_timeout=1.0))
        mover._on_progress = partial(cut_after, 1000, proxy)

        with pytest.raises(BrokerUnavailable):
            mover.run(["mail"])

    second = down.mover()
    second.run(["mail"])
    assert ids_in(down.target, "mail") == {message.id for message in messages}
    assert down.doubts == []


def test_a_server_that_takes_nothing_is_told_and_all_stays(up: Route, rabbit_node: Node) -> None:
    messages = [job("mail", task="t") for _ in range(100)]
    up.origin.send(messages)

    with rabbit_node.alarm(), pytest.raises(BrokerError):
        up.mover(target=up.open(up.target_url, handover_timeout=2.0)).run(["mail"])

    up.mover().run(["mail"])
    assert ids_in(up.target, "mail") == {message.id for message in messages}


def test_a_full_disk_is_told_and_all_stays(down: Route) -> None:
    messages = [job("mail", task="t") for _ in range(2000)]
    down.origin.send(messages)
    opened = down.target._open()  # type: ignore[attr-defined]
    down.target.declare([])

    with opened.connection() as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages + 60}")
    mover = down.mover()
    with pytest.raises(StoreUnusable, match="full"):
        mover.run(["mail"])

    with opened.connection() as connection:
        connection.execute("PRAGMA max_page_count = 1073741823")
    down.mover().run(["mail"])
    assert ids_in(down.target, "mail") == {message.id for message in messages}
    assert down.doubts == []


def test_ctrl_c_ends_between_two_batches_and_says_how_to_go_on(route: Route) -> None:
    count = 20_000
    for _ in range(count // 1000):
        route.origin.send([job("left", task="t") for _ in range(1000)])
    process = route.start("-q", "left", "--json")
    until(lambda: any(info.ready for info in route.target.queues(["left"]) if info.name == "left"))

    process.signal(signal.SIGINT)

    code, out, err = process.end()
    assert code == 130
    assert "Run the same command again" in err
    moved = json.loads(out)["total"]
    assert 0 < moved < count
    second = route.mover()
    second.run(["left"])
    assert moved + second.tally.total == count
    assert second.tally.possibly_twice == []


def test_following_goes_on_until_it_is_told_to_end(up: Route) -> None:
    process = up.start("--follow", "--json")
    for _ in range(3):
        up.origin.send([job("left", task="t")])
        until(lambda: not up.origin.queues()[0].ready)

    process.signal(signal.SIGINT)

    code, out, _ = process.end()
    assert (code, json.loads(out)["total"]) == (0, 3)
