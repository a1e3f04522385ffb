"""Where the index of a ledger lies, and whose it is to write: one process's at a time, by a lock of the system."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import sqlite3
from pathlib import Path

from dibs.url import Address

_TABLES = "SELECT name FROM sqlite_master WHERE type = 'table'"


def path_of(address: Address, stream: str) -> Path:
    """Return the path of the index of a stream: as the URL says, else one of its own in the user's cache."""
    chosen = address.options.get("index")
    if chosen:
        return Path(chosen).expanduser().absolute()
    caches = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(caches) if os.path.isabs(caches) else Path.home() / ".cache"  # noqa: PTH117 -- of a text, perhaps ""
    where = identity_of(address, stream)
    digest = hashlib.blake2b(where.encode(), digest_size=6).hexdigest()
    readable = re.sub(r"[^\w.-]+", "-", f"{address.hosts[0][0]}-{address.path or ''}-{stream}").strip("-")[:80]
    return root / "dibs" / f"{readable}-{digest}.db"


def identity_of(address: Address, stream: str) -> str:
    """Return what tells a stream from all others. Neither user nor password are in it."""
    hosts = ",".join(f"{host}:{port or ''}" for host, port in address.hosts)
    return f"{hosts}/{address.path or '/'} {stream}"


def refuse_other(path: Path) -> None:
    """Raise where another database stands in the place, such as a queue: a slip in the URL is not to cost it.

    Raises:
        FileExistsError: it does.
    """
    with contextlib.suppress(sqlite3.Error):  # no database, or a damaged one
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
            names = {name for (name,) in connection.execute(_TABLES)}
        if names and "dibs_index" not in names:
            raise FileExistsError(errno.EEXIST, "another database stands there", str(path))


def remove(path: Path) -> None:
    """Remove an index, if there is one."""
    for ending in ("", "-wal", "-shm"):
        Path(f"{path}{ending}").unlink(missing_ok=True)


class Claim:
    """The right to write an index. It ends with the process, if not before."""

    def __init__(self, path: Path) -> None:
        """Claim nothing yet."""
        self._path = Path(f"{path}.lock")
        self._descriptor: int | None = None

    def is_held(self) -> bool:
        """Tell whether it is ours; somebody who took us for dead may have taken it."""
        if self._descriptor is None:
            return False
        with contextlib.suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(self._descriptor), self._path.stat())
        return False

    def take(self) -> bool:
        """Take it, if nobody has it.

        Raises:
            OSError: there is no place for it.
        """
        if self.is_held():
            return True
        self.release()
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        if not self.is_held():  # it was taken from its last owner just now
            self.release()
            return False
        return True

    def usurp(self) -> bool:
        """Take it from whoever has it and does nothing."""
        self._path.unlink(missing_ok=True)
        return self.take()

    def release(self) -> None:
        """Let others have it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
