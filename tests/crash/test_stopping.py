"""How a worker ends: SIGTERM, grace, a second signal, a burst, a reload, an app that can't be imported."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.crash.conftest import Stage
from tests.waiting import until
from tests.workers import Worker
from tests.worlds_sqlite import SqliteWorld


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_running_job_may_finish(stage: Stage, number: signal.Signals) -> None:
    worker = stage.worker("-p", "1")
    stage.enqueue("work", "running", 1.0)
    stage.enqueue("work", "waiting", 0.0)
    stage.wait_for("start", 1)

    worker.signal(number)

    assert worker.wait() == 0
    assert [event.key for event in stage.events("end")] == ["running"]
    stage.worker("-p", "1")
    assert [event.key for event in stage.wait_for("end", 2)] == ["running", "waiting"]


def test_a_signal_to_all_processes_of_a_worker_is_no_crash(stage: Stage) -> None:
    worker = stage.worker("-p", "1")
    stage.enqueue("work", "running", 1.0)
    stage.wait_for("start", 1)

    for pid in (*worker.executors, worker.pid):
        os.kill(pid, signal.SIGTERM)

    assert worker.wait() == 0
    assert [event.key for event in stage.events("end")] == ["running"]


def test_a_stopping_worker_gives_back_those_that_were_to_run_alone(stage: Stage) -> None:
    stopping = stage.worker("-p", "1", "-c", "2", "--grace", "60")
    stage.enqueue("work", "a", 2.0)
    stage.enqueue("work", "b", 2.0)
    (start, _) = stage.wait_for("start", 2)

    stopping.signal(signal.SIGTERM)
    until(lambda: "stopping" in stopping.log)
    os.kill(start.pid, signal.SIGKILL)

    assert stopping.wait(10.0) == 0
    stage.worker("-p", "2")
    assert {event.key for event in stage.wait_for("end", 2)} == {"a", "b"}


def test_what_waits_to_run_alone_is_given_back_as_soon_as_the_worker_stops(stage: Stage) -> None:
    stopping = stage.worker("-p", "1", "-c", "2", "--grace", "60")
    stage.enqueue("work", "a", 6.0)
    stage.enqueue("work", "b", 6.0)
    (start, _) = stage.wait_for("start", 2)
    os.kill(start.pid, signal.SIGKILL)
    stage.wait_for("start", 3)

    stopping.signal(signal.SIGTERM)
    stage.worker("-p", "1")

    stage.wait_for("start", 4)
    assert stage.events("end") == []


def test_after_the_grace_the_rest_is_handed_back_at_no_cost(stage: Stage) -> None:
    worker = stage.worker("-p", "1", "--grace", "0.3")
    stage.enqueue("work", "long", 1.5)
    stage.wait_for("start", 1)

    worker.signal(signal.SIGTERM)

    assert worker.wait() == 0
    assert "handed back" in worker.log
    assert stage.events("end") == []
    stage.worker("-p", "1")
    stage.wait_for("end", 1)
    assert len(stage.events("start")) == 2


def test_a_second_signal_hands_back_at_once(stage: Stage) -> None:
    worker = stage.worker("-p", "1", "--grace", "60")
    stage.enqueue("work", "long", 60.0)
    stage.wait_for("start", 1)

    worker.signal(signal.SIGTERM)
    until(lambda: "stopping" in worker.log)
    worker.signal(signal.SIGTERM)

    assert worker.wait(10.0) == 0
    assert "handed back" in worker.log


def test_a_stopping_worker_does_not_keep_what_others_could_do(stage: Stage) -> None:
    stopping = stage.worker("-p", "1", "-q", "left", "-q", "middle", "-q", "right")
    stage.enqueue("work", "long", 3.0, queue="left")
    stage.wait_for("start", 1)
    stage.enqueue("work", "short-1", queue="middle")
    stage.enqueue("work", "short-2", queue="right")

    stopping.signal(signal.SIGTERM)
    stage.worker("-p", "1")

    first, second, _ = stage.wait_for("end", 3)
    assert {first.key, second.key} == {"short-1", "short-2"}


def test_a_burst_ends_when_nothing_is_ready(stage: Stage) -> None:
    for number in range(30):
        stage.enqueue("work", str(number))

    worker = stage.worker("-p", "2", "--burst")

    assert worker.wait() == 0
    assert len(stage.events("end")) == 30


def test_coroutines_and_functions_run_side_by_side(stage: Stage) -> None:
    stage.worker("-p", "1", "-c", "4")

    began = time.monotonic()
    for number in range(3):
        stage.enqueue("awork", f"async-{number}", 1.0)
    stage.enqueue("work", "plain", 1.0)

    stage.wait_for("start", 4)
    assert len(stage.events("end")) < 4 or time.monotonic() - began < 2.0
    stage.wait_for("end", 4)
    assert len({event.pid for event in stage.events("end")}) == 1


def test_an_idle_worker_sleeps(stage: Stage) -> None:
    worker = stage.worker("-p", "1")
    stage.enqueue("work", "warm-up")
    stage.wait_for("end", 1)
    before = context_switches(worker)

    time.sleep(3.0)

    # A poll at 10 Hz would be 30 a process. SQLite looks at its data version once a second; RabbitMQ's heartbeat
    # and its thread's timers wake some too.
    assert context_switches(worker) - before < 25


def context_switches(worker: Worker) -> int:
    """Return how often the threads of a worker's tree went to sleep since they began."""
    total = 0
    for pid in (worker.pid, *worker.executors):
        for status in Path(f"/proc/{pid}/task").glob("*/status"):
            line = next(line for line in status.read_text().splitlines() if line.startswith("voluntary"))
            total += int(line.split()[1])
    return total


def test_an_app_that_can_not_be_imported_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("raise RuntimeError('at import')\n")

    with Worker("broken:app", "-p", "3", directory=tmp_path / "logs", env={}, cwd=tmp_path) as worker:
        assert worker.wait() == 2

    assert worker.log.count("RuntimeError: at import") == 1


def test_reload_starts_anew_when_a_file_changes_and_waits_out_an_error(tmp_path: Path) -> None:
    world = SqliteWorld(tmp_path)
    source = tmp_path / "shop.py"
    code = (
        "import os\nfrom dibs import Dibs, Message\nfrom tests.evidence import record\n"
        f"app = Dibs({world.url!r})\n"
        "@app.consumer('plain')\n"
        f"def take(message: Message) -> None: record({str(tmp_path / 'log')!r}, 'VERSION', message.text)\n"
    )
    source.write_text(code.replace("VERSION", "one"))
    env = {"PYTHONPATH": str(Path(__file__).parent.parent.parent)}

    with Worker("shop:app", "-p", "1", "--reload", directory=tmp_path / "logs", env=env, cwd=tmp_path) as worker:
        worker.wait_ready()
        source.write_text("this is no Python\n")
        until(lambda: "SyntaxError" in worker.log)
        source.write_text(code.replace("VERSION", "two") + "# longer\n")
        until(lambda: worker.log.count("worker ready") == 2)
        worker.signal(signal.SIGTERM)
        assert worker.wait() == 0
    world.close()
