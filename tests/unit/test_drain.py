"""`app.drain()`: the worker of a test."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from dibs import BrokerError, Cancelled, Dead, Dibs, Done, Message, Outcome, Retry, RetryIn
from dibs.brokers.memory.consumer import MemoryConsumer
from dibs.message import Delivery


@pytest.fixture(params=["memory", "sqlite"])
def app(request: pytest.FixtureRequest) -> Iterator[Dibs]:
    url = "memory://" if request.param == "memory" else f"sqlite:///{request.getfixturevalue('tmp_path')}/dibs.db"
    made = Dibs(url)
    yield made
    made.close()


def counts(app: Dibs) -> tuple[int | None, ...]:
    """Return ready, running, delayed and dead of the app's one queue."""
    (info,) = app.broker.queues()
    return (info.ready, info.running, info.delayed, info.dead)


def test_what_is_ready_runs_in_order_and_the_outcomes_come_back(app: Dibs) -> None:
    @app.task(name="square")
    def square(number: int) -> int:
        return number * number

    for number in range(3):
        square.enqueue(number)

    assert app.drain() == [Done(b"0"), Done(b"1"), Done(b"4")]
    assert app.drain() == []
    assert counts(app) == (0, 0, 0, 0)


def test_plain_functions_coroutines_and_consumers_run_alike(app: Dibs) -> None:
    seen: list[str] = []

    @app.task(name="plain", queue="q")
    def plain() -> None:
        asyncio.run(asyncio.sleep(0))
        seen.append("plain")

    @app.task(name="waiting", queue="q")
    async def waiting() -> None:
        await asyncio.sleep(0)
        seen.append("waiting")

    @app.consumer("q")
    async def listen(message: Message) -> None:
        seen.append(message.text)

    plain.enqueue()
    waiting.enqueue()
    app.send("q", "message")

    assert app.drain() == [Done(b"null")] * 3
    assert seen == ["plain", "waiting", "message"]


def test_a_job_that_a_job_hands_over_runs_too(app: Dibs) -> None:
    @app.task(name="count")
    def count(left: int) -> int:
        if left:
            count.enqueue(left - 1)
        return left

    count.enqueue(2)

    assert app.drain() == [Done(b"2"), Done(b"1"), Done(b"0")]


def test_inside_a_running_event_loop_it_works_as_well(app: Dibs) -> None:
    @app.task(name="waiting")
    async def waiting(number: int) -> int:
        await asyncio.sleep(0)
        return number

    async def test() -> list[Outcome]:
        await waiting.aenqueue(7)
        return app.drain()

    assert asyncio.run(test()) == [Done(b"7")]


def test_inside_a_running_event_loop_an_error_comes_out_as_well() -> None:
    app = Dibs("sqlite:////nosuch/folder/dibs.db")
    app.queue("q")

    async def test() -> None:
        app.drain()

    with pytest.raises(BrokerError):
        app.drain()
    with pytest.raises(BrokerError):
        asyncio.run(test())


def test_what_waits_is_left_alone_and_what_failed_is_told(app: Dibs) -> None:
    @app.task(name="work", retries=1)
    def work(fate: str) -> None:
        if fate == "retry":
            raise Retry(delay=60)
        raise ValueError(fate)

    work.using(delay=60).enqueue("later")
    work.enqueue("retry")
    app.task(name="once", retries=0)(work.function).enqueue("boom")
    outcomes = app.drain()

    assert [type(outcome) for outcome in outcomes] == [RetryIn, Dead]
    assert counts(app) == (0, 0, 2, 1)


def test_a_retry_at_once_runs_at_once_until_its_attempts_are_used_up(app: Dibs) -> None:
    @app.task(name="work", retries=2)
    def work() -> None:
        raise Retry(delay=0)

    work.enqueue()

    assert [type(outcome) for outcome in app.drain()] == [RetryIn, RetryIn, Dead]
    assert counts(app) == (0, 0, 0, 1)


def test_hooks_run_around_it(app: Dibs) -> None:
    seen: list[str] = []

    @app.on_start
    @contextmanager
    def connection() -> Iterator[None]:
        seen.append("connect")
        yield
        seen.append("disconnect")

    @app.on_stop
    async def goodbye() -> None:
        seen.append("stop")

    app.task(name="work")(lambda: seen.append("work")).enqueue()
    app.drain()

    assert seen == ["connect", "work", "stop", "disconnect"]


def test_a_failing_start_hook_comes_out_and_no_job_is_lost(app: Dibs) -> None:
    @app.on_start
    def fails() -> None:
        raise ValueError("no route")

    app.task(name="work")(lambda: None).enqueue()

    with pytest.raises(ValueError, match="no route"):
        app.drain()
    assert counts(app) == (1, 0, 0, 0)


def test_an_app_without_a_queue_has_nothing_to_drain(app: Dibs) -> None:
    assert app.drain() == []


@pytest.fixture(autouse=True)
def heeds_ctrl_c() -> Iterator[None]:
    """Python's own handler: a test run that was started in the background has SIGINT ignored instead."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


def interrupt_when(started: threading.Event, seen: threading.Event | None = None) -> threading.Thread:
    """Press Ctrl-C when the job has started; again, should it fall into the moment before the main thread waits."""

    def press() -> None:
        started.wait(10)
        os.kill(os.getpid(), signal.SIGINT)
        while seen is not None and not seen.wait(1):
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    return thread


@pytest.mark.parametrize("is_async", [False, True])
def test_ctrl_c_releases_the_job_and_runs_the_stop_hooks(app: Dibs, is_async: bool) -> None:
    started, stopped = threading.Event(), threading.Event()

    @app.task(name="work")
    def work() -> None:
        started.set()
        while True:  # not one long wait: a signal in the moment before it would be seen behind it
            threading.Event().wait(0.01)

    @app.task(name="work async")
    async def work_async() -> None:
        started.set()
        while True:
            await asyncio.sleep(0.01)

    app.on_stop(stopped.set)
    (work_async if is_async else work).enqueue()
    thread = interrupt_when(started)

    with pytest.raises(KeyboardInterrupt):
        app.drain()

    thread.join()
    assert stopped.is_set()
    assert counts(app) == (1, 0, 0, 0)


def test_ctrl_c_inside_a_running_event_loop_ends_the_drain_after_the_job(
    app: Dibs, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, interrupted = threading.Event(), threading.Event()
    monkeypatch.setattr("dibs.drain.Event", lambda: interrupted)

    @app.task(name="work")
    def work() -> None:
        started.set()
        interrupted.wait(10)

    work.enqueue()
    work.enqueue()

    async def test() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # asyncio's own would only cancel at the next await
        app.drain()

    thread = interrupt_when(started, interrupted)
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(test())

    thread.join()
    assert counts(app) == (1, 0, 0, 0)


@pytest.mark.parametrize("app", ["memory"], indirect=True)
def test_what_was_to_be_cancelled_when_it_came_is_not_run(app: Dibs, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    job = app.task(name="work")(lambda: ran.append("work")).enqueue()
    received: list[Delivery] = []
    receive = MemoryConsumer.receive

    def receive_and_tell(consumer: MemoryConsumer, limit: int) -> list[Delivery]:
        found = receive(consumer, limit)
        received.extend(found)
        return found

    # As on RabbitMQ, where what waits is cancelled by whoever receives it.
    monkeypatch.setattr(MemoryConsumer, "receive", receive_and_tell)
    monkeypatch.setattr(MemoryConsumer, "cancelled", lambda _: received)

    assert app.drain() == [Cancelled()]

    assert ran == []
    info = app.broker.ledger.job(job.id)
    assert info is not None
    assert info.status == "cancelled"
