"""Dead letters: what was set aside and why, replayed or dropped one by one or all that fit.

They are listed from the ledger: to walk through them in the broker would take them out of others' sight (RabbitMQ).
"""

from __future__ import annotations

from dibs.dashboard.page import Page, Query, Shown
from dibs.dashboard.pages.jobs import AGES
from dibs.dashboard.source import Source
from dibs.ledger.life import JobSelection
from dibs.message import now_ms
from dibs.outcome import Reason

_ROWS = 50


class DeadQuery(Query, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Which dead letters, and from where on."""

    queue: str | None = None
    task: str | None = None
    reason: str | None = None
    since: str | None = None
    after: str | None = None


def look(source: Source, query: DeadQuery) -> Shown:
    """Return a page of dead letters."""
    board = source.board()
    now = now_ms()
    selection = JobSelection(
        statuses=frozenset({"dead"}),
        queue=query.queue,
        task=query.task,
        reason=query.reason,
        since=now - AGES[query.since] if query.since in AGES else None,
    )
    found = source.jobs(selection, limit=_ROWS, after=query.after)
    return {
        "board": board,
        "found": found,
        "now": now,
        "reasons": Reason.__args__,  # type: ignore[attr-defined]  # typing gives Literal no such attribute
        "ages": list(AGES),
        "is_filtered": bool(query.task or query.reason or query.since),
    }


PAGE = Page("/dead", "Dead letters", "Dead", "dead.html", DeadQuery, look)
