"""The life of one job as a picture: what it waited for and what ran, one behind the other."""

from __future__ import annotations

from typing import NamedTuple

from dibs.ledger.life import JobInfo, RunInfo

#: In percent: what a part takes at least, that it can be seen.
_LEAST = 2.0
#: In percent: what a part takes at least that says how long it was.
_TOLD = 7.0


class Part(NamedTuple):
    """A stretch of a job's life."""

    #: "wait", "delay", or what came of a run; "running".
    kind: str
    started: int
    #: None: it lasts.
    ended: int | None
    took: int
    #: Of the whole, in percent.
    left: float
    width: float
    is_told: bool
    run: RunInfo | None


class Lifeline(NamedTuple):
    """All of it."""

    parts: list[Part]
    #: Short parts are drawn wider than they were.
    is_stretched: bool


def draw(job: JobInfo, now: int) -> Lifeline:
    """Return the parts of a job's life up to now; none where nobody knows when it began."""
    raw: list[tuple[str, int, int | None, RunInfo | None]] = []
    at = job.enqueued
    timed = [run for run in job.runs if run.started is not None]
    for run in timed:
        started = run.started or 0
        if at is not None and started > at:
            raw.append(("wait", at, started, None))
        ended = run.ended if run.ended is not None else started
        raw.append((run.outcome, started, max(ended, started), run))
        at = max(ended, started)
    raw += _rest(job, at, now, bool(timed))
    return _measure(raw, now)


def _rest(job: JobInfo, at: int | None, now: int, has_run: bool) -> list[tuple[str, int, int | None, RunInfo | None]]:
    """Return what is not over, or ended without a run."""
    started = job.started if job.started is not None else now
    match job.status:
        case "running":
            waited: list[tuple[str, int, int | None, RunInfo | None]]
            waited = [("wait", at, started, None)] if at is not None and started > at else []
            return [*waited, ("running", started, None, None)]
        case "delayed" | "ready" if at is not None:
            return [("delay" if job.status == "delayed" else "wait", at, None, None)]
        case "dead" | "cancelled" | "done" if not has_run and at is not None and job.ended is not None:
            return [("wait", at, max(job.ended, at), None)]
        case _:
            return []


def _measure(raw: list[tuple[str, int, int | None, RunInfo | None]], now: int) -> Lifeline:
    took = [max((now if ended is None else ended) - started, 0) for _, started, ended, _ in raw]
    total = sum(took) or 1
    shares = [length / total * 100 for length in took]
    least = min(_LEAST, 100 / max(len(raw), 1))
    widened = [max(share, least) for share in shares]
    # What the short ones got more is taken from the others, in proportion to what they have above the least.
    spare = sum(width - least for width in widened)
    excess = sum(widened) - 100
    widths = [width - excess * (width - least) / spare if spare else 100 / len(raw) for width in widened]
    parts, left = [], 0.0
    for (kind, started, ended, run), length, width in zip(raw, took, widths, strict=True):
        parts.append(Part(kind, started, ended, length, round(left, 3), round(width, 3), width >= _TOLD, run))
        left += width
    return Lifeline(parts, any(share < least for share in shares))
