"""Whether a worker sits idle while another one hoards."""

from __future__ import annotations

from collections.abc import Sequence

from bench.figures import Metric, Reading
from bench.scenario import Open, Part, Scenario, Size

_LONG, _SHORT = 0.2, 0.001
_METRIC = Metric("makespan", "makespan / ideal", "", more_is_better=False, digits=2)
_SLOTS = 2


def _measure(open_rig: Open, size: Size) -> Sequence[Reading]:
    with open_rig() as rig:
        workers = rig.start(executors=_SLOTS)
        rig.wait_two_slots(workers)
        count = rig.produce("one", size.fairness, seconds=(_LONG, _SHORT)).count
        ideal = count * (_LONG + _SHORT) / 2 / _SLOTS
        drained = rig.records.drain(count, limit=size.drain_limit + 3 * ideal, quiet=size.quiet)
        if drained.lost or drained.is_cut:
            return [Reading(None, lost=drained.lost, note=f"{drained.done} of {count} done")]
        return [Reading(drained.seconds / ideal)]


SCENARIO = Scenario(
    name="fairness",
    title="Fair dispatch",
    about="200 jobs, of 200 ms and 1 ms in turn, come to two executors of one slot; the time from the first one's "
    "start to the last one's end, against the ideal of 10.05 s.",
    parts=lambda _size: (Part(metrics=(_METRIC,), measure=_measure, seconds=lambda size: 3 + size.fairness * 0.06),),
)
