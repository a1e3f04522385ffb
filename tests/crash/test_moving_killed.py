"""`dibs move`, killed again and again, while producers and workers are at work on both sides."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from dibs import Dibs
from tests.crash.moving import EACH_END, Route, doubts_in
from tests.rabbit_releases import Nodes

#: How often a mover is killed, and within how many seconds of its start.
_KILLS, _WITHIN = 20, 0.5
_BACKLOG = 6_000
_QUEUES = ["left", "middle", "right"]


@pytest.fixture(params=EACH_END)
def route(request: pytest.FixtureRequest, rabbit_nodes: Nodes, tmp_path: Path) -> Iterator[Route]:
    """Either broker as the source, and as the target."""
    with closing(Route(request.param, rabbit_nodes, tmp_path)) as made:
        yield made


class Producer(threading.Thread):
    """Hands jobs over until it is told to stop, some of them delayed and some that fail at first."""

    def __init__(self, app: Dibs, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._app = app
        self._stopped = threading.Event()
        #: The keys, and ids, of all that it was told are stored.
        self.stored: set[str] = set()
        self.start()

    def hand_over(self, numbers: range) -> None:
        """Hand over a job for each of these numbers, in one call."""
        work, fail = (self._app.get_task(f"tests.crash.tasks.{name}") for name in ("work", "fail_once"))
        keys = [f"{self.name}-{number}" for number in numbers]
        calls = []
        for number, key in zip(numbers, keys, strict=True):
            task = fail if number % 50 == 0 else work
            delay = 5.0 if number % 10 == 1 else None
            calls.append(task.using(id=key, queue=_QUEUES[number % 3], delay=delay).prepare(key))
        self._app.enqueue_many(calls)
        self.stored.update(keys)

    def run(self) -> None:
        number = 1_000_000
        while not self._stopped.wait(0.05):
            self.hand_over(range(number, number + 5))
            number += 5

    def stop(self) -> set[str]:
        """Hand over no more; return what is stored."""
        self._stopped.set()
        self.join()
        return self.stored


@pytest.mark.timeout(300)
def test_a_mover_that_is_killed_twenty_times_loses_nothing_and_names_what_may_run_twice(route: Route) -> None:
    here, there = (
        Producer(route.app(url), name) for url, name in ((route.origin_url, "here"), (route.target_url, "there"))
    )
    for first in range(0, _BACKLOG, 1000):
        here.hand_over(range(first, first + 1000))
    route.worker(route.origin_url, "-q", "left", "-p", "1")  # the other queues wait for the mover
    route.worker(route.target_url, "-p", "1")

    doubts: list[str] = []
    for _ in range(_KILLS):
        mover = route.start("--follow")
        time.sleep(random.uniform(0.0, _WITHIN))  # a point of its work like any other
        doubts += doubts_in(mover.kill())
    stored = here.stop() | there.stop()
    code, _, errors = route.start("--wait" if "sqlite" in route.origin_url else "--json").end()
    doubts += doubts_in(errors)

    assert code == 0, errors
    ends = Counter(event.key for event in route.wait_for_ends(stored, within=120.0))
    twice = {key for key, count in ends.items() if count > 1}
    assert ends.keys() == stored
    assert twice <= set(doubts)
