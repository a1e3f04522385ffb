"""The line in front of the write lock.

SQLite's own waiting sleeps up to 100 ms between tries. Here the kernel wakes the next writer at once, and one who
just had his turn can't jump ahead of it. The line is fairness only; SQLite's lock is correctness: whoever waits too
long, because someone in the line was stopped or left a descriptor in a forked child, passes over it.

Two files, as the kernel gives a freed flock to whoever asks first: who waits for the line stands at the door, and
behind him nobody comes in.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dibs.brokers.sqlite.errors import Busy

#: How long one waits for those in front, in seconds. Turns take milliseconds, so they are not moving.
_PATIENCE = 1.0
#: How long one waits once the line was found stuck, until it is seen moving again.
_SHORT_PATIENCE = 0.01


class Line:
    """One process's place in front of one database. Shared by its threads."""

    def __init__(self, directory: Path) -> None:
        self._files = (directory / "door", directory / "line")
        self._door, self._line = (_open(path) for path in self._files)
        self._mutex = threading.Lock()
        self._patience = _PATIENCE
        self._waiting: _Place | None = None
        #: How this process has the turn, for the thread that holds the mutex: by its own files, by a place that was
        #: waited for, or, where neither is set, because it passed over the line.
        self._is_mine = False
        self._reached: _Place | None = None

    @contextmanager
    def turn(self, deadline: float) -> Iterator[None]:
        """Wait for this thread's turn, and keep it inside the block. See `enter`."""
        self.enter(deadline)
        try:
            yield
        finally:
            self.leave()

    def enter(self, deadline: float) -> None:
        """Wait for this thread's turn, at the longest until `deadline` (monotonic), and keep it until `leave`.

        Raises:
            Busy: other threads of this process kept their turns until then.
        """
        if not self._mutex.acquire(blocking=False) and not self._mutex.acquire(
            timeout=max(0.0, deadline - time.monotonic())
        ):
            raise Busy
        try:
            self._is_mine = self._step_in()
            if not self._is_mine:
                self._reached = self._wait(deadline)
        except BaseException:
            self._mutex.release()
            raise

    def leave(self) -> None:
        """Let the next one in."""
        try:
            if self._is_mine:
                fcntl.flock(self._line, fcntl.LOCK_UN)
            elif self._reached is not None:
                self._reached.leave()
        finally:
            self._is_mine, self._reached = False, None
            self._mutex.release()

    def forget(self) -> None:
        """Close the files in a forked child, where they keep the parent's turn alive. Nothing else is touched."""
        os.close(self._door)
        os.close(self._line)

    def close(self) -> None:
        """Leave for good."""
        with self._mutex:
            self.forget()

    def _step_in(self) -> bool:
        """Take the turn if nobody else wants it."""
        try:
            fcntl.flock(self._door, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        try:
            fcntl.flock(self._line, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            fcntl.flock(self._door, fcntl.LOCK_UN)
        self._patience = _PATIENCE
        return True

    def _wait(self, deadline: float) -> _Place | None:
        """Return the place whose turn it is, or None to pass over the line."""
        place = self._waiting
        if place is not None and place.is_over:  # reached since it was left standing: the line is moving
            place, self._patience = None, _PATIENCE
        if place is None:
            try:
                place = self._waiting = _Place(*self._files)
            except OSError:  # someone removed the directory: who comes from now on stands in another line
                return None
            place.start()
        if place.wait(min(self._patience, max(0.0, deadline - time.monotonic()))):
            self._waiting = None
            self._patience = _PATIENCE
            return place
        self._patience = _SHORT_PATIENCE
        return None


class _Place(threading.Thread):
    """A place in the line, held by a thread because flock knows no time limit.

    One who passed over the line leaves his place standing and takes it up again the next time, so a line that is
    stuck costs one thread, not one per try. A place that is reached while nobody wants it is given up.
    """

    def __init__(self, door: Path, line: Path) -> None:
        super().__init__(name="dibs-line", daemon=True)
        self._door, self._line = _open(door), _open(line)
        self._changed = threading.Condition()
        self._is_wanted = True
        self._is_reached = False
        #: It was given up: nobody can wait here any more.
        self.is_over = False

    def run(self) -> None:
        """Wait at the door, then for the line."""
        try:
            fcntl.flock(self._door, fcntl.LOCK_EX)
            fcntl.flock(self._line, fcntl.LOCK_EX)
        finally:
            _let_go(self._door)
            with self._changed:
                self._is_reached = self._is_wanted
                if not self._is_wanted:
                    self._give_up()
                self._changed.notify_all()

    def wait(self, timeout: float) -> bool:
        """Wait until the place is reached; False if that takes too long."""
        with self._changed:
            self._is_wanted = True
            try:
                self._changed.wait_for(lambda: self._is_reached or self.is_over, timeout)
            except BaseException:  # an interrupt: nobody will come for this place
                self._is_wanted = False
                if self._is_reached:
                    self._give_up()
                raise
            self._is_wanted = self._is_reached
            return self._is_reached

    def leave(self) -> None:
        """Let the next one in."""
        _let_go(self._line)

    def _give_up(self) -> None:
        self.is_over, self._is_reached = True, False
        self.leave()


def _let_go(descriptor: int) -> None:
    """Unlock, then close: closing alone does not unlock while a forked child has a copy."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
