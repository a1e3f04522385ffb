"""The report: what became of every job, against what producers were told. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from dibs.chaos.account import Account
from dibs.chaos.crew import Surprise
from dibs.chaos.plan import Order, Plan
from dibs.chaos.redelivery import SETTLING, Waits, measure
from dibs.chaos.server import Outage
from dibs.chaos.wrecker import Strike
from dibs.trial.table import Line

#: The exit code when a promise was broken.
BROKEN = 4
#: After so many deaths a job is set aside (P8). A SIGKILL from outside looks like one of the job's own doing.
_DEATHS = 3


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """What is known in the end besides the evidence."""

    plan: Plan
    #: What was to be handed over, by the beginning of the id.
    orders: Mapping[str, Order]
    server: str
    #: The reason of each dead letter, by the job's id.
    dead: Mapping[str, str]
    #: Messages that the broker still had, ready, running or delayed; None: it could not be asked.
    left: int | None
    strikes: Sequence[Strike] = ()
    outages: Sequence[Outage] = ()
    surprises: Sequence[Surprise] = ()
    #: False: the user ended it early, so what is open may still have come.
    is_whole: bool = True


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict. `told` is the sum of `done`, `dead`, `wrongly_dead`, `lost` and `open`."""

    seed: int
    jobs: int
    seconds: float
    server: str
    #: Whether it came to its end.
    is_whole: bool
    #: Jobs of which a producer was told that they are stored.
    told: int
    #: Of those, the ones that were run to their end.
    done: int
    #: Those that are among the dead as they should, by reason.
    dead: dict[str, int]
    #: Ids of those that should not be there.
    wrongly_dead: list[str]
    #: Ids of those that are nowhere.
    lost: list[str]
    #: Ids of those that were not done when the user ended it.
    open: list[str]
    #: Jobs that may be stored without the producer's knowing: it was killed meanwhile, or told that nobody knows.
    in_doubt: int
    #: Hand-overs that failed, with nothing stored.
    refused: int
    #: Ids of those that were run though the producer was told that nothing was stored.
    stored_though_refused: list[str]
    #: Messages that the broker still had; None: it could not be asked.
    left: int | None
    #: How many jobs of `done` were run to their end once, twice and so on.
    completed: dict[int, int]
    #: How many jobs of `told` were begun once, twice and so on.
    begun: dict[int, int]
    #: How many faults of each kind were made.
    faults: dict[str, int]
    #: Seconds from a death to the next start of what it cut off.
    redelivery: dict[str, Waits]
    #: Processes that ended by themselves, or not in order.
    surprises: list[Surprise]

    @property
    def broken(self) -> list[str]:
        """The names of the lines where a promise was broken."""
        return [line.name for line in lines(self) if line.is_kept is False]

    @property
    def exit_code(self) -> int:
        """0 if every promise was kept."""
        return BROKEN if self.broken else 0


def judge(account: Account, findings: Findings) -> Report:
    """Return the report."""
    dead, plan = findings.dead, findings.plan
    open_jobs = account.open_for(dead)
    set_aside = [job for job in account.told if job in dead and job not in account.done]
    wrongly = [job for job in set_aside if not _is_expected(account, findings, job)]
    stored = account.runs.keys() | dead.keys()
    done = account.done & account.told.keys()
    return Report(
        seed=plan.seed,
        jobs=plan.jobs,
        seconds=plan.seconds,
        server=findings.server,
        is_whole=findings.is_whole,
        told=len(account.told),
        done=len(done),
        dead=dict(sorted(Counter(dead[job] for job in set_aside if job not in wrongly).items())),
        wrongly_dead=wrongly,
        lost=open_jobs if findings.is_whole else [],
        open=[] if findings.is_whole else open_jobs,
        in_doubt=len(account.in_doubt(dead)),
        refused=len(account.refused),
        stored_though_refused=sorted(account.refused & stored),
        left=findings.left,
        completed=_distribution(sum(run.is_full for run in account.runs[job]) for job in done),
        begun=_distribution(len(account.runs.get(job, ())) for job in account.told),
        faults=dict(sorted(Counter(strike.kind for strike in findings.strikes).items())),
        redelivery=measure(account, findings.strikes, findings.outages),
        surprises=[one for one in findings.surprises if not _is_excused(one, findings.outages)],
    )


def _is_expected(account: Account, findings: Findings, job: str) -> bool:
    """Tell whether a dead letter is where it should be: it always fails, or was cut off as often as is documented."""
    if findings.dead[job] == "crashed":
        return account.cuts(job) >= _DEATHS
    return findings.dead[job] == "failed" and findings.orders[job.rpartition(".")[0]].kind == "hopeless"


def _is_excused(surprise: Surprise, outages: Sequence[Outage]) -> bool:
    """Tell whether it ended because the broker was gone: a worker that comes up then says so and ends."""
    return any(
        outage.at <= surprise.at and (outage.until is None or surprise.at <= outage.until + SETTLING)
        for outage in outages
    )


def _distribution(counts: Iterable[int]) -> dict[int, int]:
    return dict(sorted(Counter(counts).items()))


def lines(report: Report) -> list[Line]:
    """Return the table."""
    rows = [
        Line("stored", str(report.told), f"as producers were told; {report.in_doubt} more in doubt, {report.refused} "
             "refused"),
        Line("done", str(report.done), _times(report.completed)),
        Line("dead", str(sum(report.dead.values())), _list(report.dead)),
        Line("open", str(len(report.open)), "when it was ended"),
        _none("wrongly dead", report.wrongly_dead),
        _none("lost", report.lost),
        _none("refused, yet there", report.stored_though_refused),
        Line("left over", "?" if report.left is None else str(report.left),
             is_kept=report.left == 0 if report.is_whole else None),
        _none("ended unasked", [f"{one.who} with {one.code}" for one in report.surprises]),
        Line("begun", str(sum(count * jobs for count, jobs in report.begun.items())), _times(report.begun)),
        Line("faults", str(sum(report.faults.values())), _list(report.faults)),
    ]  # fmt: skip
    if report.is_whole:
        rows = [row for row in rows if row.name != "open"]
    return rows + [
        Line(f"{who} to rerun", _ms(waits.median), f"median of {waits.count}; 99 %: {_ms(waits.p99)}, worst: "
             f"{_ms(waits.worst)}")
        for who, waits in report.redelivery.items()
    ]  # fmt: skip


def _none(name: str, those: Sequence[str]) -> Line:
    more = f" and {len(those) - 2} more" if len(those) > 2 else ""
    return Line(name, str(len(those)), ", ".join(those[:2]) + more, not those)


def _times(distribution: Mapping[int, int]) -> str:
    names = {0: "never", 1: "once", 2: "twice"}
    return ", ".join(f"{names.get(count, f'{count} times')} {jobs}" for count, jobs in distribution.items())


def _list(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"
