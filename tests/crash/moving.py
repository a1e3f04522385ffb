"""A route for the tests of `dibs move`: two stores with the same namespace, and real movers between them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from dibs import Dibs
from dibs.broker import Broker
from dibs.brokers import connect
from dibs.message import new_id
from dibs.moving.ends import Piece
from dibs.moving.mover import Mover
from tests.crash import tasks
from tests.evidence import Event, events
from tests.rabbit_releases import NAMES, Nodes
from tests.workers import ROOT, Worker
from tests.worlds_rabbitmq import RabbitWorld

#: Every direction there is, with each release.
ROUTES = [
    "sqlite-sqlite",
    *(f"{origin}-{target}" for name in NAMES for origin, target in (("sqlite", name), (name, "sqlite"))),
]
#: Each broker as the source and as the target, once.
EACH_END = ["sqlite-rabbitmq", "rabbitmq-sqlite"]

#: Imports what a mover needs before it says that it is there, so that a kill after that hits its work.
_SCRIPT = """\
import sys
import dibs.moving.mover, dibs.brokers.sqlite, dibs.brokers.rabbitmq, tests.crash.tasks
from dibs.cli.main import main
print("here", flush=True)
sys.exit(main(["move", *sys.argv[1:]]))
"""


class Route:
    """Where jobs are, and where they are to be."""

    def __init__(self, name: str, nodes: Nodes, directory: Path) -> None:
        self.namespace = f"t{new_id()[-12:]}"
        self.directory = directory
        self._stack = ExitStack()
        self._log = directory / "evidence.tsv"
        origin, target = name.split("-")
        self.origin_url = self._url(origin, nodes, "origin.db")
        self.target_url = self._url(target, nodes, "target.db")
        self.origin, self.target = self.open(self.origin_url), self.open(self.target_url)
        #: What was named as possibly sent twice.
        self.doubts: list[str] = []

    def open(self, url: str, **options: float) -> Broker:
        """Return a broker that is closed at the end."""
        broker = connect(url, namespace=self.namespace, **options)  # type: ignore[arg-type]  # handover_timeout
        self._stack.callback(broker.close)
        return broker

    def app(self, url: str) -> Dibs:
        """Return a producer's app with the tasks of the workers."""
        app = Dibs(url, namespace=self.namespace)
        for task in tasks.app.tasks.values():
            app.task(name=task.name, queue=task.options.queue)(task.function)
        for queue in ("left", "middle", "right"):
            app.queue(queue)
        self._stack.callback(app.close)
        return app

    def worker(self, url: str, *arguments: str) -> Worker:
        """Start a worker on one of the two and wait until it consumes."""
        made = Worker(
            "tests.crash.tasks:app", "--url", url, *arguments, directory=self.directory / "logs", env=self._env
        )
        return self._stack.enter_context(made).wait_ready()

    def mover(self, origin: Broker | None = None, target: Broker | None = None) -> Mover:
        """Return a mover in this process."""
        return Mover(
            origin or self.origin,
            target or self.target,
            types={},
            on_doubt=self._doubt,
            on_progress=lambda tally: None,
        )

    def start(self, *arguments: str) -> Process:
        """Start a mover as a process of its own, which has all imported when this returns."""
        command = [self.origin_url, self.target_url, "--app", "tests.crash.tasks:app", "--yes", *arguments]
        return self._stack.enter_context(Process(command, self._env))

    def events(self, kind: str) -> list[Event]:
        """Return what the tasks have recorded, on both sides."""
        return events(self._log, kind)

    def wait_for_ends(self, keys: set[str], *, within: float) -> list[Event]:
        """Wait until these have ended, and return all ends. Looks rarely: that takes time from the workers."""
        deadline = time.monotonic() + within
        while True:
            ends = self.events("end")
            missing = keys - {event.key for event in ends}
            if not missing:
                return ends
            if time.monotonic() > deadline:
                raise AssertionError(f"{len(missing)} of {len(keys)} jobs have not ended: {sorted(missing)[:10]}")
            time.sleep(0.5)

    def close(self) -> None:
        """Take it all down."""
        self._stack.close()

    @property
    def _env(self) -> dict[str, str]:
        return {"DIBS_TEST_NAMESPACE": self.namespace, "DIBS_TEST_LOG": str(self._log)}

    def _url(self, name: str, nodes: Nodes, file: str) -> str:
        if name == "sqlite":
            return f"sqlite:///{self.directory / file}"
        world = RabbitWorld(nodes[name])
        world.namespace = self.namespace
        self._stack.callback(world.close)
        world.open().queues(["default", "async", "left", "middle", "right", "plain"])
        return world.url

    def _doubt(self, pieces: Sequence[Piece]) -> None:
        self.doubts += [piece.id for piece in pieces]


class Process:
    """One `dibs move`."""

    def __init__(self, arguments: Sequence[str], env: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SCRIPT, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, **env},
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "here\n", self._process.communicate()

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self.kill()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def kill(self) -> str:
        """Kill it (SIGKILL) and return what it said to stderr."""
        self._process.kill()
        return self._process.communicate()[1]

    def end(self, timeout: float = 60.0) -> tuple[int, str, str]:
        """Wait for its end; return exit code, output and errors."""
        out, err = self._process.communicate(timeout=timeout)
        return self._process.returncode, out, err


def doubts_in(errors: str) -> list[str]:
    """Return the ids that a mover named as possibly sent twice."""
    return re.findall(r"^possibly twice: (\S+) in queue", errors, re.MULTILINE)
