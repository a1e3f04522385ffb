"""What surrounds a run in an executor: what it says of itself, its time limit, and whether its job is to go on.

A function that takes too long, or whose job is cancelled, is asked to end: a coroutine is cancelled (`looping.py`), a
plain function gets `JobTimeout` or `JobCancelled` raised in it, here. What ignores that is ended by the supervisor,
with its executor. An interrupt is open while the function itself runs and at no other time, so it never hits what
surrounds a run, or the next job. It comes once in a run.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from dibs.ledger.life import Note
from dibs.message import Message
from dibs.outcome import JobCancelled, JobTimeout
from dibs.run import overtime_text
from dibs.worker.alarms import Alarms
from dibs.worker.frames import Overdue, Said, Worn
from dibs.worker.line import Line
from dibs.worker.notes import Notes, Teller
from dibs.worker.options import TIMEOUT_PATIENCE


class Watch:
    """Surrounds a run of any kind."""

    def __init__(self, line: Line, teller: Teller, number: int, message: Message) -> None:
        self._line = line
        self._teller = teller
        self._number = number
        self._notes: Notes | None = None
        #: What is logged in the run is to be kept.
        self.keeps_log = not message.is_private
        #: The run was interrupted because its job is to be cancelled.
        self.is_cancelled = False

    def call(self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Call a function."""
        __tracebackhide__ = True
        return function(*args, **kwargs)

    def why_cancelled(self, error: BaseException) -> BaseException | None:
        """Return what is to be judged where a `CancelledError` ended the run: the error, as far as is known."""
        return error

    def is_lost(self) -> bool:
        """Tell whether the broker has taken the job back."""
        with self._masked():
            self._line.look()
        return self._number in self._line.lost

    def progress(self, done: float, total: float | None, note: str) -> None:
        """Hear how far the job is."""
        notes = self._notes or self._open_notes()
        notes.progress(done, total, note)
        self._tell(notes)

    def log(self, lines: Sequence[str]) -> None:
        """Keep lines that were logged in the run."""
        notes = self._notes or self._open_notes()
        notes.log(lines)
        self._tell(notes)

    def lines(self) -> list[str]:
        """Return the last lines that were logged; the run is over, so its last word is told."""
        notes = self._notes
        if notes is None:
            return []
        if (progress := self._teller.end(notes)) is not None:
            self._line.send(Said(self._number, Note(progress)))
        return notes.lines

    def _open_notes(self) -> Notes:
        with self._masked(), self._teller.opening:  # threads of one job may speak for the first time at once
            if self._notes is None:
                self._notes = Notes(self._number)
            return self._notes

    def _tell(self, notes: Notes) -> None:
        if not self._teller.hears(notes):
            with self._masked():
                self._teller.hear(notes)

    @contextmanager
    def _masked(self) -> Iterator[None]:
        """Let no interrupt in while the executor's own work is done inside a run."""
        yield


class FunctionWatch(Watch):
    """Surrounds a run of a plain function, on the thread that it is made on."""

    def __init__(
        self,
        line: Line,
        teller: Teller,
        number: int,
        message: Message,
        interrupter: Interrupter,
        timeout: float | None = None,
    ) -> None:
        super().__init__(line, teller, number, message)
        self._interrupter = interrupter
        self._timeout = timeout
        #: Which thread the function runs on.
        self.thread = threading.get_ident()
        #: Holds one thing while an interrupt may come. Taking it out is one step, so either the run closes or one
        #: interrupt comes, never both.
        self._open: list[None] = []
        #: What is to be raised as soon as the run is open.
        self._wanted: type[BaseException] | None = None
        #: What was raised, or is about to be.
        self.sent: type[BaseException] | None = None
        #: Nothing is about to be raised any more.
        self.is_raised = False

    def call(self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Call the function, open to an interrupt.

        Raises:
            JobTimeout: it took too long.
            JobCancelled: its job is cancelled.
        """
        __tracebackhide__ = True
        interrupter, number = self._interrupter, self._number
        alarm = None if self._timeout is None else interrupter.alarms.set(self._timeout, self._expire)
        interrupter.watches[number] = self
        if number in self._line.cancelled:  # looked up behind the entry: whoever reads of it later finds that
            self._wanted = JobCancelled
        try:
            try:
                self.admit()
                return function(*args, **kwargs)
            finally:
                if not self.take():
                    interrupter.settle(self)  # an interrupt that comes in here ends the run like any other
        except JobTimeout as error:
            if self.sent is JobTimeout:
                error.args = (overtime_text(self._timeout or 0.0),)
            raise
        finally:
            del interrupter.watches[number]
            if alarm is not None:
                alarm.cancel()
            if self.sent is not None:
                self.is_cancelled = self.sent is JobCancelled
                if interrupter.wears_out:
                    self._line.send(Worn())

    def interrupt(self, kind: type[BaseException]) -> None:
        """Have `kind` raised in the function, unless something else is already. Any thread may ask for it."""
        if self._wanted is None:
            self._wanted = kind
            self._interrupter.interrupt(self)

    def take(self) -> bool:
        """Claim the right to interrupt; tell whether the run is open."""
        try:
            self._open.pop()
        except IndexError:
            return False
        return True

    def take_wanted(self) -> type[BaseException] | None:
        """Claim the right to interrupt and return what is to be raised; None: nothing, or the run is not open."""
        kind = self._wanted
        if kind is None or not self.take():
            return None
        self.sent = kind
        return kind

    def admit(self) -> None:
        """Open the run to an interrupt, on its own thread; one that found it closed is raised now."""
        self._open.append(None)
        if self._wanted is not None and (kind := self.take_wanted()) is not None:
            self.is_raised = True
            raise kind

    @contextmanager
    def _masked(self) -> Iterator[None]:
        """Let no interrupt in while the executor's own work is done inside a run."""
        if threading.get_ident() != self.thread or not self.take():
            yield  # nothing is raised on the task's other threads, and here only once
            return
        try:
            yield
        finally:
            self.admit()

    def _expire(self) -> None:
        """Ask the run to end, on the alarms' thread; then tell of it, should it go on."""
        self.interrupt(JobTimeout)
        # Not cancelled: the supervisor knows which runs have ended.
        self._interrupter.alarms.set(TIMEOUT_PATIENCE, lambda: self._line.send(Overdue(self._number)))


class Interrupter(Protocol):
    """How an interrupt gets to where a function runs."""

    alarms: Alarms
    #: An executor in which it was used is to be replaced.
    wears_out: bool
    #: The runs that are surrounded now, by their numbers.
    watches: dict[int, FunctionWatch]

    def interrupt(self, watch: FunctionWatch) -> None:
        """Raise in that run what it wants, if it is open."""
        ...

    def settle(self, watch: FunctionWatch) -> None:
        """Return when no interrupt is on its way to that run any more. One may still be raised in here."""
        ...
