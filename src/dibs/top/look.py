"""What a broker says of itself at one moment, and how fast things go between two such moments. Values only."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

import msgspec

from dibs.broker import Broker, QueueInfo
from dibs.errors import LedgerUnavailable
from dibs.ledger.life import JobInfo, JobSelection
from dibs.ledger.snapshot import Snapshot
from dibs.ledger.statistics import MINUTE, Minute
from dibs.raised import raised_in
from dibs.top.cells import one_line

#: So many of the latest failures are shown.
_FAILURES = 50
#: Speed is told over so many ms: workers speak once a second, so two looks alone would make it flicker.
_WINDOW = 6_000
#: The ledger's minutes are asked for so many ms back; between looks that are farther apart than that, less a minute,
#: no rates of queues are told.
_BACK = 300_000


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A job that failed last time: what is shown of it, without an error of a megabyte."""

    id: str
    task: str | None
    queue: str
    attempt: int
    at: int
    #: What it comes down to, on one line.
    gist: str
    #: Else it is to be tried again by itself.
    is_dead: bool


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """One look at everything. Times are ms since 1970."""

    at: int
    queues: Sequence[QueueInfo] = ()
    workers: Sequence[Snapshot] = ()
    #: The latest one first.
    failures: Sequence[Failure] = ()
    #: What was done of late, by minute and queue.
    minutes: Sequence[Minute] = ()
    #: Else nothing is known of workers and failures.
    has_ledger: bool = True
    #: What could not be asked, and why.
    note: str = ""


class Pace(msgspec.Struct, frozen=True):
    """Outcomes per second."""

    done: float
    failed: float


class Rates(msgspec.Struct, frozen=True):
    """How fast things go. What can't be told yet is left out."""

    #: By worker.
    workers: dict[str, Pace] = {}
    #: How many jobs are done per second, by queue.
    queues: dict[str, float] = {}
    #: How many more jobs are ready than before, per second, by queue.
    changes: dict[str, float] = {}

    @property
    def total(self) -> Pace | None:
        """All workers together."""
        if not self.workers:
            return None
        return Pace(sum(p.done for p in self.workers.values()), sum(p.failed for p in self.workers.values()))


def look(broker: Broker, names: Collection[str], now: Callable[[], int]) -> Look:
    """Ask the broker for everything that is shown.

    Args:
        broker: whom.
        names: queues to look for, where it can't list them; those that its workers consume are looked for too.
        now: tells the time.
    """
    workers: Sequence[Snapshot] = ()
    failures: Sequence[Failure] = ()
    minutes: Sequence[Minute] = ()
    has_ledger, note = True, ""
    try:
        workers = broker.ledger.workers()
        failures = _failures(broker)
        minutes = broker.ledger.minutes(now() - _BACK)
    except LedgerUnavailable as error:
        has_ledger, note = False, f"No workers and failures to be seen: {error}"
    wanted = set(names).union(*(worker.queues for worker in workers))
    if not wanted and not broker.capabilities.lists_queues and not note:
        note = "This broker can't list its queues, and no worker is there: name the app that has them (--app)."
    queues = broker.queues(wanted)
    return Look(
        at=now(),
        queues=queues,
        workers=workers,
        failures=failures,
        minutes=minutes,
        has_ledger=has_ledger,
        note=note,
    )


def _failures(broker: Broker) -> list[Failure]:
    """Return the latest of those that are dead, and of those that are to be tried again."""
    dead = broker.ledger.jobs(JobSelection(statuses=frozenset({"dead"})), limit=_FAILURES).jobs
    waiting = broker.ledger.jobs(JobSelection(statuses=frozenset({"delayed"})), limit=_FAILURES).jobs
    failed = [*dead, *(info for info in waiting if info.attempt > 1)]
    failed.sort(key=_failed_at, reverse=True)
    return [
        Failure(
            id=info.id,
            task=info.task,
            queue=info.queue,
            attempt=info.attempt if info.status == "dead" else info.attempt - 1,
            at=_failed_at(info),
            gist=_gist(info),
            is_dead=info.status == "dead",
        )
        for info in failed[:_FAILURES]
    ]


def _failed_at(info: JobInfo) -> int:
    """Return when a job failed last, as far as that is known."""
    return info.ended or info.started or info.enqueued or 0


def _gist(info: JobInfo) -> str:
    """Return what a failure comes down to: what was raised, or its last line; and the reason, if it says more."""
    if not info.error:
        return one_line(info.reason or "failed") + ", private" * info.is_private
    name, message = raised_in(info.error)
    said = (f"{name}: {message}" if message else name) if name else info.error.strip().rpartition("\n")[2]
    return one_line(said if info.reason in {None, "failed"} else f"{info.reason}: {said}")


def recent(looks: Iterable[Look]) -> list[Look]:
    """Return the looks that speed is told from: those of the last seconds, and two at least."""
    kept = list(looks)
    while len(kept) > 2 and kept[-1].at - kept[1].at >= _WINDOW:
        del kept[0]
    return kept


def rates(looks: Sequence[Look]) -> Rates:
    """Return how fast things went from the first of these looks to the last one."""
    if len(looks) < 2 or looks[-1].at <= looks[0].at:
        return Rates()
    last = looks[-1]
    seconds = (last.at - looks[0].at) / 1000
    ready = {info.name: info.ready for info in looks[0].queues}
    paces = {
        worker.worker: pace
        for worker in last.workers
        if (pace := _pace(worker, [then for old in looks[:-1] for then in old.workers])) is not None
    }
    changes = {info.name: (info.ready - ready[info.name]) / seconds for info in last.queues if info.name in ready}
    return Rates(paces, {name: count / seconds for name, count in _done(looks[0], last).items()}, changes)


def _done(first: Look, last: Look) -> dict[str, int]:
    """Return how many jobs were done from one look to the other, by queue, where that can be told."""
    if last.at - first.at > _BACK - MINUTE or not last.has_ledger:
        return {}
    before = {(minute.queue, minute.start): minute.done for minute in first.minutes}
    done = {info.name: 0 for info in last.queues}
    for minute in last.minutes:
        if minute.start > first.at - 2 * MINUTE and minute.queue in done:
            done[minute.queue] += max(0, minute.done - before.get((minute.queue, minute.start), 0))
    return done


def _pace(worker: Snapshot, before: Iterable[Snapshot]) -> Pace | None:
    """Return how fast a worker is, by its own clock: what it said is up to a second old when it is read."""
    mine = [then for then in before if then.worker == worker.worker and then.started == worker.started]
    if not mine:
        return None
    seconds = (worker.at - mine[0].at) / 1000
    if seconds <= 0:
        return Pace(0.0, 0.0)
    done, failed = (_ended(worker, kinds) - _ended(mine[0], kinds) for kinds in (("done",), ("retry", "dead")))
    return Pace(done / seconds, failed / seconds)


def _ended(worker: Snapshot, kinds: Iterable[str]) -> int:
    return sum(worker.ended.get(kind, 0) for kind in kinds)
