"""What SQLite and the operating system say, as dibs' errors. The one place where `sqlite3.Error` is read."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dibs.errors import BrokerBusy, BrokerError, StoreUnusable

#: What happened and what to do, by SQLite's primary result code. The path is filled in.
_TEXTS = {
    sqlite3.SQLITE_NOTADB: "{path} is not an SQLite database. Name another file in DIBS_URL, or move this one away.",
    sqlite3.SQLITE_CORRUPT: (
        "{path} is damaged ({error}). Stop all workers and producers, keep a copy of the file, of its -wal and its "
        "-shm, and restore a backup or save what `sqlite3 … .recover` can read."
    ),
    sqlite3.SQLITE_READONLY: (
        "{path} can't be written ({error}). dibs needs write access to the file, to the files beside it that begin "
        "with the same name, and to their directory."
    ),
    sqlite3.SQLITE_PERM: "{path} can't be opened ({error}). Give this user read and write access to it.",
    sqlite3.SQLITE_CANTOPEN: (
        "{path} can't be opened ({error}). It, the files beside it that begin with the same name and their "
        "directory must exist and be writable for this user."
    ),
    sqlite3.SQLITE_FULL: "The disk of {path} is full: nothing was stored. Free some space and go on; no job is lost.",
    sqlite3.SQLITE_IOERR: (
        "The disk of {path} reports an error ({error}, {name}): nothing was stored. Look at the space that is left, "
        "at quotas and limits, at the system's log, and whether its -wal was removed."
    ),
    sqlite3.SQLITE_TOOBIG: "SQLite refuses a value for {path} as too large ({error}).",
}


#: What goes wrong behind the commit's last write: it may be found there after a crash, or by nobody.
_BEHIND_THE_COMMIT = {sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_SHMMAP, sqlite3.SQLITE_IOERR_SHMSIZE}


class Busy(Exception):
    """The write lock was not to be had in time. Inside this package only; it leaves as `BrokerBusy`."""


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn what the driver raises inside into dibs' errors, named in `dibs.errors`."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise translate(error, path) from error


def is_uncertain(error: BrokerError) -> bool:
    """Tell whether what was to be committed may be stored all the same."""
    return getattr(error.__cause__, "sqlite_errorcode", 0) in _BEHIND_THE_COMMIT


def translate(error: sqlite3.Error | OSError, path: Path) -> BrokerError:
    """Return the error that says what happened to `path` and what to do."""
    if isinstance(error, OSError):
        return StoreUnusable(f"{error.filename or path}: {error.strerror}. dibs needs it to use {path}.")
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    name = getattr(error, "sqlite_errorname", "no code")
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return BrokerBusy(f"{path} is locked by another program ({error}): nothing was stored. Try again later.")
    if text := _TEXTS.get(code):
        return StoreUnusable(text.format(path=path, error=error, name=name))
    return StoreUnusable(f"{path} could not be used: {error} ({name}). It may have been changed by another program.")
