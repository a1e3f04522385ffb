"""What is handed over, and who is killed, when: a pure function of the seed.

How the processes interleave is not, so two runs of one seed differ in what a kill hits.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Literal, TypeVar

import msgspec

from dibs.errors import BadOption

PRODUCERS = 3

K = TypeVar("K", bound=str)

#: What a job does. `flaky` fails at its first run; `hopeless` always, so that it ends among the dead. `killer` kills
#: its executor once; `poison` each time.
Kind = Literal["quick", "medium", "long", "async", "flaky", "hopeless", "killer", "poison"]
#: What is done to the processes. `session`: a supervisor and its executors at once. `stop`: SIGTERM to a supervisor.
#: `freeze`: SIGSTOP to one, for a while. `everybody`: all workers and producers at once.
FaultKind = Literal["executor", "supervisor", "session", "producer", "freeze", "stop", "everybody", "broker"]

#: How many of 400 jobs are of each kind.
_JOBS: dict[Kind, int] = {
    "quick": 190, "medium": 120, "long": 10, "async": 50, "flaky": 16, "hopeless": 6, "killer": 6, "poison": 2,
}  # fmt: skip
#: How many of 12 faults are of each kind.
_FAULTS: dict[FaultKind, int] = {
    "executor": 5, "supervisor": 2, "session": 1, "producer": 1, "freeze": 1, "stop": 1, "everybody": 1,
}  # fmt: skip
#: Seconds that a job takes at least and at most.
_LENGTHS: dict[Kind, tuple[float, float]] = {"medium": (0.01, 0.08), "long": (1.0, 3.0), "async": (0.01, 0.08)}
#: How an executor may die of its job.
DEATHS = ("exit", "segfault", "sigkill")
#: One job in so many is delayed, by so many seconds at least and at most.
_DELAYED, _SHORTEST_DELAY, LONGEST_DELAY = 10, 0.2, 2.0
#: One hand-over in so many is a batch, of so many jobs at least and at most.
_BATCHED, _BATCHES = 10, (2, 20)
#: The part of the time in which jobs are handed over.
_PRODUCING = 0.9
#: Seconds between two kills of the broker, which needs some to come back.
BROKER_EVERY = 20.0


class Order(msgspec.Struct, frozen=True):
    """One job that is to be handed over."""

    kind: Kind
    #: How long it takes.
    seconds: float
    #: How it kills its executor, or fails; empty where it does neither.
    how: str
    delay: float | None


class Handover(msgspec.Struct, frozen=True):
    """Jobs that one producer hands over in one call."""

    number: int
    #: When, in seconds from the beginning.
    at: float
    orders: tuple[Order, ...]


class Fault(msgspec.Struct, frozen=True):
    """Something that is done to the processes."""

    #: When, in seconds from the beginning.
    at: float
    kind: FaultKind
    #: Chooses among those that it may hit: from 0 to below 1.
    pick: float
    #: Seconds until what was killed is started again, or what was frozen goes on.
    pause: float


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A run of `dibs chaos`.

    Raises:
        BadOption: a number is out of bounds.
    """

    seed: int
    #: How many jobs are handed over.
    jobs: int
    #: How long faults are made.
    seconds: float
    #: Whether the broker is killed too.
    hits_broker: bool = False

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise BadOption(f"--jobs {self.jobs}: at least 1 is needed.")
        if not 5 <= self.seconds <= 86400:
            raise BadOption(f"--seconds {self.seconds:g}: must be from 5 to 86400.")

    def handovers(self, producer: int) -> list[Handover]:
        """Return what a producer, from 1, hands over, in order of time."""
        dice = random.Random(f"{self.seed} producer {producer}")
        count = self.jobs // PRODUCERS + (producer <= self.jobs % PRODUCERS)
        kinds = _deal(dice, _JOBS)
        orders = [_order(dice, next(kinds)) for _ in range(count)]
        batches: list[tuple[Order, ...]] = []
        while orders:
            size = dice.randint(*_BATCHES) if dice.randrange(_BATCHED) == 0 else 1
            batches.append(tuple(orders[:size]))
            del orders[:size]
        times = sorted(dice.uniform(0, self.seconds * _PRODUCING) for _ in batches)
        return [Handover(number, at, batch) for number, (at, batch) in enumerate(zip(times, batches, strict=True))]

    def faults(self) -> list[Fault]:
        """Return what is done to the processes, in order of time: about one thing a second."""
        dice = random.Random(f"{self.seed} faults")
        kinds = _deal(dice, _FAULTS)
        faults = [_fault(dice, at, next(kinds)) for at in _spread(dice, self.seconds, 1.0, 1.0)]
        if self.hits_broker:
            faults += [_fault(dice, at, "broker") for at in _spread(dice, self.seconds, BROKER_EVERY, 0.5)]
        return sorted(faults, key=lambda fault: fault.at)


def job_id(run: str, producer: int, handover: Handover, index: int, attempt: int) -> str:
    """Return the id of a job: of which run of chaos, whose, and at which try to hand it over."""
    return f"{run}.{producer}.{handover.number}.{index}.{attempt}"


def orders_by_id(plan: Plan, run: str) -> dict[str, Order]:
    """Return each order by the beginning of its job's id, to which only the try is added."""
    return {
        job_id(run, producer, handover, index, 0).rpartition(".")[0]: order
        for producer in range(1, PRODUCERS + 1)
        for handover in plan.handovers(producer)
        for index, order in enumerate(handover.orders)
    }


def _deal(dice: random.Random, counts: dict[K, int]) -> Iterator[K]:
    """Yield kinds for ever, deck by shuffled deck, so that none is rare by chance."""
    while True:
        deck = [kind for kind, count in counts.items() for _ in range(count)]
        dice.shuffle(deck)
        yield from deck


def _order(dice: random.Random, kind: Kind) -> Order:
    how = dice.choice(DEATHS) if kind in {"killer", "poison"} else dice.choice(("raise", "retry"))
    delay = dice.uniform(_SHORTEST_DELAY, LONGEST_DELAY) if dice.randrange(_DELAYED) == 0 else None
    return Order(kind, dice.uniform(*_LENGTHS.get(kind, (0.0, 0.0))), how, delay)


def _fault(dice: random.Random, at: float, kind: FaultKind) -> Fault:
    longest = 4.0 if kind == "freeze" else 1.5
    return Fault(at, kind, dice.random(), dice.uniform(0.0, longest))


def _spread(dice: random.Random, seconds: float, every: float, part: float) -> Iterator[float]:
    """Yield moments: one at random in the first `part` of each `every` seconds."""
    count = max(1, int(seconds / every))
    step = seconds / count
    for number in range(count):
        yield (number + dice.uniform(0.0, part)) * step
