"""The run of `dibs chaos`: its beginning, the faults, the wait until every job is accounted for, and the report."""

from __future__ import annotations

import logging
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import quote

import msgspec

from dibs.broker import Broker, State
from dibs.chaos.account import Account
from dibs.chaos.crew import WORKERS, Crew
from dibs.chaos.interruption import Interrupted, Interruption
from dibs.chaos.plan import LONGEST_DELAY, PRODUCERS, Plan, orders_by_id
from dibs.chaos.producer import Brief
from dibs.chaos.server import Server
from dibs.chaos.tasks import ASYNC, NAMESPACE, PLAIN, app, awork, work
from dibs.chaos.verdict import Findings, Report, judge, lines
from dibs.chaos.wrecker import Wrecker
from dibs.errors import BadOption, BrokerError, UnknownQueue, UsageError
from dibs.message import new_id
from dibs.outcome import DeadLetter
from dibs.selection import EVERY
from dibs.trial.evidence import Evidence
from dibs.trial.screen import Screen
from dibs.trial.table import table

_QUEUES = (PLAIN, ASYNC)
#: RabbitMQ's delay levels end in the dead letters of this one, should a job's own queue be gone.
_ASTRAY = "dibs"
#: Seconds between two looks at everything.
_LOOK_EVERY = 0.02
#: Seconds between two lines where there is no terminal, and between two looks at the dead letters.
_SAY_EVERY, _COUNT_EVERY = 5.0, 1.0
#: Seconds between two drawings of the live line.
_DRAW_EVERY = 0.2
#: Seconds in which a server's count may lag behind what the workers have done.
_COUNT_PATIENCE = 10.0
#: Dead letters asked for at a time.
_PAGE = 500
#: Seconds that the workers get to come up.
_START_PATIENCE = 60.0
#: Most jobs whose evidence is shown.
_SHOWN = 10


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What `dibs chaos` was told.

    Raises:
        BadOption: a value is out of bounds, or half of a pair is missing.
    """

    plan: Plan
    #: None: an SQLite file in a temporary directory.
    url: str | None = None
    #: Shell commands.
    kill_broker: str | None = None
    start_broker: str | None = None
    #: Seconds without one more job accounted for, after which what is open is lost.
    patience: float = 240.0
    #: Print the report as JSON, and what happens meanwhile to standard error.
    is_json: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.patience <= 86400:
            raise BadOption(f"--patience {self.patience:g}: must be from 1 to 86400 seconds.")
        if (self.kill_broker is None) != (self.start_broker is None):
            raise BadOption("--kill-broker and --start-broker were not both given: what is killed has to come back.")
        if self.kill_broker is not None and (self.url or "sqlite:").lower().startswith("sqlite:"):
            raise BadOption("--kill-broker: SQLite has no server that could be killed. Name one with --url.")


def run_chaos(options: Options) -> int:
    """Run it and return the exit code: 0 if nothing was lost and every promise was kept.

    Raises:
        BadURL, UsageError: the URL can't be used for this.
        BrokerError: the broker can't be used.
    """
    logging.getLogger("dibs").addHandler(logging.NullHandler())  # what is wrong in the end is raised
    if sys.platform != "linux":
        raise UsageError(f"dibs chaos finds the processes that it kills in Linux' /proc; this is {sys.platform}.")
    with ExitStack() as stack:
        interruption = stack.enter_context(Interruption())
        directory = Path(tempfile.mkdtemp(prefix="dibs-chaos-"))
        evidence = directory / "evidence"
        evidence.mkdir()
        url = options.url or f"sqlite:///{quote(str(directory / 'dibs.db'))}"
        app.use(url)
        trial = _Trial(options, directory, Crew(directory, evidence, url), Evidence(evidence), interruption)
        stack.callback(trial.leave)
        return trial.run()


class _Trial:
    """One run."""

    def __init__(
        self, options: Options, directory: Path, crew: Crew, evidence: Evidence, interruption: Interruption
    ) -> None:
        self._options = options
        self._plan = options.plan
        self._directory = directory
        self._crew = crew
        self._evidence = evidence
        self._interruption = interruption
        self._screen = Screen(sys.stderr if options.is_json else sys.stdout)
        self._server = Server(options.kill_broker, options.start_broker, directory / "broker.log")
        self._run = new_id()[-6:]
        self._account = Account(self._run)
        self._wrecker = Wrecker(crew, self._server, self._account)
        self._begin = time.monotonic()
        self._said = self._counted = 0.0
        #: The reason of each dead letter, by its id; as of the last look.
        self._dead: dict[str, str] = {}
        #: Messages that the broker has besides; None: it could not be asked.
        self._left: int | None = None
        self._is_kept = True
        #: What the broker is, with its version.
        self._name = ""

    def run(self) -> int:
        """Run it to its end, or until the user ends it, and return the exit code."""
        self._open()
        try:
            self._start()
            self._make_faults()
            self._drain()
            is_whole = True
        except Interrupted:
            is_whole = False
        self._say(
            "All told to end." if is_whole else "Interrupted: all told to end; what is open may still have come."
        )
        return self._close(is_whole=is_whole)

    def leave(self) -> None:
        """Leave no process behind, nor a broker that is down, nor a directory that nobody needs."""
        with ExitStack() as stack:  # all of it, though one should fail
            if self._is_kept:
                stack.callback(shutil.rmtree, self._directory, ignore_errors=True)
            stack.callback(app.close)
            stack.callback(self._server.mend)
            stack.callback(self._crew.kill_all)

    # Acts

    def _open(self) -> None:
        broker, plan = app.broker, self._plan
        if not broker.capabilities.is_shared:
            raise UsageError(f"The workers are processes, and {broker.location} is in one process only. Use another.")
        if any(info.consumers for info in broker.queues(_QUEUES)):
            raise UsageError(f"Queues of {NAMESPACE} have consumers at {broker.location}: another dibs chaos runs.")
        self._name = broker.capabilities.server
        self._purge()  # what was left by one that was cut off
        self._screen.line(("dibs chaos: ", "1"), f"{plan.jobs} jobs, faults for {plan.seconds:g} s, {self._repeat()}")
        self._say(f"{broker.capabilities.server}, {broker.location}")
        self._say(f"{PRODUCERS} producers, {len(WORKERS)} workers; evidence and logs in {self._directory}")

    def _start(self) -> None:
        """Start the producers when a first job per queue, delayed as long as any, has shown that all is in place.

        RabbitMQ 3.10.8 that is killed within two seconds of making a queue can lose it with what was confirmed in it:
        measured; probably rabbitmq/ra#443.
        """
        for queue, task in ((PLAIN, work), (ASYNC, awork)):
            task.using(id=f"{self._account.first}-{queue}", delay=LONGEST_DELAY).enqueue(0.0)
        self._crew.start_workers()
        deadline = time.monotonic() + _START_PATIENCE
        while not (self._account.ready >= WORKERS.keys() and self._account.firsts >= len(_QUEUES)):
            self._look()
            if self._crew.surprises or time.monotonic() > deadline:
                said = next((one.said for one in self._crew.surprises), "they said nothing")
                raise BrokerError(f"The workers did nothing within {_START_PATIENCE:.0f} s: {said}")
        self._begin = time.monotonic()
        self._crew.start_producers(Brief(self._plan, self._run, self._begin))

    def _make_faults(self) -> None:
        for fault in self._plan.faults():
            self._look_until(self._begin + fault.at)
            self._wrecker.strike(fault)
        self._look_until(self._begin + self._plan.seconds)

    def _drain(self) -> None:
        """Wait until every job is accounted for, or nothing has come for as long as patience goes."""
        self._say("No more faults; waiting for what is open.")
        seen, deadline = -1, 0.0
        while not self._is_drained():
            self._look()
            if (came := self._account.progress + len(self._dead)) != seen:
                seen, deadline = came, time.monotonic() + self._options.patience
            if time.monotonic() > deadline:
                self._say(f"Nothing has come for {self._options.patience:g} s.")
                return

    def _is_drained(self) -> bool:
        if self._crew.is_producing or self._crew.is_busy(self._account):
            return False
        if time.monotonic() - self._counted >= _COUNT_EVERY:
            self._count()
        return self._left == 0 and not self._account.open_for(self._dead)

    def _close(self, *, is_whole: bool) -> int:
        """End all processes, look a last time, clean up and report."""
        self._crew.end()
        self._server.mend()
        deadline = time.monotonic() + (_COUNT_PATIENCE if is_whole else 0.0)
        self._count()
        while self._left != 0 and time.monotonic() < deadline:  # a server's count may lag behind
            time.sleep(_LOOK_EVERY)
            self._count()
        self._account.add(self._evidence.news())
        report = judge(
            self._account,
            Findings(
                plan=self._plan,
                orders=orders_by_id(self._plan, self._run),
                server=self._name,
                dead=self._dead,
                left=self._left,
                strikes=self._wrecker.strikes,
                outages=self._server.outages,
                surprises=self._crew.surprises,
                is_whole=is_whole,
            ),
        )
        try:
            self._purge()
        except BrokerError as error:
            self._say(f"The queues could not be emptied: {error}")
        self._show(report)
        return report.exit_code if is_whole or report.broken else 128 + (self._interruption.number or 0)

    # What it looks like from here

    def _look(self) -> None:
        """Take in the evidence, fill empty posts, say how it goes, and wait a moment."""
        self._interruption.check()
        self._account.add(self._evidence.news())
        self._crew.tend()
        self._server.tend(self._account.last_told)
        self._show_progress()
        time.sleep(_LOOK_EVERY)

    def _look_until(self, moment: float) -> None:
        while time.monotonic() < moment:
            self._look()

    def _count(self) -> None:
        """Ask the broker for its dead letters, and how many messages it has besides."""
        self._counted = time.monotonic()
        try:
            self._dead = {
                letter.message.id: letter.reason
                for queue in (*_QUEUES, _ASTRAY)
                for letter in _dead(app.broker, queue)
            }
            infos = [info for info in app.broker.queues(_QUEUES) if info.name in _QUEUES]
            self._left = sum(info.ready + (info.running or 0) + (info.delayed or 0) for info in infos)
        except BrokerError:
            self._left = None

    def _purge(self) -> None:
        """Leave nothing in the queues. Delayed messages that a broker can't count come later, and do nothing."""
        states: list[State] = ["ready"]
        if app.broker.capabilities.counts_held:
            states.append("delayed")
        for queue in (*_QUEUES, _ASTRAY):
            with suppress(UnknownQueue):
                app.broker.drop(queue, EVERY)
                for state in states:
                    app.broker.purge(queue, state=state)

    # What is shown

    def _say(self, text: str) -> None:
        self._screen.line(("  · " if self._screen.has_drawing else "  - ", "2"), text)

    def _progress(self) -> str:
        account, killed = self._account, self._wrecker.counts
        done = len(account.done & account.told.keys())
        broker = f", broker {killed['broker']}" if "broker" in killed else ""
        return (
            f"{time.monotonic() - self._begin:4.0f} s  stored {len(account.told)}  done {done}  "
            f"dead {len(self._dead)}  open {len(account.open_for(self._dead))}  faults {sum(killed.values())}{broker}"
        )

    def _show_progress(self) -> None:
        now = time.monotonic()
        if now - self._said < (_DRAW_EVERY if self._screen.is_terminal else _SAY_EVERY) or not self._account.told:
            return
        self._said = now
        if self._screen.is_terminal:
            self._screen.transient("  ", self._progress())
        else:
            self._say(self._progress())

    def _show(self, report: Report) -> None:
        screen = self._screen
        screen.line()
        for row in table(lines(report), has_drawing=screen.has_drawing):
            screen.line(*row)
        screen.line()
        if report.broken:
            self._is_kept = False
            screen.line(("BROKEN: ", "1;31"), ", ".join(report.broken), ".")
            for job in (*report.lost, *report.wrongly_dead, *report.stored_though_refused)[:_SHOWN]:
                screen.line(f"  {job}: {self._account.story(job, self._begin)}")
            screen.line(f"All evidence and the processes' output are in {self._directory}.")
        elif report.is_whole:
            screen.line(("Nothing was lost.", "1;32"))
        screen.line(
            f"The same plan again: dibs chaos {self._repeat()} --jobs {report.jobs} --seconds {report.seconds:g}"
        )
        if self._options.url is not None:
            screen.line(f"Left in the broker, empty: what is named {NAMESPACE}.*")
        if self._options.is_json:
            Screen(sys.stdout).line(msgspec.json.encode(report).decode())

    def _repeat(self) -> str:
        return f"--seed {self._plan.seed}"


def _dead(broker: Broker, queue: str) -> Iterator[DeadLetter]:
    after = None
    with suppress(UnknownQueue):
        while page := broker.dead(queue, limit=_PAGE, after=after):
            yield from page
            after = page[-1].message.id
