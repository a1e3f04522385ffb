"""All that was said of one job, brought together in whatever order it was said.

Entries come in any order and may come twice; an account comes to the same. A job's *life* begins when it is handed
over, and anew when it is handed over again under the same id or replayed: of earlier lives nothing is told, so what
belongs to one is dropped. Handed over is told by the second, which is what messages carry; all else by the clocks of
those who wrote. Of several ends of one life the first that is added counts: all readers add in the stream's order.
"""

from __future__ import annotations

from dibs.brokers.rabbitmq.ledger.entries import Ended, Enqueued, Noted
from dibs.message import DEFAULT_KEEP, DEFAULT_PRIORITY

#: States as the tables number them.
READY, DELAYED, DEAD, DONE, CANCELLED = 0, 1, 3, 4, 5
_ENDS = {"dead": DEAD, "done": DONE, "cancelled": CANCELLED}

#: What a run is kept as: attempt, started, ended, worker, outcome, error.
RunRow = tuple[int, int, int | None, str, str, str | None]

#: So many further ends of a job are remembered, in case that a replay stands between them.
_MOST_ENDS = 8
#: Later than all times.
_EVER = 2**62


class Account:
    """What is known of one job. The fields up to `body` are columns of `dibs_jobs`, in this order."""

    __slots__ = (
        "attempt",
        "body",
        "content_type",
        "crashes",
        "death_error",
        "dropped",
        "due",
        "ended",
        "ends",
        "enqueued",
        "error",
        "expires",
        "forget_runs_before",
        "has_beside",
        "id",
        "is_anew",
        "is_private",
        "keep",
        "log",
        "note",
        "priority",
        "progress",
        "queue",
        "reason",
        "replayed",
        "result",
        "retry",
        "runs",
        "seq",
        "started",
        "state",
        "task",
        "worker",
    )  # fmt: skip

    def __init__(self, id: str) -> None:  # noqa: A002 -- the word of the API
        self.id = id
        #: None: only asides were heard, which don't say it.
        self.queue: str | None = None
        self.priority = DEFAULT_PRIORITY
        self.due: int | None = None
        self.expires: int | None = None
        self.attempt = 1
        self.crashes = 0
        #: To the ms, or rounded down to the second; None: not known.
        self.enqueued: int | None = None
        self.keep = int(DEFAULT_KEEP * 1000)
        self.is_private = 0
        self.started: int | None = None
        self.ended: int | None = None
        self.worker: str | None = None
        self.task: str | None = None
        self.content_type: str | None = None
        self.error: str | None = None
        self.reason: str | None = None
        self.death_error: str | None = None
        self.note: str | None = None
        self.result: bytes | None = None
        self.body = b""
        #: READY where it is not over: whether it is delayed is a matter of the time.
        self.state = READY
        #: When it was replayed, and dropped, last; 0: never.
        self.replayed = 0
        self.dropped = 0
        #: The last word on why it comes again.
        self.retry: Ended | None = None
        #: Further ends, which count if a replay turns out to stand before them.
        self.ends: list[Ended] = []
        #: Progress and log, each with when it was said.
        self.progress: tuple[int, bytes] | None = None
        self.log: tuple[int, list[str]] | None = None
        #: Runs that were added and are not stored.
        self.runs: list[RunRow] = []
        #: Stored runs that ended before this time belong to earlier lives.
        self.forget_runs_before = 0
        #: A new life has begun: it goes to the end of the line.
        self.is_anew = False
        #: Where it stands in the tables; None: not there.
        self.seq: int | None = None
        #: More was stored of it than the columns.
        self.has_beside = False

    @property
    def is_rare(self) -> bool:
        """Whether there is more to remember than the columns of a job have room for."""
        return bool(self.replayed or self.dropped or self.retry or self.ends or self.progress or self.log)

    def add_enqueued(self, entry: Enqueued) -> None:
        """Take in that it was handed over."""
        if not self._is_of_this_life(entry.enqueued):
            return
        if self.enqueued is None or entry.enqueued > self.enqueued:
            self.enqueued = entry.enqueued
        self._name(entry.queue, entry.task)
        self.priority = entry.priority
        self.expires = entry.expires
        self.keep = entry.keep
        self.is_private = int(entry.is_private)
        self.content_type = entry.content_type
        self.body = entry.body or b""
        if self.note is None:
            self.note = entry.note
        if self.retry is None and not self.replayed:
            self.due = entry.due

    def add_ended(self, entry: Ended) -> None:
        """Take in that a run of it ended, or that it did without one."""
        if entry.enqueued is not None:
            if not self._is_of_this_life(entry.enqueued):
                return
            if self.enqueued is None:
                self.enqueued = entry.enqueued
        elif self.enqueued is not None and entry.at < _second(self.enqueued):
            return
        if entry.at < self.replayed:
            return
        self._name(entry.queue, entry.task)
        self.keep = entry.keep
        self.is_private = int(entry.is_private)
        if entry.log:
            self._add_log(entry.at, entry.log)
        if entry.outcome not in _ENDS:
            self._add_retry(entry)
        elif self.state == READY:
            self._end(entry)
        elif not self._is_how_it_ended(entry) and entry not in self.ends and len(self.ends) < _MOST_ENDS:
            self.ends.append(entry)

    def add_noted(self, entry: Noted) -> None:
        """Take in what it said of itself while it ran."""
        if entry.at < self.replayed or entry.at < _second(self.enqueued):
            return
        if entry.progress is not None:
            said = (entry.at, entry.progress)
            self.progress = said if self.progress is None else max(said, self.progress)
        if entry.log is not None:
            self._add_log(entry.at, entry.log)

    def add_replayed(self, at: int, queue: str) -> None:
        """Take in that it was put back into its queue: a life without a past."""
        if at <= self.replayed or at < _second(self.enqueued):
            return
        self.replayed = at
        self._name(queue, None)
        self._forget_before(at)
        if self.retry is None:
            self.due = None

    def add_dropped(self, at: int) -> None:
        """Take in that its dead letter was deleted."""
        if at > self.dropped and at >= _second(self.enqueued):
            self.dropped = at

    def is_gone(self, now: int, purged: int, dropped: int) -> bool:
        """Tell whether nothing is to be told of it.

        Args:
            now: the time.
            purged: when what was ready in its queue was deleted last.
            dropped: when all dead letters of its queue were deleted last.
        """
        if self.queue is None:
            return True
        match self.state:
            case 0:
                if not (purged or self.dropped):
                    return False
                said = max(self.enqueued or 0, self.replayed, self.retry.at if self.retry else 0)
                # What waits for its time is spared by a purge, not by who never stored it.
                return max(said, self.due or 0) <= purged or said <= self.dropped
            case 3:
                ended = self.ended or 0
                return ended <= dropped or bool(self.dropped and (self.enqueued or ended) <= self.dropped)
            case _:
                return (self.ended or 0) + self.keep <= now

    def _name(self, queue: str, task: str | None) -> None:
        if self.queue is None:
            self.queue = queue
        if self.task is None:
            self.task = task

    def _is_of_this_life(self, enqueued: int) -> bool:
        """Tell whether what was handed over at that time is this life; one that is later begins with it."""
        if self.enqueued is None:
            if self.queue is not None or self.progress or self.log or self.dropped:
                self._begin(_second(enqueued))
            return True
        known, said = self.enqueued // 1000, enqueued // 1000
        if said > known:
            self.is_anew = True
            self._begin(said * 1000)
            self._forget_runs_before(_EVER)
            self.enqueued = self.due = self.expires = None
            self.priority, self.body, self.content_type, self.note = DEFAULT_PRIORITY, b"", None, None
        return said >= known

    def _begin(self, at: int) -> None:
        """Drop what belongs to lives before the one that began at `at`."""
        if self.replayed < at:
            self.replayed = 0
        if self.dropped < at:
            self.dropped = 0
        self._forget_before(at)

    def _forget_before(self, at: int) -> None:
        """Drop all that was said before `at`."""
        if self.progress is not None and self.progress[0] < at:
            self.progress = None
        if self.log is not None and self.log[0] < at:
            self.log = None
        self._forget_runs_before(at)

    def _forget_runs_before(self, at: int) -> None:
        """Drop runs and ends from before `at`."""
        self.forget_runs_before = max(self.forget_runs_before, at)
        self.runs = [run for run in self.runs if (run[2] or 0) >= at]
        self.ends = [end for end in self.ends if end.at >= at]
        if self.retry is not None and self.retry.at < at:
            self.retry, self.error, self.due = None, None, None
        if self.state != READY and (self.ended or 0) < at:
            if self.state == DONE:
                self.note = None
            self.state, self.started, self.ended, self.worker = READY, None, None, None
            self.reason, self.death_error, self.result = None, None, None
            self.is_anew = True
        if self.state == READY:
            self._wait()
            if self.ends:
                self._end(self.ends.pop(0))

    def _wait(self) -> None:
        """Be as the last word on why it comes again says."""
        if self.retry is not None:
            again = self.retry.attempt + (self.retry.started is not None)
            self.attempt = again if self.retry.again is None else self.retry.again
            self.crashes, self.due, self.error = self.retry.crashes, self.retry.due, self.retry.error
        else:
            self.attempt, self.crashes = 1, 0

    def _add_retry(self, entry: Ended) -> None:
        if entry.started is not None:
            run = (entry.attempt, entry.started, entry.ended, entry.worker, entry.outcome, entry.error)
            if run not in self.runs:
                self.runs.append(run)
        if self.retry is None or (entry.at, entry.attempt) > (self.retry.at, self.retry.attempt):
            self.retry = entry
            if self.state == READY:
                self._wait()
            else:
                self.error, self.due = entry.error, entry.due

    def _end(self, entry: Ended) -> None:
        self.state = _ENDS[entry.outcome]
        self.attempt, self.crashes, self.worker = entry.attempt, entry.crashes, entry.worker
        self.started = entry.started
        self.ended = entry.at if entry.ended is None else entry.ended
        self.result, self.reason = entry.result, entry.reason
        self.death_error = entry.error
        if entry.note is not None:
            self.note = entry.note

    def _is_how_it_ended(self, entry: Ended) -> bool:
        ended = entry.at if entry.ended is None else entry.ended
        return (self.state, self.ended, self.worker) == (_ENDS[entry.outcome], ended, entry.worker)

    def _add_log(self, at: int, lines: list[str]) -> None:
        said = (at, lines)
        self.log = said if self.log is None else max(said, self.log)


def _second(at: int | None) -> int:
    return 0 if at is None else at // 1000 * 1000
