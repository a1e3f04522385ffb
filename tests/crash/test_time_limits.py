"""`timeout=`: asked nicely first, then the executor is ended; nobody else pays for it."""

from __future__ import annotations

from tests.crash.conftest import Stage
from tests.rabbit_releases import on_one_rabbitmq
from tests.waiting import until

pytestmark = on_one_rabbitmq  # what is tested here, the server has no part in


def reasons(stage: Stage, queue: str = "default") -> list[tuple[str, str]]:
    """Return reason and last line of the error of each dead letter."""
    letters = stage.app.broker.dead(queue, limit=20)
    return [(letter.reason, letter.error.strip().splitlines()[-1]) for letter in letters]


def test_a_plain_function_that_sleeps_too_long_is_interrupted_and_cleans_up(stage: Stage) -> None:
    worker = stage.worker("-p", "1", module="plain_tasks")
    (executor,) = worker.executors

    stage.enqueue("nap", "long", 60.0, module="plain_tasks")
    stage.enqueue("nap", "short", 0.0, module="plain_tasks")

    (end,) = stage.wait_for("end", 1)
    until(lambda: bool(reasons(stage)))
    assert reasons(stage) == [("failed", "dibs.outcome.JobTimeout: The job ran longer than its time limit of 0.5 s.")]
    assert (end.key, end.pid) == ("short", executor)
    assert [event.key for event in stage.events("cleaned-up")] == ["long", "short"]
    assert stage.events("swallowed") == []


def test_a_coroutine_that_takes_too_long_is_cancelled_and_cleans_up(stage: Stage) -> None:
    worker = stage.worker("-p", "1", "-c", "4", "-q", "async")
    (executor,) = worker.executors

    stage.enqueue("anap", "long", 60.0)
    stage.enqueue("awork", "beside it", 1.0)

    (end,) = stage.wait_for("end", 1)
    until(lambda: bool(reasons(stage, "async")))
    ((reason, error),) = reasons(stage, "async")
    assert (reason, error) == (
        "failed",
        "dibs.outcome.JobTimeout: The job ran longer than its time limit of 0.5 s.",
    )
    assert (end.key, end.pid, worker.executors) == ("beside it", executor, [executor])
    assert [event.key for event in stage.events("cleaned-up")] == ["long"]


def test_a_function_on_a_thread_is_interrupted_and_its_executor_replaced(stage: Stage) -> None:
    worker = stage.worker("-p", "1", "-c", "3")
    (executor,) = worker.executors

    stage.enqueue("spin", "long")
    stage.enqueue("work", "beside it", 1.5)

    (end,) = stage.wait_for("end", 1)
    until(lambda: [event.key for event in stage.events("start")].count("long") == 2)
    until(lambda: bool(reasons(stage)))
    ((reason, error),) = reasons(stage)
    assert (reason, error.split(":")[0]) == ("failed", "dibs.outcome.JobTimeout")
    assert end.pid == executor  # the one beside it was left in peace
    until(lambda: len(worker.executors) == 1 and worker.executors != [executor])
    assert "a thread was interrupted" in worker.log
    assert "executor died" not in worker.log


def test_what_ignores_its_time_limit_loses_its_executor_when_the_others_there_are_done(stage: Stage) -> None:
    worker = stage.worker("-p", "1", "-c", "2")
    (executor,) = worker.executors

    stage.enqueue("resist", "stubborn")
    stage.enqueue("work", "beside it", 8.0)

    stage.wait_for("resisted", 1)
    until(lambda: len(worker.executors) == 2)  # its successor, after 5 s
    stage.enqueue("work", "later")
    ends = stage.wait_for("end", 2)
    until(lambda: bool(reasons(stage)))
    assert [(end.key, end.pid == executor) for end in ends] == [("later", False), ("beside it", True)]
    ((reason, error),) = reasons(stage)
    assert reason == "failed"
    assert error.startswith("The job ran longer than its time limit of 0.2 s and did not end when it was asked to")
    until(lambda: executor not in worker.executors)
    assert len([event for event in stage.events("start") if event.key == "beside it"]) == 1
    (letter,) = stage.app.broker.dead("default", limit=5)
    assert letter.message.crashes == 0


def test_an_executor_that_is_silent_beyond_a_time_limit_is_killed_at_once(stage: Stage) -> None:
    worker = stage.worker("-p", "1", "-c", "2")

    stage.enqueue("work", "beside it", 1.0)
    stage.wait_for("start", 1)
    stage.enqueue("hold_interpreter", "silent")

    (end,) = stage.wait_for("end", 1)
    until(lambda: bool(reasons(stage)))
    ((reason, error),) = reasons(stage)
    assert reason == "failed"
    assert "did not end when it was asked to" in error
    assert end.key == "beside it"
    (letter,) = stage.app.broker.dead("default", limit=5)
    assert (letter.message.attempt, letter.message.crashes) == (1, 0)
    assert worker.log.count("job will be tried again") == 0


def test_a_main_thread_that_no_signal_reaches_is_killed(stage: Stage) -> None:
    worker = stage.worker("-p", "1", module="plain_tasks")
    (executor,) = worker.executors

    stage.enqueue("hold_main_thread", "silent", module="plain_tasks")
    stage.enqueue("nap", "next", 0.0, module="plain_tasks")

    (end,) = stage.wait_for("end", 1)
    assert end.pid != executor
    ((reason, error),) = reasons(stage)
    assert (reason, "did not end when it was asked to" in error) == ("failed", True)


def test_jobs_that_keep_their_time_limit_are_none_the_slower_and_leave_nothing_behind(stage: Stage) -> None:
    worker = stage.worker("-p", "1", "-c", "2")
    quick = stage.app.get_task("tests.crash.tasks.quick")

    stage.app.enqueue_many([quick.prepare(str(number)) for number in range(500)])

    ends = stage.wait_for("end", 500)
    assert {end.key for end in ends} == {str(number) for number in range(500)}
    assert {end.pid for end in ends} == set(worker.executors)
