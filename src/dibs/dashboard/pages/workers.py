"""The workers that live, with their executors, and what each one runs."""

from __future__ import annotations

from dibs.dashboard.page import Page, Query, Shown
from dibs.dashboard.slots import busy
from dibs.dashboard.source import Source


class WorkersQuery(Query, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Nothing."""


def look(source: Source, query: WorkersQuery) -> Shown:
    """Return what each worker says of itself."""
    del query
    board = source.board()
    versions = {worker.version for worker in board.workers}
    return {"board": board, "now": board.at, "versions": versions, "busy": busy}


PAGE = Page("/workers", "Workers", "Workers", "workers.html", WorkersQuery, look)
