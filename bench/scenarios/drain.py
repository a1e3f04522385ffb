"""How fast workers do jobs that do nothing."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from bench.figures import Metric, Reading
from bench.records import Drain
from bench.rig import MeasurementFailed, Rig
from bench.scenario import Open, Part, Scenario, Size

#: Slots and executors of each metric.
_WORKERS = {
    "slot": (Metric("slot", "1 slot", "jobs/s"), 1, 1),
    "slots": (Metric("slots", "8 slots", "jobs/s"), 8, 1),
    "executors": (Metric("executors", "2 executors of 1 slot", "jobs/s"), 1, 2),
}


def fill(rig: Rig, count: int, size: Size, *, padding: int = 0) -> int:
    """Put jobs into the queue by the fastest way there is; return how many it was time for."""
    if "enqueue.bulk" in rig.system.lacks:
        return rig.produce("threads", count, limit=size.fill_limit, padding=padding).count
    return rig.produce("bulk", count, limit=size.fill_limit_bulk, padding=padding).count


def work_off(rig: Rig, count: int, size: Size, *, slots: int, executors: int = 1) -> Drain:
    """Start a worker and wait until it did so many jobs.

    Raises:
        MeasurementFailed: it did none.
    """
    worker = rig.start(slots=slots, executors=executors)
    drained = rig.records.drain(count, limit=size.drain_limit, quiet=size.quiet)
    if not drained.done:
        raise MeasurementFailed(f"The worker did no job within {size.quiet:.0f} s. It said: {worker.output}")
    return drained


def reading(drained: Drain, count: int) -> Reading:
    """Return the rate, and what there is to say about it."""
    note = f"{drained.done:,} of {count:,} done when the time was up" if drained.is_cut else ""
    return Reading(drained.rate, lost=drained.lost, note=note)


def _measure(slots: int, executors: int, open_rig: Open, size: Size) -> Sequence[Reading]:
    with open_rig() as rig:
        count = fill(rig, size.drain, size)
        drained = work_off(rig, count, size, slots=slots, executors=executors)
        return [reading(drained, count)]


def _parts(_size: Size) -> tuple[Part, ...]:
    return tuple(
        Part(
            metrics=(metric,),
            measure=partial(_measure, slots, executors),
            seconds=lambda size: 2 + size.drain / 2000,
        )
        for metric, slots, executors in _WORKERS.values()
    )


SCENARIO = Scenario(
    name="drain",
    title="Working off",
    about="10,000 no-op jobs wait when a worker is started; timed from the first one's start to the last one's end.",
    parts=_parts,
)
