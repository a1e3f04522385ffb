"""The ledger of one database file: it stands in the same tables as the queues. See `dibs.ledger.ledger`."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import msgspec

from dibs.brokers.sqlite import counts
from dibs.brokers.sqlite.liveness import CLAIM_BITS, Standing, Worker, examine, snapshot_path
from dibs.brokers.sqlite.opened import Opened
from dibs.ledger import history, tables
from dibs.ledger.life import Ending, JobInfo, JobSelection, Page
from dibs.ledger.snapshot import Snapshot
from dibs.ledger.statistics import Minute, PastRuns
from dibs.message import now_ms

# Served by the index of the ids, and by the primary key. The worker's number is the upper part of a receipt.
_RUNNERS = """
SELECT dibs_jobs.id, host || ':' || pid FROM dibs_jobs JOIN dibs_workers ON dibs_workers.id = receipt >> ?
WHERE dibs_jobs.id IN (SELECT value FROM json_each(?)) AND +state = 2
"""

_SNAPSHOT = msgspec.json.Decoder(Snapshot)


class SqliteLedger:
    """The record of jobs of one namespace. Shared by threads."""

    def __init__(self, open: Callable[[], Opened], *, prefix: str) -> None:  # noqa: A002 -- what it does
        """Look at nothing yet.

        Args:
            open: returns what this process has open, opening it first where need be.
            prefix: the namespace with its dot, or "".
        """
        self._open = open
        self._prefix = prefix

    @property
    def missed(self) -> int:
        """Return 0: what is recorded is never cut off."""
        return 0

    def refresh(self, on_progress: Callable[[int, int], None] | None = None) -> None:
        """Do nothing: what happened stands in the file."""

    def job(self, id: str) -> JobInfo | None:  # noqa: A002 -- the word of the API
        """Return all that is known of a job. See `Ledger.job`."""
        with self._one_moment() as connection:
            found = tables.job(connection, id, prefix=self._prefix)
            return None if found is None else _with_workers(connection, [found])[0]

    def jobs(self, selection: JobSelection, *, limit: int, after: str | None = None) -> Page:
        """Return a page of the jobs that are meant, newest first. See `Ledger.jobs`."""
        with self._one_moment() as connection:
            page = tables.jobs(connection, selection, prefix=self._prefix, limit=limit, after=after)
            return msgspec.structs.replace(page, jobs=_with_workers(connection, page.jobs))

    def watch(self, id: str, *, is_ours: bool) -> Future[Ending | None]:  # noqa: A002
        """Return a future of how the job ends. See `Ledger.watch`.

        A job of this process that is not there is over: it was handed over.
        """
        return self._open().waiting(self._prefix).watch(id, is_ours=is_ours)

    def workers(self) -> list[Snapshot]:
        """Return what each worker that is alive last said of itself. See `Ledger.workers`."""
        directory = self._open().store.directory
        with self._one_moment() as connection:
            workers = [Worker(*row) for row in connection.execute(counts.WORKERS).fetchall()]
        found = []
        for worker in workers:
            if not any(queue.startswith(self._prefix) for queue in json.loads(worker.queues)):
                continue
            snapshot = _read(snapshot_path(directory, worker.id))
            if snapshot is not None:
                with examine(directory, worker) as standing:
                    if standing is not Standing.DEAD:
                        found.append(snapshot)
        return sorted(found, key=lambda snapshot: snapshot.worker)

    def endings(self, ids: Collection[str]) -> dict[str, Ending]:
        """Return how those of these jobs ended that are over."""
        with self._one_moment() as connection:
            return tables.endings(connection, ids, prefix=self._prefix)

    def minutes(self, since: int) -> list[Minute]:
        """Return what was recorded by minute and queue. See `Ledger.minutes`."""
        with self._one_moment() as connection:
            return history.minutes(connection, since, prefix=self._prefix)

    def runs(self, since: int, *, limit: int) -> PastRuns:
        """Return the runs that ended since then, the latest end first. See `Ledger.runs`."""
        with self._one_moment() as connection:
            return history.runs(connection, since, now=now_ms(), limit=limit, prefix=self._prefix)

    @contextmanager
    def _one_moment(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection whose reads all see the file as it is at the first of them."""
        opened = self._open()
        with opened.connection() as connection, opened.store.read():
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                connection.execute("ROLLBACK")


def _with_workers(connection: sqlite3.Connection, jobs: Sequence[JobInfo]) -> list[JobInfo]:
    """Return these jobs with who runs those that run."""
    running = [job.id for job in jobs if job.status == "running"]
    if not running:
        return list(jobs)
    workers = dict(connection.execute(_RUNNERS, (CLAIM_BITS, json.dumps(running))).fetchall())
    return [
        msgspec.structs.replace(job, worker=workers.get(job.id)) if job.status == "running" else job for job in jobs
    ]


def _read(path: Path) -> Snapshot | None:
    """Return the snapshot in a file; None: there is none, or one of another version."""
    try:
        return _SNAPSHOT.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError):
        return None
