"""Noticing a death at once: each worker watches the FIFO of the next one.

A worker holds its own FIFO open for reading and writing, and so do its executors. The next worker's is opened for
reading only, and watched for nothing but "all writers are gone", which the kernel reports when the last holder
has ended, however it ended. No thread, no polling, no signal.
"""

from __future__ import annotations

import os
import select
from contextlib import suppress
from pathlib import Path

from dibs.brokers.sqlite.wake import MEMBERS, fifo_path

#: Where there is no epoll nobody is told of a death; seconds between looks instead.
HAS_EPOLL = hasattr(select, "epoll")


class Ring:
    """One worker's FIFO and its watch on the next one's."""

    def __init__(self, directory: Path, worker: int) -> None:
        self._directory = directory
        self._path = fifo_path(directory, worker)
        self._watched: int | None = None
        with suppress(FileExistsError):
            os.mkfifo(self._path, 0o600)
        #: Open while the worker or one of its executors lives.
        self.fifo = os.open(self._path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._epoll = select.epoll() if HAS_EPOLL else None
        if self._epoll is not None:
            self._epoll.register(self.fifo, select.EPOLLIN)

    def fileno(self) -> int:
        """Readable when this worker was poked or the watched one is gone."""
        return self.fifo if self._epoll is None else self._epoll.fileno()

    def drain(self) -> tuple[bool, bool]:
        """Empty the FIFO. Return whether the ring has changed, and whether the watched worker is gone."""
        has_changed = has_gone = False
        events = [(self.fifo, 0)] if self._epoll is None else self._epoll.poll(0)
        for descriptor, _ in events:
            if descriptor == self.fifo:
                with suppress(BlockingIOError):
                    has_changed = MEMBERS in os.read(self.fifo, 65536)
            else:
                has_gone = True
                self._unwatch()
        return has_changed, has_gone

    def watch(self, worker: int | None) -> None:
        """Watch this worker's FIFO instead of another's. Who died before this is not told: look at it afterwards."""
        self._unwatch()
        if worker is None or self._epoll is None:
            return
        with suppress(FileNotFoundError):
            self._watched = os.open(fifo_path(self._directory, worker), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            self._epoll.register(self._watched, 0)

    def close(self) -> None:
        """Let go, and remove the FIFO."""
        self._unwatch()
        if self._epoll is not None:
            self._epoll.close()
        os.close(self.fifo)
        self._path.unlink(missing_ok=True)

    def _unwatch(self) -> None:
        if self._watched is not None and self._epoll is not None:
            self._epoll.unregister(self._watched)
            os.close(self._watched)
        self._watched = None
