"""`--max-memory` and `--max-jobs`: an executor is replaced between jobs, the new one first."""

from __future__ import annotations

import pytest

from tests.crash.conftest import Stage
from tests.rabbit_releases import on_one_rabbitmq
from tests.waiting import until

pytestmark = on_one_rabbitmq  # what is tested here, the server has no part in


def test_an_executor_that_has_grown_is_replaced_between_jobs(stage: Stage) -> None:
    worker = stage.worker("-p", "1", "--max-memory", "150")
    (first,) = worker.executors
    grow = stage.app.get_task("tests.crash.tasks.grow")
    work = stage.app.get_task("tests.crash.tasks.work")

    stage.app.enqueue_many([grow.prepare("large", 200)])
    stage.wait_for("end", 1)
    until(lambda: worker.executors != [first] and len(worker.executors) == 1)
    stage.app.enqueue_many([work.prepare(str(number)) for number in range(20)])

    ends = stage.wait_for("end", 21)
    assert first not in {end.pid for end in ends if end.key != "large"}
    assert "MB in use" in worker.log
    assert "WARNING" not in worker.log


@pytest.mark.parametrize("slots", ["1", "4"])
def test_executors_are_replaced_after_so_many_jobs_and_every_job_is_done_once(stage: Stage, slots: str) -> None:
    worker = stage.worker("-p", "2", "-c", slots, "--max-jobs", "40")
    work = stage.app.get_task("tests.crash.tasks.work")

    stage.app.enqueue_many([work.prepare(str(number), 0.01 * int(slots)) for number in range(400)])

    ends = stage.wait_for("end", 400)
    assert len(ends) == 400
    assert len({end.pid for end in ends}) > 2
    assert len(stage.events("start")) == 400
    until(lambda: len(worker.executors) == 2)
    assert "WARNING" not in worker.log
