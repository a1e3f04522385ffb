"""What is not started in time is set aside, with real workers: `expires=` alone and with a delay."""

from __future__ import annotations

import subprocess
import sys

from tests.crash.conftest import Stage
from tests.waiting import until
from tests.workers import ROOT


def test_a_job_that_no_worker_could_start_in_time_is_dead_and_shown(stage: Stage) -> None:
    work = stage.app.get_task("tests.crash.tasks.work")
    work.using(expires=0.1, id="waited").enqueue("waited")
    work.using(delay=0.5, expires=0.2, id="delayed").enqueue("delayed")
    work.using(delay=0.5, expires=600, id="in-time").enqueue("in time")
    broker = stage.app.broker
    queue = work.options.queue

    stage.worker("-p", "1")

    stage.wait_for("end", 1)
    until(lambda: len(broker.dead(queue, limit=10)) == 2)
    assert {event.key for event in stage.events("start")} == {"in time"}
    dead = {letter.message.id: letter for letter in broker.dead(queue, limit=10)}
    assert {name: letter.reason for name, letter in dead.items()} == {"waited": "expired", "delayed": "expired"}
    assert all(letter.error.startswith("Expired ") for letter in dead.values())
    shown = subprocess.run(
        [
            sys.executable,
            "-m",
            "dibs.cli.main",
            "dead",
            "list",
            f"{stage.app.namespace}.{queue}",
            "--url",
            stage.world.url,
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
        cwd=ROOT,
    )
    assert shown.stdout.count("expired") == 2
