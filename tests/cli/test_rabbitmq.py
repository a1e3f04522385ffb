"""The commands on RabbitMQ: the same words, and '-' where it can't count."""

from __future__ import annotations

import pytest

from dibs.message import new_id
from tests.cli.conftest import Shell
from tests.rabbit_node import Node
from tests.waiting import until
from tests.workers import Worker


@pytest.fixture
def rabbit_shell(shell: Shell, rabbit_node: Node) -> Shell:
    """A shell on RabbitMQ, with queues of its own."""
    shell.env["DIBS_URL"] = rabbit_node.url
    tasks = shell.directory / "tasks.py"
    tasks.write_text(tasks.read_text().replace("Dibs()", f"Dibs(namespace='t{new_id()[-12:]}')"))
    shell.env["DIBS_APP"] = "tasks:app"
    return shell


def test_a_dead_letter_from_its_failure_to_its_end(rabbit_shell: Shell) -> None:
    shell = rabbit_shell
    ids = [shell.ok("enqueue", "tasks:app.fail", f'"number {number}"').out.strip() for number in range(2)]
    shell.ok("worker", "-p", "1", "-q", "fragile", "--burst")

    (row,) = shell.ok("dead", "list", "--json").json()
    assert (row["queue"], row["task"], row["reason"], row["count"]) == ("fragile", "tasks.fail", "failed", 2)
    letters = shell.ok("dead", "list", "fragile", "--json").json()
    assert sorted(letter["id"] for letter in letters) == sorted(ids)
    assert {letter["reason"] for letter in letters} == {"failed"}
    assert "ValueError: number 1" in shell.ok("dead", "show", ids[1]).out
    assert shell.ok("dead", "drop", ids[0], "--yes").out == "dropped 1\n"
    assert "no dead letter" in shell.refused("dead", "show", ids[0])
    assert shell.ok("dead", "replay", ids[1]).out == "replayed 1\n"
    assert shell.ok("dead", "list", "fragile").out == "no dead letters in fragile\n"
    assert shell.ok("purge", "fragile", "--yes").out == "purged 1\n"


def test_queues_shows_what_the_server_can_count(rabbit_shell: Shell) -> None:
    shell = rabbit_shell
    shell.ok("send", "plain", "one", "two")

    lines = shell.ok("queues").out.splitlines()
    (plain,) = [info for info in shell.ok("queues", "--json").json() if info["name"] == "plain"]

    assert lines[0].startswith("amqp://")
    (line,) = [line.split() for line in lines if line.startswith("plain ")]
    assert line == ["plain", "2", "-", "-", "0", "0"]
    assert (plain["ready"], plain["running"], plain["delayed"]) == (2, None, None)


@pytest.mark.parametrize("command", [["list"], ["show", "x"], ["replay", "x"], ["drop", "--all"]], ids=" ".join)
def test_without_an_app_it_must_be_told_the_queue(rabbit_shell: Shell, command: list[str]) -> None:
    assert "--app" in rabbit_shell.refused("dead", *command, DIBS_APP="")


def test_what_it_can_not_purge_is_told_in_one_line(rabbit_shell: Shell) -> None:
    rabbit_shell.ok("send", "plain", "one")

    assert "delayed" in rabbit_shell.refused("purge", "plain", "--state", "delayed", "--yes")


@pytest.mark.parametrize("command", [["dead", "list"], ["purge", "--yes"]], ids=" ".join)
def test_a_queue_that_is_not_there_is_told_in_one_line(rabbit_shell: Shell, command: list[str]) -> None:
    assert "'nosuch'" in rabbit_shell.refused(*command, "nosuch")


def test_a_job_from_its_hand_over_to_its_result(rabbit_shell: Shell) -> None:
    shell = rabbit_shell
    done = shell.ok("enqueue", "tasks:app.add", "1").out.strip()
    failed = shell.ok("enqueue", "tasks:app.fail", '"boom"').out.strip()
    assert shell.dibs("result", done).code == 7

    shell.ok("worker", "-p", "1", "--burst")

    assert shell.ok("result", done, "--wait", "20").out == "3\n"
    dead = shell.dibs("result", failed, "--wait", "20")
    assert (dead.code, dead.out) == (5, "")
    assert "ValueError: boom" in dead.err
    listed = {job["id"]: job["status"] for job in shell.ok("jobs", "--json").json()["jobs"]}
    assert listed == {done: "done", failed: "dead"}
    whole = shell.ok("job", done, "--json").json()
    assert (whole["status"], whole["result"], whole["body"]) == ("done", 3, '{"args":[1],"kwargs":{}}')
    assert [run["outcome"] for run in whole["runs"]] == ["done"]
    assert "\nresult:\n3\n" in shell.ok("job", done).out


def test_a_cancel_is_a_request_that_a_worker_carries_out(rabbit_shell: Shell) -> None:
    shell = rabbit_shell
    job_id = shell.ok("enqueue", "tasks:app.add", "1").out.strip()

    said = shell.ok("cancel", job_id).out
    print(shell.ok("worker", "-p", "1", "--burst").err)

    assert said == f"{job_id}  requested: a worker carries it out, should the job not end before\n"
    assert "was cancelled" in shell.refused("result", job_id, "--wait", "20", code=6)


def test_a_pause_is_shown_and_ended(rabbit_shell: Shell) -> None:
    shell = rabbit_shell
    shell.ok("send", "plain", "one")

    assert shell.ok("pause", "plain").out == "paused plain\n"
    (line,) = [line.split() for line in shell.ok("queues").out.splitlines() if line.startswith("plain ")]
    assert line[-1] == "paused"
    assert shell.ok("resume", "plain").out == "resumed plain\n"
    assert "paused" not in shell.ok("queues").out


def test_workers_answer_the_roll(rabbit_shell: Shell) -> None:
    shell = rabbit_shell
    shell.ok("queues")
    assert shell.ok("workers", "--json").json() == []

    with Worker("-p", "1", directory=shell.directory / "log", env=shell.env, cwd=shell.directory) as worker:
        until(lambda: shell.ok("workers", "--json").json() != [])
        (told,) = shell.ok("workers", "--json").json()

        assert told["pid"] == worker.pid
        assert sorted(told["queues"]) == ["default", "fragile", "plain"]


def test_without_a_ledger_whoever_asks_is_told_so(rabbit_shell: Shell) -> None:
    shell = rabbit_shell
    shell.env["DIBS_URL"] += "?ledger=off" if "?" not in shell.env["DIBS_URL"] else "&ledger=off"
    job_id = shell.ok("enqueue", "tasks:app.add", "1").out.strip()

    for command in (
        ["jobs"],
        ["job", job_id],
        ["result", job_id],
        ["workers"],
        ["cancel", job_id],
        ["pause", "plain"],
    ):
        assert "ledger=off" in shell.refused(*command, code=1)
    assert shell.ok("queues").out != ""
