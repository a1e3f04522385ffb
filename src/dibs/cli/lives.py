"""Jobs as people and programs read them."""

from __future__ import annotations

import base64
import datetime as dt
from typing import TYPE_CHECKING, Any

from dibs.cli.shown import age, clock, count, cut, iso, pretty, span, text_of
from dibs.raised import raised_in
from dibs.text import visible

if TYPE_CHECKING:
    from dibs.ledger.life import JobInfo, Progress, RunInfo

_PRIVATE = "private: not shown"
#: So many characters at most, and at least, of what a job says last.
_MOST_SAYS, _LEAST_SAYS = 200, 16


def as_json(info: JobInfo) -> dict[str, Any]:
    """Return what a list has of a job, under the names that `docs/reference/cli.md` fixes. Times are in UTC."""
    progress = info.progress
    return {
        "id": info.id,
        "task": info.task,
        "queue": info.queue,
        "status": info.status,
        "priority": info.priority,
        "attempt": info.attempt,
        "crashes": info.crashes,
        "enqueued": iso(info.enqueued, dt.UTC),
        "due": iso(info.due, dt.UTC),
        "expires": iso(info.expires, dt.UTC),
        "started": iso(info.started, dt.UTC),
        "ended": iso(info.ended, dt.UTC),
        "worker": info.worker,
        "reason": info.reason,
        "error": info.error,
        "progress": progress and {"done": progress.done, "total": progress.total, "note": progress.note},
        "private": info.is_private,
    }


def as_whole_json(info: JobInfo) -> dict[str, Any]:
    """Return all of a job, for programs."""
    import msgspec  # noqa: PLC0415

    text = None if info.body is None else text_of(info.body)
    return as_json(info) | {
        "runs": [
            {
                "attempt": run.attempt,
                "started": iso(run.started, dt.UTC),
                "ended": iso(run.ended, dt.UTC),
                "worker": run.worker,
                "outcome": run.outcome,
                "error": run.error,
            }
            for run in info.runs
        ],
        "log": info.log,
        "result": None if info.result is None else msgspec.json.decode(info.result),
        "note": info.note,
        "cancel_asked": iso(info.cancel_asked, dt.UTC),
        "body": text,
        "body_base64": base64.b64encode(info.body).decode() if info.body is not None and text is None else None,
    }


def as_row(info: JobInfo, now: float) -> dict[str, Any]:
    """Return a job as a row of a table."""
    return {
        "id": info.id,
        "status": info.status,
        "queue": info.queue,
        "task": info.task,
        "attempt": info.attempt,
        "last": age(_last(info), now),
        "took": _took(info, now),
        "says": cut(_says(info), _MOST_SAYS) or "-",
    }


def as_step(info: JobInfo, width: int) -> str:
    """Return the line that `--follow` has of a job: when, what, who."""
    last = _last(info)
    when = "-" if last is None else clock(last).partition(" ")[2]
    head = visible(f"{when:12}  {info.status:9}  {info.id}  {info.queue}  {info.task or '-'}").replace("\n", " ")
    took = _took(info, 0) if info.status in {"done", "dead"} else "-"
    tail = "  ".join(part for part in (took, _says(info)) if part not in {"", "-"})
    # Never a cut id: it is there to be copied.
    return f"{head}  {cut(tail, max(width - len(head) - 2, _LEAST_SAYS))}".rstrip()


def as_page(info: JobInfo, now: float) -> str:
    """Return all of a job. Times are the reader's own."""
    head: dict[str, Any] = {
        "id": info.id,
        "task": info.task,
        "queue": info.queue,
        "status": info.status if info.reason is None else f"{info.status}: {info.reason}",
        "priority": info.priority,
        "attempt": f"{info.attempt}" + (f", {count(info.crashes, 'crash', 'crashes')}" if info.crashes else ""),
        "enqueued": _time(info.enqueued, now),
        "due": _time(info.due, now) if info.status == "delayed" else None,
        "expires": _time(info.expires, now),
        "started": _time(info.started, now),
        "ended": _time(info.ended, now),
        "took": _took(info, now) if info.started else None,
        "worker": info.worker,
        "cancel": None if info.cancel_asked is None else f"requested {age(info.cancel_asked, now)}",
        "progress": _progress(info.progress),
    }
    always = {"task", "enqueued"}
    lines = [
        f"{name + ':':12}{'-' if value is None else value}" for name, value in head.items() if value or name in always
    ]
    if info.runs:
        lines += ["", "runs:", *(line for run in info.runs for line in _run(run))]
    if info.error:
        lines += ["", "error:", info.error.rstrip()]
    if info.log:
        lines += ["", f"log, the last {count(len(info.log), 'line', 'lines')}:", *info.log]
    if info.status == "done":
        shown = info.note or "none" if info.result is None else pretty(info.result)
        lines += ["", "result:", _PRIVATE if info.is_private else shown]
    shown = _PRIVATE if info.is_private else info.note or "not kept" if info.body is None else pretty(info.body)
    lines += ["", "arguments:" if info.task else "body:", shown]
    return visible("\n".join(lines))


def _last(info: JobInfo) -> int | None:
    """Return when something happened to it last."""
    times = [time for time in (info.enqueued, info.started, info.ended) if time is not None]
    return max(times) if times else None


def _took(info: JobInfo, now: float) -> str:
    if info.started is None:
        return "-"
    if info.status == "running":
        return span(int(now * 1000) - info.started)
    return span(None if info.ended is None else info.ended - info.started)


def _says(info: JobInfo) -> str:
    if info.progress is not None and info.status in {"running", "ready", "delayed"}:
        return _progress(info.progress) or ""
    if info.status in {"done", "cancelled"} or not info.error:
        return info.reason or ""
    return f"{info.reason}: {gist(info.error)}" if info.reason else gist(info.error)


def gist(error: str) -> str:
    """Return what an error comes down to: what was raised, or its last line."""
    name, message = raised_in(error)
    if name:
        return f"{name}: {message}" if message else name
    return error.strip().rpartition("\n")[2]


def _progress(progress: Progress | None) -> str | None:
    if progress is None:
        return None
    share = f"{progress.done:g}"
    if progress.total is not None:
        percent = f" ({progress.done / progress.total:.0%})" if progress.total > 0 else ""
        share += f" of {progress.total:g}{percent}"
    return f"{share}  {progress.note}".rstrip()


def _run(run: RunInfo) -> list[str]:
    took = span(None if run.started is None or run.ended is None else run.ended - run.started)
    began = "-" if run.started is None else clock(run.started)
    head = f"  {run.attempt:>3}  {began}  {took:>9}  {run.outcome:<9}  {run.worker or '-'}".rstrip()
    return [head] if not run.error else [head, f"       {cut(gist(run.error), _MOST_SAYS)}"]


def _time(ms: int | None, now: float) -> str | None:
    if ms is None:
        return None
    when = age(ms, now) if ms <= now * 1000 else f"in {span(ms - int(now * 1000))}"
    return f"{clock(ms)}  ({when})"
