"""`dibs cancel`, `pause`, `resume`, `workers` and `queues --watch`."""

from __future__ import annotations

import datetime as dt
import os
import pty
import re
import signal
import subprocess
from contextlib import closing

import pytest

from dibs.brokers import connect
from dibs.message import new_id
from tests.cli.conftest import DIBS, Shell
from tests.waiting import receive, until
from tests.workers import Worker


def enqueue(shell: Shell, *arguments: str) -> str:
    """Hand a job over and return its id."""
    return shell.ok("enqueue", "tasks:app.add", "1", *arguments).out.strip()


def start_worker(shell: Shell, *arguments: str) -> Worker:
    return Worker(*arguments, directory=shell.directory / "log", env=shell.env, cwd=shell.directory)


def test_what_waits_is_cancelled_and_each_is_told(shell: Shell) -> None:
    ready, delayed = enqueue(shell), enqueue(shell, "--delay", "60")

    ran = shell.ok("cancel", ready, delayed, ready)

    assert ran.out.splitlines() == [f"{ready}  cancelled", f"{delayed}  cancelled"]
    assert shell.ok("cancel", ready).out == f"{ready}  over: it had ended already\n"
    shell.ok("worker", "tasks:app", "-p", "1", "--burst")
    assert [job["status"] for job in shell.ok("jobs", "--json").json()["jobs"]] == ["cancelled", "cancelled"]


def test_a_running_job_says_that_its_cancel_was_requested(shell: Shell) -> None:
    job_id = enqueue(shell)
    with (
        closing(connect(f"sqlite:///{shell.directory / 'queue.db'}")) as broker,
        closing(broker.consume(["default"], limit=1)) as consumer,
    ):
        receive(consumer, 1)
        before = shell.ok("job", job_id, "--json").json()

        shell.ok("cancel", job_id)

        page, whole = shell.ok("job", job_id).out, shell.ok("job", job_id, "--json").json()

    assert before["cancel_asked"] is None
    assert re.search(r"^cancel: +requested \d+s ago$", page, re.MULTILINE)
    assert whole["status"] == "running"
    assert dt.datetime.fromisoformat(whole["cancel_asked"]).utcoffset() == dt.timedelta(0)


def test_an_unknown_id_among_others_is_named_and_the_others_are_cancelled(shell: Shell) -> None:
    job_id, nobodys = enqueue(shell), new_id()

    ran = shell.dibs("cancel", nobodys, job_id)

    assert (ran.code, ran.out) == (2, f"{job_id}  cancelled\n")
    assert nobodys in ran.err
    assert ran.err.count("\n") == 1


def test_a_paused_queue_says_so_and_nothing_of_it_is_started(shell: Shell) -> None:
    job_id = enqueue(shell)
    assert shell.ok("pause", "default").out == "paused default\n"
    other = shell.ok("enqueue", "tasks:app.fail").out.strip()

    with start_worker(shell, "tasks:app", "-p", "1"):
        assert shell.dibs("result", other, "--wait").code == 5
        assert shell.dibs("result", job_id).code == 7
        header, *lines = shell.ok("queues").out.splitlines()[1:]
        assert shell.ok("resume", "default").out == "resumed default\n"
        assert shell.ok("result", job_id, "--wait").out == "3\n"

    assert header.split()[-1] == "state"
    assert [line.split()[-1] for line in lines if line.startswith("default")] == ["paused"]
    assert "state" not in shell.ok("queues").out


def test_a_burst_does_not_wait_for_what_is_paused(shell: Shell) -> None:
    job_id = enqueue(shell)
    shell.ok("pause", "default")

    shell.ok("worker", "tasks:app", "-p", "1", "--burst")

    assert shell.dibs("result", job_id).code == 7


def test_pausing_what_is_not_there_yet_and_resuming_what_is_not_paused_say_so(shell: Shell) -> None:
    enqueue(shell)

    assert shell.ok("pause", "default", "later").out == "paused default\npaused later (there is no such queue yet)\n"
    assert shell.ok("resume", "later", "never").out == "resumed later\nnever was not paused\n"


@pytest.mark.parametrize("command", ["pause", "resume"])
def test_a_name_that_no_queue_can_have_is_refused(shell: Shell, command: str) -> None:
    assert "'a*'" in shell.refused(command, "default", "a*")


def test_workers_are_shown_while_they_live(shell: Shell) -> None:
    shell.ok("queues", "--app", "tasks:app")
    assert shell.ok("workers").out.splitlines()[1:] == ["no workers"]

    with start_worker(shell, "tasks:app", "-p", "1", "-c", "3", "-q", "default").wait_ready() as worker:
        until(lambda: shell.ok("workers", "--json").json() != [])
        header, line = shell.ok("workers").out.splitlines()[1:]
        (whole,) = shell.ok("workers", "--json").json()
        worker.signal(signal.SIGTERM)
        worker.wait()

    assert header.split() == [
        "worker",
        "queues",
        "slots",
        "running",
        "done",
        "failed",
        "memory",
        "started",
        "version",
    ]
    assert line.split()[0].endswith(f":{worker.pid}")
    assert line.split()[1:5] == ["default", "3", "0", "0"]
    assert (whole["pid"], whole["slots"], len(whole["executors"])) == (worker.pid, 3, 1)
    assert shell.ok("workers", "--json").json() == []


def test_watched_queues_are_shown_again_and_again_in_a_pipe(shell: Shell) -> None:
    enqueue(shell)
    with subprocess.Popen(
        [*DIBS, "queues", "--watch", "0.1"], cwd=shell.directory, env=shell.env, stdout=subprocess.PIPE, text=True
    ) as watching:
        assert watching.stdout is not None
        lines = [watching.stdout.readline().rstrip("\n") for _ in range(12)]
        watching.send_signal(signal.SIGINT)
        assert watching.wait(20) == 130

    table = lines[:5]
    assert table[2].split() == ["default", "1", "0", "0", "0", "0"]
    assert lines == [*table, "", *table, ""]


def test_watched_queues_are_one_array_a_line_for_programs(shell: Shell) -> None:
    import json

    enqueue(shell)
    with subprocess.Popen(
        [*DIBS, "queues", "--watch=0.1", "--json"], cwd=shell.directory, env=shell.env, stdout=subprocess.PIPE
    ) as watching:
        assert watching.stdout is not None
        seen = [json.loads(watching.stdout.readline()) for _ in range(2)]
        watching.kill()

    assert [info["name"] for info in seen[1]] == ["default", "fragile", "plain"]


def test_watched_queues_are_redrawn_in_place_at_a_terminal(shell: Shell) -> None:
    enqueue(shell)
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*DIBS, "queues", "--watch", "0.1"], cwd=shell.directory, env=shell.env, stdout=theirs
    ) as watching:
        os.close(theirs)
        said = b""
        while said.count(b"\x1b[H") < 3:
            said += os.read(ours, 10_000)
        watching.kill()
    os.close(ours)

    assert said.count(b"\x1b[2J") == 1
    assert said.count(b"default") >= 2


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "soon"])
def test_an_interval_that_is_none_is_refused(shell: Shell, seconds: str) -> None:
    ran = shell.dibs("queues", f"--watch={seconds}")

    assert (ran.code, ran.out) == (2, "")
    assert "--watch" in ran.err
