"""Who ran what when: runs laid out in lanes, a lane per slot that was busy, for the template to draw.

Nobody records which slot ran a job. A worker's runs are put into as few lanes as they fit into, which come to the
slots that it used.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from dibs.ledger.snapshot import Snapshot
from dibs.ledger.statistics import PastRun

#: At most so many workers, and lanes of each, are drawn.
_WORKERS, _LANES = 12, 16
#: In pixels: a worker's name, a lane with its gap, the gap between workers.
_HEAD, LANE, _FOOT = 20, 16, 8
#: A bar of less than so many percent shows no name.
_NAMED = 5.0
#: In so many steps does the window move.
_STEPS = 150


class Bar(NamedTuple):
    """One run, in percent across and pixels down."""

    id: str
    task: str
    attempt: int
    outcome: str
    left: float
    width: float
    top: int
    started: int
    #: None: it is running.
    ended: int | None
    has_name: bool

    @property
    def key(self) -> str:
        """What tells it from the other bars, as long as it is drawn."""
        return f"{self.id[-12:]} {self.started} {self.attempt}"


class Band(NamedTuple):
    """One worker."""

    name: str
    top: int
    #: Of all its lanes.
    height: int
    slots: int | None
    is_alive: bool
    #: Lanes that are not drawn.
    left_out: int


class Link(NamedTuple):
    """From a run that was lost to the one that came instead of it."""

    x1: float
    y1: float
    x2: float
    y2: float


class Timeline(NamedTuple):
    """All that is to be drawn."""

    since: int
    until: int
    height: int
    bands: list[Band]
    bars: list[Bar]
    links: list[Link]
    #: The window is shorter than was asked for: there were too many runs in it.
    is_cut: bool


class _Stretch(NamedTuple):
    id: str
    task: str
    attempt: int
    worker: str
    started: int
    ended: int | None
    outcome: str


def lay_out(
    past: Sequence[PastRun], workers: Sequence[Snapshot], *, span: int, now: int, limit: int
) -> Timeline:
    """Lay out the runs of the last `span` ms.

    Args:
        past: those that ended in that time, the latest first, `limit` at the most.
        workers: who lives, with what they run.
        span: in ms.
        now: in ms since 1970.
        limit: what `past` was asked for with: as many as that means that some are left out.
    """
    is_cut = len(past) >= limit
    step = max(span // _STEPS, 1)
    now = -(-now // step) * step  # so that the picture moves now and then, not with every look
    since = max(now - span, min(run.ended for run in past)) if is_cut else now - span
    stretches = [
        _Stretch(run.id, run.task or "–", run.attempt, run.worker or "–", run.started, run.ended, run.outcome)
        for run in past
    ]
    over = {(run.id, run.attempt, run.worker) for run in past}
    stretches += [
        _Stretch(job.id, job.task or "–", job.attempt, worker.worker, job.since, None, "running")
        for worker in workers
        for executor in worker.executors
        for job in executor.running
        if (job.id, job.attempt, worker.worker) not in over
    ]
    bands, bars, height = _place(stretches, workers, since, now)
    return Timeline(since, now, height, bands, bars, _link(bars), is_cut)


def _place(
    stretches: Iterable[_Stretch], workers: Sequence[Snapshot], since: int, now: int
) -> tuple[list[Band], list[Bar], int]:
    by_worker: dict[str, list[_Stretch]] = {worker.worker: [] for worker in workers}
    for stretch in stretches:
        by_worker.setdefault(stretch.worker, []).append(stretch)
    alive = {worker.worker: worker.slots for worker in workers}
    bands, bars, top = [], [], 0
    for name in sorted(by_worker)[:_WORKERS]:
        lanes = _pack(by_worker[name])
        shown = lanes[:_LANES]
        top += _HEAD
        for number, lane in enumerate(shown):
            bars += [_bar(stretch, top + number * LANE, since, now) for stretch in lane]
        height = max(len(shown), 1) * LANE
        bands.append(Band(name, top, height, alive.get(name), name in alive, len(lanes) - len(shown)))
        top += height + _FOOT
    return bands, bars, top


def _pack(stretches: list[_Stretch]) -> list[list[_Stretch]]:
    """Put stretches into as few lanes as they fit into without overlap, each into the first that is free."""
    lanes: list[list[_Stretch]] = []
    ends: list[float] = []
    for stretch in sorted(stretches, key=lambda one: one.started):
        end = float("inf") if stretch.ended is None else stretch.ended
        for number, free in enumerate(ends):
            if free <= stretch.started:
                lanes[number].append(stretch)
                ends[number] = end
                break
        else:
            lanes.append([stretch])
            ends.append(end)
    return lanes


def _bar(stretch: _Stretch, top: int, since: int, now: int) -> Bar:
    width = max(now - since, 1)
    left = max(stretch.started - since, 0) / width * 100
    right = min((stretch.ended or now) - since, width) / width * 100
    return Bar(
        stretch.id,
        stretch.task,
        stretch.attempt,
        stretch.outcome,
        round(left, 2),
        round(max(right - left, 0.0), 2),
        top,
        stretch.started,
        stretch.ended,
        right - left > _NAMED,
    )


def _link(bars: Iterable[Bar]) -> list[Link]:
    """Lead from each run that its worker did not survive to the next one of the same job."""
    by_job: dict[str, list[Bar]] = {}
    for bar in bars:
        by_job.setdefault(bar.id, []).append(bar)
    links = []
    for runs in by_job.values():
        runs.sort(key=lambda bar: bar.started)
        for lost, after in zip(runs, runs[1:], strict=False):
            if lost.outcome == "lost":
                middle = (LANE - 3) / 2
                links.append(Link(lost.left + lost.width, lost.top + middle, after.left, after.top + middle))
    return links
