"""What larger arguments cost."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from bench.figures import Metric, Reading
from bench.scenario import Open, Part, Scenario, Size
from bench.scenarios.drain import reading, work_off

_SLOTS = 8


def _measure(padding: int, count: int, open_rig: Open, size: Size) -> Sequence[Reading]:
    with open_rig() as rig:
        produced = rig.produce("one", count, limit=size.enqueue_limit, padding=padding)
        drained = work_off(rig, produced.count, size, slots=_SLOTS)
        return [Reading(produced.rate), reading(drained, produced.count)]


def _parts(size: Size) -> tuple[Part, ...]:
    return tuple(
        Part(
            metrics=(
                Metric(f"enqueue-{padding}", f"{padding // 1024} KiB, handed over one by one", "jobs/s"),
                Metric(f"drain-{padding}", f"{padding // 1024} KiB, worked off", "jobs/s"),
            ),
            measure=partial(_measure, padding, count),
            seconds=lambda _size, count=count: 3 + count / 500,  # type: ignore[misc]
        )
        for padding, count in size.payload
    )


SCENARIO = Scenario(
    name="payload",
    title="Larger jobs",
    about="As above, with so much text among the arguments; worked off with 8 slots where there are any.",
    parts=_parts,
)
