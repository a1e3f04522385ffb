"""Histories that jobs may have: what their ledger says, and what is true of them at the end."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from dibs.brokers.rabbitmq.ledger.entries import Dropped, Ended, Enqueued, Entry, Noted, Purged, Replayed

QUEUES = ("a", "b")
_DAY = 86_400_000


@dataclass
class Sim:
    """One job."""

    id: str
    queue: str
    status: str = "none"
    enqueued: int = 0
    due: int | None = None
    attempt: int = 1
    crashes: int = 0
    keep: int = _DAY
    is_running: bool = False
    runs: list[tuple[int, str]] = field(default_factory=list)
    progress: bytes | None = None
    ended: int = 0


class History:
    """Makes entries, in the order in which they happen."""

    def __init__(self, seed: int, *, jobs: int, steps: int, begun: int = 1_700_000_000_123) -> None:
        self._random = random.Random(seed)
        self.now = begun
        self.entries: list[Entry] = []
        self.jobs = [Sim(f"job-{seed}-{number}", self._random.choice(QUEUES)) for number in range(jobs)]
        for _ in range(steps):
            self.now += self._random.choice((10, 40, 900, 2100))
            self._step()
        self.now += 10_000

    def truth(self) -> dict[str, tuple[str, int, list[tuple[int, str]], bytes | None]]:
        """Return status, attempt, runs before the last and progress of the jobs that are known at the end."""
        found = {}
        for job in self.jobs:
            is_forgotten = job.status in {"done", "cancelled"} and job.ended + job.keep <= self.now
            if job.status not in {"none", "purged"} and not is_forgotten:
                status = job.status
                if status == "ready" and job.due is not None and job.due > self.now:
                    status = "delayed"
                found[job.id] = status, job.attempt, sorted(job.runs), job.progress
        return found

    def _step(self) -> None:
        if self._random.random() < 0.04:
            self._sweep(self._random.choice(QUEUES))
            return
        job = self._random.choice(self.jobs)
        match job.status:
            case "dead":
                self._random.choice((self._enqueue, self._replay, self._replay, self._drop))(job)
            case "ready" | "purged" if job.is_running:
                self._random.choice((self._end, self._retry, self._note))(job)
            case "ready" if job.due is None or job.due <= self.now:
                if self._random.random() < 0.2:
                    self._end(job, has_run=False)
                elif self._random.random() < 0.2:
                    self._retry(job, has_run=False)
                else:
                    job.is_running = True
            case "ready":
                self._end(job, has_run=False)
            case _:
                self._enqueue(job)

    def _enqueue(self, job: Sim) -> None:
        self.now += 1000
        job.status, job.enqueued, job.attempt, job.crashes, job.is_running = "ready", self.now, 1, 0, False
        job.runs, job.progress = [], None
        job.due = self._random.choice((None, None, self.now + 30, self.now + _DAY))
        job.keep = self._random.choice((0, 3000, _DAY))
        body = self._random.randbytes(4)
        entry = Enqueued(
            job.id, job.queue, "t", self.now, job.due, None, 7, job.keep, False, body, "application/json"
        )
        self.entries.append(entry)

    def _ended(self, job: Sim, outcome: str, *, has_run: bool, **fields: object) -> None:
        started, ended = (self.now - 5, self.now - 2) if has_run else (None, None)
        log = [f"line {self.now}"] if has_run and self._random.random() < 0.3 else []
        entry = Ended(
            job.id,
            job.queue,
            "t",
            job.enqueued // 1000 * 1000,
            outcome,
            self.now,
            "host:1",
            job.attempt,
            job.crashes,
            job.keep,
            False,
            started,
            ended,
            log=log,
            **fields,  # type: ignore[arg-type]  # a test's own keyword arguments
        )
        self.entries.append(entry)
        job.ended = self.now if ended is None else ended
        job.is_running = False

    def _retry(self, job: Sim, *, has_run: bool = True) -> None:
        attempt = job.attempt
        is_crash = self._random.random() < 0.3
        again = attempt if is_crash or not has_run else attempt + 1
        job.crashes += is_crash
        job.due = self._random.choice((None, self.now + 20, self.now + _DAY))
        self._ended(job, "retry", has_run=has_run, error=f"boom {self.now}", due=job.due, again=again)
        if has_run:
            job.runs.append((attempt, f"boom {self.now}"))
        job.attempt, job.status = again, "ready"

    def _end(self, job: Sim, *, has_run: bool = True) -> None:
        outcome = self._random.choice(("done", "done", "dead", "cancelled"))
        match outcome:
            case "done":
                self._ended(job, outcome, has_run=has_run, result=b"1")
            case "dead":
                self._ended(job, outcome, has_run=has_run, reason="failed", error="dead")
            case _:
                self._ended(job, outcome, has_run=has_run)
        job.status = outcome

    def _note(self, job: Sim) -> None:
        job.progress = b'{"done":%d}' % self.now
        self.entries.append(Noted(job.id, self.now, job.progress, None))

    def _replay(self, job: Sim) -> None:
        self.entries.append(Replayed([job.id], job.queue, self.now))
        job.status, job.attempt, job.crashes, job.runs, job.progress, job.due = "ready", 1, 0, [], None, None

    def _drop(self, job: Sim) -> None:
        self.entries.append(Dropped([job.id], job.queue, self.now))
        job.status = "none"

    def _sweep(self, queue: str) -> None:
        """Purge a queue, or drop all of its dead letters."""
        is_purge = self._random.random() < 0.5
        self.entries.append(Purged(queue, self.now) if is_purge else Dropped(None, queue, self.now))
        for job in self.jobs:
            if job.queue != queue:
                continue
            if is_purge and job.status == "ready" and (job.due is None or job.due <= self.now):
                job.status = "purged"  # a running one tells otherwise when it ends
            elif not is_purge and job.status == "dead":
                job.status = "none"
