"""A descriptor that one thread waits on and another one makes readable, and the lock for what they share."""

from __future__ import annotations

import os
import threading


class Bell:
    """Rung by the I/O thread, heard by the owner of a consumer."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.read_end, self._write_end = os.pipe()
        os.set_blocking(self.read_end, False)
        os.set_blocking(self._write_end, False)
        self._is_readable = False

    def ring(self) -> None:
        """Make the descriptor readable. With the lock held."""
        if not self._is_readable:
            self._is_readable = True
            os.write(self._write_end, b"n")

    def hush(self) -> None:
        """Make the descriptor unreadable until there is news. With the lock held."""
        if self._is_readable:
            self._is_readable = False
            os.read(self.read_end, 64)

    def close(self) -> None:
        """Let go of the descriptors. An I/O thread that a frozen server still holds up can't ring any more."""
        with self.lock:
            self._is_readable = True
        os.close(self.read_end)
        os.close(self._write_end)
