"""P9: the programs of RabbitMQ's work-queue tutorial and dibs exchange plain messages, whoever comes first."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.interop.conftest import EXAMPLES, Bench
from tests.waiting import until


def producer(language: str, go_programs: Path) -> list[str]:
    match language:
        case "python":
            return [sys.executable, str(EXAMPLES / "new_task.py")]
        case "go":
            return [str(go_programs / "new_task")]
        case _:
            return [str(EXAMPLES / "new_task.sh")]


def worker(language: str, go_programs: Path) -> list[str]:
    return [sys.executable, str(EXAMPLES / "worker.py")] if language == "python" else [str(go_programs / "worker")]


@pytest.mark.parametrize("language", ["python", "go", "shell"])
def test_a_dibs_consumer_receives_what_a_tutorial_producer_sends(
    bench: Bench, go_programs: Path, language: str
) -> None:
    bench.dibs_worker()

    ran = bench.run([*producer(language, go_programs), "Pune", "and", "Málaga"])

    assert ran.returncode == 0, ran.stderr
    assert [event.key for event in bench.wait_for("plain")] == ["Pune and Málaga"]


@pytest.mark.parametrize("language", ["python", "go"])
def test_a_dibs_consumer_receives_what_was_sent_to_a_queue_that_the_producer_declared(
    bench: Bench, go_programs: Path, language: str
) -> None:
    ran = bench.run([*producer(language, go_programs), "early"])

    bench.dibs_worker()

    assert ran.returncode == 0, ran.stderr
    assert [event.key for event in bench.wait_for("plain")] == ["early"]


@pytest.mark.parametrize("language", ["python", "go"])
def test_a_tutorial_worker_receives_what_dibs_sends(bench: Bench, go_programs: Path, language: str) -> None:
    foreign = bench.foreign_worker(worker(language, go_programs))

    bench.app.send("task_queue", "Pune and Málaga")

    foreign.wait_for("Pune and Málaga")
    foreign.wait_for("Done")


@pytest.mark.parametrize("language", ["python", "go"])
def test_a_tutorial_worker_receives_what_waits_in_a_queue_that_dibs_declared(
    bench: Bench, go_programs: Path, language: str
) -> None:
    command = [sys.executable, "-m", "dibs.cli.main", "send", "task_queue", "early", "--url", bench.url]
    subprocess.run(command, check=True, timeout=30, capture_output=True)

    foreign = bench.foreign_worker(worker(language, go_programs))

    foreign.wait_for("early")
    foreign.wait_for("Done")


def test_dibs_and_tutorial_workers_share_a_queue_and_each_message_is_done_once(
    bench: Bench, go_programs: Path
) -> None:
    bench.dibs_worker()
    foreign = bench.foreign_worker(worker("python", go_programs))
    texts = [f"message-{number:03}" for number in range(100)]

    for text in texts:
        bench.app.send("task_queue", text)

    bench.wait_for("plain", 1)
    foreign.wait_for("Received")
    seen: list[str] = []

    def all_done() -> bool:
        theirs = [line.split()[-1] for line in foreign.log.splitlines() if "Received" in line]
        seen[:] = sorted(theirs + [event.key for event in bench.recorded()])
        return len(seen) >= len(texts)

    until(all_done)
    assert seen == texts
