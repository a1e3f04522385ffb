"""The supervisor's handle to one executor: its process, its socket and the jobs that it runs."""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from contextlib import suppress

from dibs.message import Delivery, now_ms
from dibs.outcome import Outcome, Run
from dibs.worker.frames import WAKING, Began, Cancel, Frame, Inbox, Keep, Lost, Setup, Start, Stop, append, pack
from dibs.worker.memory import resident_bytes
from dibs.worker.window import Window

#: What the jobs of an executor may weigh before it gets no more ahead.
_AHEAD_BYTES = 8 * 1024 * 1024
#: Bytes asked of the socket at a time.
_READ_BYTES = 256 * 1024
#: Seconds between two signals to an executor that has to read what is to be ended.
_WAKE_INTERVAL = 1.0


class Child:
    """One executor process. Never blocks: what the socket does not take waits in an outbox."""

    def __init__(self, setup: Setup) -> None:
        self._socket, theirs = socket.socketpair()
        self._socket.setblocking(False)
        self._permits, self._permit_writer = os.pipe()
        os.set_blocking(self._permits, False)
        os.set_blocking(self._permit_writer, False)
        try:
            # In a session of its own: Ctrl-C at the terminal is the supervisor's alone. -P: a file of the user's
            # named like a module of the standard library must not shadow it while the executor starts.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "dibs.worker.main", str(theirs.fileno()), str(self._permits)],
                pass_fds=[theirs.fileno(), self._permits],
                start_new_session=True,
                stdin=subprocess.DEVNULL,
            )
        except OSError:
            self.close()
            raise
        finally:
            theirs.close()
        self._inbox = Inbox()
        self._outbox = bytearray()
        #: The supervisor waits until the socket takes more.
        self.is_clogged = False
        #: What it has, by the number of the run, in the order in which it starts them.
        self.running: dict[int, Delivery] = {}
        #: When it got each of them, in ms since 1970.
        self.since: dict[int, int] = {}
        #: Those of them that are to be ended, each with the time at which it must have ended.
        self.cancelled: dict[int, float] = {}
        self._wake_at = 0.0
        #: When it was started, in ms since 1970.
        self.started = now_ms()
        self._epoch = 0
        #: Jobs in the outbox: their permits follow when their frames are sent.
        self._unpermitted = 0
        #: How much it may have.
        self.window = Window(setup.slots)
        self._slots = setup.slots
        #: What the bodies that it has weigh.
        self._body_bytes = 0
        self.is_ready = False
        #: Its end of the socket is closed.
        self.is_silent = False
        #: It could not import the app, and said so.
        self.is_refused = False
        #: It is kept for suspects: it runs one at a time and nothing else.
        self.is_quarantine = False
        #: It gets nothing more, and is told to end when what it runs has ended.
        self.is_retired = False
        #: It was told to end.
        self.is_stopped = False
        #: Why another one is to take its place; empty: it is as good as new.
        self.worn_by = ""
        #: How many jobs ended in it.
        self.finished = 0
        #: Its runs that have a time limit, each with the time at which it must have ended or been told of.
        self.limited: dict[int, tuple[float, Began]] = {}
        #: Those of them that ignore that their time is over.
        self.overdue: set[int] = set()
        #: What becomes of what it runs, where the supervisor itself killed it.
        self.verdicts: dict[int, Outcome] | None = None
        self.post(setup)
        self.flush()

    @property
    def pid(self) -> int:
        """Its process id, and that of its session and process group."""
        return self._process.pid

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._socket.fileno()

    @property
    def has_outbox(self) -> bool:
        """Whether something waits for the socket to take it."""
        return bool(self._outbox)

    @property
    def room(self) -> int:
        """How many more jobs it may have."""
        most = self.window.size if self._body_bytes < _AHEAD_BYTES else self._slots
        return max(0, most - len(self.running))

    def post(self, *frames: Frame) -> None:
        """Put frames into the outbox; `flush` sends them."""
        for frame in frames:
            append(self._outbox, frame)

    def start(self, number: int, delivery: Delivery) -> None:
        """Have it run a delivery when a slot is free."""
        if not self.running:
            self.window.begin(time.monotonic())
        self.running[number] = delivery
        self.since[number] = now_ms()
        self._body_bytes += len(delivery.message.body)
        append(self._outbox, Start(number, self._epoch, delivery.message))
        self._unpermitted += 1

    def finish(self, number: int) -> Delivery:
        """Return the delivery of a run that ended; its end tells how much may be held ahead."""
        delivery = self.running.pop(number)
        del self.since[number]
        self._body_bytes -= len(delivery.message.body)
        self.window.advance(time.monotonic())
        self.finished += 1
        if self.limited:
            self.limited.pop(number, None)
            self.overdue.discard(number)
        if self.cancelled:
            self.cancelled.pop(number, None)
        return delivery

    def run_of(self, number: int) -> Run:
        """Return the record of a run that ends here and now, as far as it is seen from outside."""
        return Run(self.since[number], now_ms())

    @property
    def unstarted(self) -> set[int]:
        """What it has beyond its slots: that is not begun, nor about to be."""
        return set(list(self.running)[self._slots :])

    def cancel(self, numbers: Collection[int], deadline: float) -> None:
        """Have these runs ended, until then."""
        self.cancelled |= dict.fromkeys(numbers, deadline)
        self.post(Cancel(list(self.cancelled)))
        self._wake_at = 0.0

    @property
    def wake_at(self) -> float:
        """When it is to be woken next so that it reads what is to be ended; never while that waits to be sent."""
        return math.inf if self._outbox else self._wake_at

    def wake(self, now: float) -> None:
        """Wake it if it is time to: it may run functions on all threads. One signal may come where it can't read."""
        if now >= self.wake_at:
            self._wake_at = now + _WAKE_INTERVAL
            with suppress(ProcessLookupError):
                os.kill(self.pid, WAKING)

    def tell_lost(self, receipts: Collection[object]) -> None:
        """Tell it which of its jobs the broker has taken back, by their receipts."""
        self.post(Lost([number for number, held in self.running.items() if held.receipt in receipts]))

    def recall(self) -> list[Delivery]:
        """Take back what it has not started."""
        try:
            count = len(os.read(self._permits, 4096)) + self._unpermitted
        except BlockingIOError:
            count = self._unpermitted
        self._unpermitted = 0
        self._epoch = (self._epoch + 1) % 256
        self.window.fall_back()
        numbers = list(self.running)[len(self.running) - count :]
        recalled = [self.running.pop(number) for number in numbers]
        for number in numbers:
            del self.since[number]
            self.cancelled.pop(number, None)
        self._body_bytes -= sum(len(delivery.message.body) for delivery in recalled)
        return recalled

    def keep_open(self, descriptors: Sequence[int]) -> None:
        """Hand descriptors over that it is to hold open while it lives. Call before the first `start`."""
        with suppress(BrokenPipeError, ConnectionResetError):  # it died; whoever reaps it sees to the rest
            socket.send_fds(self._socket, [pack((Keep(),))], descriptors)

    def flush(self) -> None:
        """Send as much of the outbox as the socket takes, then the permits."""
        while self._outbox:
            try:
                sent = self._socket.send(self._outbox)
            except BlockingIOError:
                return
            except (BrokenPipeError, ConnectionResetError):
                self._outbox.clear()  # it died; whoever reaps it sees to its jobs
                return
            del self._outbox[:sent]
        if self._unpermitted:
            os.write(self._permit_writer, bytes((self._epoch,)) * self._unpermitted)
            self._unpermitted = 0

    def read(self) -> list[Frame]:
        """Return the frames that have come; sees whether they were the last.

        Raises:
            msgspec.DecodeError: the bytes are no frames: a task wrote to a descriptor that was not its own.
        """
        frames: list[Frame] = []
        while not self.is_silent:
            try:
                data = self._socket.recv(_READ_BYTES)
            except BlockingIOError:
                break
            except ConnectionResetError:
                data = b""
            self.is_silent = not data
            frames += self._inbox.feed(data)
        return frames

    def stop(self) -> None:
        """Ask it to run its stop hooks and end."""
        self.is_stopped = True
        self.post(Stop())
        self.flush()

    def kill(self) -> None:
        """Kill it and all that its jobs started in its process group."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return  # not even a zombie is left

    def reap(self, *, is_waiting: bool = False) -> Death | None:
        """Return how it died, or None if it lives. Its process group is killed before it is reaped.

        While it is a zombie its number can't be given to a stranger, so the kill hits only its own.
        """
        flags = os.WEXITED | os.WNOWAIT | (0 if is_waiting else os.WNOHANG)
        if os.waitid(os.P_PID, self.pid, flags) is None:
            return None
        self.kill()
        _, status, usage = os.wait4(self.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return Death(self._process.returncode, peak)

    @property
    def memory_bytes(self) -> int:
        """How much memory it has in use now (RSS); 0 where the system does not tell."""
        return resident_bytes(self.pid)

    def close(self) -> None:
        """Let go of the socket and the pipe."""
        self._socket.close()
        os.close(self._permits)
        os.close(self._permit_writer)


class Death:
    """How an executor ended."""

    def __init__(self, code: int, peak_bytes: int) -> None:
        #: Exit status; the negative signal number where a signal ended it.
        self.code = code
        #: Most memory that it had in use.
        self.peak_bytes = peak_bytes

    def __str__(self) -> str:
        """Tell the cause of death, for people."""
        memory = f"peak memory {self.peak_bytes / 1048576:.0f} MiB"
        if self.code >= 0:
            return f"exit status {self.code}, {memory}"
        return f"signal {-self.code} ({_signal_name(-self.code)}), {memory}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"
