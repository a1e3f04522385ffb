"""An executor's end of the socket to its supervisor."""

from __future__ import annotations

import os
import socket

from dibs.worker.frames import Frame, Inbox, Keep, pack

#: Bytes asked of the socket at a time.
_READ_BYTES = 256 * 1024
#: Most descriptors that come along with one read.
_DESCRIPTORS = 16


class Line:
    """Receives and sends for one owner at a time.

    When the supervisor is gone, the executor ends where it stands: its jobs are given to others already.
    """

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._socket.set_inheritable(False)
        self._inbox = Inbox()
        self._kept: list[int] = []
        os.register_at_fork(after_in_child=self._close)

    def fileno(self) -> int:
        """The socket's descriptor, readable when frames have come."""
        return self._socket.fileno()

    def receive(self, *, is_waiting: bool = True) -> list[Frame]:
        """Return what has come; waits for something unless told otherwise."""
        flags = 0 if is_waiting else socket.MSG_DONTWAIT
        while True:
            try:
                data, descriptors, _, _ = socket.recv_fds(self._socket, _READ_BYTES, _DESCRIPTORS, flags)
            except BlockingIOError:
                return []
            except ConnectionResetError:
                data, descriptors = b"", []
            for descriptor in descriptors:
                os.set_inheritable(descriptor, False)
            self._kept += descriptors
            if not data:
                os._exit(0)
            frames: list[Frame] = [frame for frame in self._inbox.feed(data) if not isinstance(frame, Keep)]
            if frames or not is_waiting:
                return frames

    def send(self, *frames: Frame) -> None:
        """Send frames."""
        try:
            self._socket.sendall(pack(frames))
        except (BrokenPipeError, ConnectionResetError):
            os._exit(0)

    def _close(self) -> None:
        """In a forked child: let go of all that would make the supervisor believe that we live."""
        self._socket.close()
        for descriptor in self._kept:
            os.close(descriptor)
