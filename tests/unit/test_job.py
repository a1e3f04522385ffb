"""A job that was handed over: its status, its result in the type of its task, its failure, its cancelling."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import msgspec
import pydantic
import pytest

from dibs import (
    BadName,
    BadOption,
    Bury,
    Dibs,
    Job,
    JobFailed,
    Message,
    ResultCancelled,
    ResultError,
    ResultNotKept,
    ResultPending,
    UnknownJob,
    current_job,
)
from dibs.message import new_id
from tests.waiting import until


@pytest.fixture(params=["memory", "sqlite"])
def app(request: pytest.FixtureRequest) -> Iterator[Dibs]:
    url = "memory://" if request.param == "memory" else f"sqlite:///{request.getfixturevalue('tmp_path')}/dibs.db"
    made = Dibs(url)
    yield made
    made.close()


@pytest.fixture
def memory() -> Dibs:
    """An app whose waiters can be counted."""
    return Dibs("memory://")


@dataclasses.dataclass
class Size:
    """What a task may return."""

    width: int
    at: dt.datetime


class Model(pydantic.BaseModel):
    """The same, for those who use pydantic."""

    number: int


def ended(app: Dibs, function: Any, *args: Any, **options: Any) -> Job[Any]:
    """Return a job of this function that was run."""
    job: Job[Any] = app.task(name="work", **options)(function).enqueue(*args)
    app.drain()
    return job


# Its status


def test_the_status_follows_the_life_of_a_job(app: Dibs) -> None:
    seen: list[str] = []

    @app.task(name="work")
    def work() -> None:
        seen.append(app.job(current_job().id).status())

    job, later = work.enqueue(), work.using(delay=60).enqueue()
    seen += [later.status(), job.status()]
    app.drain()
    seen.append(job.status())

    assert seen == ["delayed", "ready", "running", "done"]


def test_info_has_the_whole_life(app: Dibs) -> None:
    def work(number: int) -> int:
        return number + 1

    info = ended(app, work, 1).info()

    assert (info.task, info.queue, info.status, info.attempt) == ("work", "default", "done", 1)
    assert (info.body, info.result) == (b'{"args":[1],"kwargs":{}}', b"2")
    assert info.enqueued is not None
    assert info.ended is not None
    assert info.enqueued <= info.ended


def test_a_job_shows_its_names_and_never_its_arguments(app: Dibs) -> None:
    job = app.task(name="work")(lambda text: None).enqueue("secret")

    assert repr(job) == f"Job(id={job.id!r}, task='work', queue='default')"
    assert repr(app.job("x")) == "Job(id='x', task='', queue='')"


# Its result


def test_a_result_comes_back(app: Dibs) -> None:
    assert ended(app, lambda: {"a": [1, None]}).result() == {"a": [1, None]}


def test_a_result_is_decoded_to_the_annotation_of_its_task(app: Dibs) -> None:
    now = dt.datetime.now(dt.UTC)

    def work() -> Size:
        return Size(3, now)

    assert ended(app, work).result() == Size(3, now)


def test_a_coroutine_function_s_result_is_what_it_returns_when_awaited(app: Dibs) -> None:
    async def work() -> UUID:
        return UUID(int=7)

    assert ended(app, work).result() == UUID(int=7)


def test_pydantic_models_come_back_as_such(app: Dibs) -> None:
    def work() -> Model:
        return Model(number=7)

    assert ended(app, work).result() == Model(number=7)


def test_a_task_that_returns_nothing_has_the_result_none(app: Dibs) -> None:
    def work() -> None: ...

    assert ended(app, work).result() is None


def test_jobs_of_one_call_have_their_own_results(app: Dibs) -> None:
    @app.task(name="square")
    def square(number: int) -> int:
        return number * number

    jobs = app.enqueue_many([square.prepare(number) for number in range(4)])
    app.drain()

    assert [job.result() for job in jobs] == [0, 1, 4, 9]


def test_any_job_is_asked_by_its_id_and_decoded_where_its_task_is_known(app: Dibs) -> None:
    def work() -> tuple[int, ...]:
        return (1, 2)

    job = ended(app, work)

    assert app.job(job.id).result() == (1, 2)
    assert app.job(job.id).status() == "done"


def test_a_job_of_a_task_that_the_asking_app_does_not_know_is_plain_json(app: Dibs) -> None:
    def work() -> tuple[int, ...]:
        return (1, 2)

    job = ended(app, work)
    app._tasks.clear()

    assert app.job(job.id).result() == [1, 2]
    assert job.result() == [1, 2]


def test_what_a_consumer_returned_is_the_result_of_its_message(app: Dibs) -> None:
    @app.consumer("q")
    def listen(message: Message) -> str:
        return message.text.upper()

    job_id = app.send("q", "text")
    app.drain()

    assert app.job(job_id).result() == "TEXT"


def test_a_result_that_does_not_fit_the_annotation_is_told(app: Dibs) -> None:
    def work() -> int:
        return "seven"  # type: ignore[return-value]  # on purpose

    job = ended(app, work)

    with pytest.raises(
        ResultNotKept, match=r"can't be read: The result of task work: Expected `int`, got `str`"
    ) as e:
        job.result()
    assert e.value.id == job.id
    assert job.info().result == b'"seven"'


def test_an_annotation_without_a_json_form_is_told(app: Dibs) -> None:
    def work() -> int | set[str] | list[str]:
        return 1

    with pytest.raises(ResultNotKept, match="has no JSON form"):
        ended(app, work).result()


def test_what_has_no_json_form_is_done_and_not_kept(app: Dibs) -> None:
    def work() -> object:
        return object()

    job = ended(app, work)

    assert job.status() == "done"
    with pytest.raises(
        ResultNotKept, match=r"is done\. The result is not kept\. The value has no JSON form: type object has none\.$"
    ):
        job.result()


# What is there instead of a result


def test_a_failure_comes_back_with_its_type_message_and_traceback(app: Dibs) -> None:
    def work() -> None:
        raise ValueError("first line\nsecond: line")

    job = ended(app, work, retries=0)

    with pytest.raises(JobFailed, match=r"is dead \(failed\): ValueError: first line\nsecond: line") as caught:
        job.result()
    failed = caught.value
    assert (failed.id, failed.reason) == (job.id, "failed")
    assert (failed.type_name, failed.message) == ("ValueError", "first line\nsecond: line")
    assert failed.traceback.startswith("Traceback (most recent call last):")
    assert "in work" in failed.traceback


def test_a_buried_job_has_failed(app: Dibs) -> None:
    def work() -> None:
        raise Bury("customer is gone")

    with pytest.raises(JobFailed) as caught:
        ended(app, work).result()
    assert (caught.value.reason, caught.value.type_name, caught.value.message) == (
        "buried",
        "Bury",
        "customer is gone",
    )


def test_an_expired_job_has_failed_without_an_exception(app: Dibs) -> None:
    job = app.task(name="work")(lambda: None).using(expires=dt.datetime(2020, 1, 1, tzinfo=dt.UTC)).enqueue()
    app.drain()

    with pytest.raises(JobFailed, match=r"\(expired\): Expired") as caught:
        job.result()
    assert caught.value.type_name == ""
    assert caught.value.message.startswith("Expired")


def test_a_cancelled_job_says_so(app: Dibs) -> None:
    job = app.task(name="work")(lambda: None).enqueue()

    assert job.cancel() == "cancelled"

    assert job.status() == "cancelled"
    assert app.drain() == []
    with pytest.raises(ResultCancelled, match=f"Job {job.id} of task work was cancelled"):
        job.result()
    assert job.cancel() == "over"


def test_cancelling_a_running_job_is_a_request(app: Dibs) -> None:
    answers: list[str] = []
    job = ended(app, lambda: answers.append(app.job(current_job().id).cancel()))

    assert answers == ["requested"]
    assert job.status() == "done"


@pytest.mark.parametrize("timeout", [0, 0.05])
def test_a_job_that_is_not_over_in_time_is_named_with_the_time(app: Dibs, timeout: float) -> None:
    job = app.task(name="work")(lambda: None).enqueue()

    said = f"after {timeout:g} s" if timeout else "yet"
    with pytest.raises(ResultPending, match=f"{job.id} of task work is not over {said}") as caught:
        job.result(timeout)
    assert isinstance(caught.value, TimeoutError)
    with pytest.raises(ResultPending):
        asyncio.run(job.aresult(timeout))


def test_without_waiting_the_result_of_what_is_over_is_there(app: Dibs) -> None:
    job = ended(app, lambda: 7)

    assert job.result(timeout=0) == 7
    assert asyncio.run(job.aresult(timeout=0)) == 7


@pytest.mark.parametrize("timeout", [-1, float("nan"), "1"])
def test_a_time_to_wait_that_is_none_is_refused(app: Dibs, timeout: Any) -> None:
    job = app.task(name="work")(lambda: None).enqueue()

    with pytest.raises(BadOption, match="timeout="):
        job.result(timeout)
    with pytest.raises(BadOption, match="timeout="):
        asyncio.run(job.aresult(timeout))


@pytest.mark.parametrize("timeout", [0, 1, None])
def test_nobody_knows_an_id_that_was_never_handed_over(app: Dibs, timeout: float | None) -> None:
    job = app.job(new_id())

    with pytest.raises(UnknownJob, match=job.id):
        job.result(timeout)
    with pytest.raises(UnknownJob):
        asyncio.run(job.aresult(timeout))
    for ask in (job.status, job.info, job.cancel):
        with pytest.raises(UnknownJob):
            ask()


@pytest.mark.parametrize("job_id", ["", "x" * 201, "a\nb"])
def test_an_id_that_can_not_be_one_is_refused(app: Dibs, job_id: str) -> None:
    with pytest.raises(BadName):
        app.job(job_id)


def test_every_way_to_have_no_result_is_one_kind_of_error() -> None:
    assert all(
        issubclass(kind, ResultError)
        for kind in (JobFailed, ResultCancelled, ResultNotKept, ResultPending, UnknownJob)
    )


# How long it is kept, and what of it


def test_an_expired_result_is_forgotten(app: Dibs) -> None:
    job = ended(app, lambda: 7, keep=0)

    for timeout in (None, 0):
        with pytest.raises(ResultNotKept, match="nothing of it is kept"):
            job.result(timeout)
    with pytest.raises(UnknownJob):
        app.job(job.id).result()


def test_whoever_waits_for_what_is_not_kept_is_told_when_it_is_over(app: Dibs) -> None:
    job = app.task(name="work", keep=0)(lambda: 7).enqueue()
    waiting = app.broker.ledger.watch(job.id, is_ours=True)

    app.drain()

    ending = waiting.result(5)
    assert ending is not None
    assert ending.status == "forgotten"


def test_a_job_is_forgotten_when_its_time_is_over(memory: Dibs) -> None:
    job = ended(memory, lambda: 7, keep=dt.timedelta(seconds=0.2))

    assert job.result() == 7
    until(lambda: memory.broker.ledger.job(job.id) is None)

    with pytest.raises(UnknownJob):
        job.status()


def test_how_long_is_said_per_task_per_call_and_per_consumer(app: Dibs) -> None:
    task = app.task(name="work", keep=dt.timedelta(hours=1))(lambda: None)
    app.consumer("q", keep=60, private=True)(lambda message: None)

    assert task.prepare().message.keep == 3600.0
    assert task.using(keep=5).prepare().message.keep == 5.0
    assert task.using(keep=0).prepare().message.keep == 0.0
    app.send("q", "x")
    (delivery,) = app.broker.consume(["q"], limit=1).receive(1)
    assert (delivery.message.keep, delivery.message.is_private) == (60.0, True)


@pytest.mark.parametrize("keep", [-1, 401 * 86400, float("inf"), float("nan"), "1d"])
def test_a_time_to_keep_out_of_bounds_is_refused(app: Dibs, keep: Any) -> None:
    with pytest.raises(BadOption, match="keep="):
        app.task(name="work", keep=keep)
    with pytest.raises(BadOption, match="keep="):
        app.consumer("q", keep=keep)


def test_whoever_waits_for_what_is_purged_waits_no_longer(app: Dibs) -> None:
    job = app.task(name="work")(lambda: 7).enqueue()
    waiting = app.broker.ledger.watch(job.id, is_ours=True)

    app.broker.purge("default", state="ready")

    ending = waiting.result(10)
    assert ending is not None
    assert ending.status == "forgotten"


def test_of_a_private_job_nothing_is_told(app: Dibs) -> None:
    def work(text: str) -> str:
        if text == "fail":
            raise ValueError("secret")
        return "secret"

    done, dead = ended(app, work, "do", private=True, retries=0), app.get_task("work").enqueue("fail")
    app.drain()

    with pytest.raises(ResultNotKept, match="private"):
        done.result()
    with pytest.raises(JobFailed, match=r"is dead \(failed\), and .*private") as caught:
        dead.result()
    assert "secret" not in f"{caught.value} {caught.value.traceback} {done.info()} {dead.info()}"


# Waiting


def run_when(condition: threading.Event, app: Dibs) -> threading.Thread:
    def run() -> None:
        condition.wait(10)
        app.drain()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_whoever_waits_is_woken_when_the_job_is_over(app: Dibs) -> None:
    job = app.task(name="work")(lambda: 7).enqueue()
    waits = threading.Event()
    thread = run_when(waits, app)

    waits.set()

    assert job.result(timeout=10) == 7
    thread.join()


def test_a_thousand_who_wait_in_one_loop_cost_one_subscription(app: Dibs, monkeypatch: pytest.MonkeyPatch) -> None:
    square = app.task(name="square")(lambda number: number * number)
    jobs = app.enqueue_many([square.prepare(number) for number in range(1000)])
    before = set(threading.enumerate())
    kind, begun = type(app.broker.ledger), []

    def watch(ledger: Any, id: str, *, is_ours: bool, watch: Any = kind.watch) -> Any:  # noqa: A002
        future = watch(ledger, id, is_ours=is_ours)
        begun.append(id)
        return future

    async def wait() -> tuple[list[Any], list[str]]:
        waiting = [asyncio.create_task(job.aresult(timeout=60)) for job in jobs]
        while len(begun) < len(jobs):
            await asyncio.sleep(0.01)
        names = [thread.name for thread in set(threading.enumerate()) - before]
        app.drain()
        return await asyncio.gather(*waiting), names

    monkeypatch.setattr(kind, "watch", watch)
    results, names = asyncio.run(wait())

    assert results == [number * number for number in range(1000)]
    assert len([name for name in names if not name.startswith("asyncio_")]) <= 1, names


def waiters(app: Dibs) -> dict[str, Any]:
    """Return who waits, by job."""
    found: dict[str, Any] = app.broker._store._waiters  # type: ignore[attr-defined]  # there is no other way to see it
    return found


def test_whoever_gives_up_waits_no_more(memory: Dibs) -> None:
    job = memory.task(name="work")(lambda: 7).enqueue()

    with pytest.raises(ResultPending):
        job.result(timeout=0.01)
    with pytest.raises(ResultPending):
        asyncio.run(job.aresult(timeout=0.01))

    async def cancelled() -> None:
        waiting = asyncio.create_task(job.aresult())
        while not waiters(memory):
            await asyncio.sleep(0.001)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(cancelled())
    assert waiters(memory) == {}


def test_a_wait_that_is_given_up_before_it_has_begun_is_over_when_it_has(
    memory: Dibs, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = memory.task(name="work")(lambda: 7).enqueue()
    kind, may_begin = type(memory.broker.ledger), threading.Event()

    def watch(ledger: Any, id: str, *, is_ours: bool, watch: Any = kind.watch) -> Any:  # noqa: A002
        may_begin.wait(10)
        return watch(ledger, id, is_ours=is_ours)

    async def give_up() -> None:
        with pytest.raises(ResultPending):
            await job.aresult(timeout=0.05)
        may_begin.set()

    monkeypatch.setattr(kind, "watch", watch)
    asyncio.run(give_up())  # which waits for the thread that begins

    assert waiters(memory) == {}


def test_a_record_that_is_still_on_its_way_is_waited_for_by_who_handed_over(
    memory: Dibs, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = memory.task(name="work")(lambda: 7).enqueue()
    broker, left = memory.broker, [None, None]
    late = msgspec.structs.replace(broker.capabilities, is_ledger_exact=False)
    known = type(broker.ledger).job

    def find(ledger: Any, id: str) -> Any:  # noqa: A002
        return left.pop() if left else known(ledger, id)

    monkeypatch.setattr(type(broker), "capabilities", late)
    monkeypatch.setattr(type(broker.ledger), "job", find)

    with pytest.raises(UnknownJob):
        memory.job(job.id).status()
    assert len(left) == 1
    assert job.status() == "ready"
    assert left == []


def test_a_forked_child_waits_for_its_parents_job_too(app: Dibs) -> None:
    job = app.task(name="work")(lambda: 7).enqueue()
    app.drain()

    if (child := os.fork()) == 0:
        os._exit(job.result(timeout=20))

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_ctrl_c_ends_the_wait(memory: Dibs) -> None:
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    job = memory.task(name="work")(lambda: 7).enqueue()
    is_over = threading.Event()

    def press() -> None:
        until(lambda: waiters(memory) != {})
        while not is_over.wait(0.2):  # again, should it fall into the moment before the main thread waits
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            job.result(timeout=60)
    finally:
        is_over.set()
        thread.join()
        signal.signal(signal.SIGINT, former)

    assert waiters(memory) == {}


def test_the_async_twins_say_the_same(app: Dibs) -> None:
    job = app.task(name="work")(lambda: 7).enqueue()

    async def ask() -> tuple[str, str, str, str]:
        first = await job.astatus()
        return first, (await job.ainfo()).status, await job.acancel(), await job.astatus()

    assert asyncio.run(ask()) == ("ready", "ready", "cancelled", "cancelled")
    with pytest.raises(ResultCancelled):
        asyncio.run(job.aresult())


def test_inside_a_running_loop_the_blocking_calls_work_too(app: Dibs) -> None:
    job = ended(app, lambda: 7)

    async def ask() -> tuple[Any, str]:
        return job.result(timeout=1), job.status()

    assert asyncio.run(ask()) == (7, "done")
    assert asyncio.run(app.job(job.id).aresult()) == 7
