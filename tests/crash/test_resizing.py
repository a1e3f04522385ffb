"""SIGTTIN and SIGTTOU: an executor more, an executor fewer; nothing that runs is disturbed."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.crash.conftest import Stage
from tests.rabbit_releases import on_one_rabbitmq
from tests.waiting import until

pytestmark = on_one_rabbitmq  # what is tested here, the server has no part in


def test_a_signal_adds_an_executor_and_its_slots(stage: Stage, tmp_path: Path) -> None:
    end = tmp_path / "end"
    worker = stage.worker("-p", "1", module="plain_tasks")
    for number in range(2):
        stage.enqueue("wait_for_file", str(number), str(end), module="plain_tasks")
    stage.wait_for("start", 1)

    worker.signal(signal.SIGTTIN)

    stage.wait_for("start", 2)
    assert len(worker.executors) == 2
    assert "slots changed slots=2" in worker.log
    end.touch()
    assert len(stage.wait_for("end", 2)) == 2


def test_a_signal_ends_the_idle_executor_first_and_the_last_one_stays(stage: Stage, tmp_path: Path) -> None:
    end = tmp_path / "end"
    worker = stage.worker("-p", "2", module="plain_tasks")
    until(lambda: len(worker.executors) == 2)
    stage.enqueue("wait_for_file", "busy", str(end), module="plain_tasks")
    (start,) = stage.wait_for("start", 1)

    worker.signal(signal.SIGTTOU)
    until(lambda: worker.executors == [start.pid])
    worker.signal(signal.SIGTTOU)

    until(lambda: "the last executor stays" in worker.log)
    assert worker.executors == [start.pid]
    end.touch()
    stage.wait_for("end", 1)
    assert len(stage.events("start")) == 1


def test_a_busy_executor_that_is_too_many_ends_behind_its_jobs(stage: Stage, tmp_path: Path) -> None:
    end = tmp_path / "end"
    worker = stage.worker("-p", "2", "-c", "2", module="plain_tasks")
    for number in range(3):
        stage.enqueue("wait_for_file", str(number), str(end), module="plain_tasks")
    pids = [event.pid for event in stage.wait_for("start", 3)]
    leaving = min(set(pids), key=pids.count)

    worker.signal(signal.SIGTTOU)
    until(lambda: "slots changed slots=2" in worker.log)
    assert len(worker.executors) == 2
    stage.enqueue("wait_for_file", "3", str(end), module="plain_tasks")
    end.touch()

    ends = stage.wait_for("end", 4)
    assert {event.key for event in ends} == {"0", "1", "2", "3"}
    assert len(stage.events("start")) == 4
    until(lambda: len(worker.executors) == 1)
    assert leaving not in worker.executors
    assert next(event.pid for event in ends if event.key == "3") != leaving
    assert "WARNING" not in worker.log
