"""`dibs worker --metrics`: what a scraper and a prober get while jobs run, and what they can't do to the worker."""

from __future__ import annotations

import re
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.cli.conftest import Shell
from tests.waiting import until
from tests.workers import Worker

TASKS = """\
import time
from pathlib import Path

from dibs import Dibs

app = Dibs()


@app.task
def add(left: int, right: int = 2) -> int:
    return left + right


@app.task(queue="fragile", retries=0)
def fail() -> None:
    raise ValueError("boom")


@app.task(queue="slow")
def wait_for(path: str) -> None:
    while not Path(path).exists():
        time.sleep(0.02)
"""

Labels = tuple[tuple[str, str], ...]


class Scraper:
    """Asks one worker."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        found = re.search(r"http://127\.0\.0\.1:(\d+)/metrics", worker.log)
        assert found, worker.log
        self.port = int(found[1])

    def get(self, path: str) -> tuple[int, str]:
        """Return the answer's status and text."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=20) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with closing(error):
                return error.code, error.read().decode()

    def samples(self) -> dict[tuple[str, Labels], float]:
        """Return all samples by name and labels, as Prometheus reads them."""
        families = text_string_to_metric_families(self.get("/metrics")[1])
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in families
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float | None:
        """Return one sample."""
        return self.samples().get((name, tuple(sorted(labels.items()))))

    def connect(self) -> socket.socket:
        """Return a connection on which nothing was said."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    made = Shell(tmp_path)
    (tmp_path / "tasks.py").write_text(TASKS)
    return made


@contextmanager
def scraped(shell: Shell, *arguments: str) -> Iterator[Scraper]:
    options = ("tasks:app", "-p", "1", "--metrics", "0", *arguments)
    with Worker(*options, directory=shell.directory / "logs", env=shell.env, cwd=shell.directory) as worker:
        yield Scraper(worker.wait_ready())


def test_outcomes_are_counted_by_queue_and_task(shell: Shell) -> None:
    for number in range(3):
        shell.ok("enqueue", "tasks:app.add", str(number))
    shell.ok("enqueue", "tasks:app.fail")

    with scraped(shell) as scraper:
        until(lambda: scraper.value("dibs_jobs_total", queue="fragile", task="tasks.fail", outcome="dead") == 1)
        until(lambda: scraper.value("dibs_jobs_total", queue="default", task="tasks.add", outcome="done") == 3)
        samples = scraper.samples()

    add = (("queue", "default"), ("task", "tasks.add"))
    assert samples["dibs_job_duration_seconds_count", add] == 3
    assert samples["dibs_job_wait_seconds_count", add] == 3
    assert samples["dibs_job_wait_seconds_sum", add] > 0
    assert samples["dibs_job_wait_seconds_bucket", (("le", "+Inf"), *add)] == 3
    assert samples["dibs_slots", ()] == 1


def test_what_runs_and_waits_is_seen_while_it_does(shell: Shell) -> None:
    go = shell.directory / "go"
    for _ in range(3):
        shell.ok("enqueue", "tasks:app.wait_for", f'"{go}"')

    with scraped(shell) as scraper:
        until(lambda: scraper.value("dibs_jobs_running") == 1)
        until(lambda: scraper.value("dibs_queue_ready", queue="slow") == 2)
        memory = scraper.value("dibs_executor_memory_bytes", executor="0")
        go.touch()
        until(lambda: scraper.value("dibs_jobs_total", queue="slow", task="tasks.wait_for", outcome="done") == 3)

    assert memory
    assert memory > 1_000_000


def test_it_says_who_the_worker_is(shell: Shell) -> None:
    from importlib.metadata import version

    with scraped(shell) as scraper:
        until(lambda: "dibs_worker_info" in scraper.get("/metrics")[1])
        ((_, labels),) = [key for key in scraper.samples() if key[0] == "dibs_worker_info"]

        assert dict(labels)["version"] == version("dibs")
        assert dict(labels)["app"] == "tasks:app"
        assert dict(labels)["worker"].endswith(f":{scraper.worker.pid}")


def test_probes_tell_a_worker_that_takes_jobs_from_one_that_ends(shell: Shell) -> None:
    go = shell.directory / "go"
    shell.ok("enqueue", "tasks:app.wait_for", f'"{go}"')

    with scraped(shell) as scraper:
        until(lambda: scraper.value("dibs_jobs_running") == 1)
        before = scraper.get("/healthz"), scraper.get("/readyz")
        scraper.worker.signal(signal.SIGTERM)
        until(lambda: scraper.get("/readyz")[0] == 503)
        ending = scraper.get("/healthz")
        go.touch()
        code = scraper.worker.wait()

    assert before == ((200, "ok\n"), (200, "ready\n"))
    assert ending == (200, "ok\n")
    assert code == 0


def test_a_supervisor_that_does_not_turn_is_not_well() -> None:
    from typing import cast

    from dibs.worker.ending import Ending
    from dibs.worker.health import STUCK_AFTER, Health
    from dibs.worker.showing import Showing
    from dibs.worker.supply import Supply

    health = Health(cast("Supply", None), cast("Showing", None), cast("Ending", None))
    well = health.is_well
    health._turned -= STUCK_AFTER

    assert well
    assert not health.is_well
    assert not health.is_ready


def test_a_port_in_use_is_told_in_one_line_before_anything_starts(shell: Shell) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = other.getsockname()[1]

        line = shell.refused("worker", "tasks:app", "--metrics", str(port))

    assert f"--metrics {port}: Address already in use" in line
    assert not (shell.directory / "queue.db").exists()


@pytest.mark.parametrize("address", ["here", "127.0.0.1", "1:2:3", "70000", "::1:9108", "[::1]"])
def test_an_address_that_is_none_is_refused(shell: Shell, address: str) -> None:
    line = shell.refused("worker", "tasks:app", "--metrics", address)

    assert f"--metrics {address}: must be a port or host:port" in line


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET\r\n\r\n",
        b"DELETE /metrics HTTP/1.1\r\n\r\n",
        b"GET /../../etc/passwd HTTP/1.0\r\n\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.0\r\n\r\n",
        b"GET /metrics HTTP/1.0\r\n" + b"a: b\r\n" * 200 + b"\r\n",
    ],
    ids=["tls", "half", "delete", "elsewhere", "long", "headers"],
)
def test_garbage_is_refused_and_the_next_one_is_answered(shell: Shell, request_bytes: bytes) -> None:
    with scraped(shell) as scraper:
        with scraper.connect() as connection:
            connection.sendall(request_bytes)
            answer = connection.makefile("rb").read()

        assert b"200 OK" not in answer
        assert scraper.get("/metrics")[0] == 200
        assert "Traceback" not in scraper.worker.log


def test_scrapers_that_hang_harm_neither_the_worker_nor_other_scrapers(shell: Shell) -> None:
    with scraped(shell) as scraper:
        silent = [scraper.connect() for _ in range(8)]
        for connection in silent:
            connection.sendall(b"GET /metrics HT")
        shell.ok("enqueue", "tasks:app.add", "1")
        until(lambda: scraper.value("dibs_jobs_total", queue="default", task="tasks.add", outcome="done") == 1)
        ended = [connection.recv(1) for connection in silent]  # after ten seconds each is let go of
        for connection in silent:
            connection.close()

        assert ended == [b""] * 8
        assert scraper.get("/healthz") == (200, "ok\n")


def test_without_the_option_nobody_listens(shell: Shell) -> None:
    with Worker(
        "tasks:app", "-p", "1", directory=shell.directory / "logs", env=shell.env, cwd=shell.directory
    ) as worker:
        worker.wait_ready()
        sockets = Path(f"/proc/{worker.pid}/net/tcp").read_text()
        listening = {line.split()[9] for line in sockets.splitlines()[1:] if line.split()[3] == "0A"}
        own = [str(path.readlink()) for path in Path(f"/proc/{worker.pid}/fd").iterdir()]

    assert not [link for link in own if link.removeprefix("socket:[").removesuffix("]") in listening]
