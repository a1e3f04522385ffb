"""`dibs status` and the snapshot of `dibs top`: what scripts and probes get."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Shell
from tests.waiting import until
from tests.workers import Worker


def worker(shell: Shell, *arguments: str) -> Worker:
    return Worker(
        "tasks:app", "-p", "1", *arguments, directory=shell.directory / "logs", env=shell.env, cwd=shell.directory
    )


def test_a_probe_is_content_when_each_queue_of_the_app_has_a_worker(shell: Shell) -> None:
    assert shell.dibs("status", "--check", "--app", "tasks:app").code == 9
    with worker(shell).wait_ready():
        ran = shell.dibs("status", "--check", "--app", "tasks:app")
        assert (ran.code, ran.err) == (0, "")
        assert (
            ran.out == f"ok  {shell.directory}/queue.db  1 worker; 3 queues, 0 ready, 0 running, 0 delayed, 0 dead\n"
        )

    until(lambda: shell.dibs("status", "--check", "--app", "tasks:app").code == 9)


def test_a_probe_names_the_queues_that_nobody_consumes(shell: Shell) -> None:
    shell.make_dead("boom")
    with worker(shell, "-q", "default").wait_ready():
        ran = shell.dibs("status", "--check", "--json", "--app", "tasks:app")
        assert ran.code == 9
        assert ran.json() == {
            "broker": f"{shell.directory}/queue.db",
            "ok": False,
            "workers": 1,
            "queues": 3,
            "ready": 0,
            "running": 0,
            "delayed": 0,
            "dead": 1,
            "paused": [],
            "without_consumers": ["fragile", "plain"],
        }
        assert shell.dibs("status", "--check", "default", "--app", "tasks:app").code == 0
        assert shell.dibs("status", "--check", "default", "nosuch").code == 9
        assert shell.ok("status", "--app", "tasks:app").out.endswith("without consumers: fragile, plain\n")


def test_without_an_app_all_queues_of_the_file_are_meant_and_a_worker_there_must_be(shell: Shell) -> None:
    assert shell.dibs("status", "--check", DIBS_URL="sqlite:///empty.db").code == 9

    shell.ok("send", "q", "x")
    shell.ok("pause", "q")

    ran = shell.dibs("status", "--check")
    assert ran.code == 9
    assert ran.out.endswith("1 queue, 1 ready, 0 running, 0 delayed, 0 dead; paused: q; without consumers: q\n")


def test_a_broker_that_is_not_there_is_one_line_and_another_code(shell: Shell) -> None:
    shell.refused("status", "--check", DIBS_URL="amqp://127.0.0.1:1", DIBS_APP="tasks:app", code=1)
    shell.refused("status", DIBS_URL="sqlite:////nosuch/directory/queue.db", code=1)


@pytest.mark.parametrize("term", ["dumb", "xterm"])
def test_in_a_pipe_top_prints_one_snapshot(shell: Shell, term: str) -> None:
    shell.make_dead("boom")
    shell.env["COLUMNS"] = "80"

    lines = shell.ok("top", TERM=term, TZ="UTC").out.splitlines()

    assert "\x1b" not in "".join(lines)
    assert lines[0].startswith("dibs top  ")
    assert "QUEUES 1                       ready running delayed    dead    change consumers" in lines
    assert "fragile                            0       0       0       1                   0" in lines
    assert "no workers" in lines
    assert lines[-1].endswith("  dead   tasks.fail                 ValueError: boom")


def test_on_a_dumb_terminal_top_prints_one_snapshot(shell: Shell) -> None:
    shell.make_dead("boom")
    shell.env["TERM"] = "dumb"

    ran = shell.at_terminal("top", answer="")

    assert (ran.code, ran.err) == (0, "")
    assert "ValueError: boom" in ran.out


@pytest.mark.parametrize("interval", ["0", "-1", "nan", "inf", "x"])
def test_an_interval_that_makes_no_sense_is_refused(shell: Shell, interval: str) -> None:
    assert shell.dibs("top", "--interval", interval).code == 2
