"""How soon an idle worker begins, and what it costs while it waits."""

from __future__ import annotations

import time
from collections.abc import Sequence

from bench.figures import Metric, Reading, percentile
from bench.scenario import Open, Part, Scenario, Size

_METRICS = (
    Metric("p50", "enqueue to start, p50", "ms", more_is_better=False, digits=1),
    Metric("p99", "p99", "ms", more_is_better=False, digits=1),
    Metric("cpu", "idle CPU", "% of a core", more_is_better=False, digits=2),
    Metric("memory", "memory, PSS", "MB", more_is_better=False, digits=1),
)
_SETTLE = 2.0


def _measure(open_rig: Open, size: Size) -> Sequence[Reading]:
    with open_rig() as rig:
        worker = rig.start()
        rig.wait_ready(worker)
        time.sleep(_SETTLE)  # what a worker still does of its start is not idleness
        before, began = worker.cpu_seconds(), time.monotonic()
        time.sleep(size.idle)
        cpu = (worker.cpu_seconds() - before) / (time.monotonic() - began)
        memory = worker.memory_bytes() / 1e6
        sent = rig.produce("spaced", size.latency).sent
        drained = rig.records.drain(size.latency, limit=size.drain_limit, quiet=size.quiet)
        started = {record.number: record.start for record in reversed(rig.records.read())}
        waits = [(started[number] - at) / 1e6 for number, at in enumerate(sent) if number in started]
        return [
            Reading(percentile(waits, 50), lost=drained.lost),
            Reading(percentile(waits, 99), lost=drained.lost),
            Reading(cpu * 100),
            Reading(memory),
        ]


SCENARIO = Scenario(
    name="latency",
    title="When idle",
    about="One job every 30 to 70 ms comes to an idle worker of one slot; timed from the call that hands it over to "
    "its first line. CPU and memory are those of the whole tree of processes, over 20 s without any job.",
    parts=lambda _size: (
        Part(metrics=_METRICS, measure=_measure, seconds=lambda size: 5 + size.idle + size.latency * 0.06),
    ),
)
