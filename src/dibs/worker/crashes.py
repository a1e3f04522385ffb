"""Whose fault it was: what becomes of a job that was there when an executor or a worker died.

An executor that dies with one job running has shown which one killed it. When a whole worker dies nobody knows,
and nearly always it was none of its jobs: machines are switched off, workers are killed by hand or for want of
memory. So a job is suspect only when that happened to it again and again. A suspect is marked and waits a moment;
then it runs alone in its executor, and as the only suspect in its worker: should that worker die with it once more,
it is put down to this one and to nobody else.
"""

from __future__ import annotations

import random

import msgspec

from dibs.message import Delivery
from dibs.outcome import Dead, Outcome, RetryIn, Run
from dibs.worker.child import Death
from dibs.worker.frames import Began

#: After so many crashes a job is set aside.
CRASH_LIMIT = 3
#: A job that came back so often without an outcome is suspect, where the broker counts deaths of workers alone.
SUSPECT_AFTER_DEATHS = 2
#: The same where it also counts what was handed back: that happens to the innocent, too, in a crowd of busy workers.
SUSPECT_AFTER_RETURNS = 4
#: Seconds that a suspect waits, at least and at most.
_APART = (0.2, 3.0)
#: Seconds for which an executor is kept free for a suspect that was put off: longer than those wait.
KEPT_FREE = 5.0


def judge_death(delivery: Delivery, death: Death, run: Run) -> Outcome:
    """Return what is to become of a job that killed its executor."""
    return _crashed(delivery, f"The executor died while it ran this job: {death}.", 0.0, run)


def judge_return(delivery: Delivery, limit: int) -> Outcome | None:
    """Return what is to become of a job that came back without an outcome, before it is run; None: run it.

    Args:
        delivery: as it was received.
        limit: how many returns make it suspect.
    """
    message, returns = delivery.message, delivery.returns
    if returns == 0:
        return None
    if message.is_suspect:
        return _crashed(
            delivery, "The worker died while this job ran alone; nobody lived to see the cause.", _apart()
        )
    if returns is None:
        return None  # on a classic queue most that come back were only handed back, and nobody counts
    if returns >= limit:
        return RetryIn(_apart(), msgspec.structs.replace(message, is_suspect=True, due=None))
    return None


def put_off(delivery: Delivery) -> Outcome:
    """Return what is to become of a suspect that can't be started at once, and as the only one in its worker.

    In hand and unstarted it would be taken for guilty, should the worker die meanwhile.
    """
    return RetryIn(_apart(), msgspec.structs.replace(delivery.message, due=None))


def judge_overtime(delivery: Delivery, began: Began, run: Run) -> Outcome:
    """Return what is to become of a job whose executor was killed because it ignored its time limit."""
    error = (
        f"The job ran longer than its time limit of {began.timeout:g} s and did not end when it was asked to, so its "
        "executor was killed."
    )
    if began.delay is None:
        return Dead(began.reason, error, run=run)
    return RetryIn(began.delay, delivery.message.after_failure(error), run)


def _crashed(delivery: Delivery, what: str, delay: float, run: Run | None = None) -> Outcome:
    again = delivery.message.after_crash(f"Crash {delivery.message.crashes + 1} of {CRASH_LIMIT}. {what}")
    if again.crashes >= CRASH_LIMIT:
        return Dead("crashed", again.error or "", again.crashes, run)
    return RetryIn(delay, again, run)


def _apart() -> float:
    """Return some seconds, at random: suspects that were together when a worker died are to come one by one."""
    return random.uniform(*_APART)
