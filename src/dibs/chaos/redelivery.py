"""How long jobs that a kill cut off waited for their next start. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence

import msgspec

from dibs.chaos.account import Account
from dibs.chaos.server import Outage
from dibs.chaos.wrecker import Strike

#: Seconds after a broker's return in which workers and producers find back to it.
SETTLING = 5.0


class Waits(msgspec.Struct, frozen=True):
    """Seconds from a death to the next start of the jobs that it cut off."""

    count: int
    median: float
    p99: float
    worst: float


class Wait(msgspec.Struct, frozen=True):
    """That of one job."""

    strike: Strike
    #: When it was started again.
    until: float


def measure(account: Account, strikes: Sequence[Strike], outages: Sequence[Outage]) -> dict[str, Waits]:
    """Return the waits by who died: `executor`, `worker`, and `disturbed`.

    Disturbed are those during which the broker was gone, no worker was left, or one was frozen: it may have been the
    one to notice.
    """
    troubles = list(_troubles(account, strikes, outages))
    waits: dict[str, list[float]] = {"executor": [], "worker": [], "disturbed": []}
    for wait in _waits(account, strikes):
        at = wait.strike.at
        if any(begin < wait.until and at < end for begin, end in troubles):
            who = "disturbed"
        else:
            who = "executor" if wait.strike.kind == "executor" else "worker"
        waits[who].append(wait.until - at)
    return {who: _figures(sorted(those)) for who, those in waits.items() if those}


def _waits(account: Account, strikes: Sequence[Strike]) -> Iterator[Wait]:
    """Yield the wait of each run that a strike cut off, where its job was started again."""
    by_pid: dict[int, list[Strike]] = {}
    for strike in strikes:
        for pid in strike.pids:
            by_pid.setdefault(pid, []).append(strike)
    for runs in account.runs.values():
        for run in runs:
            if run.end is not None:
                continue
            # The first one after its start: a process id may be given again to a later executor.
            struck = next((one for one in by_pid.get(run.pid, ()) if one.at >= run.start), None)
            if struck is None:
                continue  # it died of a job, or its worker handed it back
            until = next((one.start for one in runs if one.start > struck.at), None)
            if until is not None:
                yield Wait(struck, until)


def _troubles(
    account: Account, strikes: Sequence[Strike], outages: Sequence[Outage]
) -> Iterator[tuple[float, float]]:
    for outage in outages:
        yield outage.at, math.inf if outage.until is None else outage.until + SETTLING
    for strike in strikes:
        if strike.until is not None:
            yield strike.at, strike.until
        elif strike.kind == "everybody":
            starts = (run.start for runs in account.runs.values() for run in runs if run.start > strike.at)
            yield strike.at, min(starts, default=math.inf)


def _figures(waits: Sequence[float]) -> Waits:
    return Waits(len(waits), statistics.median(waits), waits[math.ceil(0.99 * len(waits)) - 1], waits[-1])
