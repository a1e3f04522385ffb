"""Fixtures that every kind of test shares: a private RabbitMQ and the three worlds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rabbit_node import Node
from tests.worlds import MemoryWorld, World
from tests.worlds_sqlite import SqliteWorld


@pytest.fixture(scope="session")
def rabbit_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A RabbitMQ of this test run's own, which tests may kill and restart. A missing server fails the test."""
    with Node(tmp_path_factory.mktemp("rabbit")) as node:
        node.start()
        yield node


def make_world(name: str, request: pytest.FixtureRequest) -> World:
    """Return an empty world of that broker; RabbitMQ is started only when the first test asks for it."""
    match name:
        case "memory":
            return MemoryWorld()
        case "sqlite":
            path: Path = request.getfixturevalue("tmp_path")
            return SqliteWorld(path)
        case _:
            from tests.worlds_rabbitmq import RabbitWorld

            return RabbitWorld(request.getfixturevalue("rabbit_node"))


@pytest.fixture(params=["memory", "sqlite", "rabbitmq"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """Each broker in turn."""
    made = make_world(request.param, request)
    yield made
    made.close()


@pytest.fixture(params=["sqlite", "rabbitmq"])
def shared_world(request: pytest.FixtureRequest) -> Iterator[World]:
    """Each broker that several processes can reach, in turn."""
    made = make_world(request.param, request)
    yield made
    made.close()
