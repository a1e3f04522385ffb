"""How an interrupt gets into a function that runs on the main thread, and into one on any thread."""

from __future__ import annotations

import ctypes
import signal
import threading
import time
from types import FrameType

from dibs.outcome import JobCancelled
from dibs.worker.alarms import Alarms
from dibs.worker.frames import WAKING
from dibs.worker.line import Line
from dibs.worker.watch import FunctionWatch


class MainThreadInterrupter:
    """Interrupts the main thread by a signal, so that system calls that wait are interrupted too."""

    wears_out = False

    def __init__(self, line: Line, alarms: Alarms) -> None:
        self.alarms = alarms
        self.watches: dict[int, FunctionWatch] = {}
        self._line = line
        line.on_cancel = lambda: cancel(self.watches, line.cancelled)
        self._main = threading.main_thread().ident or 0
        signal.signal(WAKING, self._on_signal)

    def interrupt(self, watch: FunctionWatch) -> None:
        """Raise in that run what it wants, if it is open."""
        del watch  # there is but one
        signal.pthread_kill(self._main, WAKING)

    def settle(self, watch: FunctionWatch) -> None:
        """Return: what was raised was raised on this very thread."""

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """Read what the supervisor says, as nobody else does while a function runs; then raise what is wanted.

        Not while it reads: part of a frame would be lost. So the run is closed meanwhile, to signals within this one.
        """
        del number, frame
        opened = [watch for watch in list(self.watches.values()) if watch.take()]
        self._line.look()
        for watch in opened:
            watch.admit()


class ThreadInterrupter:
    """Interrupts any thread, between two steps of Python code: a system call that waits is not interrupted."""

    #: What the thread was doing may have left something half done that others in the process rely on.
    wears_out = True

    def __init__(self, alarms: Alarms) -> None:
        self.alarms = alarms
        self.watches: dict[int, FunctionWatch] = {}

    def listen(self, line: Line) -> None:
        """Heed what the supervisor says while all threads run functions and none of them reads: it sends a signal."""
        line.on_cancel = lambda: cancel(self.watches, line.cancelled)
        signal.signal(WAKING, lambda number, frame: line.look())  # noqa: ARG005

    def interrupt(self, watch: FunctionWatch) -> None:
        """Raise in that run what it wants, if it is open."""
        if (kind := watch.take_wanted()) is not None:
            _raise_in(watch.thread, kind)
            watch.is_raised = True

    def settle(self, watch: FunctionWatch) -> None:
        """Wait until the interrupt is sent, which it is about to be, and take it back if it was not raised yet."""
        while not watch.is_raised:
            time.sleep(0.0001)
        _raise_in(watch.thread, None)


def cancel(watches: dict[int, FunctionWatch], numbers: frozenset[int]) -> None:
    """Have `JobCancelled` raised in those of the runs that have these numbers."""
    for number in numbers:
        if (watch := watches.get(number)) is not None:
            watch.interrupt(JobCancelled)


def _raise_in(thread: int, kind: type[BaseException] | None) -> None:
    value = ctypes.py_object(kind) if kind is not None else ctypes.py_object()
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), value)
