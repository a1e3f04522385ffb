"""Whatever strangers send, the worker goes on, and every message is either run or dead (P7, P9)."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from dibs import Dibs
from tests.conftest import make_world
from tests.crash.strangers import digest
from tests.evidence import events
from tests.raw_amqp import FRAME_BYTES, RawPublisher, long, properties, short, table
from tests.strange import BODIES, MESSAGES, QUEUES, TASKS, Strange
from tests.waiting import until
from tests.workers import ROOT, Worker, is_alive
from tests.worlds import World
from tests.worlds_rabbitmq import RabbitWorld
from tests.worlds_sqlite import SqliteWorld

#: What the log says where a message did harm: to an executor, to the connection, to a channel, to its record.
_TROUBLE = (
    "Traceback",
    "executor died",
    "No connection",
    "closed a consumer's channel",
    "can't be stored",
    "refuses",
)
_RUNS = int(os.environ.get("DIBS_FUZZ_RUNS", "1"))
_PROFILE = settings(
    max_examples=800 * _RUNS,
    derandomize=_RUNS == 1,
    phases=(Phase.explicit, Phase.generate),  # no shrinking: what is missing is named by the test
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


class Scene:
    """A worker at work on what strangers send, and an account of it."""

    def __init__(self, world: World, directory: Path) -> None:
        self.world = world
        self.broker = world.open()
        self._log = directory / "evidence.tsv"
        #: Digests of the bodies that were stored, and how many were refused.
        self.sent: Counter[str] = Counter()
        self.refused = 0
        self._bodies: dict[str, bytes] = {}
        self._env = {"DIBS_TEST_NAMESPACE": getattr(world, "namespace", ""), "DIBS_TEST_LOG": str(self._log)}
        options = ("--url", world.url, "-p", "1", "-c", "2")
        self.worker = Worker("tests.crash.strangers:app", *options, directory=directory / "logs", env=self._env)
        self.worker.wait_ready()

    def count(self, body: bytes, copies: int = 1) -> None:
        """A message with this body was stored."""
        self.sent[digest(body)] += copies
        self._bodies[digest(body)] = body[:1000]

    def dibs(self, *arguments: str) -> str:
        """Run a command of dibs' that must do what it is told; returns what it prints."""
        ran = subprocess.run(
            [
                sys.executable,
                "-m",
                "dibs.cli.main",
                *arguments[:2],
                "--app",
                "tests.crash.strangers:app",
                *arguments[2:],
            ],
            env={**os.environ, **self._env, "DIBS_URL": self.world.url},
            cwd=ROOT,
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr.decode()
        assert ran.stderr == b""
        return ran.stdout.decode()

    def wait(self) -> None:
        """Wait until every message that was stored is run or dead."""
        try:
            until(lambda: self._count() >= self.sent.total() or not is_alive(self.worker.pid), within=30)
        finally:
            missing = self.sent - self._over()
            assert not missing, [self._bodies[key] for key in missing]

    def end(self) -> None:
        """Check that all is accounted for, once each, and that the worker has hardly noticed."""
        self.wait()
        assert self._over() == self.sent
        assert is_alive(self.worker.pid)
        assert all(info.ready == 0 for info in self.broker.queues(QUEUES))
        assert [line for line in self.worker.log.splitlines() if any(sign in line for sign in _TROUBLE)] == []

    def _count(self) -> int:
        dead = sum(info.dead for info in self.broker.queues(QUEUES))
        return len(events(self._log, "ran")) + dead

    def _over(self) -> Counter[str]:
        """Return how often each body was run or is among the dead."""
        found = Counter(event.key for event in events(self._log, "ran"))
        for queue in QUEUES:
            found.update(digest(letter.message.body) for letter in self.broker.dead(queue, limit=100_000))
        return found


class RabbitScene(Scene):
    """A worker on RabbitMQ, and a stranger's connection."""

    def __init__(self, world: RabbitWorld, directory: Path) -> None:
        super().__init__(world, directory)
        self.publisher = RawPublisher(urlsplit(world.url).port or 0)
        self._stored = world.stored

    def stored(self, queue: str) -> bytes:
        """Return the name under which the server has a queue."""
        return self._stored(queue).encode()

    def send(self, queue: str, header: bytes, body: bytes, *, copies: int = 1) -> None:
        """Publish a message, and count it if the server stored it, in as many copies as it was asked for."""
        if self.publisher.publish(self._stored(queue), header, body):
            self.count(body, copies)
        else:
            self.refused += 1


@pytest.fixture
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RabbitScene]:
    """A worker on RabbitMQ."""
    world = make_world("rabbitmq", request)
    assert isinstance(world, RabbitWorld)
    made = RabbitScene(world, tmp_path)
    with made.worker, made.publisher:
        yield made
    world.close()


@pytest.fixture
def file_scene(tmp_path: Path) -> Iterator[Scene]:
    """A worker on SQLite."""
    world = SqliteWorld(tmp_path)
    made = Scene(world, tmp_path)
    with made.worker:
        yield made
    world.close()


def test_whatever_properties_and_bodies_strangers_send_each_message_is_run_or_dead(scene: RabbitScene) -> None:
    @_PROFILE
    @given(MESSAGES)
    def send(message: Strange) -> None:
        scene.send(*message)

    send()

    scene.end()
    assert scene.sent.total() > 4 * scene.refused


def test_every_body_for_every_task_is_run_or_dead(scene: RabbitScene) -> None:
    for body in BODIES:
        for task in TASKS:
            scene.send("jobs", properties({"type": short(task)}), body)
        for queue in QUEUES:
            scene.send(queue, b"\x00\x00", body)

    scene.end()
    assert scene.refused == 0


def test_headers_that_fill_their_frame_are_no_obstacle_to_a_record(scene: RabbitScene) -> None:
    room = FRAME_BYTES - 8 - 12  # what header frames have room for behind their sizes
    for number, (size, queue) in enumerate(itertools.product((60_000, 65_536, 100_000, room), QUEUES)):
        for name in (b"mine", b"dibs-error", b"dibs-reason", b"x-death", b"dibs-original"):
            head = properties({"headers": table([(name, b"S" + long(b""))]), "type": short(b"twice")})
            text = b"S" + long(b"e" * (size - len(head)))
            header = properties({"headers": table([(name, text)]), "type": short(b"twice")})
            assert len(header) == size
            scene.send(queue, header, b"%d %s" % (number, name))
        many = table([(b"%d" % one, b"t\x01") for one in range(size // 8)])
        scene.send(queue, properties({"headers": many}), b"%d many" % number)

    scene.end()
    assert scene.refused == 0


def test_copies_to_other_queues_are_made_once_and_not_again_by_a_record(scene: RabbitScene) -> None:
    for name in (b"CC", b"BCC"):
        copies = table([(name, b"A" + long(b"S" + long(scene.stored("again")) + b"S" + long(scene.stored("plain"))))])
        scene.send("jobs", properties({"headers": copies}), b"to three by " + name, copies=3)
        scene.send("again", properties({"headers": copies}), b"to two by " + name, copies=2)

    scene.end()


def test_the_largest_bodies_are_run_or_dead(scene: RabbitScene) -> None:
    body = b'{"args": ["' + b"x" * (16 * 1024 * 1024 - 14) + b'"]}'
    assert len(body) == 16 * 1024 * 1024
    for task in (b"anything", b"twice", b"choosy"):
        scene.send("jobs", properties({"type": short(task)}), body)
    scene.send("again", b"\x00\x00", body)

    scene.end()
    assert scene.refused == 0


def test_what_strangers_sent_can_be_looked_at_and_tried_again(scene: RabbitScene) -> None:
    nested = table([(b"x-death", b"A" + long(b"F" + table([(b"\xff", b"T" + b"\xff" * 8)])))])
    for number, kind in enumerate((b"", b"i" * 255, b"\xff" * 255, b"\x1b[2J", b"\n\xc3", "é".encode() * 127)):
        header = {"message_id": short(kind), "headers": nested, "timestamp": b"\xff" * 8, "type": short(kind)}
        scene.send("jobs", properties(header), b"\xff%d" % number)
    scene.wait()

    ids = [letter["id"] for letter in json.loads(scene.dibs("dead", "list", "jobs", "--json"))]
    assert len(set(ids)) == 6
    assert "\x1b" not in scene.dibs("dead", "list", "jobs")
    for job_id in ids:
        assert "\x1b" not in scene.dibs("dead", "show", "--", job_id)
    assert scene.dibs("dead", "replay", "-q", "jobs", "--all", "--yes").strip() == "replayed 6"

    until(lambda: len(scene.broker.dead("jobs", limit=10)) == 6)
    scene.end()


def test_every_body_in_a_file_is_run_or_dead(file_scene: Scene) -> None:
    strangers = Dibs(file_scene.world.url)
    for queue in ("plain", "again"):
        strangers.queue(queue)
    large = b"x" * (16 * 1024 * 1024)
    for body, queue in itertools.product([*BODIES, large], ("plain", "again")):
        strangers.send(queue, body)
        file_scene.count(body)
    strangers.close()

    file_scene.end()


_ROW = """
INSERT INTO dibs_jobs (id, queue, state, priority, due, expires, attempt, crashes, suspect, enqueued, unknown_since,
                       keep, private, task, content_type, headers, properties, error, body)
VALUES (:id, :queue, :state, :priority, :due, :expires, :attempt, :crashes, :suspect, :enqueued, :unknown_since,
        :keep, :private, CAST(:task AS TEXT), CAST(:content_type AS TEXT), CAST(:headers AS TEXT),
        CAST(:properties AS TEXT), CAST(:error AS TEXT), :body)
"""
_NULL = ("due", "expires", "enqueued", "unknown_since", "content_type", "headers", "properties", "error")
_LEAST, _MOST = -(2**63), 2**63 - 1
_BAD_TEXTS = [b"\xff", b"", b"not JSON", b"[1]", b"7", b"null", b'{"a": NaN}', b'{"a": "\\ud800"}', b'{"a": 1e999}']
_BAD_TEXTS += [b'{"a":' * depth + b"1" + b"}" * depth for depth in (63, 64, 65, 300, *range(900, 1000, 3), 5000)]
_ODD: list[tuple[str, object]] = [
    *itertools.product(("priority", "due", "attempt", "crashes", "suspect"), (_LEAST, -1, _MOST)),
    *itertools.product(("keep", "private"), (_LEAST, -1, _MOST)),
    *itertools.product(("expires", "enqueued", "unknown_since"), (_LEAST, -1, _MOST)),
    *itertools.product(("headers", "properties", "task", "content_type", "error"), _BAD_TEXTS),
    *itertools.product(("id",), ("", "\x00", "\x1b[2J", "i" * 10_000)),
]


def test_rows_that_another_program_wrote_are_run_or_dead(file_scene: Scene) -> None:
    assert isinstance(file_scene.world, SqliteWorld)
    usual: dict[str, object] = {"state": 0, "priority": 4, "attempt": 1, "crashes": 0, "suspect": 0}
    usual.update({"keep": 1000, "private": 0})
    usual.update(dict.fromkeys(_NULL))
    with contextlib.closing(sqlite3.connect(file_scene.world.path)) as connection:
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        for number, ((name, odd), queue) in enumerate(itertools.product(_ODD, QUEUES)):
            body = b'{"args": [%d]}' % number
            task = b"twice" if queue == "jobs" else None
            row = {**usual, "id": f"job {number}", "queue": queue, "task": task, "body": body, name: odd}
            with contextlib.suppress(sqlite3.IntegrityError):  # the three queues can't have the same id
                connection.execute(_ROW, row)
                file_scene.count(body)
        connection.commit()

    file_scene.wait()

    for queue in QUEUES:
        listed = json.loads(file_scene.dibs("dead", "list", queue, "--json", "--limit", "1000"))
        assert len(listed) == len(file_scene.broker.dead(queue, limit=1000))
        assert file_scene.dibs("dead", "list", queue)
        for letter in listed[:3]:
            assert file_scene.dibs("dead", "show", "-q", queue, "--", letter["id"])
    file_scene.end()
