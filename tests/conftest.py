"""Fixtures that every kind of test shares: private RabbitMQ servers, and the worlds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests import rabbit_releases
from tests.rabbit_node import Node
from tests.rabbit_releases import Nodes
from tests.worlds import MemoryWorld, World
from tests.worlds_sqlite import SqliteWorld


@pytest.fixture(scope="session", autouse=True)
def caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory for what programs keep in the user's cache: nothing of a test run stays there."""
    place = tmp_path_factory.mktemp("caches")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(place))
        yield place


@pytest.fixture(scope="session")
def rabbit_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """RabbitMQ servers of this test run's own, one of each release, which tests may kill and restart."""
    with closing(Nodes(tmp_path_factory.mktemp("rabbit"))) as nodes:
        yield nodes


@pytest.fixture(scope="session")
def rabbit_node(rabbit_nodes: Nodes) -> Node:
    """The node of this machine's own release, for tests that one will do for."""
    return rabbit_nodes["rabbitmq"]


@pytest.fixture(params=rabbit_releases.NAMES)
def each_rabbit_node(request: pytest.FixtureRequest, rabbit_nodes: Nodes) -> Node:
    """The node of each release in turn."""
    return rabbit_nodes[request.param]


def make_world(name: str, request: pytest.FixtureRequest) -> World:
    """Return an empty world of that broker; a RabbitMQ is started only when the first test asks for it."""
    match name:
        case "memory":
            return MemoryWorld()
        case "sqlite":
            path: Path = request.getfixturevalue("tmp_path")
            return SqliteWorld(path)
        case _:
            from tests.worlds_rabbitmq import RabbitWorld

            return RabbitWorld(request.getfixturevalue("rabbit_nodes")[name])


@pytest.fixture(params=["memory", "sqlite", *rabbit_releases.NAMES])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """Each broker in turn."""
    made = make_world(request.param, request)
    yield made
    made.close()


@pytest.fixture(params=["sqlite", *rabbit_releases.NAMES])
def shared_world(request: pytest.FixtureRequest) -> Iterator[World]:
    """Each broker that several processes can reach, in turn. See `rabbit_releases.on_one_rabbitmq`."""
    made = make_world(request.param, request)
    yield made
    made.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which releases of RabbitMQ the tests ran on, and why 4.x was not among them."""
    terminalreporter.write_line(rabbit_releases.report())
