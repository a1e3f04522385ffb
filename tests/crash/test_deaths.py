"""Deaths of executors and workers, by SIGKILL, in the middle of a job (P2, P3, P8)."""

from __future__ import annotations

import functools
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from dibs.worker.crashes import CRASH_LIMIT, SUSPECT_AFTER_DEATHS, SUSPECT_AFTER_RETURNS
from tests.crash.conftest import Stage
from tests.waiting import until
from tests.workers import Worker, is_alive


def test_a_job_whose_executor_is_killed_is_done_by_the_next_one(stage: Stage, tmp_path: Path) -> None:
    over = tmp_path / "over"
    worker = stage.worker("-p", "1")
    stage.enqueue("wait_for_file", "a", str(over))
    (start,) = stage.wait_for("start", 1)

    os.kill(start.pid, signal.SIGKILL)

    _, again = stage.wait_for("start", 2)
    until(lambda: len(worker.executors) == 2)  # one more for other jobs: a job that has killed runs alone
    (spare,) = set(worker.executors) - {again.pid}
    over.touch()
    (end,) = stage.wait_for("end", 1)
    assert end.pid == again.pid != start.pid
    assert len(stage.events("start")) == 2
    until(lambda: len(worker.executors) == 1)
    assert worker.executors == [spare]
    assert "signal 9 (SIGKILL)" in worker.log


def test_a_job_whose_worker_is_killed_is_done_by_another_worker(stage: Stage) -> None:
    doomed = stage.worker("-p", "1")
    stage.enqueue("work", "a", 2.0)
    stage.wait_for("start", 1)
    stage.worker("-p", "1")

    killed = time.time()
    doomed.kill()

    starts = stage.wait_for("start", 2)
    assert (
        starts[1].at - killed < 5.0
    )  # the promise is 0.5 s; a test on a loaded machine only tells at once from never
    stage.wait_for("end", 1)
    assert len(stage.events("end")) == 1


def test_executors_die_with_their_supervisor(stage: Stage) -> None:
    worker = stage.worker("-p", "2")
    stage.enqueue("work", "a", 60.0)
    stage.enqueue("work", "b", 60.0)
    stage.wait_for("start", 2)
    executors = worker.executors

    os.kill(worker.pid, signal.SIGKILL)

    until(lambda: not any(is_alive(pid) for pid in executors))


def test_what_a_job_started_dies_with_its_executor(stage: Stage) -> None:
    worker = stage.worker("-p", "1")
    stage.enqueue("spawn", "a")
    (child,) = stage.wait_for("child", 1)
    (start,) = stage.events("start")

    os.kill(start.pid, signal.SIGKILL)

    stage.wait_for("start", 2)  # the job is only given back when nothing of its first run is left
    assert not is_alive(child.pid)
    assert worker.executors


@pytest.mark.parametrize("how", ["exit", "segfault", "sigkill", "close"])
def test_a_job_that_kills_its_executor_is_set_aside_after_three_crashes(stage: Stage, how: str) -> None:
    worker = stage.worker("-p", "1")

    stage.enqueue("die", "killer", how)
    stage.enqueue("work", "innocent")

    stage.wait_for("end", 1)
    until(lambda: bool(stage.app.broker.dead("default", limit=5)))
    (letter,) = stage.app.broker.dead("default", limit=5)
    assert letter.reason == "crashed"
    assert letter.error.startswith("Crash 3 of 3. The executor died while it ran this job: ")
    assert letter.message.crashes == 3
    assert len([event for event in stage.events("start") if event.key == "killer"]) == 3
    assert worker.executors


def test_the_innocent_beside_a_killer_lose_no_attempt(stage: Stage) -> None:
    worker = stage.worker("-p", "1", "-c", "8")
    prepared = [stage.app.get_task("tests.crash.tasks.work").prepare(f"good-{n}", 0.02) for n in range(50)]
    killer = stage.app.get_task("tests.crash.tasks.die").prepare("killer", "sigkill")

    stage.app.enqueue_many([*prepared[:10], killer, *prepared[10:]])

    until(lambda: {event.key for event in stage.events("end")} == {f"good-{n}" for n in range(50)})
    until(lambda: bool(stage.app.broker.dead("default", limit=5)))
    (letter,) = stage.app.broker.dead("default", limit=5)
    assert letter.reason == "crashed"
    assert worker.log.count("WARNING executor died") <= 5
    assert worker.log.count("job will be tried again") == 2  # the killer's first two crashes, and nobody else's


def test_executors_that_die_together_are_all_replaced(stage: Stage) -> None:
    worker = stage.worker("-p", "4")
    until(lambda: len(worker.executors) == 4)

    for pid in worker.executors:
        os.kill(pid, signal.SIGKILL)
    stage.enqueue("work", "a")

    stage.wait_for("end", 1)
    until(lambda: len(worker.executors) == 4)


def test_a_coroutine_that_cancels_itself_has_failed_and_its_slot_is_free(stage: Stage) -> None:
    stage.worker("-p", "1")

    stage.enqueue("cancel_itself", "a")
    stage.enqueue("awork", "b")

    stage.wait_for("end", 1)
    until(lambda: [letter.reason for letter in stage.app.broker.dead("async", limit=5)] == ["failed"])


def test_a_job_that_writes_to_its_executors_line_is_found_out(stage: Stage) -> None:
    stage.worker("-p", "1")

    stage.enqueue("babble", "a")
    stage.enqueue("work", "b")

    stage.wait_for("end", 1)
    until(lambda: [letter.reason for letter in stage.app.broker.dead("default", limit=5)] == ["crashed"])


def test_a_job_that_has_crashed_before_runs_alone_and_holds_nobody_up(stage: Stage) -> None:
    stage.worker("-p", "1", "-c", "4")
    work = stage.app.get_task("tests.crash.tasks.work")
    stage.enqueue("work", "long", 4.0)
    stage.wait_for("start", 1)
    suspect = msgspec.structs.replace(work.prepare("suspect", 1.0).message, crashes=1)

    stage.app.broker.send([suspect])
    for number in range(8):
        stage.enqueue("work", f"quick-{number}", 0.01)

    ends = stage.wait_for("end", 10)
    assert ends[-1].key == "long"
    (alone,) = (event.pid for event in ends if event.key == "suspect")
    assert alone not in {event.pid for event in ends if event.key == "long"}


def test_a_job_that_crashes_once_is_done_the_second_time(stage: Stage) -> None:
    stage.worker("-p", "1", "-c", "4")

    stage.enqueue("die_once", "a")

    (end,) = stage.wait_for("end", 1)
    assert end.key == "a"
    assert stage.app.broker.dead("default", limit=1) == []


def test_a_hundred_jobs_survive_workers_that_are_killed_again_and_again(stage: Stage) -> None:
    prepared = [stage.app.get_task("tests.crash.tasks.work").prepare(str(n), 0.01) for n in range(100)]
    stage.app.enqueue_many(prepared)
    stage.worker("-p", "1")

    for kill in range(3):
        doomed = stage.worker("-p", "1", "-c", "2")
        until(lambda seen=kill: len(stage.events("end")) > 10 * (seen + 1))  # type: ignore[misc]
        doomed.kill()

    until(lambda: len({event.key for event in stage.events("end")}) == 100)
    assert stage.app.broker.dead("default", limit=1) == []


def test_one_killer_among_a_hundred_good_jobs_kills_at_most_five_executors(stage: Stage) -> None:
    worker = stage.worker("-p", "2", "-c", "8")
    prepared = [stage.app.get_task("tests.crash.tasks.work").prepare(f"good-{n}", 0.02) for n in range(100)]
    killer = stage.app.get_task("tests.crash.tasks.die").prepare("killer", "segfault")

    stage.app.enqueue_many([*prepared[:50], killer, *prepared[50:]])

    until(lambda: {event.key for event in stage.events("end")} == {f"good-{n}" for n in range(100)})
    until(lambda: bool(stage.app.broker.dead("default", limit=5)))
    (letter,) = stage.app.broker.dead("default", limit=5)
    assert (letter.reason, letter.message.crashes, letter.message.attempt) == ("crashed", 3, 1)
    assert "signal 11 (SIGSEGV), peak memory" in letter.error
    assert worker.log.count("WARNING executor died") <= 5
    assert worker.log.count("job will be tried again") == 2


def test_a_job_that_kills_whole_workers_is_set_aside_and_the_innocent_go_on(stage: Stage) -> None:
    broker = stage.app.broker
    stage.enqueue("kill_worker", "killer")
    for number in range(5):
        stage.enqueue("work", f"good-{number}", 0.2)

    def is_over(worker: Worker) -> bool:
        return not is_alive(worker.pid) or bool(broker.dead("default", limit=1))

    deaths = 0
    while not broker.dead("default", limit=1):
        worker = stage.start_worker("-p", "1", "-c", "4")
        until(functools.partial(is_over, worker))
        deaths += not is_alive(worker.pid)

    limit = SUSPECT_AFTER_DEATHS if broker.capabilities.counts_deaths else SUSPECT_AFTER_RETURNS
    assert deaths == limit + CRASH_LIMIT
    until(lambda: {event.key for event in stage.events("end")} == {f"good-{n}" for n in range(5)})
    (letter,) = broker.dead("default", limit=5)
    assert (letter.reason, letter.message.crashes, letter.message.attempt) == ("crashed", 3, 1)
    assert "The worker died while this job ran alone" in letter.error


def test_a_job_for_want_of_memory_killed_by_the_system_is_set_aside_with_the_memory_it_used(stage: Stage) -> None:
    with small_cgroup(100_000_000) as cgroup:
        stage.worker("-p", "1")

        stage.enqueue("exhaust", "large", cgroup)
        stage.enqueue("work", "innocent")

        stage.wait_for("end", 1)
        until(lambda: bool(stage.app.broker.dead("default", limit=5)))
        (letter,) = stage.app.broker.dead("default", limit=5)
        assert letter.reason == "crashed"
        peak = int(letter.error.partition("signal 9 (SIGKILL), peak memory ")[2].split()[0])
        assert 50 <= peak <= 200


@contextmanager
def small_cgroup(limit_bytes: int) -> Iterator[str]:
    """Make a cgroup with so much memory. Without the right to, there is nothing to test, and that is said."""
    v1, v2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
    root, name = (v1, "memory.limit_in_bytes") if v1.is_dir() else (v2, "memory.max")
    group = root / f"dibs-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / name).write_text(str(limit_bytes))
    except OSError as error:
        pytest.skip(f"no cgroup of its own can be made here: {error}")
    try:
        yield str(group)
    finally:
        until(lambda: not (group / "cgroup.procs").read_text())
        group.rmdir()
