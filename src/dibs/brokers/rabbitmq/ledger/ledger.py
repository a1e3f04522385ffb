"""`RabbitLedger`: what became of jobs, read from the ledger's stream by way of an index, and told by workers."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Collection
from concurrent.futures import Future
from typing import NamedTuple

import msgspec

from dibs.brokers.rabbitmq.ledger.control import cancel_asked
from dibs.brokers.rabbitmq.ledger.follower import Follower
from dibs.brokers.rabbitmq.ledger.replies import Replies, made_at
from dibs.brokers.rabbitmq.ledger.streams import Streams
from dibs.errors import DibsError
from dibs.ledger import history, tables
from dibs.ledger.life import Ending, JobInfo, JobSelection, Page, Status
from dibs.ledger.snapshot import Running, Snapshot
from dibs.ledger.statistics import Minute, PastRuns
from dibs.message import now_ms
from dibs.url import Address

#: For so many ms after an id was made its record may still be on its way.
_LATE = 2000
#: What only workers can tell.
_RUNNING: frozenset[Status] = frozenset({"running"})
_WAITING: frozenset[Status] = frozenset({"ready", "delayed"})
#: How often is asked for such a one.
_PAUSE = 0.1

# Served by the index of the ids, and by its one row.
_KNOWN = "SELECT id FROM dibs_jobs WHERE id IN (SELECT value FROM json_each(?))"
_PLACE = "SELECT next FROM dibs_index"


class _Question(NamedTuple):
    """Is this job over?"""

    id: str
    future: Future[Ending | None]
    is_ours: bool


class RabbitLedger:
    """See `Ledger`. Connects when it is first asked; a forked child gets connections of its own."""

    def __init__(
        self, address: Address, streams: Streams, *, timeout: float, on_queue: Callable[[str], None]
    ) -> None:
        """Connect to nothing yet.

        Args:
            address: of the server.
            streams: of the namespace.
            timeout: seconds that the server may take for a step.
            on_queue: is called with the name of the reply queue, once this process has one.
        """
        self._address = address
        self._streams = streams
        self._timeout = timeout
        self._on_queue = on_queue
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._open_follower: Follower | None = None
        self._open_replies: Replies | None = None
        #: A parent's, kept so that nothing of it is closed.
        self._inherited: list[Follower | Replies | None] = []
        #: Jobs of which is yet to be found out whether they are over.
        self._asked: list[_Question] = []
        self._asker: threading.Thread | None = None

    @property
    def missed(self) -> int:
        """How many entries the server deleted before they were read here."""
        return self._follower().missed

    def refresh(self, on_progress: Callable[[int, int], None] | None = None) -> None:
        """Take in what has been recorded until now. See `Ledger.refresh`."""
        self._follower().refresh(on_progress)

    def job(self, id: str) -> JobInfo | None:  # noqa: A002 -- the word of the API
        """Return all that is known of a job. See `Ledger.job`."""
        self.refresh()
        follower = self._follower()
        found = follower.ask(lambda connection: tables.job(connection, id))
        if found is None or found.status not in _WAITING:
            return found
        told = self._replies().call_roll()
        stream, enqueued = self._streams.names.control, found.enqueued
        asked = follower.run(lambda connection: cancel_asked(connection, stream, id, enqueued))
        found = msgspec.structs.replace(found, cancel_asked=asked)
        running = _running(told()).get(id)
        return found if running is None else _as_running(found, *running)

    def jobs(self, selection: JobSelection, *, limit: int, after: str | None = None) -> Page:
        """Return a page of jobs. See `Ledger.jobs`.

        What runs is known from the workers alone, who tell of a hundred jobs each at the most.
        """
        statuses, ask = selection.statuses, self._follower().ask
        if statuses is not None and not statuses & (_RUNNING | _WAITING):
            self.refresh()
            return ask(lambda connection: tables.jobs(connection, selection, limit=limit, after=after))
        told_by_workers = self._replies().call_roll()  # they answer while the index is brought up to now
        self.refresh()
        running = _running(told_by_workers())
        if statuses == _RUNNING:
            found = ask(lambda connection: [tables.job(connection, job_id) for job_id in running])
            return _only_running(selection, running, found, limit)
        wanted = selection
        if statuses is not None and "running" in statuses:  # they stand among those that wait
            wanted = msgspec.structs.replace(selection, statuses=statuses - _RUNNING | _WAITING)
        page = ask(lambda connection: tables.jobs(connection, wanted, limit=limit, after=after))
        told = [_as_running(job, *running[job.id]) if job.id in running else job for job in page.jobs]
        kept = [job for job in told if statuses is None or job.status in statuses]
        return msgspec.structs.replace(page, jobs=kept)

    def watch(self, id: str, *, is_ours: bool) -> Future[Ending | None]:  # noqa: A002
        """Return a future of how the job ends. See `Ledger.watch`."""
        future: Future[Ending | None] = Future()
        if is_ours and made_at(id) is not None:
            self._replies().watch(id, future)
            return future
        if is_ours:
            self._replies()  # the next one need not be asked for
        self._check_process()
        with self._lock:
            self._asked.append(_Question(id, future, is_ours))
            if self._asker is None:
                self._asker = threading.Thread(target=self._ask, name="dibs-rabbitmq-asker", daemon=True)
                self._asker.start()
        return future

    def workers(self) -> list[Snapshot]:
        """Return what each worker last said of itself. See `Ledger.workers`."""
        return self._replies().call_roll()()

    def endings(self, ids: Collection[str]) -> dict[str, Ending]:
        """Return how those of these jobs ended that are over. See `Ledger.endings`."""
        self.refresh()
        return self._follower().ask(lambda connection: tables.endings(connection, ids))

    def minutes(self, since: int) -> list[Minute]:
        """Return what was recorded by minute and queue. See `Ledger.minutes`."""
        self.refresh()
        return self._follower().ask(lambda connection: history.minutes(connection, since))

    def runs(self, since: int, *, limit: int) -> PastRuns:
        """Return the runs that ended since then, the latest end first. See `Ledger.runs`."""
        self.refresh()
        return self._follower().ask(lambda connection: history.runs(connection, since, now=now_ms(), limit=limit))

    def close(self) -> None:
        """Close what was opened here. Safe to call twice."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            follower, self._open_follower = self._open_follower, None
            replies, self._open_replies = self._open_replies, None
        if follower is not None:
            follower.close()
        if replies is not None:
            replies.close()

    def _follower(self) -> Follower:
        self._check_process()
        with self._lock:
            if self._open_follower is None:
                self._open_follower = Follower(self._address, self._streams, timeout=self._timeout)
            return self._open_follower

    def _replies(self) -> Replies:
        self._check_process()
        with self._lock:
            if self._open_replies is None:
                self._open_replies = Replies(self._address, self._streams, self._on_queue)
            return self._open_replies

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            self._pid, self._lock = os.getpid(), threading.Lock()
            self._inherited += (self._open_follower, self._open_replies)
            self._open_follower = self._open_replies = self._asker = None
            self._asked = []

    def _ask(self) -> None:
        """Find out of jobs whether they are over, all that were asked for together; have what goes on looked for."""
        while True:
            with self._lock:
                asked, self._asked = self._asked, []
                if not asked:
                    self._asker = None
                    return
            try:
                later = self._tell(asked)
            except DibsError as error:
                for question in asked:
                    if question.future.set_running_or_notify_cancel():
                        question.future.set_exception(error)
                continue
            if later:
                time.sleep(_PAUSE)
                with self._lock:
                    self._asked += later

    def _tell(self, asked: list[_Question]) -> list[_Question]:
        """Tell what is known. Returns those of which nothing is known yet."""
        follower = self._follower()
        follower.refresh()
        ids = {question.id for question in asked}
        place, endings, known = follower.ask(lambda connection: _look_up(connection, ids))
        later = []
        for question in asked:
            job_id, future, is_ours = question
            if job_id in endings:
                if future.set_running_or_notify_cancel():
                    future.set_result(endings[job_id])
            elif job_id in known or is_ours:
                self._replies().watch_from(place, job_id, future)
            elif now_ms() - (made_at(job_id) or 0) < _LATE:
                later.append(question)
            elif future.set_running_or_notify_cancel():
                future.set_result(None)
        return later


def _look_up(connection: sqlite3.Connection, ids: Collection[str]) -> tuple[int, dict[str, Ending], set[str]]:
    """Return how far the index is, how those of these jobs ended that are over, and which of them are known."""
    place = int(connection.execute(_PLACE).fetchone()[0])
    known = {job_id for (job_id,) in connection.execute(_KNOWN, (json.dumps(list(ids)),))}
    return place, tables.endings(connection, ids), known


def _running(workers: list[Snapshot]) -> dict[str, tuple[Running, Snapshot]]:
    """Return what runs, by the job's id."""
    return {
        running.id: (running, worker)
        for worker in workers
        for executor in worker.executors
        for running in executor.running
    }


def _as_running(job: JobInfo, running: Running, worker: Snapshot) -> JobInfo:
    """Return a job that waits as one that a worker says it runs."""
    if job.status not in _WAITING:
        return job  # it is over meanwhile
    return msgspec.structs.replace(
        job,
        status="running",
        attempt=running.attempt,
        started=running.since,
        worker=worker.worker,
        progress=job.progress if running.progress is None else running.progress,
    )


def _only_running(
    selection: JobSelection,
    running: dict[str, tuple[Running, Snapshot]],
    jobs: list[JobInfo | None],
    limit: int,
) -> Page:
    """Return those that run, and fit. Those whose beginning is not recorded yet are left out."""
    told = [_as_running(job, *running[job.id]) for job in jobs if job is not None]
    fitting = [
        msgspec.structs.replace(job, body=None, result=None, note=None, runs=[], log=[])
        for job in told
        if job.status == "running"
        and selection.queue in {None, job.queue}
        and selection.task in {None, job.task}
        and selection.reason is None
        and (selection.since is None or max(job.enqueued or 0, job.started or 0) >= selection.since)
    ]
    fitting.sort(key=lambda job: (job.enqueued or 0, job.id), reverse=True)
    return Page(fitting[:limit], None)
