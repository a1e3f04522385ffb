"""A producer: hands over its part of the plan, and writes down what it was told of each job.

`told` is written after `enqueue` returned, so it proves that the job was stored. Whoever is killed in between leaves
a job in doubt: it may be done or not. One that takes a killed producer's place goes on behind its last hand-over.
"""

from __future__ import annotations

import itertools
import logging
import os
import time

import msgspec

from dibs.chaos.plan import Handover, Plan, job_id
from dibs.chaos.tasks import PEN, app, call_of
from dibs.errors import BrokerError, HandoverUncertain
from dibs.trial.evidence import Evidence

_log = logging.getLogger("dibs.chaos")

_BRIEF = "DIBS_CHAOS_BRIEF"
#: Seconds before what the broker refused is handed over again, under new ids.
_PAUSE = 0.2


class Brief(msgspec.Struct, frozen=True):
    """What a producer is told."""

    plan: Plan
    #: The beginning of every id of this run.
    run: str
    #: When it began, on the monotonic clock.
    begin: float

    def environment(self) -> dict[str, str]:
        """Return the variable by which it is told."""
        return {_BRIEF: msgspec.json.encode(self).decode()}


def produce(brief: Brief) -> None:
    """Hand over what none of this producer's predecessors has tried to."""
    asked = {event.job for event in Evidence(PEN.directory).news() if event.kind == "ask"}
    for handover in brief.plan.handovers(PEN.number):
        key = f"{brief.run}.{PEN.number}.{handover.number}"
        if key in asked:
            continue
        time.sleep(max(0.0, brief.begin + handover.at - time.monotonic()))
        PEN.write("ask", key)
        for attempt in itertools.count():
            if _hand_over(brief.run, handover, attempt):
                break
            time.sleep(_PAUSE)


def _hand_over(run: str, handover: Handover, attempt: int) -> bool:
    """Try once; tell whether the jobs are stored, or may be."""
    calls = []
    ids = [job_id(run, PEN.number, handover, index, attempt) for index in range(len(handover.orders))]
    for name, order in zip(ids, handover.orders, strict=True):
        task, args = call_of(order)
        calls.append((task.using(id=name, delay=order.delay), args))
    try:
        if len(calls) == 1:
            task, args = calls[0]
            task.enqueue(*args)
        else:
            app.enqueue_many([task.prepare(*args) for task, args in calls])
    except HandoverUncertain as error:
        _log.warning("in doubt: %s", error)
        PEN.write("uncertain", *error.ids)
        ids = [name for name in ids if name not in error.ids]
    except BrokerError as error:  # of every other one the contract says that nothing was stored
        _log.warning("refused: %s", error)
        PEN.write("refused", *ids)
        return False
    if ids:
        PEN.write("told", *ids)
    return True


if __name__ == "__main__":
    logging.basicConfig(format="%(asctime)s %(message)s")
    produce(msgspec.json.decode(os.environ[_BRIEF], type=Brief))
    app.close()
