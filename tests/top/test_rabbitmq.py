"""`dibs top` and `dibs status` on RabbitMQ: the same screen, and a server that dies while it is open."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from dibs.message import new_id
from tests.cli.conftest import Shell
from tests.rabbit_node import Node
from tests.top.tmux import Tmux
from tests.waiting import until
from tests.workers import Worker


@pytest.fixture
def shell(shell: Shell, rabbit_node: Node) -> Iterator[Shell]:
    """A shell on RabbitMQ, with queues of its own."""
    shell.env["DIBS_URL"] = rabbit_node.url
    tasks = shell.directory / "tasks.py"
    tasks.write_text(tasks.read_text().replace("Dibs()", f"Dibs(namespace='t{new_id()[-12:]}')"))
    yield shell
    rabbit_node.start()


def test_workers_jobs_and_failures_are_seen_and_a_server_that_dies_is_told(
    shell: Shell, start_worker: Callable[..., Worker], tmux: Tmux, rabbit_node: Node
) -> None:
    start_worker("-p", "1")
    failed = shell.ok("enqueue", "tasks:app.fail").out.strip()
    until(lambda: shell.dibs("result", failed).code == 5)
    running = shell.ok("enqueue", "tasks:app.send", '"half way"').out.strip()

    tmux.type("dibs top")
    tmux.wait("tasks.send +mail +████░░░░░░ 45% half way")
    tmux.wait(r"fragile +0 +– +– +1 +0/s ")
    tmux.wait("dead   tasks.fail +ValueError: boom")

    tmux.press("p")
    tmux.wait(r"Pause queue \S+\? y/n")
    tmux.press("y")
    tmux.wait(" paused ")

    rabbit_node.kill()
    tmux.wait("shown is what was seen at")
    assert "tasks.fail" in tmux.screen

    rabbit_node.start()
    tmux.wait("shown is what was seen at", gone=True)
    tmux.wait("45% half way")
    tmux.press("2", "Down")
    tmux.wait(f"job {running}")
    tmux.press("c")
    tmux.wait(rf"Cancel tasks.send {running}\? y/n")
    tmux.press("y")
    until(lambda: shell.dibs("result", running).code == 6)


def test_a_probe_sees_busy_workers_and_a_server_that_hangs(
    shell: Shell, start_worker: Callable[..., Worker], rabbit_node: Node
) -> None:
    assert shell.dibs("status", "--check").code == 9
    start_worker("-p", "1")
    shell.ok("enqueue", "tasks:app.send", '"half way"')
    until(lambda: "half way" in shell.ok("workers", "--json").out)

    checked = shell.dibs("status", "--check", "--json")
    assert (checked.code, checked.json()["without_consumers"], checked.json()["workers"]) == (0, [], 1)
    assert "can't list" in shell.refused("status", "--check", DIBS_APP="")

    rabbit_node.freeze()
    assert rabbit_node.url.rpartition("@")[2].rstrip("/") in shell.refused("status", "--check", code=1)
