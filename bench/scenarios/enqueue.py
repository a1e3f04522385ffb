"""How fast jobs are handed over, by one process, with no worker running."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from bench.figures import Metric, Reading
from bench.scenario import Open, Part, Scenario, Size

_METRICS = {
    "one": Metric("one", "one by one", "jobs/s"),
    "threads": Metric("threads", "16 threads", "jobs/s"),
    "bulk": Metric("bulk", "in bulk", "jobs/s"),
}


def _measure(mode: str, open_rig: Open, size: Size) -> Sequence[Reading]:
    with open_rig() as rig:
        count = size.bulk if mode == "bulk" else size.enqueue
        return [Reading(rig.produce(mode, count, limit=size.enqueue_limit).rate)]


def _parts(_size: Size) -> tuple[Part, ...]:
    return tuple(
        Part(metrics=(metric,), measure=partial(_measure, mode), seconds=lambda size: 1.5 + size.enqueue / 1500)
        for mode, metric in _METRICS.items()
    )


SCENARIO = Scenario(
    name="enqueue",
    title="Handing over",
    about="No-op jobs are handed over by one process; each call returns when the job is stored for good. "
    "In bulk: 10,000 jobs in one call.",
    parts=_parts,
)
