"""Who ran what when: runs laid out in lanes, a lane per slot that was busy, for the template to draw.

Nobody records which slot ran a job. A worker's runs are put into as few lanes as they fit into, which come to the
slots that it used. Runs too short to be seen are drawn together, where one follows on another.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from dibs.dashboard.slots import running
from dibs.ledger.snapshot import Snapshot
from dibs.ledger.statistics import PastRuns

#: At most so many workers, and lanes of each, are drawn.
_WORKERS, _LANES = 12, 16
#: In pixels: a worker's name, a lane with its gap, the gap between workers.
_HEAD, LANE, _FOOT = 20, 16, 8
#: A bar of less than so many percent shows no name.
_NAMED = 5.0
#: A bar of less than so many percent is not told apart from one beside it.
_NARROW = 0.25
#: The shortest run's bar in percent: what has no width is not drawn at all.
_THIN = 0.2
#: Bars that are never drawn together with others: a line leads on from one whose worker died.
_ALONE = frozenset({"lost", "running"})
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
    #: How many runs it stands for.
    runs: int = 1

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
    #: Before this, in percent across, runs that are done are not drawn: there were too many.
    veil: float
    whole_since: int


class _Stretch(NamedTuple):
    id: str
    task: str
    attempt: int
    worker: str
    started: int
    ended: int | None
    outcome: str


def lay_out(past: PastRuns, workers: Sequence[Snapshot], *, span: int, now: int) -> Timeline:
    """Lay out the runs of the last `span` ms.

    Args:
        past: those that ended in that time.
        workers: who lives, with what they run.
        span: in ms.
        now: in ms since 1970.
    """
    step = max(span // _STEPS, 1)
    now = -(-now // step) * step  # so that the picture moves now and then, not with every look
    since = now - span
    stretches = [
        _Stretch(run.id, run.task or "–", run.attempt, run.worker or "–", run.started, run.ended, run.outcome)
        for run in past.runs
    ]
    over = {(run.id, run.attempt, run.worker) for run in past.runs}
    stretches += [
        _Stretch(job.id, job.task or "–", job.attempt, worker.worker, job.since, None, "running")
        for worker in workers
        for job in running(worker)
        if (job.id, job.attempt, worker.worker) not in over
    ]
    bands, bars, height = _place(stretches, workers, since, now)
    veil = round(max(past.whole_since - since, 0) / span * 100, 2)
    return Timeline(since, now, height, bands, bars, _link(bars), veil if veil > 1 else 0.0, past.whole_since)


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
            bars += _merge([_bar(stretch, top + number * LANE, since, now) for stretch in lane])
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
        round(max(right - left, _THIN), 2),
        top,
        stretch.started,
        stretch.ended,
        right - left > _NAMED,
    )


def _merge(bars: Iterable[Bar]) -> list[Bar]:
    """Return the bars of a lane with those drawn as one that are too narrow to be told apart.

    Each outcome has its own, so that a failure among many that are done is seen. Whose worker died stays by itself.
    """
    merged: list[Bar] = []
    places: dict[str, int] = {}
    for bar in bars:
        place = places.get(bar.outcome)
        last = None if place is None else merged[place]
        if (
            place is not None
            and last is not None
            and bar.outcome not in _ALONE
            and bar.width < _NARROW
            and (last.runs > 1 or last.width < _NARROW)
            and bar.left - last.left - last.width < _NARROW
        ):
            width = round(bar.left + bar.width - last.left, 2)
            merged[place] = last._replace(width=width, ended=bar.ended, has_name=False, runs=last.runs + 1)
        else:
            places[bar.outcome] = len(merged)
            merged.append(bar)
    return merged


def _link(bars: Iterable[Bar]) -> list[Link]:
    """Lead from each run that its worker did not survive to the next one of the same job."""
    by_job: dict[str, list[Bar]] = {}
    for bar in bars:
        by_job.setdefault(bar.id, []).append(bar)
    links = []
    for runs in by_job.values():
        runs.sort(key=lambda bar: bar.started)
        for lost, after in pairwise(runs):
            if lost.outcome == "lost":
                middle = (LANE - 3) / 2
                links.append(Link(lost.left + lost.width, lost.top + middle, after.left, after.top + middle))
    return links
