"""`dibs worker` from the outside: its options, its ends, and what it keeps to itself."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.conftest import Shell
from tests.rabbit_node import Node
from tests.waiting import until
from tests.workers import Worker

SECRET = "s3cr3t"


@contextmanager
def running(shell: Shell, *arguments: str) -> Iterator[Worker]:
    """A worker in the shell's directory, once it consumes."""
    with Worker(*arguments, directory=shell.directory / "logs", env=shell.env, cwd=shell.directory) as worker:
        yield worker.wait_ready()


def test_its_first_line_says_where_what_and_how_much(shell: Shell) -> None:
    with running(shell, "tasks:app", "-p", "1", "-c", "2") as worker:
        (line,) = [line for line in worker.log.splitlines() if "worker ready" in line]

    assert f"broker={shell.directory / 'queue.db'}" in line
    assert "queues=default,fragile,plain" in line
    assert "slots=2" in line


def test_a_burst_ends_when_nothing_is_ready(shell: Shell) -> None:
    for number in range(3):
        shell.ok("enqueue", "tasks:app.add", str(number))
    shell.ok("enqueue", "tasks:app.add", "9", "--delay", "60")

    shell.ok("worker", "tasks:app", "-p", "1", "--burst")

    counts = shell.counts("default")
    assert (counts.ready, counts.delayed) == (0, 1)


def test_the_app_may_be_named_by_the_environment(shell: Shell) -> None:
    shell.ok("worker", "-p", "1", "--burst", DIBS_APP="tasks:app")


def test_only_the_queues_that_were_named_are_worked_on(shell: Shell) -> None:
    shell.ok("enqueue", "tasks:app.add", "1")
    shell.ok("send", "plain", "x", "--app", "tasks:app")

    shell.ok("worker", "tasks:app", "-p", "1", "-q", "plain", "-q", "fragile", "--burst")

    assert shell.counts("default").ready == 1
    assert shell.counts("plain").ready == 0


def test_a_stranger_to_the_app_is_set_aside(shell: Shell) -> None:
    shell.ok("send", "default", "no consumer here")
    shell.ok("send", "plain", "bury")

    shell.ok("worker", "tasks:app", "-p", "1", "--burst")

    for queue, reason in (("default", "no-consumer"), ("plain", "buried")):
        (letter,) = shell.ok("dead", "list", queue, "--json").json()
        assert letter["reason"] == reason


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_ends_in_order(shell: Shell, number: signal.Signals) -> None:
    with running(shell, "tasks:app", "-p", "2") as worker:
        worker.signal(number)

        assert worker.wait() == 0
        assert "Traceback" not in worker.log


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nosuch:app"], "no module 'nosuch'"),
        (["tasks:nosuch"], "has no 'nosuch'"),
        (["tasks:listen"], "no Dibs app"),
        (["nosuch.py:app"], "no file"),
        (["tasks:app", "-c", "0"], "-c 0"),
        (["tasks:app", "-p", "0"], "-p 0"),
        (["tasks:app", "--grace", "-1"], "--grace -1"),
        (["tasks:app", "-q", "nosuch"], "'nosuch'"),
        (["tasks:app", "--url", "ampq://host"], "'ampq'"),
        (["tasks:app", "--url", f"amqp://user:{SECRET}@host:port"], "host:port"),
        (["empty:app"], "nothing to work on"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_it_can_not_work_with_is_told_in_one_line(shell: Shell, arguments: list[str], said: str) -> None:
    (shell.directory / "empty.py").write_text("from dibs import Dibs\napp = Dibs()\n")

    line = shell.refused("worker", *arguments)

    assert said in line
    assert SECRET not in line


def test_a_start_hook_that_fails_is_shown_once(shell: Shell) -> None:
    (shell.directory / "hooked.py").write_text(
        "from tasks import app\n@app.on_start\ndef connect(): raise ValueError('no route')\n"
    )

    ran = shell.dibs("worker", "hooked:app", "-p", "2")

    assert ran.code == 2
    assert ran.err.count("ValueError: no route") == 1


def command_lines(worker: Worker) -> list[str]:
    return [Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode() for pid in worker.executors]


def test_the_executors_command_lines_show_neither_url_nor_app(shell: Shell) -> None:
    url = f"sqlite:///{shell.directory}/named.db"
    with running(shell, "tasks:app", "-p", "2", "--url", url) as worker:
        until(lambda: len(worker.executors) == 2)
        lines = command_lines(worker)

    assert all("dibs" in line for line in lines)
    assert not any("named.db" in line for line in lines)


@pytest.fixture(scope="module")
def secret_url(rabbit_node: Node) -> str:
    """The node's URL for a user whose password is found nowhere else."""
    rabbit_node.ctl("add_user", "shop", SECRET)
    rabbit_node.ctl("set_permissions", "shop", ".*", ".*", ".*")
    return rabbit_node.url.replace("guest:guest@", f"shop:{SECRET}@")


def test_on_rabbitmq_the_password_is_never_shown(shell: Shell, secret_url: str) -> None:
    shell.env["DIBS_URL"] = secret_url
    sent = shell.ok("send", "plain", "secretly", "--app", "tasks:app")
    seen = shell.ok("queues", "--app", "tasks:app")

    with running(shell, "tasks:app", "-p", "1") as worker:
        until(lambda: "heard secretly" in worker.log)
        lines = command_lines(worker)
        worker.signal(signal.SIGTERM)
        worker.wait()

    assert "shop:***@127.0.0.1" in seen.out
    assert "shop:***@127.0.0.1" in worker.log
    for text in (sent.out, sent.err, seen.out, seen.err, worker.log, *lines):
        assert SECRET not in text


COMMANDS = [
    ["send", "q", "x"],
    ["enqueue", "tasks:app.add", "1"],
    ["queues", "q"],
    ["dead", "list", "q"],
    ["purge", "q", "--yes"],
]


@pytest.mark.parametrize("command", [["send", "q", "x"], ["worker", "tasks:app", "-p", "1"]], ids=" ".join)
def test_a_login_that_is_refused_is_told_in_one_line(shell: Shell, rabbit_node: Node, command: list[str]) -> None:
    url = rabbit_node.url.replace("guest:guest@", f"guest:{SECRET}@")

    ran = shell.dibs(*command, "--url", url)

    assert ran.code == 1
    assert SECRET not in ran.err
    assert "guest" in ran.err
    assert "Traceback" not in ran.err
    assert "refuse" in ran.err


def test_a_virtual_host_that_is_not_there_is_told_in_one_line(shell: Shell, rabbit_node: Node) -> None:
    said = shell.refused("queues", "q", "--url", f"{rabbit_node.url}nosuch", code=1)

    assert "nosuch" in said


@pytest.fixture
def nobody() -> Iterator[str]:
    """A URL where nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound, so that nobody else gets the port; not listening
        yield f"amqp://user:{SECRET}@127.0.0.1:{held.getsockname()[1]}/"


def test_a_server_that_is_not_there_is_told_in_one_line(shell: Shell, nobody: str) -> None:
    said = shell.refused("queues", "q", "--url", nobody, code=1)

    assert "user:***@127.0.0.1" in said
    assert SECRET not in said


@pytest.mark.parametrize(
    ("command", "url"),
    [
        (COMMANDS[0], f"amqp://user:{SECRET}/x@host"),
        (COMMANDS[1], f"ampq://user:{SECRET}@host"),
        (COMMANDS[2], f"amqp://user:{SECRET}@host?hartbeat=1"),
        (COMMANDS[3], f"user:{SECRET}@host"),
        (COMMANDS[4], f"amqp://user:{SECRET}@host:port"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_url_with_a_typo_is_told_in_one_line_without_its_password(
    shell: Shell, command: list[str], url: str
) -> None:
    said = shell.refused(*command, "--url", url)

    assert "URL" in said or "option" in said
    assert f":{SECRET}" not in said


def test_what_the_parser_can_not_read_is_repeated_without_the_password(shell: Shell) -> None:
    ran = shell.dibs("queues", "--ulr", "x", f"--frob=amqp://user:{SECRET}@host/")

    assert ran.code == 2
    assert "user:***@host" in ran.err
    assert SECRET not in ran.err


def test_a_traceback_of_the_apps_module_shows_no_password(shell: Shell) -> None:
    (shell.directory / "leaky.py").write_text(
        f"from dibs import Dibs\napp = Dibs('amqp://user:{SECRET}@host:port/')\n"
    )

    for command in (["worker", "leaky:app"], ["enqueue", "leaky:app.x"]):
        ran = shell.dibs(*command)
        assert ran.code == 2
        assert "leaky.py" in ran.err
        assert SECRET not in ran.err


def test_its_log_may_be_json(shell: Shell) -> None:
    shell.ok("enqueue", "tasks:app.fail", '"s3cr3t"')

    ran = shell.ok("worker", "tasks:app", "-p", "1", "--burst", "--log", "json")

    lines = [json.loads(line) for line in ran.err.splitlines()]
    ready, dead = (
        next(line for line in lines if line["message"] == text) for text in ("worker ready", "job set aside")
    )
    assert (ready["slots"], ready["tasks"]) == (1, 2)
    assert (dead["level"], dead["task"], dead["queue"], dead["attempt"]) == ("ERROR", "tasks.fail", "fragile", 1)
