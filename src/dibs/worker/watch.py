"""What surrounds a run in an executor: its time limit, and whether its job is still this worker's.

A function that takes too long is asked to end: a coroutine is cancelled (`looping.py`), a plain function gets
`JobTimeout` raised in it, here. What ignores that is told to the supervisor, which ends the executor. An interrupt
is open while the function itself runs and at no other time, so it never hits what surrounds a run, or the next job.
"""

from __future__ import annotations

import ctypes
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, Protocol

from dibs.outcome import JobTimeout
from dibs.run import overtime_text
from dibs.worker.alarms import Alarms
from dibs.worker.frames import Overdue, Worn
from dibs.worker.line import Line
from dibs.worker.options import TIMEOUT_PATIENCE

#: Wakes the main thread from a system call. Ignored where nobody asks for it, so a stray one harms nothing.
_SIGNAL = signal.SIGURG


class Watch:
    """Surrounds a run without a time limit."""

    def __init__(self, line: Line, number: int) -> None:
        self._line = line
        self._number = number

    def call(self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Call the function."""
        __tracebackhide__ = True
        return function(*args, **kwargs)

    def is_lost(self) -> bool:
        """Tell whether the broker has taken the job back."""
        self._line.look()
        return self._number in self._line.lost


class LimitedWatch(Watch):
    """Surrounds a run of a plain function that may take so many seconds."""

    def __init__(self, line: Line, number: int, timeout: float, interrupter: Interrupter) -> None:
        super().__init__(line, number)
        self._timeout = timeout
        self._interrupter = interrupter
        #: Which thread the function runs on.
        self.thread = threading.get_ident()
        #: Holds one thing while an interrupt may come. Taking it out is one step, so either the run closes or one
        #: interrupt comes, never both.
        self._open: list[None] = []
        #: The limit was reached.
        self._is_due = False
        #: The interrupt was sent, or raised.
        self.is_sent = False

    def call(self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Call the function, open to an interrupt.

        Raises:
            JobTimeout: it took too long.
        """
        __tracebackhide__ = True
        alarm = self._interrupter.alarms.set(self._timeout, self._expire)
        try:
            try:
                self._admit()
                return function(*args, **kwargs)
            finally:
                self._shut()
        except JobTimeout as error:
            if self.is_sent:
                error.args = (overtime_text(self._timeout),)
            raise
        finally:
            alarm.cancel()
            if self.is_sent and self._interrupter.wears_out:
                self._line.send(Worn())

    def is_lost(self) -> bool:
        """Tell whether the broker has taken the job back."""
        with self._masked():
            return super().is_lost()

    def take(self) -> bool:
        """Claim the right to interrupt; tell whether the run is open."""
        try:
            self._open.pop()
        except IndexError:
            return False
        return True

    def _admit(self) -> None:
        """Open the run to an interrupt; one that found it closed is raised now."""
        self._open.append(None)
        if self._is_due and self.take():
            self.is_sent = True
            raise JobTimeout

    def _shut(self) -> None:
        """Close the run to interrupts. One that comes in here ends the run like any other."""
        if not self.take():
            self._interrupter.settle(self)

    @contextmanager
    def _masked(self) -> Iterator[None]:
        """Let no interrupt in while the executor's own work is done inside a run."""
        if not self.take():
            yield  # it was interrupted already, which happens once
            return
        try:
            yield
        finally:
            self._admit()

    def _expire(self) -> None:
        """Ask the run to end, on the alarms' thread; then tell of it, should it go on."""
        self._is_due = True
        self._interrupter.interrupt(self)
        # Not cancelled: the supervisor knows which runs have ended.
        self._interrupter.alarms.set(TIMEOUT_PATIENCE, lambda: self._line.send(Overdue(self._number)))


class Interrupter(Protocol):
    """How an interrupt gets to where a function runs."""

    alarms: Alarms
    #: An executor in which it was used is to be replaced.
    wears_out: bool

    def interrupt(self, watch: LimitedWatch) -> None:
        """Raise `JobTimeout` in that run, if it is open."""
        ...

    def settle(self, watch: LimitedWatch) -> None:
        """Return when no interrupt is on its way to that run any more. One may still be raised in here."""
        ...


class MainThreadInterrupter:
    """Interrupts the main thread by a signal, so that system calls that wait are interrupted too."""

    wears_out = False

    def __init__(self, alarms: Alarms) -> None:
        self.alarms = alarms
        self._target: LimitedWatch | None = None
        signal.signal(_SIGNAL, self._on_signal)

    def interrupt(self, watch: LimitedWatch) -> None:
        """Raise `JobTimeout` in that run, if it is open."""
        self._target = watch
        signal.pthread_kill(watch.thread, _SIGNAL)

    def settle(self, watch: LimitedWatch) -> None:
        """Return: what was raised was raised on this very thread."""

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self._target is not None and self._target.take():
            self._target.is_sent = True
            raise JobTimeout


class ThreadInterrupter:
    """Interrupts any thread, between two steps of Python code: a system call that waits is not interrupted."""

    #: What the thread was doing may have left something half done that others in the process rely on.
    wears_out = True

    def __init__(self, alarms: Alarms) -> None:
        self.alarms = alarms

    def interrupt(self, watch: LimitedWatch) -> None:
        """Raise `JobTimeout` in that run, if it is open."""
        if watch.take():
            _raise_in(watch.thread, JobTimeout)
            watch.is_sent = True

    def settle(self, watch: LimitedWatch) -> None:
        """Wait until the interrupt is sent, which it is about to be, and take it back if it was not raised yet."""
        while not watch.is_sent:
            time.sleep(0.0001)
        _raise_in(watch.thread, None)


def _raise_in(thread: int, kind: type[BaseException] | None) -> None:
    value = ctypes.py_object(kind) if kind is not None else ctypes.py_object()
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), value)
