"""How the queues are counted: once for pages that are asked for together, and at the side where it takes long."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from dibs import BrokerUnavailable
from dibs.broker import QueueInfo
from dibs.dashboard import source as module
from dibs.dashboard.source import Source
from dibs.outcome import Done
from tests.dashboard.scenes import Scene, a_run
from tests.waiting import until


@pytest.fixture
def counted(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the threads that counted."""
    threads: list[str] = []
    count: Callable[..., list[QueueInfo]] = scene.broker.queues

    def queues(*names: frozenset[str]) -> list[QueueInfo]:
        threads.append(threading.current_thread().name)
        return count(*names)

    monkeypatch.setattr(scene.broker, "queues", queues)
    return threads


def test_pages_that_are_asked_for_together_share_a_count(scene: Scene, counted: list[str]) -> None:
    source = Source(scene.app, hides_arguments=False)

    assert source.board() is source.board()
    assert len(counted) == 1


def test_what_was_changed_is_counted_at_once(scene: Scene, counted: list[str]) -> None:
    source = Source(scene.app, hides_arguments=False)
    source.board()
    scene.send("new")

    source.forget()

    assert [info.name for info in source.board().queues] == ["new"]
    assert len(counted) == 2


def test_a_long_count_is_made_at_the_side(scene: Scene, counted: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LONG", 0.0)
    monkeypatch.setattr(module, "_FRESH", 0.0)
    monkeypatch.setattr(module, "_SHARE", 0.0)
    source = Source(scene.app, hides_arguments=False)
    first = source.board()
    scene.send("new")

    assert source.board() is first

    until(lambda: [info.name for info in source.board().queues] == ["new"])
    assert set(counted[1:]) == {"dibs-dashboard-count"}


def test_a_long_count_that_fails_is_told_to_who_asks_next(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LONG", 0.0)
    monkeypatch.setattr(module, "_FRESH", 0.0)
    monkeypatch.setattr(module, "_SHARE", 0.0)
    source = Source(scene.app, hides_arguments=False)
    source.board()

    def refuse(*_: object) -> None:
        raise BrokerUnavailable("gone")

    monkeypatch.setattr(scene.broker, "queues", refuse)

    def is_told() -> bool:
        try:
            source.board()
        except BrokerUnavailable:
            return True
        return False

    until(is_told)


def test_depths_that_were_seen_stand_in_the_minutes(scene: Scene) -> None:
    source = Source(scene.app, hides_arguments=False)
    scene.send("a")
    scene.ran("b", Done(run=a_run()))

    minutes = {minute.queue: minute for minute in source.minutes(source.board().at)}

    assert (minutes["a"].depth, minutes["a"].done) == (1, 0)
    assert (minutes["b"].depth, minutes["b"].done) == (0, 1)
