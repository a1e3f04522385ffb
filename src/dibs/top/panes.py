"""The rows of each pane, as wide as there is room."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from dibs.broker import QueueInfo
from dibs.ledger.snapshot import Running, Snapshot
from dibs.top import wording
from dibs.top.cells import Line, Span, fit, left, one_line, right, width_of
from dibs.top.look import Failure, Rates
from dibs.top.view import Deed, Pane, View

#: Columns of a bar of progress.
_BAR = 10
#: From this width on, a pane has room for what is good to know besides.
_WIDE = 100


class Row(msgspec.Struct, frozen=True):
    """One row of a pane."""

    #: The same from look to look, and in no other row of its pane.
    key: str
    line: Line
    #: All about it, for the line below the panes.
    detail: str
    #: What can be done to it.
    deed: Deed | None = None


class Body(msgspec.Struct, frozen=True):
    """A pane's rows and what stands above them."""

    name: str
    #: Columns of the name, and what stands behind it.
    room: int
    heads: str
    rows: list[Row]
    #: How many there are of what the pane is about.
    count: int
    #: Shown where there are no rows.
    empty: str


def body(pane: Pane, view: View, width: int) -> Body:
    """Return what a pane has to show."""
    match pane:
        case "queues":
            return _queues(view, width)
        case "workers":
            return _workers(view, width)
        case "failures":
            return _failures(view, width)


def rows(pane: Pane, view: View) -> list[Row]:
    """Return a pane's rows where it does not matter how wide they are."""
    return body(pane, view, _WIDE).rows


def _none(what: str, view: View) -> str:
    """Return what is shown instead of rows: a ledger that can't be asked does not say that there are none."""
    return f"{what} can't be seen" if view.look is not None and not view.look.has_ledger else f"no {what}"


def _queues(view: View, width: int) -> Body:
    found = view.look.queues if view.look else ()
    room = max(width - 3 * 8 - 6 - 8 - 9 - 10, 8)
    heads = "".join(right(name, 8) for name in ("ready", "running", "delayed")) + right("dead", 6)
    heads += right("done", 8) + right("change", 9) + right("consumers", 10)
    return Body("QUEUES", room, heads, [_queue(info, view.rates, room) for info in found], len(found), "no queues")


def _queue(info: QueueInfo, rates: Rates, room: int) -> Row:
    name = one_line(info.name)
    is_lonely = info.consumers == 0 and info.ready > 0
    done = rates.queues.get(info.name)
    shown = left(name, room - 7) + " paused" if info.is_paused else left(name, room)
    line = (
        (shown, "warn" if info.is_paused else ""),
        (right(wording.number(info.ready), 8), ""),
        (right(wording.number(info.running), 8), "good" if info.running else "dim"),
        (right(wording.number(info.delayed), 8), "" if info.delayed else "dim"),
        (right(wording.number(info.dead), 6), "bad" if info.dead else "dim"),
        (right(wording.per_second(done), 8), "" if done else "dim"),
        (right(wording.change(rates.changes.get(info.name)), 9), "dim"),
        (right(wording.number(info.consumers), 10), "bad" if is_lonely else ""),
    )
    says = [f"queue {name}"]
    if info.is_paused:
        says.append("paused: nothing of it is started until it is resumed")
    if is_lonely:
        says.append("jobs wait, and nobody consumes it")
    return Row(info.name, line, " · ".join(says), Deed("resume" if info.is_paused else "pause", info.name, name=name))


def _workers(view: View, width: int) -> Body:
    found = view.look.workers if view.look else ()
    room = max(width - 7 - 8 - 9 - 9 - 6, 20)
    heads = right("slots", 7) + right("done", 8) + right("failed", 9)
    heads += right("memory", 9) + right("up", 6)
    made: list[Row] = []
    for worker in found:
        made.append(_worker(worker, view, room))
        jobs = [job for executor in worker.executors for job in executor.running]
        # The right to start is given oldest first: what is beyond the slots is held ahead, about to run.
        begun = sorted(jobs, key=lambda job: job.since)[: worker.slots]
        made += [_running(job, worker, view.now, width) for job in begun]
    return Body("WORKERS", room, heads, made, len(found), _none("workers", view))


def _worker(worker: Snapshot, view: View, room: int) -> Row:
    pace = view.rates.workers.get(worker.worker)
    memory = worker.memory_bytes + sum(executor.memory_bytes for executor in worker.executors)
    busy = min(sum(executor.held for executor in worker.executors), worker.slots)
    name, queues = one_line(worker.worker), one_line(", ".join(worker.queues))
    failed = pace.failed if pace else None
    line = (
        *_filled(((name, "title"), (" ending" * worker.is_ending, "warn"), (f"  {queues}", "dim")), room),
        (right(f"{busy}/{worker.slots}", 7), "good" if busy else "dim"),
        (right(wording.per_second(pace.done if pace else None), 8), ""),
        (right(wording.per_second(failed), 9), "bad" if failed else "dim"),
        (right(wording.megabytes(memory), 9), ""),
        (right(wording.age(view.now - worker.started), 6), "dim"),
    )
    counts = ", ".join(f"{wording.number(count)} {one_line(kind)}" for kind, count in worker.ended.items() if count)
    says = [f"worker {name}", f"dibs {one_line(worker.version)}", f"queues {queues}"]
    says += [counts] * bool(counts) + ["takes nothing new on"] * worker.is_ending
    return Row(f"worker {worker.worker}", line, " · ".join(says))


def _filled(spans: Iterable[Span], room: int) -> Line:
    """Return a line in exactly so many columns."""
    line = fit(spans, room)
    return (*line, (" " * (room - sum(width_of(text) for text, _ in line)), ""))


def _running(job: Running, worker: Snapshot, now: int, width: int) -> Row:
    task = one_line(job.task or "plain message")
    where = one_line(job.queue)
    attempt = f"attempt {job.attempt}" if job.attempt > 1 else ""
    names = 26 if width < _WIDE else 40
    line = [
        ("  " + right(wording.span(now - job.since), 7) + "  ", "good"),
        (left(task, names) + " ", ""),
        (left(where, 12) + " ", "dim"),
    ]
    if attempt:
        line.append((f"{attempt}  ", "warn"))
    if job.progress is not None:
        bar = wording.bar(job.progress, _BAR)
        line.append((f"{bar} " if bar else "", "good"))
        line.append((f"{wording.far(job.progress)} {one_line(job.progress.note)}", ""))
    says = [f"job {one_line(job.id)}", task, f"queue {where}", f"in {one_line(worker.worker)}"]
    deed = Deed("cancel", job.id, name=f"{task} {one_line(job.id)}")
    return Row(f"job {job.id}", fit(line, width), " · ".join(says), deed)


def _failures(view: View, width: int) -> Body:
    found = view.look.failures if view.look else ()
    names = 26 if width < _WIDE else 40
    made = [_failure(info, names, width) for info in found]
    heads = left("task", names) + " error"
    return Body("FAILURES", 17, heads, made, len(found), _none("failures", view))


def _failure(info: Failure, names: int, width: int) -> Row:
    task = one_line(info.task or f"plain message of {info.queue}")
    line = fit(
        (
            (wording.clock(info.at) + "  ", "dim"),
            (left("dead" if info.is_dead else "retry", 7), "bad" if info.is_dead else "warn"),
            (left(task, names) + " ", ""),
            (info.gist, ""),
        ),
        width,
    )
    says = [f"job {one_line(info.id)}", f"queue {one_line(info.queue)}", f"attempt {info.attempt}", info.gist]
    deed = Deed("replay", info.id, queue=info.queue, name=f"{task} {one_line(info.id)}")
    return Row(info.id, line, " · ".join(says), deed if info.is_dead else None)
