"""All that the checks look at, gathered once. Changes nothing, and takes a few seconds at the most."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

import msgspec

from dibs.broker import Broker, Queue, QueueInfo
from dibs.errors import BrokerError
from dibs.facts import Facts
from dibs.ledger.life import JobInfo, JobSelection, Status
from dibs.ledger.snapshot import Snapshot

#: So many jobs of a kind are looked at, the newest first.
_MOST_JOBS = 1000
#: Seconds that reading what was recorded may take.
_LONGEST_REFRESH = 3.0
#: Seconds between two looks at a job that waits though it need not.
_PAUSE = 0.5
#: A job that waits for so many ms while somebody could run it is stuck, should it still do so after the pause.
_STUCK_AFTER = 60_000
#: How far back dead letters are counted, in ms.
_LOOK_BACK = 2 * 3600 * 1000

_WAITING: frozenset[Status] = frozenset({"ready", "delayed"})
_STARTED: frozenset[Status] = frozenset({"running", "done", "dead", "cancelled"})


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """What is known at one moment. Empty where it could not be asked for."""

    facts: Facts
    #: In ms since 1970.
    now: int
    #: Of the dibs that looks.
    version: str
    #: The tasks of the app; None: none was named.
    tasks: frozenset[str] | None = None
    #: Queues that the app, or the user, names.
    named: frozenset[str] = frozenset()
    #: Whether the app makes queues by itself.
    may_declare: bool = True
    queues: list[QueueInfo] = []
    workers: list[Snapshot] = []
    #: Jobs that are ready or delayed, the newest first.
    waiting: list[JobInfo] = []
    #: Jobs that wait though a worker could run them, the oldest of each queue.
    stuck: list[JobInfo] = []
    #: Jobs that died in the last two hours.
    dead: list[JobInfo] = []
    #: Jobs that were started in the last two hours.
    started: list[JobInfo] = []
    #: What could not be asked for, in the broker's words.
    troubles: list[str] = []
    #: How much of the ledger was read before that took too long, and how much there is.
    unread: tuple[int, int] | None = None


def gather(
    broker: Broker,
    queues: Sequence[Queue],
    *,
    tasks: Collection[str] | None,
    version: str,
    may_declare: bool = True,
    is_deep: bool = False,
) -> Scene:
    """Look at everything.

    Args:
        broker: one that may neither create nor declare anything.
        queues: that the app, or the user, names.
        tasks: of the app; None: none was named.
        version: of this dibs.
        may_declare: whether the app makes queues by itself.
        is_deep: look for as long as it takes.

    Raises:
        BrokerError: the broker can't be reached.
    """
    facts = broker.examine(queues, is_deep=is_deep)
    scene = Scene(
        facts=facts,
        now=time.time_ns() // 1_000_000,
        version=version,
        tasks=None if tasks is None else frozenset(tasks),
        named=frozenset(queue.name for queue in queues),
        may_declare=may_declare,
    )
    for ask in (_ask_queues, _ask_workers, _ask_jobs):
        try:
            scene = ask(scene, broker, [queue.name for queue in queues])
        except BrokerError as error:
            scene = msgspec.structs.replace(scene, troubles=[*scene.troubles, str(error)])
    return scene


def _ask_queues(scene: Scene, broker: Broker, names: Sequence[str]) -> Scene:
    if not scene.facts.has_queues:
        return scene
    return msgspec.structs.replace(scene, queues=broker.queues(names))


def _ask_workers(scene: Scene, broker: Broker, names: Sequence[str]) -> Scene:
    del names
    if not scene.facts.has_workers:
        return scene
    return msgspec.structs.replace(scene, workers=broker.ledger.workers())


def _ask_jobs(scene: Scene, broker: Broker, names: Sequence[str]) -> Scene:
    del names
    if not scene.facts.has_jobs:
        return scene
    deadline = time.monotonic() + _LONGEST_REFRESH

    def check(read: int, total: int) -> None:
        if read < total and time.monotonic() > deadline:
            raise _TooLong(read, total)

    try:
        broker.ledger.refresh(check)
    except _TooLong as error:
        return msgspec.structs.replace(scene, unread=(error.read, error.total))
    since = scene.now - _LOOK_BACK
    waiting = _jobs(broker, JobSelection(statuses=_WAITING))
    return msgspec.structs.replace(
        scene,
        waiting=waiting,
        dead=_jobs(broker, JobSelection(statuses=frozenset({"dead"}), since=since)),
        started=_jobs(broker, JobSelection(statuses=_STARTED, since=since)),
        stuck=_find_stuck(scene, broker, waiting),
    )


def _jobs(broker: Broker, selection: JobSelection) -> list[JobInfo]:
    return broker.ledger.jobs(selection, limit=_MOST_JOBS).jobs


def _find_stuck(scene: Scene, broker: Broker, waiting: Sequence[JobInfo]) -> list[JobInfo]:
    """Return the oldest job of each queue that waits while a worker is idle there, and still does after a moment."""
    paused = {queue.name for queue in scene.queues if queue.is_paused}
    oldest: dict[str, JobInfo] = {}
    for job in waiting:  # the newest first: the last one of a queue counts
        is_old = scene.now - waits_since(job) > _STUCK_AFTER
        if job.status == "ready" and is_old and job.queue not in paused and has_idle(scene.workers, job.queue):
            oldest[job.queue] = job
    if not oldest:
        return []
    time.sleep(_PAUSE)
    again = [broker.ledger.job(job.id) for job in oldest.values()]
    return [job for job in again if job is not None and job.status == "ready"]


def waits_since(job: JobInfo) -> int:
    """Return since when a job that is ready could have been started."""
    return max(job.enqueued or 0, job.due or 0)


def has_idle(workers: Sequence[Snapshot], queue: str) -> bool:
    """Tell whether a worker of that queue has a free slot."""
    return any(
        queue in worker.queues
        and not worker.is_ending
        and sum(executor.held for executor in worker.executors) < worker.slots
        for worker in workers
    )


class _TooLong(Exception):
    """Reading what was recorded takes longer than a look may."""

    def __init__(self, read: int, total: int) -> None:
        super().__init__(f"{read} of {total}")
        self.read = read
        self.total = total
