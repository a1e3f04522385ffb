"""The commands on RabbitMQ: the same words, and '-' where it can't count."""

from __future__ import annotations

import pytest

from dibs.message import new_id
from tests.cli.conftest import Shell
from tests.rabbit_node import Node


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
