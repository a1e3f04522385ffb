"""`dibs doctor`: what it prints, its exit codes, and that it changes nothing."""

from __future__ import annotations

import signal

from tests.cli.conftest import TASKS, Shell
from tests.waiting import until
from tests.workers import Worker


def test_where_nothing_is_wrong_it_says_so(shell: Shell) -> None:
    shell.ok("worker", "tasks:app", "-p", "1", "--burst")

    ran = shell.ok("doctor", "--app", "tasks:app", "--deep")

    first, last = ran.out.splitlines()
    assert first.startswith(f"{shell.directory}/queue.db  SQLite 3.")
    assert last == "nothing wrong"


def test_a_problem_is_told_with_why_and_what_mends_it(shell: Shell) -> None:
    shell.ok("send", "plain", "hello")

    ran = shell.dibs("doctor")

    assert ran.code == 9
    assert ran.out.splitlines()[1:] == [
        "",
        "problem: 1 job ready in queue 'plain', and nobody consumes it.  [nobody-consumes]",
        "   why: They are not started before a worker of that queue is.",
        "  mend: dibs worker module:app -q plain",
    ]


def test_a_warning_alone_is_no_failure(shell: Shell) -> None:
    shell.ok("send", "plain", "hello")
    shell.ok("pause", "plain")

    ran = shell.ok("doctor", "--json")

    (told,) = ran.json()["findings"]
    assert set(told) == {"name", "severity", "what", "why", "mend"}
    assert (told["name"], told["severity"]) == ("paused", "warning")
    assert shell.ok(*told["mend"].split()[1:]).out == "resumed plain\n"


def test_no_file_is_a_problem_and_none_is_made(shell: Shell) -> None:
    ran = shell.dibs("doctor", "--app", "tasks:app", "--json")

    assert ran.code == 9
    assert [told["name"] for told in ran.json()["findings"]] == ["store-unusable"]
    assert not (shell.directory / "queue.db").exists()


def test_a_server_that_does_not_answer_is_an_error(shell: Shell) -> None:
    assert "can't be reached" in shell.refused("doctor", "--url", "amqp://127.0.0.1:1/", code=1)


def test_what_is_in_one_process_alone_can_not_be_examined(shell: Shell) -> None:
    assert "memory://" in shell.refused("doctor", "--url", "memory://")


def test_it_knows_from_running_workers_what_they_know_and_what_they_hold(shell: Shell) -> None:
    (shell.directory / "newer.py").write_text(TASKS.replace("def add", "def subtract"))
    with Worker(
        "tasks:app", "-q", "default", "-p", "1", directory=shell.directory / "log", env=shell.env, cwd=shell.directory
    ) as worker:
        worker.wait_ready()
        until(lambda: shell.ok("workers", "--json").json() != [])
        shell.ok("enqueue", "newer:app.subtract", "1")

        told = {each["name"]: each for each in shell.dibs("doctor", "--json").json()["findings"]}
        worker.signal(signal.SIGSTOP)
        until(lambda: "stopped-worker" in shell.dibs("doctor").out)
        worker.signal(signal.SIGCONT)

    assert set(told) == {"unknown-task"}
    assert "1 job of task 'newer.subtract' in queue 'default'" in told["unknown-task"]["what"]
