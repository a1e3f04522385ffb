"""The overview: is all well? The last hour in charts, each queue in a row, and who ran what when."""

from __future__ import annotations

from typing import Literal

from dibs.dashboard.charts import Chart, Series, bars, lines, spark
from dibs.dashboard.hour import Hour
from dibs.dashboard.page import Page, Query, Shown
from dibs.dashboard.slots import busy_of_all
from dibs.dashboard.source import Board, Source
from dibs.dashboard.timeline import Timeline, lay_out
from dibs.dashboard.wording import duration, number
from dibs.ledger.life import JobInfo, JobSelection
from dibs.ledger.statistics import MINUTE

#: How far back the timeline goes, in ms.
_SPANS = {"1m": MINUTE, "5m": 5 * MINUTE, "15m": 15 * MINUTE, "1h": 60 * MINUTE}
#: So many runs that failed, and so many others, are looked at at the most.
_RUNS = 1000
_FAILURES = 8
#: The part of runs that failed from which on it is shown in colour.
_WORRYING, _BAD = 0.02, 0.2


class OverviewQuery(Query, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How far back the timeline goes."""

    span: Literal["1m", "5m", "15m", "1h"] = "5m"


def look(source: Source, query: OverviewQuery) -> Shown:
    """Return all that the overview shows."""
    board = source.board()
    now = board.at
    hour = Hour(source.minutes(now - 59 * MINUTE), now)
    totals = hour.totals()
    rate = totals.failures / totals.outcomes if totals.outcomes else 0.0
    return {
        "board": board,
        "spans": list(_SPANS),
        "hour": totals,
        "alarm": "bad" if rate >= _BAD else "warn" if rate >= _WORRYING else "",
        "last": _last_minute(hour),
        "slots": sum(worker.slots for worker in board.workers),
        "busy": busy_of_all(board.workers),
        "throughput": _throughput(hour),
        "waiting": _waiting(hour),
        "depth": _depth(hour),
        "rows": _rows(board, hour),
        "timeline": _timeline(source, board, query),
        "failures": _failures(source),
    }


def _failures(source: Source) -> list[JobInfo]:
    """Return what died last. A list is in the order of handing over, so more of it are looked at than are shown."""
    found = source.jobs(JobSelection(statuses=frozenset({"dead"})), limit=5 * _FAILURES, after=None).jobs
    return sorted(found, key=lambda job: -(job.ended or 0))[:_FAILURES]


def _last_minute(hour: Hour) -> dict[str, float | None]:
    """Return the numbers of the last minute that is over, or of the present one where that has more."""
    ended, waits = hour.ended(), hour.waits()
    return {"ended": max(ended[-2:]), "wait": waits[-1] if waits[-1] is not None else waits[-2]}


def _throughput(hour: Hour) -> Chart:
    kinds = (("done", "done"), ("cancelled", "cancelled"), ("retry", "retried"), ("dead", "dead"))
    series = [Series(kind, name, hour.counts(name)) for kind, name in kinds]
    say = [
        ", ".join(f"{number(one.values[place])} {one.name}" for one in series if one.values[place]) or "nothing"
        for place in range(len(hour.starts))
    ]
    totals = hour.totals()
    return bars(
        hour.starts,
        series,
        summary=f"Runs that ended by the minute over the last hour: {number(totals.done)} done, "
        f"{number(totals.retried)} to be tried again, {number(totals.dead)} dead, "
        f"{number(totals.cancelled)} cancelled; at most {number(max(hour.ended()))} a minute.",
        say=say,
    )


def _waiting(hour: Hour) -> Chart:
    mean, longest = hour.waits(), hour.longest()
    totals = hour.totals()
    return lines(
        hour.starts,
        [Series("wait", "mean", mean), Series("longest", "longest", longest)],
        summary=f"Waiting time by the minute over the last hour: {duration(totals.wait)} in the mean, "
        f"{duration(totals.longest)} at the longest.",
        say=[
            "nothing began" if one is None else f"{duration(one)} in the mean, longest {duration(most)}"
            for one, most in zip(mean, longest, strict=True)
        ],
    )


def _depth(hour: Hour) -> Chart:
    depths = hour.depths()
    known = [depth for depth in depths if depth is not None]
    return lines(
        hour.starts,
        [Series("depth", "waiting", depths)],
        summary=f"Jobs that waited, over the last hour, where somebody counted: "
        f"{number(known[-1] if known else None)} now, {number(max(known, default=None))} at the most.",
        say=["not counted" if depth is None else f"{number(depth)} waited" for depth in depths],
    )


def _rows(board: Board, hour: Hour) -> list[Shown]:
    by_queue, rows = hour.by_queue(), []
    for queue in board.queues:
        own = by_queue.get(queue.name) or Hour((), hour.starts[-1])
        totals, ended, waits, depths = own.totals(), own.ended(), own.waits(), own.depths()
        rows.append(
            {
                "queue": queue,
                "totals": totals,
                "ended": spark(ended, "done", summary=f"{number(sum(ended))} ended in the last hour"),
                "waits": spark(waits, "wait", summary=f"{duration(totals.wait)} waited in the mean"),
                "depths": spark(depths, "depth", summary=f"{number(queue.ready)} wait now"),
            }
        )
    return rows


def _timeline(source: Source, board: Board, query: OverviewQuery) -> Timeline:
    span = _SPANS[query.span]
    past = source.runs(board.at - span, limit=_RUNS)
    return lay_out(past, board.workers, span=span, now=board.at)


PAGE = Page("/", "Overview", "Overview", "overview.html", OverviewQuery, look)
