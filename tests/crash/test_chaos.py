"""`dibs chaos`, the real thing: everything is killed again and again, and nothing is lost (P1, P2, P3, P7, P8)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dibs import Dibs
from dibs.chaos.tasks import ASYNC, NAMESPACE, PLAIN
from dibs.errors import DibsError
from dibs.selection import EVERY
from tests.rabbit_node import Node
from tests.waiting import until
from tests.worlds_rabbitmq import RabbitWorld

COMMAND = [sys.executable, "-P", "-m", "dibs.cli.main", "chaos", "--json", "--patience", "60"]
#: What is made at least once in 25 seconds; executors more often.
KINDS = {"executor", "supervisor", "session", "producer", "freeze", "stop", "everybody"}
#: Seconds that a run may take on a loaded machine, besides those in which it makes faults.
SLACK = 150


def start(*arguments: str, directory: Path) -> subprocess.Popen[str]:
    """Start chaos with a temporary directory of its own."""
    former = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # ignored, where the tests run in the background
    try:
        return subprocess.Popen(
            [*COMMAND, *arguments],
            env={**os.environ, "TMPDIR": str(directory)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        signal.signal(signal.SIGINT, former)


def chaos(*arguments: str, directory: Path, code: int = 0) -> dict[str, Any]:
    """Run chaos to its end and return the report."""
    with start(*arguments, directory=directory) as process:
        try:
            out, said = process.communicate(timeout=30 + SLACK)
        except subprocess.TimeoutExpired:
            process.terminate()
            out, said = process.communicate(timeout=30)
    print(said)  # pytest shows it where the test failed
    assert process.returncode == code, said
    report: dict[str, Any] = msgspec.json.decode(out)
    assert report["told"] == report["done"] + sum(report["dead"].values()) + sum(
        len(report[name]) for name in ("wrongly_dead", "lost", "open")
    )
    assert sum(report["completed"].values()) == report["done"]
    assert sum(report["begun"].values()) == report["told"]
    return report


def workers_below(directory: Path) -> list[int]:
    """Return the processes that were started with this temporary directory."""
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if f"TMPDIR={directory}".encode() in environment.read_bytes().split(b"\0"):
                found.append(int(environment.parent.name))
    return found


@pytest.mark.timeout(30 + SLACK + 30)
def test_nothing_is_lost_on_sqlite_whoever_is_killed(tmp_path: Path) -> None:
    report = chaos("--seconds", "25", "--jobs", "1200", "--seed", "7", directory=tmp_path)

    assert report["told"] > 1000
    assert report["completed"]["1"] > 0.9 * report["done"]
    assert report["dead"].keys() == {"crashed", "failed"}
    assert report["faults"].keys() >= KINDS
    assert report["faults"]["executor"] >= 5
    assert report["redelivery"]["worker"]["count"] > 0
    assert workers_below(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def rabbit_node(tmp_path: Path) -> Iterator[Node]:
    """A server of its own: it is killed again and again, and what other tests did to theirs is not the question."""
    directory = tmp_path / "node"
    directory.mkdir()
    # What is due before its queue has a leader again is tried once more after this time; by default three minutes.
    setting = "[{rabbit, [{dead_letter_worker_publisher_confirm_timeout, 2000}]}].\n"
    (directory / "advanced.config").write_text(setting)
    with Node(directory) as node:
        node.start()
        yield node


@pytest.fixture
def breaking(rabbit_node: Node, tmp_path: Path) -> Iterator[list[str]]:
    """Options by which chaos kills the node, and has it started by whoever keeps it."""
    asked, over = tmp_path / "asked", threading.Event()

    def tend() -> None:
        while not over.wait(0.05):
            if asked.exists():
                asked.unlink()
                rabbit_node.kill()  # it is dead: this only sees its end
                rabbit_node.start()

    keeper = threading.Thread(target=tend, name="keeper")
    keeper.start()
    yield [
        *("--url", rabbit_node.url),
        *("--kill-broker", f"kill -9 $(cat {rabbit_node.pid_file})"),
        *("--start-broker", f"touch {asked}"),
    ]
    over.set()
    keeper.join()


@contextmanager
def queues_of_chaos(node: Node) -> Iterator[None]:
    """Delete what chaos leaves behind: every empty queue costs the node something."""
    world = RabbitWorld(node)
    world.namespace = NAMESPACE
    try:
        yield
    finally:
        node.start()
        world.open().queues([PLAIN, ASYNC])
        world.close()


@pytest.mark.timeout(40 + SLACK + 30)
def test_nothing_is_lost_on_rabbitmq_even_if_the_server_is_killed(
    rabbit_node: Node, breaking: list[str], tmp_path: Path
) -> None:
    directory = tmp_path / "own"
    directory.mkdir()
    with queues_of_chaos(rabbit_node):
        report = chaos(*breaking, "--seconds", "40", "--jobs", "1500", "--seed", "7", directory=directory)

    assert report["told"] > 1000
    assert report["dead"].keys() == {"crashed", "failed"}
    assert report["faults"].keys() >= KINDS | {"broker"}
    assert report["faults"]["executor"] >= 5
    assert workers_below(directory) == []
    assert list(directory.iterdir()) == []


def test_a_job_that_vanishes_is_found_to_be_lost(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/queue.db"
    stolen = 0

    with start("--url", url, "--seconds", "5", "--jobs", "500", "--patience", "3", directory=tmp_path) as process:
        thief = Dibs(url, namespace=NAMESPACE)
        while process.poll() is None:
            with suppress(DibsError):  # it does not exist yet, or is busy
                stolen += thief.broker.drop(PLAIN, EVERY)
        thief.close()
        out, said = process.communicate()

    report = msgspec.json.decode(out)
    assert process.returncode == 4, said
    assert stolen
    assert report["lost"]
    assert "BROKEN: lost" in said
    assert all(f"{job}: stored at" in said for job in report["lost"][:10])
    (kept,) = tmp_path.glob("dibs-chaos-*")
    assert str(kept) in said


def test_ctrl_c_ends_it_in_good_order_with_a_report_of_what_was_done(tmp_path: Path) -> None:
    with start("--seconds", "60", "--jobs", "2000", directory=tmp_path) as process:
        until(lambda: len(list(tmp_path.glob("*/evidence/*"))) > 8)

        process.send_signal(signal.SIGINT)

        out, said = process.communicate(timeout=60)
    report = msgspec.json.decode(out)
    assert process.returncode == 128 + signal.SIGINT, said
    assert (report["is_whole"], report["lost"]) == (False, [])
    assert workers_below(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_two_do_not_use_the_same_queues(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/queue.db"

    with start("--url", url, "--seconds", "60", directory=tmp_path) as first:
        until(lambda: len(list(tmp_path.glob("*/evidence/*"))) > 4)
        with start("--url", url, directory=tmp_path) as second:
            said = second.communicate(timeout=60)[1]
        first.send_signal(signal.SIGTERM)
        first.communicate(timeout=60)

    assert second.returncode == 2
    assert "another dibs chaos runs" in said
    assert first.returncode == 128 + signal.SIGTERM
