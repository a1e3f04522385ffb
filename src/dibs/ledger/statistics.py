"""What happened of late, as the ledger sums it up: by the minute, and as runs in order. Times are ms since 1970."""

from __future__ import annotations

import msgspec

#: In ms: what one `Minute` is about.
MINUTE = 60_000


class Minute(msgspec.Struct, frozen=True, kw_only=True):
    """What was recorded of one queue in one minute. Written by the batch of outcomes, never by the job."""

    #: Its first ms.
    start: int
    #: Without the namespace.
    queue: str
    #: Outcomes by kind.
    done: int = 0
    retried: int = 0
    dead: int = 0
    cancelled: int = 0
    #: Runs that ended, and how many ms they took together.
    runs: int = 0
    ran: int = 0
    #: First runs among them that began when the job was due, or was handed over; how many ms those had waited
    #: together, and the longest.
    waits: int = 0
    waited: int = 0
    longest: int = 0
    #: How many jobs waited when somebody counted last in this minute; None: nobody did.
    depth: int | None = None


class PastRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run that is over, with the job that it was of."""

    id: str
    task: str | None
    #: Without the namespace.
    queue: str
    attempt: int
    started: int
    ended: int
    #: `host:pid` of the worker.
    worker: str | None
    #: "done", "retry", "dead" or "cancelled"; "lost": its worker died with it, and another one took the job over.
    outcome: str


class PastRuns(msgspec.Struct, frozen=True):
    """Runs that are over, the latest end first."""

    runs: list[PastRun]
    #: From this time on all of them are here; before it, those that failed only.
    whole_since: int
