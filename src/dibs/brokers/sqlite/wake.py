"""Waking who waits for jobs: a board that the waiting write on, and a FIFO each.

Each worker has a word on the board, a file that all map: 0 while it does not wait, else its id and a mask of its
queues. A producer looks at the board after its commit and writes a byte into the FIFOs of as many as it has jobs
for. All of it is a hint: whoever waits also looks by itself, once a second.
"""

from __future__ import annotations

import mmap
import os
import zlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

#: Words on the board. A worker beyond them is not woken but looks once a second.
SLOTS = 256
_BYTES = SLOTS * 8
_NOBODY = bytes(_BYTES)
_MASK_BITS = 32

#: What is written into a FIFO: there may be jobs; the ring of workers has changed; jobs are to be cancelled.
JOBS, MEMBERS, CANCELS = b"j", b"m", b"c"


def mask_of(names: Iterable[str], *, bits: int = _MASK_BITS) -> int:
    """Return a bit per name, the same in every process. Two names may share one: a needless wake-up."""
    mask = 0
    for name in names:
        mask |= 1 << zlib.crc32(name.encode("utf-8", "replace")) % bits
    return mask


def fifo_path(directory: Path, worker: int) -> Path:
    """Return where that worker's FIFO is."""
    return directory / f"{worker}.wake"


def poke(fifo: Path, what: bytes) -> None:
    """Write into a FIFO, if somebody is there to read it."""
    with suppress(OSError):  # ENXIO, ENOENT: gone. EAGAIN: full, so it will wake up anyway
        descriptor = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.write(descriptor, what)
        finally:
            os.close(descriptor)


def map_file(path: Path, size: int) -> mmap.mmap:
    """Map a file of so many bytes, made with zeros where it is not there yet."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(descriptor).st_size < size:
            # Written, not only lengthened: storing into a hole of the map is fatal when the disk is full.
            os.pwrite(descriptor, bytes(size), 0)
        return mmap.mmap(descriptor, size)
    finally:
        os.close(descriptor)


class Board:
    """The words of all workers, mapped into this process."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._map = map_file(directory / "idle", _BYTES)
        self._words = memoryview(self._map).cast("Q")

    def wait(self, slot: int, worker: int, mask: int) -> None:
        """Write that this worker waits for jobs of these queues."""
        if slot < SLOTS:
            self._words[slot] = worker << _MASK_BITS | mask

    def is_waiting(self, slot: int) -> bool:
        """Tell whether the worker of this slot waits, and nobody has woken it since it wrote so."""
        return slot < SLOTS and self._words[slot] != 0

    def clear(self, slot: int) -> None:
        """Write that the worker of this slot does not wait."""
        if slot < SLOTS:
            self._words[slot] = 0

    def wake(self, queues: Iterable[str], count: int) -> None:
        """Wake at most `count` workers that wait for one of these queues."""
        if self._map[:] == _NOBODY:
            return
        mask = mask_of(queues)
        for slot, word in enumerate(self._words.tolist()):
            if word & mask:
                self._words[slot] = 0
                poke(fifo_path(self._directory, word >> _MASK_BITS), JOBS)
                count -= 1
                if count <= 0:
                    return

    def close(self) -> None:
        """Let go of the map."""
        self._words.release()
        self._map.close()
