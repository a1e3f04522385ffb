"""The judgement of `dibs chaos`: pure functions, fed with what happened, that must see what went wrong."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from dibs.chaos.account import Account
from dibs.chaos.crew import Surprise
from dibs.chaos.plan import PRODUCERS, Handover, Kind, Order, Plan, job_id, orders_by_id
from dibs.chaos.redelivery import Waits
from dibs.chaos.server import Outage, Server
from dibs.chaos.verdict import BROKEN, Findings, Report, judge, lines
from dibs.chaos.wrecker import Strike
from dibs.errors import BadOption, BrokerError
from dibs.trial.evidence import Event
from tests.waiting import until

PLAN = Plan(seed=1, jobs=900, seconds=30)
RUN = "r"


class Tale:
    """What happened, event by event; seconds count up by themselves."""

    def __init__(self, **kinds: Kind) -> None:
        self._clock = itertools.count(1)
        self.orders = {f"{RUN}.{name}": Order(kind, 0.0, "", None) for name, kind in kinds.items()}
        self.account = Account(RUN)
        self.strikes: list[Strike] = []

    def add(self, kind: str, name: str, run: str = "", pid: int = 7) -> float:
        at = float(next(self._clock))
        self.account.add([Event(kind, at, 1, pid, f"{RUN}.{name}.0", run)])
        return at

    def run(self, name: str, run: str, *, ending: str | None = "end", pid: int = 7) -> None:
        self.add("start", name, run, pid)
        if ending is not None:
            self.add(ending, name, run, pid)

    def strike(self, pid: int = 7) -> float:
        at = float(next(self._clock))
        self.strikes.append(Strike("supervisor", at, frozenset({pid})))
        return at

    def verdict(self, *, left: int = 0, is_whole: bool = True, **dead: str) -> Report:
        findings = Findings(
            plan=PLAN,
            orders=self.orders,
            server="SQLite",
            dead={f"{RUN}.{name}.0": reason.replace("_", "-") for name, reason in dead.items()},
            left=left,
            strikes=self.strikes,
            is_whole=is_whole,
        )
        return judge(self.account, findings)


def test_a_job_that_was_done_is_no_fault() -> None:
    tale = Tale(a="quick")
    tale.add("told", "a")
    tale.run("a", "1")

    report = tale.verdict()

    assert (report.told, report.done, report.lost, report.broken, report.exit_code) == (1, 1, [], [], 0)


def test_a_job_that_vanished_is_lost() -> None:
    tale = Tale(a="quick", b="quick")
    tale.add("told", "a")
    tale.add("told", "b")
    tale.run("a", "1")

    report = tale.verdict()

    assert (report.lost, report.broken, report.exit_code) == (["r.b.0"], ["lost"], BROKEN)
    assert report.told == report.done + len(report.lost)


@pytest.mark.parametrize("ending", [None, "fail"])
def test_a_job_that_ran_only_half_is_lost(ending: str | None) -> None:
    tale = Tale(a="long")
    tale.add("told", "a")
    tale.run("a", "1", ending=ending)

    report = tale.verdict()

    assert (report.lost, report.exit_code) == (["r.a.0"], BROKEN)


def test_what_is_open_when_the_user_ends_it_is_not_called_lost() -> None:
    tale = Tale(a="quick")
    tale.add("told", "a")

    report = tale.verdict(is_whole=False, left=1)

    assert (report.lost, report.open, report.broken) == ([], ["r.a.0"], [])


def test_a_job_that_may_be_stored_may_be_done_or_not() -> None:
    tale = Tale(a="quick", b="quick", c="quick")
    tale.add("uncertain", "a")
    tale.add("uncertain", "b")
    tale.run("a", "1")
    tale.run("c", "2")  # its producer was killed before it could say anything

    report = tale.verdict()

    assert (report.told, report.in_doubt, report.lost, report.broken) == (0, 3, [], [])


def test_a_job_that_was_refused_and_is_run_breaks_a_promise() -> None:
    tale = Tale(a="quick")
    tale.add("refused", "a")
    tale.run("a", "1")

    report = tale.verdict()

    assert (report.stored_though_refused, report.exit_code) == (["r.a.0"], BROKEN)


def test_a_hopeless_job_is_expected_among_the_dead_and_an_innocent_one_is_not() -> None:
    tale = Tale(a="hopeless", b="quick", c="quick")
    for name in "abc":
        tale.add("told", name)

    report = tale.verdict(a="failed", b="failed", c="crashed")

    assert report.dead == {"failed": 1}
    assert (report.wrongly_dead, report.lost, report.exit_code) == (["r.b.0", "r.c.0"], [], BROKEN)


@pytest.mark.parametrize(("cuts", "is_expected"), [(2, False), (3, True)])
def test_three_deaths_and_no_less_put_a_job_among_the_dead(cuts: int, is_expected: bool) -> None:
    tale = Tale(a="medium")
    tale.add("told", "a")
    for number in range(cuts):
        tale.run("a", str(number), ending=None)

    report = tale.verdict(a="crashed")

    assert (report.exit_code == 0) is is_expected


def test_messages_that_the_broker_still_has_are_a_fault() -> None:
    assert Tale().verdict(left=1).broken == ["left over"]


def test_a_process_that_ends_by_itself_is_a_fault_unless_the_broker_was_gone() -> None:
    findings = Findings(
        plan=PLAN, orders={}, server="", dead={}, left=0, surprises=[Surprise("worker 1", 10.0, 1, "")]
    )

    alone = judge(Account(RUN), findings)
    beside = judge(Account(RUN), msgspec.structs.replace(findings, outages=[Outage(9.0, 12.0)]))

    assert (alone.broken, beside.broken) == (["ended unasked"], [])


def test_runs_are_counted_per_job() -> None:
    tale = Tale(a="quick", b="quick")
    for name in "ab":
        tale.add("told", name)
        tale.run(name, f"{name}1")
    tale.run("b", "b2")
    tale.run("b", "b3", ending=None)

    report = tale.verdict()

    assert (report.completed, report.begun) == ({1: 1, 2: 1}, {1: 1, 3: 1})


def test_a_wait_reaches_from_the_death_to_the_next_start() -> None:
    tale = Tale(a="long")
    tale.add("told", "a")
    tale.run("a", "1", ending=None, pid=7)
    tale.strike(pid=7)
    tale.strike(pid=7)  # the number was given to another one since: not this job's
    tale.run("a", "2", pid=8)

    assert tale.verdict().redelivery == {"worker": Waits(1, 2.0, 2.0, 2.0)}


def test_a_wait_while_the_broker_is_gone_is_reported_apart() -> None:
    tale = Tale(a="long")
    tale.run("a", "1", ending=None)
    at = tale.strike()
    tale.run("a", "2")
    findings = Findings(
        plan=PLAN, orders={}, server="", dead={}, left=0, strikes=tale.strikes, outages=[Outage(at + 0.5, at + 0.6)]
    )

    assert judge(tale.account, findings).redelivery.keys() == {"disturbed"}


def test_the_table_names_what_was_lost() -> None:
    tale = Tale(a="quick")
    tale.add("told", "a")

    (line,) = [line for line in lines(tale.verdict()) if line.name == "lost"]

    assert (line.value, line.note, line.is_kept) == ("1", "r.a.0", False)
    assert tale.account.story("r.a.0", 0.0) == "stored at 1.000 s, 0 runs"


# The plan


def test_a_seed_has_one_plan_and_another_seed_another_one() -> None:
    again, other = Plan(seed=1, jobs=900, seconds=30), Plan(seed=2, jobs=900, seconds=30)

    assert [PLAN.handovers(1), PLAN.faults()] == [again.handovers(1), again.faults()]
    assert PLAN.handovers(1) != other.handovers(1)
    assert PLAN.faults() != other.faults()


@pytest.mark.parametrize("jobs", [1, 2, 3, 1000])
def test_a_plan_has_as_many_jobs_as_it_was_asked_for(jobs: int) -> None:
    plan = Plan(seed=3, jobs=jobs, seconds=30)

    assert len(orders_by_id(plan, RUN)) == jobs


def test_a_plan_has_every_kind_of_job_and_of_fault() -> None:
    plan = Plan(seed=4, jobs=PRODUCERS * 400, seconds=24, hits_broker=True)

    assert {order.kind for order in orders_by_id(plan, RUN).values()} == {
        *("quick", "medium", "long", "async", "flaky", "hopeless", "killer", "poison")
    }
    assert {fault.kind for fault in plan.faults()} == {
        *("executor", "supervisor", "session", "producer", "freeze", "stop", "everybody", "broker")
    }


def test_faults_are_spread_over_the_time_and_come_in_order() -> None:
    times = [fault.at for fault in Plan(seed=5, jobs=1, seconds=40, hits_broker=True).faults()]

    assert times == sorted(times)
    assert len(times) == 42
    assert 0 <= times[0] <= times[-1] < 40


def test_a_job_is_found_by_its_id_at_whichever_try_it_was_stored() -> None:
    handover: Handover = PLAN.handovers(2)[5]

    name = job_id(RUN, 2, handover, 0, 3)

    assert orders_by_id(PLAN, RUN)[name.rpartition(".")[0]] == handover.orders[0]


@pytest.mark.parametrize(("jobs", "seconds"), [(0, 30), (1, 4.9), (1, float("nan")), (1, float("inf"))])
def test_a_plan_out_of_bounds_is_refused(jobs: int, seconds: float) -> None:
    with pytest.raises(BadOption):
        Plan(seed=1, jobs=jobs, seconds=seconds)


# The broker's process


def tend(server: Server, is_over: Callable[[], bool]) -> None:
    """Let it take its steps until then."""

    def look() -> bool:
        server.tend(0.0)
        return is_over()

    until(look)


def test_the_broker_is_killed_started_and_back_when_it_takes_jobs(tmp_path: Path) -> None:
    said = tmp_path / "said"
    server = Server(f"echo kill >> {said}", f"echo start >> {said}", tmp_path / "log")

    server.kill(pause=0.0)
    tend(server, lambda: said.exists() and "start" in said.read_text())
    before = server.is_down
    server.tend(server.outages[0].at + 60)

    assert (before, server.is_down) == (True, False)
    assert said.read_text().split() == ["kill", "start"]


def test_a_killed_broker_is_started_again_though_all_is_given_up(tmp_path: Path) -> None:
    server = Server("true", f"touch {tmp_path}/started", tmp_path / "log")

    server.kill(pause=60.0)
    server.mend()

    assert (tmp_path / "started").exists()


def test_a_command_that_fails_is_told_with_what_it_said(tmp_path: Path) -> None:
    server = Server("echo no such unit; exit 3", "true", tmp_path / "log")

    server.kill(pause=0.0)

    with pytest.raises(BrokerError, match=r"--kill-broker ended with 3: no such unit"):
        tend(server, lambda: False)
