"""What a scenario is: parts that are measured one by one, each giving one or more metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from bench.figures import Metric, Reading
from bench.rig import Rig
from bench.system import Kind, System

#: Gives the system that is measured, in an empty place.
Open = Callable[[], AbstractContextManager[Rig]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is done: enough for figures, or just enough to see that all of it works."""

    #: Whether the figures are to mean nothing.
    is_quick: bool
    rounds: int
    #: Jobs handed over one by one or by threads, and the seconds after which that is cut short.
    enqueue: int
    enqueue_limit: float
    #: Jobs handed over at once, many times that to fill a queue.
    bulk: int
    #: Jobs that wait for a worker, the seconds after which draining is cut short, and those without any news after
    #: which the rest is lost.
    drain: int
    drain_limit: float
    quiet: float
    #: Jobs that come to an idle worker, and for how long that is watched doing nothing.
    latency: int
    idle: float
    #: Jobs of uneven length.
    fairness: int
    #: Workers that are killed, and how long one waits for the job to start again.
    kills: int
    redelivery_limit: float
    #: How deep a queue is filled, and the seconds for that, with and without a bulk hand-over.
    depths: tuple[int, ...]
    fill_limit_bulk: float
    fill_limit: float
    #: Jobs with padding, by its bytes.
    payload: tuple[tuple[int, int], ...]
    #: Starts of a program.
    starts: int
    #: Jobs that go through one worker, and how many at a time.
    growth: int
    growth_step: int


FULL = Size(
    is_quick=False,
    rounds=3,
    enqueue=5_000,
    enqueue_limit=10.0,
    bulk=10_000,
    drain=10_000,
    drain_limit=30.0,
    quiet=10.0,
    latency=200,
    idle=20.0,
    fairness=200,
    kills=5,
    redelivery_limit=90.0,
    depths=(0, 100_000, 1_000_000),
    fill_limit_bulk=120.0,
    fill_limit=20.0,
    payload=((1024, 3_000), (102_400, 500)),
    starts=5,
    growth=1_000_000,
    growth_step=50_000,
)
QUICK = Size(
    is_quick=True,
    rounds=1,
    enqueue=100,
    enqueue_limit=2.0,
    bulk=200,
    drain=200,
    drain_limit=10.0,
    quiet=5.0,
    latency=10,
    idle=1.0,
    fairness=12,
    kills=1,
    redelivery_limit=3.0,
    depths=(0, 1_000, 2_000),
    fill_limit_bulk=2.0,
    fill_limit=1.0,
    payload=((1024, 50), (102_400, 10)),
    starts=1,
    growth=2_000,
    growth_step=500,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Something that is measured in one go."""

    metrics: tuple[Metric, ...]
    #: Gives a reading for each metric, in that order.
    measure: Callable[[Open, Size], Sequence[Reading]]
    #: About how long that takes for one system, in seconds.
    seconds: Callable[[Size], float]
    #: Whether it takes so many jobs that only a bulk hand-over brings them there.
    needs_bulk: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A question that is put to every system."""

    name: str
    title: str
    #: What is done, and from where to where it is timed.
    about: str
    parts: Callable[[Size], tuple[Part, ...]]
    #: Whether peers are asked too.
    is_for_peers: bool = True


def is_asked(system: System, scenario: Scenario) -> bool:
    """Tell whether a system takes part in a scenario."""
    if system.scenarios:
        return scenario.name in system.scenarios
    return scenario.is_for_peers or system.kind is Kind.DIBS


def why_not(system: System, scenario: Scenario, part: Part) -> str | None:
    """Return why a system can't be asked this; None if it can."""
    for key in (scenario.name, *(f"{scenario.name}.{metric.key}" for metric in part.metrics)):
        if key in system.lacks:
            return system.lacks[key]
    return system.lacks.get("enqueue.bulk") if part.needs_bulk else None
