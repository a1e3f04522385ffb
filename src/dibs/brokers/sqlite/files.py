"""Whether the files at the path are still those that this process has open.

SQLite does not ask. A process that goes on with a file that others don't see commits into nothing; one that goes on
with another -wal or -shm than the rest destroys the database (https://sqlite.org/howtocorrupt.html, 1.4 and 2.4).
"""

from __future__ import annotations

import os
import time
from pathlib import Path

#: A directory that was changed less than so long ago may be changed once more within one tick of the file system's
#: clock, and show the same time.
_TICK_NS = 1_000_000_000

_MAPS = Path("/proc/self/maps")

_Identity = tuple[int, int] | None


class Files:
    """A database, its -wal and its -shm, as they stood when this was made: a connection must have all three open."""

    def __init__(self, path: Path) -> None:
        self._directory = str(path.parent)
        self._paths = [f"{path}{suffix}" for suffix in ("", "-wal", "-shm")]
        self._known = [_identity(each) for each in self._paths]
        self._quiet: tuple[int, int] | None = None

    def find_changed(self) -> str | None:
        """Return the path of a file that was removed or replaced, the database before the others; None: none was.

        Costs a look at the directory, whose time changes with any of them; at the files only where it did.
        """
        try:
            found = os.stat(self._directory)  # noqa: PTH116  # a third of Path.stat's time
        except OSError:
            return self._paths[0]
        seen = (found.st_ino, found.st_mtime_ns)
        if seen == self._quiet:
            return None
        for path, known in zip(self._paths, self._known, strict=True):
            if _identity(path) != known:
                return path
        if abs(time.time_ns() - found.st_mtime_ns) > _TICK_NS:
            self._quiet = seen
        return None

    def is_torn(self) -> bool:
        """Tell whether the database is the one that was opened, but its -wal or -shm is not."""
        return self.find_changed() in self._paths[1:]

    def has_lost_wal(self) -> bool:
        """Tell whether the -wal is missing, and nobody who opened the database since can have written to it.

        Such a one makes a -wal when he reads and fills it when he writes; he makes a -shm where there is none.
        """
        database, _, shm = map(_identity, self._paths)
        return database == self._known[0] and shm in {None, self._known[2]} and _is_empty(self._paths[1])


def has_removed_index(path: Path) -> bool:
    """Tell whether this process works with a -shm that was removed: it would use it for new connections, too.

    SQLite keeps it until the last connection closes, which must not be (see `Store.close`).
    """
    try:
        return f"{path}-shm (deleted)\n" in _MAPS.read_text()
    except OSError:
        return False


def _is_empty(path: str) -> bool:
    try:
        return os.stat(path).st_size == 0  # noqa: PTH116
    except OSError:
        return True


def _identity(path: str) -> _Identity:
    try:
        found = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    return found.st_dev, found.st_ino
