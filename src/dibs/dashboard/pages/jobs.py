"""Jobs, newest first, with filters, and the search by id."""

from __future__ import annotations

from dibs.dashboard.page import Page, Query, Shown
from dibs.dashboard.source import Source
from dibs.ledger.life import STATUSES, JobSelection, Status
from dibs.message import now_ms

_ROWS = 50
#: By the word in the address, in ms.
AGES = {"5m": 300_000, "1h": 3_600_000, "24h": 86_400_000, "7d": 604_800_000}


class JobsQuery(Query, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Which jobs, and from where on."""

    status: Status | None = None
    queue: str | None = None
    task: str | None = None
    since: str | None = None
    after: str | None = None
    #: What was searched for and not found.
    missing: str | None = None


def look(source: Source, query: JobsQuery) -> Shown:
    """Return a page of jobs."""
    board = source.board()
    now = now_ms()
    selection = JobSelection(
        statuses=None if query.status is None else frozenset({query.status}),
        queue=query.queue,
        task=query.task,
        since=now - AGES[query.since] if query.since in AGES else None,
    )
    found = source.jobs(selection, limit=_ROWS, after=query.after)
    return {"board": board, "found": found, "now": now, "statuses": STATUSES, "ages": list(AGES)}


PAGE = Page("/jobs", "Jobs", "Jobs", "jobs.html", JobsQuery, look)
