"""RabbitMQ broken in every way that we could think of, under real producers and workers: nothing is lost.

What a producer was told is stored is done in the end; else it got a clear error in time. The worker that was there
before goes on by itself, and says little meanwhile. Clusters are in `test_rabbit_cluster.py`.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from dibs.errors import BrokerBusy, BrokerUnavailable, HandoverUncertain, LedgerUnavailable
from tests.crash.conftest import Stage
from tests.load import Load
from tests.proxy import Direction, Proxy
from tests.rabbit_node import Node
from tests.waiting import receive_nothing, until
from tests.workers import ROOT, Worker, is_alive
from tests.worlds import MemoryWorld

#: Lines that a worker may say of one outage: two connections are lost and come back, and what is settled late.
CALM = 12
#: `handover_timeout` of the producers here, and what an error may come later on a busy machine, in seconds.
PATIENCE, SLACK = 3.0, 5.0


class Behind(MemoryWorld):
    """A broker at some URL; its queues are left to the node, which ends with the test run."""

    name = "rabbitmq"

    def __init__(self, url: str) -> None:
        self.url = url


@pytest.fixture
def make_stage(tmp_path: Path) -> Iterator[Callable[[str], Stage]]:
    """Make a stage on the broker at a URL."""
    with ExitStack() as stack:

        def make(url: str) -> Stage:
            directory = tmp_path / f"stage{len(list(tmp_path.iterdir()))}"
            directory.mkdir()
            made = Stage(Behind(url), directory, stack, handover_timeout=PATIENCE)
            stack.callback(made.app.close)
            return made

        yield make


@pytest.fixture
def stage(make_stage: Callable[[str], Stage], rabbit_node: Node) -> Iterator[Stage]:
    """A stage on the test run's own RabbitMQ, which is there again afterwards."""
    yield make_stage(rabbit_node.url)
    rabbit_node.start()


@pytest.fixture
def proxy(rabbit_node: Node) -> Iterator[Proxy]:
    """A proxy in front of the test run's own RabbitMQ."""
    with Proxy(rabbit_node.port) as made:
        yield made


@contextlib.contextmanager
def operator(node: Node) -> Iterator[BlockingChannel]:
    """A plain pika channel, past dibs and past any proxy."""
    with contextlib.closing(pika.BlockingConnection(pika.URLParameters(f"{node.url}%2f"))) as connection:
        yield connection.channel()


def run_cli(url: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a `dibs` command."""
    return subprocess.Popen(
        [sys.executable, "-m", "dibs.cli.main", *arguments, "--url", url],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
    )


def done(stage: Stage) -> set[str]:
    """Return the keys of the jobs that were done."""
    return {event.key for event in stage.events("end")}


def assert_done(stage: Stage, keys: set[str]) -> None:
    """Wait until all of these were done."""
    with contextlib.suppress(AssertionError):
        until(lambda: keys <= done(stage), within=60.0)
    assert sorted(keys - done(stage)) == []


def told(log: str) -> list[str]:
    """Return what a worker said beyond its start and what its tasks did."""
    usual = ("worker ready", "job will be tried again", "job set aside", "is used as it is")
    return [line for line in log.splitlines() if not any(text in line for text in usual)]


def assert_calm(worker: Worker, *, outages: int = 1) -> None:
    """Assert that a worker is the same process still, and that its log is short and tells no secrets."""
    assert is_alive(worker.pid)
    assert "Traceback" not in worker.log
    assert "guest:guest" not in worker.log
    assert len(told(worker.log)) <= CALM * outages


def assert_told_in_time(load: Load) -> None:
    """Assert that each error of a producer was one of those that say what to do, and came in time."""
    assert {type(error) for error in load.errors} <= {BrokerUnavailable, BrokerBusy, HandoverUncertain}
    assert all(error.ids for error in load.errors if isinstance(error, HandoverUncertain))
    assert not any("guest:guest" in str(error) for error in load.errors)
    assert load.longest_call < PATIENCE + SLACK


def test_a_server_that_is_restarted_and_killed_under_load_loses_nothing(stage: Stage, rabbit_node: Node) -> None:
    workers = [stage.worker("-p", "1", "-c", "2"), stage.worker("-p", "1")]

    with Load(stage.app) as load:
        load.go_on()
        rabbit_node.stop()
        rabbit_node.start()
        load.go_on()
        rabbit_node.kill()
        late = stage.start_worker("-p", "1")
        command = run_cli(rabbit_node.url, "send", f"{stage.namespace}.plain", "hello")
        rabbit_node.start()
        load.go_on()

    assert_done(stage, load.stored)
    assert_told_in_time(load)
    for worker in workers:
        assert_calm(worker, outages=2)
    assert_calm(late.wait_ready())
    said, _ = command.communicate(timeout=60)
    assert command.returncode == 0 or (
        command.returncode == 1 and "can't be reached" in said
    )  # slower than its patience
    assert "Traceback" not in said


def test_a_connection_may_be_cut_at_any_moment(make_stage: Callable[[str], Stage], proxy: Proxy) -> None:
    stage = make_stage(proxy.url())
    worker = stage.worker("-p", "1", "-c", "4")

    proxy.cut("end")  # idle
    stage.enqueue("work", "after FIN")
    stage.wait_for("end", 1)
    proxy.cut("reset")
    stage.enqueue("work", "after RST")
    stage.wait_for("end", 2)

    work = stage.app.get_task("tests.crash.tasks.work")
    keys = {f"{number}{'.' * 1000}" for number in range(3000)}
    with ThreadPoolExecutor(1, thread_name_prefix="producer") as pool:  # in the middle of a batch
        passed = proxy.passed["to the server"]
        batch = pool.submit(stage.app.enqueue_many, [work.prepare(key) for key in keys])
        until(lambda: proxy.passed["to the server"] > passed + 1_000_000)
        proxy.cut()
        batch.result()
    assert_done(stage, keys)

    stage.enqueue("work", "long", 1.0)  # while a job runs
    until(lambda: "long" in {event.key for event in stage.events("start")})
    proxy.cut()
    assert_done(stage, {"long"})

    stage.enqueue("work", "acknowledged in vain", 0.3)
    until(lambda: "acknowledged in vain" in {event.key for event in stage.events("start")})
    with proxy.silence("to the server"):
        until(lambda: "acknowledged in vain" in done(stage) and proxy.held["to the server"] > 0)
        proxy.cut()

    assert_calm(worker, outages=5)
    assert_all_gone(stage, worker, is_run_again=True)


def test_a_task_is_told_that_its_job_was_lost_and_that_it_came_back(
    make_stage: Callable[[str], Stage], proxy: Proxy
) -> None:
    stage = make_stage(proxy.url())
    stage.worker("-p", "1", module="plain_tasks")
    stage.enqueue("watch_hold", "a", module="plain_tasks")
    stage.wait_for("start", 1)

    proxy.refuse()
    proxy.cut()
    stage.wait_for("lost", 1)
    proxy.accept()

    stage.wait_for("end", 1)
    until(lambda: all(info.ready == 0 for info in stage.app.broker.queues()))
    assert len(stage.events("start")) == 1


@pytest.mark.parametrize("directions", [(), ("to the server",), ("to the client",)])
def test_packets_that_vanish_are_noticed_on_both_sides(
    make_stage: Callable[[str], Stage], proxy: Proxy, directions: tuple[Direction, ...]
) -> None:
    stage = make_stage(proxy.url("?heartbeat=1"))
    worker = stage.worker("-p", "1")
    stage.enqueue("work", "before")
    stage.enqueue("work", "long", 1.0)
    stage.wait_for("start", 2)

    with proxy.silence(*directions):
        began = time.monotonic()
        with pytest.raises((HandoverUncertain, BrokerUnavailable)):
            stage.enqueue("work", "never answered for")
        assert time.monotonic() - began < PATIENCE + SLACK
        until(lambda: "No connection" in worker.log)
    stage.enqueue("work", "after")

    assert_done(stage, {"before", "long", "after"})
    assert_calm(worker)
    assert_all_gone(stage, worker, is_run_again=True)


def test_nothing_hangs_at_its_end_while_packets_vanish(make_stage: Callable[[str], Stage], proxy: Proxy) -> None:
    stage = make_stage(proxy.url())
    worker = stage.worker("-p", "1", "--grace", "0")
    stage.enqueue("work", "held", 60.0)
    stage.wait_for("start", 1)
    producer = subprocess.Popen(
        [sys.executable, "-c", _PRODUCER, proxy.url()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    )
    with producer:
        assert producer.stdout is not None
        assert producer.stdout.readline() == b"sent\n"

        with proxy.silence():
            worker.signal(signal.SIGTERM)
            producer.communicate(b"end\n", timeout=30)
            assert worker.wait() == 0

    assert producer.returncode == 0
    assert "Traceback" not in worker.log


_PRODUCER = """
import sys
from dibs import Dibs
app = Dibs(sys.argv[1])
app.queue("producers")
app.send("producers", "x")
print("sent", flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("short_of", ["memory", "disk"])
def test_an_alarm_holds_up_producers_and_outcomes_and_nothing_else(
    stage: Stage, rabbit_node: Node, short_of: str
) -> None:
    worker = stage.worker("-p", "1")
    slow = {f"slow {number}" for number in range(20)}
    for key in sorted(slow):
        stage.enqueue("work", key, 4.0 if key == "slow 0" else 0.1)  # an alarm takes its time to go off
    stage.enqueue("fail_once", "retried")
    stage.enqueue("bury", "buried")

    with alarm(rabbit_node, short_of):
        with pytest.raises(HandoverUncertain, match=short_of) as first:  # only now does the server say so
            stage.enqueue("work", "first")
        with pytest.raises(BrokerBusy, match=short_of):
            stage.enqueue("work", "second")
        until(lambda: slow <= done(stage) and "buried" in {event.key for event in stage.events("start")})
        assert "retried" not in done(stage)

    assert len(first.value.ids) == 1
    stage.enqueue("work", "third")
    assert_done(stage, {"first", "third", "retried"})
    assert_calm(worker)
    assert_all_gone(stage, worker, dead_letters=1)


@contextlib.contextmanager
def alarm(node: Node, short_of: str) -> Iterator[None]:
    """Have an alarm for a while."""
    if short_of == "memory":
        with node.alarm():
            yield
        return
    node.ctl("set_disk_free_limit", str(10**15))
    try:
        yield
    finally:
        node.ctl("set_disk_free_limit", "50MB")


def test_what_an_operator_deletes_is_made_again(stage: Stage, rabbit_node: Node) -> None:
    worker = stage.worker("-p", "1", "-c", "2")
    queue = f"{stage.namespace}.default"
    stage.enqueue("work", "running", 1.5)
    stage.wait_for("start", 1)
    work = stage.app.get_task("tests.crash.tasks.work")
    work.using(delay=2.0).enqueue("delayed")

    with operator(rabbit_node) as channel:
        channel.queue_delete(queue)
        until(lambda: "it is made again" in worker.log)
        stage.enqueue("work", "after the queue")
        assert_done(stage, {"running", "after the queue", "delayed"})

        channel.queue_delete(f"{queue}.dead")
        stage.enqueue("bury", "after the dead letters")
        until(lambda: dead(stage) == 1)

        channel.exchange_delete(f"{stage.namespace}.dibs")
        stage.enqueue("fail_once", "after the exchange")  # the worker publishes, too
        assert_done(stage, {"after the exchange"})

        for level in ("exchange", "queue"):
            getattr(channel, f"{level}_delete")(f"{stage.namespace}.dibs.delay.01")
            work.using(delay=0.3).enqueue(f"after the level's {level}")
            assert_done(stage, {f"after the level's {level}"})

    assert "closed a consumer's channel" not in worker.log
    assert_calm(worker)
    assert_all_gone(stage, worker, dead_letters=1)


def dead(stage: Stage) -> int:
    """Return how many dead letters the queue of the tasks has."""
    return {info.name: info.dead for info in stage.app.broker.queues()}["default"]


def assert_all_gone(stage: Stage, worker: Worker, *, dead_letters: int = 0, is_run_again: bool = False) -> None:
    """Assert that nothing is left to do: each job was acknowledged, if not after its first run."""
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    if is_run_again:
        assert stage.worker("--burst", "-p", "1").wait() == 0
    consumer = stage.app.broker.consume(["default"], limit=1)
    assert receive_nothing(consumer)
    consumer.close()
    assert dead(stage) == dead_letters


def test_a_server_without_streams_does_all_but_the_ledger_and_a_worker_says_so_once(
    make_stage: Callable[[str], Stage], tmp_path: Path
) -> None:
    node = Node(tmp_path / "node", has_streams=False)
    node.start()
    with contextlib.ExitStack() as stack:
        stack.callback(node.kill)
        stage = make_stage(node.url)
        worker = stage.worker("-p", "1")
        keys = {str(number) for number in range(50)}

        first = stage.app.get_task("tests.crash.tasks.work").enqueue("0")
        for key in keys - {"0"}:
            stage.enqueue("work", key)

        until(lambda: done(stage) == keys)
        with pytest.raises(LedgerUnavailable, match="feature flag"):  # it had no queue for replies when it was sent
            first.result(timeout=20)
        with pytest.raises(LedgerUnavailable, match=r"dibs\.ledger"):
            stage.app.job(first.id).result(timeout=20)
        assert worker.log.count("is not heeded here") == 1
        assert worker.log.count("No connection to RabbitMQ") <= 2  # each of its connections pays once for asking
