"""One job: its life, what it was called with, what came of it."""

from __future__ import annotations

import json
from typing import Any

from dibs.dashboard.lifeline import draw
from dibs.dashboard.page import Page, Query, Shown
from dibs.dashboard.source import Source
from dibs.dashboard.wording import LONGEST, clip, pretty
from dibs.ledger.life import JobInfo
from dibs.message import now_ms


class JobQuery(Query, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Which one."""

    id: str


def look(source: Source, query: JobQuery) -> Shown:
    """Return one job; `job` is None where nobody knows it."""
    board = source.board()
    job = source.job(query.id)
    now = now_ms()
    if job is None:
        return {"board": board, "job": None, "now": now}
    return {
        "board": board,
        "job": job,
        "now": now,
        "life": draw(job, now),
        "arguments": _arguments(job),
        "body": None if job.body is None else pretty(job.body),
        "result": None if job.result is None else pretty(job.result),
        "error": None if job.error is None else clip(job.error),
        "hides": source.hides_arguments,
        "is_over": job.status in {"done", "dead", "cancelled"},
    }


def _arguments(job: JobInfo) -> list[tuple[str, str]] | None:
    """Return a call's arguments one by one, by place or name; None: the body is no call."""
    if job.body is None or job.task is None or len(job.body) > LONGEST:
        return None
    try:
        call: Any = json.loads(job.body)
    except (ValueError, RecursionError):
        return None
    match call:
        case {"args": list(args), "kwargs": dict(kwargs)}:
            pairs = [(str(place), value) for place, value in enumerate(args, 1)] + list(kwargs.items())
            return [(name, json.dumps(value, ensure_ascii=False, indent=2)) for name, value in pairs]
        case _:
            return None


PAGE = Page("/job", "Job", "Job", "job.html", JobQuery, look)
