"""Whether a worker and its file grow with the jobs that went through."""

from __future__ import annotations

import time
from collections.abc import Sequence

from bench.figures import Metric, Reading
from bench.rig import MeasurementFailed
from bench.scenario import Open, Part, Scenario, Size

_METRICS = (
    Metric("memory", "memory at the end, against after a tenth", "", more_is_better=False, digits=2),
    Metric("file", "size of the store, likewise", "", more_is_better=False, digits=2),
)
_SLOTS = 8
_SETTLE = 1.0


def _measure(open_rig: Open, size: Size) -> Sequence[Reading]:
    with open_rig() as rig:
        worker = rig.start(slots=_SLOTS)
        seen: list[tuple[int, int]] = []
        for first in range(0, size.growth, size.growth_step):
            rig.produce("bulk", size.growth_step, first=first)
            through = first + size.growth_step
            drained = rig.records.drain(through, limit=size.drain_limit + size.growth_step / 500, quiet=size.quiet)
            if drained.done < through:
                raise MeasurementFailed(f"Only {drained.done:,} of {through:,} done. It said: {worker.output}")
            time.sleep(_SETTLE)  # outcomes are still being recorded
            seen.append((worker.memory_bytes(), rig.stored_bytes()))
        memory, stored = seen[max(len(seen) // 10 - 1, 0)]
        return [
            Reading(seen[-1][0] / memory),
            Reading(seen[-1][1] / stored) if stored else Reading(None, note="a server keeps it"),
        ]


SCENARIO = Scenario(
    name="growth",
    title="Growth",
    about="A million jobs go through one worker of 8 slots, 50,000 at a time; its memory (PSS of the tree) and the "
    "files of the store at the end, against those after a tenth of the jobs.",
    parts=lambda _size: (Part(metrics=_METRICS, measure=_measure, seconds=lambda size: 3 + size.growth / 6_000),),
    is_for_peers=False,
)
