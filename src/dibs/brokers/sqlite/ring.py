"""Noticing a death at once: each worker watches the FIFOs of the next two, as one of their watchers may be stopped.

A worker holds its own FIFO open for reading and writing, and so do its executors. Another worker's is opened for
reading only, and watched for nothing but "all writers are gone", which the kernel reports when the last holder
has ended, however it ended. No thread, no polling, no signal.
"""

from __future__ import annotations

import os
import select
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from dibs.brokers.sqlite.wake import CANCELS, MEMBERS, fifo_path

#: Where there is no epoll nobody is told of a death; seconds between looks instead.
HAS_EPOLL = hasattr(select, "epoll")


class News(NamedTuple):
    """What a worker was told."""

    #: There is a worker more or one less.
    has_changed: bool
    #: A watched worker is gone.
    has_gone: bool
    #: Jobs are to be cancelled that this one has.
    has_cancels: bool


_NONE = News(has_changed=False, has_gone=False, has_cancels=False)


class Ring:
    """One worker's FIFO and its watch on others'."""

    def __init__(self, directory: Path, worker: int) -> None:
        self._directory = directory
        self._path = fifo_path(directory, worker)
        self._watched: set[int] = set()
        with suppress(FileExistsError):
            os.mkfifo(self._path, 0o600)
        #: Open while the worker or one of its executors lives.
        self.fifo = os.open(self._path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._epoll = select.epoll() if HAS_EPOLL else None
        if self._epoll is not None:
            self._epoll.register(self.fifo, select.EPOLLIN)

    def fileno(self) -> int:
        """Readable when this worker was poked or a watched one is gone."""
        return self.fifo if self._epoll is None else self._epoll.fileno()

    def drain(self) -> News:
        """Empty the FIFO; return what was told by it and by the watch."""
        events = [(self.fifo, 0)] if self._epoll is None else self._epoll.poll(0)
        if not events:
            return _NONE
        told = b""
        has_gone = False
        for descriptor, _ in events:
            if descriptor == self.fifo:
                with suppress(BlockingIOError):
                    told = os.read(self.fifo, 65536)
            else:
                has_gone = True
                self._unwatch(descriptor)
        return News(MEMBERS in told, has_gone, CANCELS in told)

    def watch(self, workers: Iterable[int]) -> None:
        """Watch these workers' FIFOs and no others. Who died before this is not told: look at it afterwards."""
        for descriptor in list(self._watched):
            self._unwatch(descriptor)
        if self._epoll is not None:
            for worker in workers:
                with suppress(OSError):  # it is gone, or another user's
                    self._watch(self._epoll, fifo_path(self._directory, worker))

    def close(self) -> None:
        """Let go, and remove the FIFO."""
        self.watch(())
        if self._epoll is not None:
            self._epoll.close()
        os.close(self.fifo)
        with suppress(OSError):
            self._path.unlink()

    def _watch(self, epoll: select.epoll, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            epoll.register(descriptor, 0)
        except OSError:  # no FIFO
            os.close(descriptor)
            raise
        self._watched.add(descriptor)

    def _unwatch(self, descriptor: int) -> None:
        if self._epoll is not None:
            self._epoll.unregister(descriptor)  # closing is not enough: a forked child may have a copy
        self._watched.remove(descriptor)
        os.close(descriptor)
