"""An executor's end of the line to its supervisor: frames over a socket, and permits over a pipe.

Frames may run ahead, the right to start may not: what lies in a buffer here can't be called back while a task
holds the interpreter. So each start takes a permit from a pipe whose other reader is the supervisor. It takes back
what was not started by emptying the pipe. A permit is one byte, the epoch of its frame; a recall begins a new one,
so a frame whose permit was taken back never starts with a later frame's.
"""

from __future__ import annotations

import os
import select
import socket
import threading
from collections import deque
from collections.abc import Callable

from dibs.worker.frames import Cancel, Frame, Inbox, Keep, Lost, Setup, Start, Stop, pack

#: Bytes asked of the socket at a time.
_READ_BYTES = 256 * 1024
#: Most descriptors that come along with one read, and how: not for a program that a task starts meanwhile.
_DESCRIPTORS = 16
_CLOSE_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


class Line:
    """Receives and sends for one owner at a time.

    When the supervisor is gone, the executor ends where it stands: its jobs are given to others already.
    """

    def __init__(self, descriptor: int, permits: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._socket.set_inheritable(False)
        #: Held by whoever waits for frames.
        self.reading = threading.Lock()
        self._sending = threading.Lock()
        self._inbox = Inbox()
        self._starts: deque[Start] = deque()
        #: Reads permits, one at a time.
        self.permits = permits
        os.set_inheritable(permits, False)
        self._permit = b""
        self._kept: list[int] = []
        #: Numbers of the runs whose jobs the broker has taken back.
        self.lost: frozenset[int] = frozenset()
        #: Numbers of the runs that are to be ended.
        self.cancelled: frozenset[int] = frozenset()
        #: Called by whoever has read that there are such.
        self.on_cancel: Callable[[], None] = _leave
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)
        self._poll.register(permits, select.POLLIN)
        #: The supervisor has said that no job will follow.
        self.is_stopped = False
        os.register_at_fork(after_in_child=self._close)

    def fileno(self) -> int:
        """The socket's descriptor, readable when frames have come."""
        return self._socket.fileno()

    def set_up(self) -> Setup:
        """Wait for the supervisor's first frame."""
        setup = self._receive()[0]
        if not isinstance(setup, Setup):
            raise TypeError(f"The supervisor's first frame is a {type(setup).__name__}, not Setup.")
        return setup

    def wait(self) -> None:
        """Wait for news: a frame to `read`, or a permit to `take` a job with."""
        with self.reading:
            if self.is_stopped or (self._permit and self._starts):
                return  # somebody has read it since the caller looked
            for descriptor, _ in self._poll.poll():
                if descriptor != self.permits:
                    self.read()

    def look(self) -> None:
        """Read what has come, unless another thread waits for it."""
        if self.reading.acquire(blocking=False):
            try:
                if select.select([self._socket], [], [], 0)[0]:
                    self.read()
            finally:
                self.reading.release()

    def read(self) -> None:
        """Keep the frames that have come."""
        for frame in self._receive():
            match frame:
                case Start():
                    self._starts.append(frame)
                case Stop():
                    self.is_stopped = True
                case Lost(numbers=numbers):
                    self.lost = frozenset(numbers)
                case Cancel(numbers=numbers):
                    self.cancelled = frozenset(numbers)
                    self.on_cancel()
                case Keep():
                    continue
                case _:
                    raise TypeError(f"The supervisor sent a {type(frame).__name__}.")

    def take(self) -> Start | None:
        """Return the next job that may be started, now; None: there is none yet."""
        if not self._permit:
            try:
                self._permit = os.read(self.permits, 1)
            except BlockingIOError:
                return None
            if not self._permit:
                os._exit(0)
        epoch = self._permit[0]
        starts = self._starts
        while starts:
            start = starts.popleft()
            if start.epoch == epoch:
                self._permit = b""
                return start
        return None  # its frame is still on its way

    def send(self, *frames: Frame) -> None:
        """Send frames."""
        try:
            with self._sending:
                self._socket.sendall(pack(frames))
        except (BrokenPipeError, ConnectionResetError):
            os._exit(0)

    def _receive(self) -> list[Frame]:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._socket, _READ_BYTES, _DESCRIPTORS, _CLOSE_ON_EXEC)
        except ConnectionResetError:
            data, descriptors = b"", []
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        self._kept += descriptors
        if not data:
            os._exit(0)
        return self._inbox.feed(data)

    def _close(self) -> None:
        """In a forked child: let go of all that would make the supervisor believe that we live."""
        self._socket.close()
        os.close(self.permits)
        for descriptor in self._kept:
            os.close(descriptor)


def _leave() -> None:
    """Do nothing: no run is begun yet, and those that begin later ask by themselves."""
