"""Results by way of the Python API, on every broker that several processes can reach."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from dibs import Dibs, Job, JobFailed, ResultCancelled, ResultPending, UnknownJob
from dibs.message import new_id
from tests.worlds import World

#: Another program: it knows no task.
ASKING = """\
import sys
from dibs import Dibs
app = Dibs(sys.argv[1], namespace=sys.argv[2])
print(app.job(sys.argv[3]).result(timeout=20))
"""


def open_app(world: World) -> Dibs:
    return Dibs(world.url, namespace=getattr(world, "namespace", ""))


@pytest.fixture
def app(shared_world: World) -> Iterator[Dibs]:
    made = open_app(shared_world)
    yield made
    made.close()


def test_a_job_that_was_handed_over_just_now_is_known(app: Dibs) -> None:
    job = app.task(name="work")(lambda: 7).enqueue()

    assert job.status() == "ready"
    assert job.info().task == "work"


def test_a_result_comes_back_to_who_handed_over_and_to_who_has_the_id(app: Dibs, shared_world: World) -> None:
    @app.task(name="work")
    def work() -> tuple[int, ...]:
        return (1, 2)

    job = work.enqueue()
    app.drain()

    assert job.result(timeout=20) == (1, 2)
    other = open_app(shared_world)
    assert other.job(job.id).result(timeout=20) == [1, 2]
    assert other.job(job.id).status() == "done"
    other.close()


def test_another_process_has_the_result_by_its_id(app: Dibs, shared_world: World) -> None:
    job = app.task(name="work")(lambda: {"a": 1}).enqueue()
    namespace = getattr(shared_world, "namespace", "")
    with subprocess.Popen(
        [sys.executable, "-c", ASKING, shared_world.url, namespace, job.id], stdout=subprocess.PIPE, text=True
    ) as asking:
        app.drain()
        out, _ = asking.communicate(timeout=60)

    assert out == "{'a': 1}\n"


def test_a_failure_comes_back_as_it_was_raised(app: Dibs) -> None:
    def work() -> None:
        raise ValueError("first\nsecond: line")

    job = app.task(name="work", retries=0)(work).enqueue()
    app.drain()

    with pytest.raises(JobFailed) as caught:
        job.result(timeout=20)
    assert (caught.value.reason, caught.value.type_name, caught.value.message) == (
        "failed",
        "ValueError",
        "first\nsecond: line",
    )
    assert "in work" in caught.value.traceback


def test_many_coroutines_wait_at_once_and_each_has_its_own(app: Dibs) -> None:
    square = app.task(name="square")(lambda number: number * number)

    async def wait() -> list[Any]:
        jobs = app.enqueue_many([square.prepare(number) for number in range(200)])
        waiting = [asyncio.create_task(job.aresult(timeout=60)) for job in jobs]
        await asyncio.to_thread(app.drain)
        return await asyncio.gather(*waiting)

    assert asyncio.run(wait()) == [number * number for number in range(200)]


def test_a_cancelled_job_says_so(app: Dibs) -> None:
    job = app.task(name="work")(lambda: 7).enqueue()

    assert job.cancel() in {"cancelled", "requested"}

    app.drain()  # where it is a request, whoever receives the job carries it out
    with pytest.raises(ResultCancelled):
        job.result(timeout=20)


def test_what_is_not_over_in_time_is_pending(app: Dibs) -> None:
    job = app.task(name="work")(lambda: 7).enqueue()

    for timeout in (0, 0.1):
        with pytest.raises(ResultPending):
            job.result(timeout)


def test_nobody_knows_what_was_never_handed_over(app: Dibs) -> None:
    app.task(name="work")(lambda: 7).enqueue()

    with pytest.raises(UnknownJob):
        app.job(new_id()).result(timeout=20)
    with pytest.raises(UnknownJob):
        app.job(new_id()).result(timeout=0)


def test_a_forked_child_waits_for_what_its_parent_handed_over(app: Dibs) -> None:
    job: Job[int] = app.task(name="work")(lambda: 7).enqueue()
    app.drain()

    if (child := os.fork()) == 0:
        os._exit(job.result(timeout=20))

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
