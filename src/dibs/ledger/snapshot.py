"""What a worker says of itself, about once a second. Costs by the worker, not by the job. Times are ms since 1970."""

from __future__ import annotations

import msgspec

from dibs.ledger.life import Progress


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """A job that an executor has: one of its slots' worth is running, the rest is about to."""

    id: str
    task: str | None
    queue: str
    attempt: int
    #: When the executor got it.
    since: int
    progress: Progress | None = None


class ExecutorInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One executor of a worker."""

    pid: int
    started: int
    #: Resident set size; 0 where the system does not tell.
    memory_bytes: int
    #: How many jobs ended in it.
    finished: int
    #: "starting", "ready", "retired" (it gets nothing more) or "quarantine" (for suspects alone).
    state: str
    #: The longest running first; at most 100 of them.
    running: list[Running] = []
    #: How many it has, those left out included.
    held: int = 0


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One worker at one moment."""

    #: `host:pid`, as in the record of a run.
    worker: str
    host: str
    pid: int
    #: Of dibs.
    version: str
    app: str
    started: int
    #: When this was said.
    at: int
    #: Without the namespace.
    queues: list[str]
    #: The tasks that it knows; None: it did not say, as older versions don't.
    tasks: list[str] | None = None
    #: How many jobs it can run at a time.
    slots: int
    executors: list[ExecutorInfo] = []
    #: Outcomes since it started, by kind: "done", "retry", "dead", "cancelled".
    ended: dict[str, int] = {}
    #: Resident set size of the supervisor.
    memory_bytes: int = 0
    #: It takes nothing new on.
    is_ending: bool = False
