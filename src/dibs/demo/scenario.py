"""The plot of `dibs demo`: what is handed over, who is killed when, and what is shown of it."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from urllib.parse import quote

from dibs.broker import Broker
from dibs.brokers import connect
from dibs.demo.fleet import Fleet
from dibs.demo.history import History, Kill, Run, Sent, collect
from dibs.demo.tasks import NAMESPACE, QUEUE, app, work
from dibs.demo.timeline import DRAWN, PLAIN, Timeline
from dibs.demo.verdict import RESTART_LIMITS, Ending, judge
from dibs.errors import UsageError
from dibs.selection import EVERY
from dibs.trial.evidence import Event, Evidence
from dibs.trial.screen import Screen
from dibs.trial.table import table

WORKERS = 3
#: Seconds that each job takes, by its letter. The last one of the first batch is the one whose worker is killed; it
#: is so long that another worker has nothing to do before it ends, however slow the machine.
FIRST_BATCH = dict(
    zip("ABCDEFGHIJKLM", (0.5, 0.9, 0.3, 0.7, 0.4, 0.8, 0.3, 0.6, 0.5, 0.4, 0.7, 0.3, 0.5), strict=True)
)
VICTIM = "N"
FIRST_BATCH[VICTIM] = 2.0
SECOND_BATCH = dict(zip("OPQRSTUVWX", (1.2, 0.4, 0.9, 0.3, 0.7, 0.6, 0.3, 0.5, 0.3, 0.3), strict=True))

#: The kill comes when the victim's job has run so long, and another worker was idle so long. In seconds.
_VICTIM_AGE, _IDLE_FOR = 0.4, 0.05
#: Seconds between two looks at the log.
_LOOK_EVERY = 0.01
#: Seconds that each act may take, many times what it takes: after it the demo has failed.
_PATIENCE = 20.0


class Stuck(Exception):
    """Something that had to happen did not."""


def run_demo(url: str | None) -> int:
    """Play it and return the exit code: 0 if every promise was kept, else 1.

    Args:
        url: the broker; None: an SQLite file in a temporary directory.

    Raises:
        BadURL, UsageError: the URL can't be used for this.
        BrokerError: the broker can't be used.
    """
    logging.getLogger("dibs").addHandler(logging.NullHandler())  # what is wrong in the end is raised
    with _signals_as_exit(), tempfile.TemporaryDirectory(prefix="dibs-demo-") as name:
        directory = Path(name)
        screen = Screen(sys.stdout)
        place = url or f"sqlite:///{quote(str(directory / 'dibs.db'))}"
        app.use(place)
        try:
            log = directory / "evidence"
            log.mkdir()
            with Fleet(directory, url=place, log=log) as fleet:
                return _Play(place, log, fleet, screen).run(is_own=url is None)
        finally:
            app.close()


@contextmanager
def _signals_as_exit() -> Iterator[None]:
    """Have SIGTERM and SIGHUP leave by way of the `finally`s, so that no worker and no directory is left behind."""

    def leave(number: int, frame: FrameType | None) -> None:
        del frame
        sys.exit(128 + number)

    former = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


class _Play:
    """One performance."""

    def __init__(self, url: str, log: Path, fleet: Fleet, screen: Screen) -> None:
        self._url = url
        self._is_file = url.startswith("sqlite:")
        self._evidence = Evidence(log)
        self._events: list[Event] = []
        self._fleet = fleet
        self._screen = screen
        self._sent: list[Sent] = []
        self._kill = Kill(0, float("inf"))

    def run(self, *, is_own: bool) -> int:
        """Play all acts, draw the picture, and return the exit code."""
        self._open()
        try:
            ending = self._acts()
        except Stuck as stuck:
            self._screen.line(("BROKEN: ", "1;31"), f"{stuck}. What the workers said:")
            self._screen.line(self._fleet.said())
            return 1
        finally:
            self._clean_up()
        is_kept = self._draw(ending)
        if not is_own:
            self._say_what_is_left()
        return 0 if is_kept else 1

    # Acts

    def _open(self) -> None:
        broker = app.broker
        if not broker.capabilities.is_shared:
            raise UsageError(
                f"The demo's workers are processes, and {self._url} is in one process only. Use another."
            )
        self._screen.line(
            (f"dibs demo: {WORKERS} workers compete for {len(FIRST_BATCH | SECOND_BATCH)} jobs, ", "1"),
            ("and one of them gets killed.", "1"),
        )
        self._screen.line()
        self._say(f"{broker.capabilities.server}, {broker.location}")
        if any(info.consumers for info in broker.queues([QUEUE])):
            raise UsageError(f"Another dibs demo runs at {broker.location}. Let it end first.")
        self._purge()  # what a demo left that was cut off

    def _acts(self) -> Ending:
        self._send_first()
        for _ in range(WORKERS):
            self._fleet.start()
        self._wait(lambda now: len(now.ready) == WORKERS, "the workers did not start")
        self._say(
            f"{WORKERS} workers ready, one slot each: dibs worker, pids {', '.join(map(str, self._fleet.pids))}"
        )
        self._kill_one()
        self._wait(lambda now: now.again is not None, f"job {VICTIM} did not start again")
        again = self._now().again
        self._say(f"job {VICTIM} runs again, on worker {again.worker if again else '?'}")
        app.close()
        self._send(SECOND_BATCH)
        self._say(f"{len(SECOND_BATCH)} more jobs sent, through {self._name_of_it()} opened anew")
        self._wait(lambda now: not now.lost, "some jobs were not done in time")
        is_orderly = self._fleet.stop()
        self._say("all jobs done, workers told to stop")
        return Ending(self._count_left(), self._is_tree_gone(), is_orderly)

    def _send_first(self) -> None:
        """Hand over while nobody but this process knows the broker, let go, and count anew."""
        self._send(FIRST_BATCH)
        app.close()
        if held := _descriptors_below(app.broker.location if self._is_file else None):
            raise Stuck(f"the file was not closed: {', '.join(held)}")
        found = self._count(lambda count: count == len(FIRST_BATCH))
        if found != len(FIRST_BATCH):
            raise Stuck(f"{len(FIRST_BATCH)} jobs were sent, and {found} are there after {self._name_of_it()} closed")
        self._say(
            f"{len(FIRST_BATCH)} jobs sent, {self._name_of_it()} closed by all and opened again: {found} are there"
        )
        if not self._is_file:
            self._say("a restart keeps them too: dibs send x hi, restart the server, dibs queues x")

    def _kill_one(self) -> None:
        """Kill the worker in the middle of the long job, when another one is waiting for work."""
        self._wait(self._is_time_to_kill, f"job {VICTIM} never ran beside an idle worker")
        victim = _victim(self._now())
        if victim is None:
            raise Stuck(f"job {VICTIM} ended before its worker could be killed")
        self._kill = Kill(victim.worker, time.monotonic())
        self._fleet.kill(victim.worker)
        self._say(f"worker {victim.worker} killed (SIGKILL) in the middle of job {VICTIM}")

    def _is_time_to_kill(self, now: History) -> bool:
        moment = time.monotonic()
        victim = _victim(now)
        if victim is None or moment - victim.start < _VICTIM_AGE:
            return False
        last_ends = [runs[-1].end for worker in now.ready if (runs := now.runs_of(worker))]
        return any(end is not None and moment - end > _IDLE_FOR for end in last_ends)

    # What it looks like from here

    def _send(self, batch: dict[str, float]) -> None:
        app.enqueue_many([work.prepare(job, seconds) for job, seconds in batch.items()])
        moment = time.monotonic()
        self._sent += [Sent(job, seconds, moment) for job, seconds in batch.items()]

    def _now(self) -> History:
        self._events = sorted(self._events + self._evidence.news(), key=lambda event: event.at)
        return collect(self._sent, self._events, self._kill)

    def _wait(self, is_true: Callable[[History], bool], otherwise: str) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not is_true(now := self._now()):
            if time.monotonic() > deadline:
                raise Stuck(f"{otherwise} within {_PATIENCE:.0f} s")
            if not self._fleet.is_alive:
                raise Stuck("a worker ended by itself")
            self._show_progress(now)
            time.sleep(_LOOK_EVERY)

    def _count(self, is_enough: Callable[[int], bool]) -> int:
        """Count the jobs by a handle of its own; a server's count may lag behind, so ask again for a while."""
        broker = connect(self._url, namespace=NAMESPACE)
        deadline = time.monotonic() + _PATIENCE
        try:
            while not is_enough(count := _count(broker)) and time.monotonic() < deadline:
                time.sleep(0.1)
            return count
        finally:
            broker.close()

    def _count_left(self) -> int:
        return self._count(lambda count: count == 0)

    def _is_tree_gone(self) -> bool:
        pids = {event.pid for event in self._events if event.number == self._kill.worker}
        return not any(_is_running(pid) for pid in pids)

    def _clean_up(self) -> None:
        """Leave nothing in the broker; first the workers hand back what they hold."""
        self._fleet.stop()
        self._purge()

    def _purge(self) -> None:
        app.broker.purge(QUEUE, state="ready")
        app.broker.drop(QUEUE, EVERY)

    def _say_what_is_left(self) -> None:
        """Name what stays: the broker's protocol has no verb to delete a queue, as a stranger's may hang on it."""
        what = "tables of dibs'" if self._is_file else f"queues and an exchange named {NAMESPACE}.*"
        self._screen.line(f"Left in the broker, empty: {what}.")

    # What is shown

    def _name_of_it(self) -> str:
        return "the file" if self._is_file else "the connection"

    def _say(self, text: str) -> None:
        self._screen.line(("  · " if self._screen.has_drawing else "  - ", "2"), text)

    def _show_progress(self, now: History) -> None:
        columns = 24
        total = len(FIRST_BATCH) + len(SECOND_BATCH)
        filled = round(columns * len(now.done) / total)
        full, empty = ("█", "░") if self._screen.has_drawing else ("#", ".")
        busy = {run.worker: run.job for run in now.runs if run.end is None and run.worker != self._kill.worker}
        doing = [f"{worker}: {busy.get(worker, '-')}" for worker in sorted(now.ready) if worker != self._kill.worker]
        self._screen.transient(
            "  ", (full * filled, "38;5;26"), (empty * (columns - filled), "2"),
            f" {len(now.done):2} of {total} done   ", ("   ".join(doing), "2"),
        )  # fmt: skip

    def _draw(self, ending: Ending) -> bool:
        """Draw the picture and the table; tell whether every promise was kept."""
        history, screen = self._now(), self._screen
        glyphs = DRAWN if screen.has_drawing else PLAIN
        screen.line()
        for line in Timeline(history, width=screen.width, glyphs=glyphs).lines():
            screen.line(*line)
        screen.line()
        limit = RESTART_LIMITS["sqlite" if self._is_file else "amqp"]
        lines = judge(history, ending, restart_limit=limit)
        for row in table(lines, has_drawing=screen.has_drawing):
            screen.line(*row)
        broken = [line.name for line in lines if line.is_kept is False]
        screen.line()
        if broken:
            screen.line(("BROKEN: ", "1;31"), ", ".join(broken), ". What the workers said:")
            screen.line(self._fleet.said())
        else:
            screen.line(("Every promise was kept.", "1;32"))
        return not broken


def _victim(now: History) -> Run | None:
    return next((run for run in now.runs if run.job == VICTIM and run.end is None), None)


def _count(broker: Broker) -> int:
    infos = [info for info in broker.queues([QUEUE]) if info.name == QUEUE]
    return sum(info.ready + (info.running or 0) + (info.delayed or 0) + info.dead for info in infos)


def _descriptors_below(path: str | None) -> list[str]:
    """Return what this process still has open of a file and its companions, where /proc can tell."""
    folder = Path("/proc/self/fd")
    if path is None or not folder.exists():
        return []
    names = []
    for descriptor in folder.iterdir():
        try:
            names.append(str(descriptor.readlink()))
        except FileNotFoundError:
            continue  # that of the listing itself
    return [name for name in names if name.startswith(path)]


def _is_running(pid: int) -> bool:
    """Tell whether a process runs; a zombie that nobody has reaped yet does not."""
    try:
        os.kill(pid, 0)
        status = Path(f"/proc/{pid}/stat")
        return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
