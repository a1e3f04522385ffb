"""The life of a job, as the ledger tells it. Values only; times are ms since 1970."""

from __future__ import annotations

from typing import Literal

import msgspec

#: Where a job is in its life.
Status = Literal["delayed", "ready", "running", "done", "dead", "cancelled"]
#: All of them, in the order of a job's life.
STATUSES: tuple[Status, ...] = ("delayed", "ready", "running", "done", "dead", "cancelled")

#: What whoever asks for the result of a private job is told.
PRIVATE_NOTE = "The job is private: neither its arguments nor its result are kept."


class Progress(msgspec.Struct, frozen=True):
    """How far a job says it is."""

    done: float
    #: None: it does not know how much there is.
    total: float | None = None
    note: str = ""


class Note(msgspec.Struct, frozen=True):
    """What a running job has to say of itself."""

    #: None: nothing new.
    progress: Progress | None = None
    #: Its last lines of log, all that are to be kept; None: nothing new.
    log: list[str] | None = None


class RunInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a job that is over."""

    attempt: int
    started: int | None
    ended: int | None
    #: `host:pid` of the worker.
    worker: str | None
    #: "done", "retry", "dead" or "cancelled".
    outcome: str
    #: Text with traceback, where it failed.
    error: str | None = None


class JobInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a job."""

    id: str
    #: None for a plain message.
    task: str | None
    #: Without the namespace.
    queue: str
    status: Status
    priority: int
    #: Which run the present or the next one is; of one that is over, the last.
    attempt: int
    crashes: int = 0
    #: When it was handed over; None where a stranger did not say.
    enqueued: int | None = None
    #: Not before this time.
    due: int | None = None
    expires: int | None = None
    #: When its present or last run began.
    started: int | None = None
    #: When it was over.
    ended: int | None = None
    #: Of the present or the last run.
    worker: str | None = None
    #: Why it is dead: one of `Reason`.
    reason: str | None = None
    #: What its last failure said.
    error: str | None = None
    progress: Progress | None = None
    is_private: bool = False

    # What a list of jobs leaves out:

    #: The arguments as they came; None: private, or not kept.
    body: bytes | None = None
    #: As JSON; None: there is none.
    result: bytes | None = None
    #: Why the result, or the body, is not kept.
    note: str | None = None
    #: When somebody asked for it to be cancelled, which is yet to be done.
    cancel_asked: int | None = None
    #: Runs that are over, oldest first.
    runs: list[RunInfo] = []
    #: The lines that it logged last.
    log: list[str] = []


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """How a job ended: what whoever waits for it is told."""

    #: "forgotten": it is over, and nothing of it is kept.
    status: Literal["done", "dead", "cancelled", "forgotten"]
    result: bytes | None = None
    note: str | None = None
    reason: str | None = None
    error: str | None = None


class JobSelection(msgspec.Struct, frozen=True, kw_only=True):
    """Which jobs are meant: those that fit all that is given."""

    statuses: frozenset[Status] | None = None
    queue: str | None = None
    task: str | None = None
    #: The dead only.
    reason: str | None = None
    #: Handed over, begun or ended at this time or later.
    since: int | None = None


class Page(msgspec.Struct, frozen=True):
    """Some jobs, newest first, without what a list leaves out."""

    jobs: list[JobInfo]
    #: Where to go on; None: that was all.
    next: str | None
    #: Looking took too long and was ended before the page was full.
    is_cut: bool = False
