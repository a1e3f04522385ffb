"""How soon a job starts again when its worker was killed, all of its processes at once."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from bench.figures import Metric, Reading
from bench.processes import Tree
from bench.records import Record
from bench.rig import MeasurementFailed, Rig
from bench.scenario import Open, Part, Scenario, Size

_METRICS = (
    Metric("median", "started again after, median", "s", more_is_better=False, digits=3),
    Metric("worst", "worst", "s", more_is_better=False, digits=3),
)
#: Long enough to be found and killed in the middle of.
_JOB_SECONDS = 2.0
#: A system that takes longer is asked once a round.
_SLOW = 10.0


def _measure(open_rig: Open, size: Size) -> Sequence[Reading]:
    with open_rig() as rig:
        workers = [rig.start(), rig.start()]
        waits: list[float] = []
        for number in range(size.kills):
            rig.wait_two_slots(*workers)
            wait = _kill_in_the_middle(rig, workers, number, size)
            if wait is None:
                never = f"not within {size.redelivery_limit:.0f} s"
                return [Reading(None, lost=1, note=never)] * 2
            waits.append(wait)
            if wait > _SLOW:
                break
            workers.append(rig.start())
        return [Reading(statistics.median(waits)), Reading(max(waits))]


def _kill_in_the_middle(rig: Rig, workers: list[Tree], number: int, size: Size) -> float | None:
    """Kill the worker that runs the job; return after how many seconds another one began it, None if none did."""
    rig.produce("one", 1, first=number, seconds=(_JOB_SECONDS,))
    if not rig.records.wait(lambda: bool(_runs(rig, number)), size.drain_limit):
        raise MeasurementFailed(f"Job {number} did not start within {size.drain_limit:.0f} s.")
    pid = _runs(rig, number)[0].pid
    victim = next((worker for worker in workers if pid in worker.members()), None)
    if victim is None or any(run.end for run in _runs(rig, number)):
        raise MeasurementFailed(f"Job {number} ended, or its process {pid} was gone, before it could be killed.")
    killed = victim.kill()
    workers.remove(victim)
    if not rig.records.wait(lambda: _began_after(rig, number, killed) is not None, size.redelivery_limit):
        return None
    began = _began_after(rig, number, killed)
    assert began is not None
    rig.records.wait(lambda: any(run.end for run in _runs(rig, number)), size.drain_limit)
    return (began - killed) / 1e9


def _runs(rig: Rig, number: int) -> list[Record]:
    return [record for record in rig.records.read() if record.number == number]


def _began_after(rig: Rig, number: int, killed: int) -> int | None:
    return min((run.start for run in _runs(rig, number) if run.start > killed), default=None)


SCENARIO = Scenario(
    name="redelivery",
    title="When a worker is killed",
    about="Two workers; the one that runs a job is killed with SIGKILL, all of its processes at once; timed from the "
    "kill to the job's next start in the other one. Five kills a round.",
    parts=lambda _size: (Part(metrics=_METRICS, measure=_measure, seconds=lambda size: 2 + size.kills * 5),),
)
