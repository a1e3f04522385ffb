"""A stage for crash tests: an app, its broker, a file of evidence, and any number of real workers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from dibs import Dibs
from dibs.ledger.life import JobInfo, Status
from dibs.message import new_id
from tests.crash import plain_tasks, tasks
from tests.evidence import Event, events
from tests.waiting import PATIENCE, until
from tests.workers import Worker
from tests.worlds import World


class Stage:
    """The producer's side and the workers of one test."""

    def __init__(self, world: World, directory: Path, stack: ExitStack, *, handover_timeout: float = 30.0) -> None:
        self.world = world
        self._handover_timeout = handover_timeout
        self.directory = directory
        self._stack = stack
        self._log = directory / "evidence.tsv"
        self.namespace = f"t{new_id()[-12:]}"
        self.app = self._make_app()

    def worker(self, *arguments: str, module: str = "tasks") -> Worker:
        """Start a worker of one of the two apps and wait until it consumes."""
        return self.start_worker(*arguments, module=module).wait_ready()

    def start_worker(self, *arguments: str, module: str = "tasks") -> Worker:
        """Start a worker, which may not live for long."""
        env = {"DIBS_TEST_NAMESPACE": self.namespace, "DIBS_TEST_LOG": str(self._log)}
        made = Worker(
            f"tests.crash.{module}:app",
            "--url",
            self.world.url,
            *arguments,
            directory=self.directory / "logs",
            env=env,
        )
        return self._stack.enter_context(made)

    def enqueue(
        self, name: str, *args: object, queue: str | None = None, module: str = "tasks", **kwargs: object
    ) -> str:
        """Hand a call of one of `tests/crash/tasks.py` or `plain_tasks.py` over; returns the job's id."""
        task = self.app.get_task(f"tests.crash.{module}.{name}")
        return task.using(queue=queue).enqueue(*args, **kwargs).id

    def job(self, id: str) -> JobInfo:  # noqa: A002 -- the word of the API
        """Return what the ledger knows of a job."""
        found = self.app.broker.ledger.job(id)
        assert found is not None
        return found

    def wait_for_status(self, id: str, status: Status) -> JobInfo:  # noqa: A002
        """Wait until a job is there, and return what is known of it."""
        until(lambda: self.status(id) == status)
        return self.job(id)

    def status(self, id: str) -> Status | None:  # noqa: A002
        """Return where a job is; None while its record is on its way (RabbitMQ)."""
        found = self.app.broker.ledger.job(id)
        return None if found is None else found.status

    def events(self, kind: str | None = None) -> list[Event]:
        """Return what the tasks recorded so far."""
        return events(self._log, kind)

    def wait_for(self, kind: str, count: int, *, within: float = PATIENCE) -> list[Event]:
        """Wait until so many events of that kind were recorded, and return them."""
        until(lambda: len(self.events(kind)) >= count, within=within)
        return self.events(kind)

    def _make_app(self) -> Dibs:
        """Return an app with the same tasks, queues and namespace as the workers', on this test's broker."""
        app = Dibs(self.world.url, namespace=self.namespace, handover_timeout=self._handover_timeout)
        for task in (*tasks.app.tasks.values(), *plain_tasks.app.tasks.values()):
            app.task(name=task.name, queue=task.options.queue)(task.function)
        app.queue("plain", type="classic")
        for name in ("left", "middle", "right"):
            app.queue(name)
        return app


@pytest.fixture
def stage(shared_world: World, tmp_path: Path) -> Iterator[Stage]:
    """A stage on each broker that processes share."""
    with ExitStack() as stack:
        made = Stage(shared_world, tmp_path / "stage", stack)
        made.directory.mkdir()
        yield made
        made.app.close()
