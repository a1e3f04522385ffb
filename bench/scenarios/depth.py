"""Whether a long queue is a slow one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from bench.figures import Metric, Reading
from bench.records import summary
from bench.scenario import Open, Part, Scenario, Size
from bench.scenarios.drain import fill, work_off

_SLOTS = 8


def _measure(depth: int, open_rig: Open, size: Size) -> Sequence[Reading]:
    with open_rig() as rig:
        filled = fill(rig, depth, size) if depth else 0
        produced = rig.produce("one", size.enqueue, limit=size.enqueue_limit, first=depth)
        # As many are worked off as were handed over last, at each depth: only so the rates can be compared.
        drained = work_off(rig, produced.count, size, slots=_SLOTS)
        first = summary(rig.records.read()[: produced.count], produced.count, is_cut=drained.is_cut)
        note = f"only {filled:,} deep: the time to fill it was up" if filled < depth else ""
        return [Reading(produced.rate, note=note), Reading(first.rate, lost=drained.lost, note=note)]


def _name(depth: int) -> str:
    return "empty" if not depth else f"{depth:,} deep"


def _parts(size: Size) -> tuple[Part, ...]:
    return tuple(
        Part(
            metrics=(
                Metric(f"enqueue-{place}", f"handed over, {_name(depth)}", "jobs/s"),
                Metric(f"drain-{place}", f"worked off, {_name(depth)}", "jobs/s"),
            ),
            measure=partial(_measure, depth),
            needs_bulk=place == "many",
            seconds=lambda size, depth=depth: 3 + size.enqueue / 700 + min(depth / 5_000, size.fill_limit),  # type: ignore[misc]
        )
        for place, depth in zip(("none", "some", "many"), size.depths, strict=True)
    )


SCENARIO = Scenario(
    name="depth",
    title="Long queues",
    about="A queue is filled, then jobs are handed over to it one by one, then as many are worked off with 8 slots "
    "where there are any. A system without a bulk hand-over has 20 s for filling.",
    parts=_parts,
)
