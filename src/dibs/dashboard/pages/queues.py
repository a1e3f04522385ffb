"""The queues: what waits where, and pausing, resuming and purging them."""

from __future__ import annotations

from dibs.dashboard.page import Page, Query, Shown
from dibs.dashboard.source import Source


class QueuesQuery(Query, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Nothing."""


def look(source: Source, query: QueuesQuery) -> Shown:
    """Return what each queue holds."""
    del query
    board = source.board()
    return {"board": board, "counts_held": source.broker.capabilities.counts_held}


PAGE = Page("/queues", "Queues", "Queues", "queues.html", QueuesQuery, look)
