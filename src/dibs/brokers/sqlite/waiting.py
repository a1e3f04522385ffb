"""Waiting for jobs to end: a board on which the processes that wait have a word each, a FIFO each, a thread each.

A process writes a mask of the ids that it waits for; who settles looks at the board after its commit and writes a
byte into the FIFOs of those that may mean his jobs. While nobody waits that is one look at mapped memory. All of it
is a hint: whoever waits also looks by itself, once a second.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import threading
import time
from collections.abc import Collection, Iterable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path

from dibs.brokers.sqlite.store import Store
from dibs.brokers.sqlite.wake import map_file, mask_of, poke
from dibs.errors import BrokerError, BrokerUnavailable
from dibs.ledger import tables
from dibs.ledger.life import Ending

#: Words on the board. A process beyond them is not woken but looks more often.
SLOTS = 256
_BYTES = SLOTS * 8
_NOBODY = bytes(_BYTES)
_MASK_BITS = 64

#: Seconds between looks without being woken: with a word on the board, and without.
_LOOK_EVERY, _LOOK_OFTEN = 1.0, 0.5
#: Seconds between looks that find nothing, at the most: where others' jobs share bits with those that are waited for
#: there is no end of wake-ups, and looking shall not take more than half of a thread's time.
_LONGEST_REST = 0.005

# Served by the index of the ids.
_THERE = """
SELECT id FROM dibs_jobs WHERE id IN (SELECT value FROM json_each(?1)) AND substr(queue, 1, length(?2)) = ?2
"""

_FORGOTTEN = Ending(status="forgotten")

#: Held while a file is read, and during a fork: whoever reads has locks of SQLite's own, and a child that got them
#: taken would wait for ever. One for the process: what is to be done at a fork can't be taken back, so that it would
#: pile up in a program that opens one broker after the other.
_LOOKING = threading.Lock()
os.register_at_fork(before=_LOOKING.acquire, after_in_parent=_LOOKING.release, after_in_child=_LOOKING.release)


class Waiters:
    """The board of all processes that wait, mapped into this one."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._map = map_file(directory / "waiting", _BYTES)
        self._words = memoryview(self._map).cast("Q")

    def write(self, slot: int, mask: int) -> None:
        """Write that the process of this slot waits for jobs of this mask; 0: for none."""
        self._words[slot] = mask

    def wake(self, ids: Iterable[str]) -> None:
        """Wake all processes that may wait for one of these jobs, as those have ended."""
        if self._map[:] == _NOBODY:
            return
        mask = mask_of(ids, bits=_MASK_BITS)
        for slot, word in enumerate(self._words.tolist()):
            if word & mask:
                self._words[slot] = 0  # until it has looked: a thousand settles wake it once
                poke(fifo_path(self._directory, slot), b"e")

    def close(self) -> None:
        """Let go of the map."""
        self._words.release()
        self._map.close()


class Waiting:
    """What this process waits for. Shared by its threads; a forked child must make its own."""

    def __init__(self, store: Store, waiters: Waiters, *, prefix: str) -> None:
        self._store = store
        #: The namespace with its dot, or "".
        self._prefix = prefix
        self._waiters = waiters
        self._lock = threading.Lock()
        self._futures: dict[str, list[Future[Ending | None]]] = {}
        self._mask = 0
        self._is_closed = False
        with store.read():
            self._connection = store.connect(synchronous="NORMAL")
            self._slot, *self._descriptors = _take_slot(store.directory)
        self._thread = threading.Thread(target=self._run, name="dibs-waiting", daemon=True)
        self._thread.start()

    def watch(self, id: str, *, is_ours: bool) -> Future[Ending | None]:  # noqa: A002
        """Return a future of how the job ends. See `Ledger.watch`."""
        future: Future[Ending | None] = Future()
        with self._lock:
            if self._is_closed:
                raise BrokerUnavailable(f"The broker of {self._store.path} was closed meanwhile.")
            is_first = not self._futures
            self._futures.setdefault(id, []).append(future)
            self._mask |= mask_of([id], bits=_MASK_BITS)
            self._write()  # before the look: who settles behind it wakes this process
        future.add_done_callback(lambda _: self._drop(id, future))
        self._look([id], missing=_FORGOTTEN if is_ours else None)
        if is_first:
            self._poke()  # it has slept without an end
        return future

    def close(self) -> None:
        """Wait no more. What is still waited for gets an error."""
        with self._lock:
            self._is_closed = True
        self._poke()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        if self._slot is not None:
            self._waiters.write(self._slot, 0)
        self.abandon()
        self._store.disconnect(self._connection)
        self._fail(BrokerUnavailable(f"The broker of {self._store.path} was closed while a job was waited for."))

    def abandon(self) -> None:
        """Close the files. In a forked child nothing else is touched: the word and the slot are its parent's."""
        for descriptor in set(self._descriptors):
            os.close(descriptor)

    def _run(self) -> None:
        """Look whenever this process is woken, and now and then."""
        reading = self._descriptors[0]
        while True:
            with self._lock:
                if self._is_closed:
                    return
                ids = list(self._futures)
            patience = (_LOOK_OFTEN if self._slot is None else _LOOK_EVERY) if ids else None
            is_woken = bool(select.select([reading], [], [], patience)[0])
            if is_woken:
                with suppress(BlockingIOError):
                    os.read(reading, 65536)
            with self._lock:
                ids = self._renew_mask()  # before the look, too
            begun = time.monotonic()
            if not ids:
                continue
            if self._look(ids, missing=_FORGOTTEN, is_checked=not is_woken):
                with self._lock:
                    self._renew_mask()
            else:
                time.sleep(min(time.monotonic() - begun, _LONGEST_REST))

    def _look(self, ids: Collection[str], *, missing: Ending | None, is_checked: bool = False) -> int:
        """Tell those who wait for one of these jobs what became of it, if it is over. Returns how many are.

        Args:
            ids: of the jobs.
            missing: what is told of one that is not there.
            is_checked: see that the file is still the one that was opened.
        """
        try:
            with _LOOKING, self._store.read():
                if is_checked:
                    self._store.check(self._connection)
                ended: dict[str, Ending | None] = dict(tables.endings(self._connection, ids, prefix=self._prefix))
                left = [job_id for job_id in ids if job_id not in ended]
                there = {job_id for (job_id,) in self._connection.execute(_THERE, (json.dumps(left), self._prefix))}
        except BrokerError as error:
            self._fail(error)
            return 0
        ended |= {job_id: missing for job_id in left if job_id not in there}
        for job_id, ending in ended.items():
            with self._lock:
                futures = self._futures.pop(job_id, [])
            for future in futures:
                if future.set_running_or_notify_cancel():
                    future.set_result(ending)
        return len(ended)

    def _fail(self, error: BrokerError) -> None:
        with self._lock:
            futures = [future for each in self._futures.values() for future in each]
            self._futures.clear()
        for future in futures:
            if future.set_running_or_notify_cancel():
                future.set_exception(error)

    def _drop(self, job_id: str, future: Future[Ending | None]) -> None:
        """Forget a future that was cancelled."""
        with self._lock:
            futures = self._futures.get(job_id, [])
            if future in futures:
                futures.remove(future)
                if not futures:
                    del self._futures[job_id]

    def _renew_mask(self) -> list[str]:
        """Write what is waited for now; return it."""
        ids = list(self._futures)
        self._mask = mask_of(ids, bits=_MASK_BITS)
        self._write()
        return ids

    def _write(self) -> None:
        if self._slot is not None:
            self._waiters.write(self._slot, self._mask)

    def _poke(self) -> None:
        with suppress(BlockingIOError):  # full: it wakes up anyway
            os.write(self._descriptors[-1], b"s")


def fifo_path(directory: Path, slot: int) -> Path:
    """Return where the FIFO of that slot is. It is never removed: two could own the slot by two files."""
    return directory / f"waiting.{slot}"


def _take_slot(directory: Path) -> tuple[int | None, int, int]:
    """Take the first slot that is free: its FIFO is locked by whoever has it. Return it, and where to read and write.

    Where none is free there is a pipe instead, for this process alone.
    """
    for slot in range(SLOTS):
        path = fifo_path(directory, slot)
        with suppress(FileExistsError):
            os.mkfifo(path, 0o600)
        descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            continue
        return slot, descriptor, descriptor
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    return None, reading, writing
