"""What the bench knows of a system: what to install, how to start it, and what makes it durable.

Each file of `bench/systems/` holds one or more of these; `bench/apps/` has the code that a user of the system would
write. A new peer is one file in each of the two, and a line in `bench/systems/__init__.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum


class Kind(Enum):
    """What a system is in the comparison."""

    DIBS = "dibs"
    PEER = "peer"
    #: dibs without a part of it, to show what that part costs.
    WITHOUT = "without"
    #: Not a work queue but the limit that one runs into: the bare driver.
    FLOOR = "floor"


class Store(Enum):
    """Where a system keeps its jobs."""

    SQLITE = "SQLite"
    RABBITMQ = "RabbitMQ"
    REDIS = "Redis"


@dataclass(frozen=True, slots=True)
class Load:
    """How big a worker is to be."""

    #: Jobs that each process runs at a time.
    slots: int
    #: Processes that run jobs.
    executors: int
    #: A name that no other worker of this run has.
    name: str
    #: Where the jobs are kept: a file, or a server's URL.
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """A work queue, or a bare driver, set up for work that must not be lost."""

    #: What `--systems` and the tables call it.
    name: str
    kind: Kind
    store: Store
    #: The module of `bench/apps/` with its task, and how to hand over to it.
    app: str
    #: What pip installs into its virtual environment; empty: the interpreter that runs the bench has it.
    requirements: tuple[str, ...]
    #: The distributions whose versions are shown.
    packages: tuple[str, ...]
    #: What a program writes to use it. (Some packages import nothing until something is taken from them.)
    statement: str
    #: The commands of its workers, for so many slots and executors. The first word is a program of its environment.
    worker: Callable[[Load], Sequence[Sequence[str]]]
    #: The options that make it durable, and whether that is as durable as dibs.
    durability: str
    #: How slots and executors are had, and what else was chosen.
    configuration: str
    #: Where it promises less than dibs, if it does; shown beside its figures.
    weaker: str = ""
    #: Its command line's `--help`, if it has one.
    help_command: tuple[str, ...] = ()
    #: Further environment variables for its processes.
    environment: Mapping[str, str] = field(default_factory=dict)
    #: What it can't do, by metric or scenario, and why; shown as a dash.
    lacks: Mapping[str, str] = field(default_factory=dict)
    #: The scenarios that it takes part in; empty: all.
    scenarios: frozenset[str] = frozenset()
