"""Cancelling jobs that wait, run, or ignore it; and what running jobs say of themselves. With real workers."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from tests.crash.conftest import Stage
from tests.rabbit_releases import on_one_rabbitmq
from tests.waiting import until

pytestmark = on_one_rabbitmq


def cancel(stage: Stage, job: str) -> str:
    """Cancel a job and return the broker's answer."""
    return stage.app.broker.cancel([job])[job]


def test_a_coroutine_that_runs_is_cancelled_and_cleans_up(stage: Stage) -> None:
    worker = stage.worker("-p", "1", "-c", "4", "-q", "async")
    (executor,) = worker.executors
    job = stage.enqueue("asleep_on", "long")
    beside = stage.enqueue("awork", "beside it", 2.0)
    stage.wait_for("start", 2)

    assert cancel(stage, job) == "requested"

    info = stage.wait_for_status(job, "cancelled")
    assert [event.key for event in stage.events("cleaned-up")] == ["long"]
    assert info.started is not None
    assert info.ended is not None
    assert info.ended >= info.started
    stage.wait_for_status(beside, "done")
    assert worker.executors == [executor]
    assert worker.log.count("job cancelled") == 1
    assert "WARNING" not in worker.log


@pytest.mark.parametrize("name", ["sleep_on", "spin_on"])
def test_a_function_on_the_main_thread_is_cancelled_and_cleans_up(stage: Stage, name: str) -> None:
    worker = stage.worker("-p", "1", module="plain_tasks")
    (executor,) = worker.executors
    job = stage.enqueue(name, "long", module="plain_tasks")
    following = stage.enqueue("nap", "next", 0.0, module="plain_tasks")
    stage.wait_for("start", 1)

    assert cancel(stage, job) == "requested"

    stage.wait_for_status(job, "cancelled")
    stage.wait_for_status(following, "done")
    assert [event.key for event in stage.events("cleaned-up")] == ["long", "next"]
    assert {event.pid for event in stage.events("start")} == {executor}
    assert worker.executors == [executor]


@pytest.mark.parametrize("module", ["plain_tasks", "tasks"])
def test_a_function_on_a_thread_is_cancelled_and_those_beside_it_are_not(
    stage: Stage, module: str, tmp_path: Path
) -> None:
    stage.worker("-p", "1", "-c", "4", module=module)
    end = tmp_path / "end"
    others = [stage.enqueue("wait_for_file", str(number), str(end), module=module) for number in range(3)]
    stage.wait_for("start", 3)
    job = stage.enqueue("spin_on", "long", module=module)
    stage.wait_for("start", 4)  # all threads run functions now: none of them reads what the supervisor says

    assert cancel(stage, job) == "requested"

    stage.wait_for_status(job, "cancelled")
    assert [event.key for event in stage.events("cleaned-up")] == ["long"]
    end.touch()
    for other in others:
        stage.wait_for_status(other, "done")
    assert len(stage.events("start")) == 4


@pytest.mark.parametrize(
    ("name", "module", "queue"),
    [
        ("resist_on", "plain_tasks", "default"),
        ("hold_on", "plain_tasks", "default"),
        ("aresist_on", "tasks", "async"),
    ],
)
def test_what_ignores_its_cancel_loses_its_executor(stage: Stage, name: str, module: str, queue: str) -> None:
    worker = stage.worker("-p", "1", "-q", queue, module=module)
    (executor,) = worker.executors
    job = stage.enqueue(name, "stubborn", module=module)
    stage.wait_for("start", 1)

    assert cancel(stage, job) == "requested"

    info = stage.wait_for_status(job, "cancelled")
    assert (info.attempt, info.crashes) == (1, 0)
    until(lambda: len(worker.executors) == 1 and executor not in worker.executors)
    assert "it ignores that a job is cancelled" in worker.log
    assert len(stage.events("start")) == 1


def test_those_beside_one_that_holds_the_interpreter_run_again_at_no_cost(stage: Stage, tmp_path: Path) -> None:
    stage.worker("-p", "1", "-c", "2", module="plain_tasks")
    end = tmp_path / "end"
    beside = stage.enqueue("wait_for_file", "beside it", str(end), module="plain_tasks")
    stage.wait_for("start", 1)
    job = stage.enqueue("hold_on", "silent", module="plain_tasks")
    stage.wait_for("start", 2)

    cancel(stage, job)

    stage.wait_for_status(job, "cancelled")
    stage.wait_for("start", 3)
    end.touch()
    info = stage.wait_for_status(beside, "done")
    assert (info.attempt, info.crashes, info.runs[-1].attempt) == (1, 0, 1)


def test_what_waits_is_cancelled_and_never_runs(stage: Stage, tmp_path: Path) -> None:
    end = tmp_path / "end"
    stage.worker("-p", "1", module="plain_tasks")
    task = stage.app.get_task("tests.crash.plain_tasks.nap")
    busy = stage.enqueue("wait_for_file", "busy", str(end), module="plain_tasks")
    stage.wait_for("start", 1)
    ready = stage.enqueue("nap", "ready", 0.0, module="plain_tasks")
    delayed = task.using(delay=1.0).enqueue("delayed", 0.0).id

    for job in (ready, delayed):
        assert cancel(stage, job) in ("cancelled", "requested")

    end.touch()
    stage.wait_for_status(busy, "done")
    for job in (ready, delayed):
        assert stage.wait_for_status(job, "cancelled").started is None
    time.sleep(1.2)  # the delay is over
    stage.wait_for_status(stage.enqueue("nap", "last", 0.0, module="plain_tasks"), "done")
    assert [event.key for event in stage.events("start")] == ["busy", "last"]


def test_what_is_held_ahead_is_cancelled_and_never_runs(stage: Stage, tmp_path: Path) -> None:
    end = tmp_path / "end"
    stage.worker("-p", "1", module="plain_tasks")
    nap = stage.app.get_task("tests.crash.plain_tasks.nap")
    wait = stage.app.get_task("tests.crash.plain_tasks.wait_for_file")
    jobs = stage.app.enqueue_many(
        [
            *(nap.prepare(str(number), 0.0) for number in range(400)),
            wait.prepare("busy", str(end)),
            *(nap.prepare(f"ahead {number}", 0.0) for number in range(50)),
        ]
    )
    until(lambda: "busy" in [event.key for event in stage.events("start")])

    ids = [job.id for job in jobs[-50:]]
    stage.app.broker.cancel(ids)
    cancel(stage, jobs[400].id)  # the one that runs: when it has ended, the worker has heard of the others too

    assert stage.wait_for_status(jobs[400].id, "cancelled").started is not None
    until(lambda: {stage.status(job) for job in ids} <= {"done", "cancelled"})
    ran = {event.key for event in stage.events("start")}
    cancelled = [number for number, job in enumerate(ids) if stage.status(job) == "cancelled"]
    assert cancelled  # what a busy RabbitMQ was given back may have come before the one that runs
    assert not ran & {f"ahead {number}" for number in cancelled}


def test_a_cancel_that_races_with_the_end_has_one_outcome(stage: Stage) -> None:
    stage.worker("-p", "2", "-c", "2", module="plain_tasks")
    nap = stage.app.get_task("tests.crash.plain_tasks.nap")
    chance = random.Random(5)
    jobs = [job.id for job in stage.app.enqueue_many([nap.prepare(str(number), 0.02) for number in range(100)])]

    answers = {}
    for job in jobs:
        answers[job] = cancel(stage, job)
        time.sleep(chance.uniform(0, 0.008))

    until(lambda: {stage.status(job) for job in jobs} <= {"done", "cancelled"})
    for job, answer in answers.items():
        assert (answer == "over") <= (stage.status(job) == "done")
        assert (answer == "cancelled") <= (stage.status(job) == "cancelled")
    ended = [event.key for event in stage.events("end")]
    assert len(ended) == len(set(ended))
    done = {str(number) for number, job in enumerate(jobs) if stage.status(job) == "done"}
    assert done <= set(ended)


def test_what_fails_while_it_is_being_cancelled_ends_as_cancelled(stage: Stage) -> None:
    stage.worker("-p", "2", "-c", "2", module="plain_tasks")
    fail = stage.app.get_task("tests.crash.plain_tasks.fail")
    chance = random.Random(6)
    jobs = [job.id for job in stage.app.enqueue_many([fail.prepare(str(number), 0.02) for number in range(100)])]

    for job in jobs:
        assert cancel(stage, job) in ("cancelled", "requested")
        time.sleep(chance.uniform(0, 0.008))

    # On RabbitMQ one that failed a moment sooner is cancelled when it comes again.
    until(lambda: {stage.status(job) for job in jobs} == {"cancelled"})


def test_what_a_job_says_is_seen_while_it_runs_and_afterwards(stage: Stage, tmp_path: Path) -> None:
    end = tmp_path / "end"
    worker = stage.worker("-p", "1", module="plain_tasks")
    job = stage.enqueue("tell", "talker", str(end), module="plain_tasks")

    def has_progress(least: int) -> bool:
        progress = stage.job(job).progress
        return progress is not None and progress.done > least

    until(lambda: has_progress(0))
    until(lambda: has_progress(1000))
    until(lambda: bool(stage.job(job).log))
    assert stage.status(job) == "running"
    end.touch()

    info = stage.wait_for_status(job, "done")
    assert info.progress is not None
    assert (info.progress.done, info.progress.total, info.progress.note) == (7, 7, "all there")
    assert info.log[-1].endswith("INFO    last line")
    assert "can't be formatted: TypeError" in info.log[-2]
    assert r"line\x1b 1000" in info.log[0] or len(info.log) == 100
    assert "last line" in worker.log  # the app has not configured logging, and yet it is seen


def test_a_worker_shows_what_it_runs_and_how_many_ended(stage: Stage, tmp_path: Path) -> None:
    end = tmp_path / "end"
    worker = stage.worker("-p", "2", "-c", "3", module="plain_tasks")
    job = stage.enqueue("wait_for_file", "busy", str(end), module="plain_tasks")
    stage.enqueue("nap", "short", 0.0, module="plain_tasks")

    def shown() -> bool:
        snapshots = stage.app.broker.ledger.workers()
        running = [held.id for shown in snapshots for executor in shown.executors for held in executor.running]
        return running == [job] and [shown.ended for shown in snapshots] == [{"done": 1}]

    until(shown)
    (snapshot,) = stage.app.broker.ledger.workers()
    assert (snapshot.pid, snapshot.slots, snapshot.is_ending) == (worker.pid, 6, False)
    assert sorted(executor.pid for executor in snapshot.executors) == sorted(worker.executors)
    assert all(executor.memory_bytes > 1_000_000 for executor in snapshot.executors)
    end.touch()
