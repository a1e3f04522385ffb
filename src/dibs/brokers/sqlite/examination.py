"""Looks at a database file and at what is around it, for `dibs doctor`.

Changes nothing: no tables are made or brought to another form, and no directory. Knows facts, not what is wrong with
them.
"""

from __future__ import annotations

import os
import socket
import sqlite3
import struct
import subprocess
from contextlib import closing
from pathlib import Path

import msgspec

from dibs.brokers.sqlite import counts, migration
from dibs.brokers.sqlite.errors import translate
from dibs.brokers.sqlite.filesystem import find_filesystem, is_shared
from dibs.brokers.sqlite.liveness import Standing, Worker, examine, lock_path, receipts_of
from dibs.brokers.sqlite.locks import readers
from dibs.errors import BrokerError
from dibs.facts import FileFacts, Lodger, StoreFacts
from dibs.ledger.tables import SCHEMA_VERSION

#: Seconds that a look waits for who has the file locked.
_TIMEOUT = 2.0
#: Lines of `quick_check` that are shown.
_MOST_DAMAGE = 10

_TABLES = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite^_%' ESCAPE '^'"
_VERSION = "SELECT version FROM dibs_meta"
# Each is served by an index alone: all jobs, less those in the states that there are.
_STRANGE = """
SELECT (SELECT count(*) FROM dibs_jobs)
    - (SELECT count(*) FROM dibs_jobs WHERE state = 0) - (SELECT count(*) FROM dibs_jobs WHERE state = 1)
    - (SELECT count(*) FROM dibs_jobs WHERE state = 2) - (SELECT count(*) FROM dibs_jobs WHERE state = 3)
    - (SELECT count(*) FROM dibs_jobs WHERE state IN (4, 5) AND state >= 4)
"""
_HELD = "SELECT count(*) FROM dibs_jobs WHERE state = 2 AND receipt BETWEEN ? AND ?"


def look(path: Path, *, is_allowed: bool, is_deep: bool) -> StoreFacts:
    """Return what there is to be seen of the database at `path`.

    Args:
        path: of the file, with symbolic links resolved.
        is_allowed: the URL says to use any file system.
        is_deep: have SQLite read the whole file, too.
    """
    directory = path.with_name(path.name + "-run")
    kind = find_filesystem(path.parent)
    facts = StoreFacts(
        path=str(path),
        sqlite=sqlite3.sqlite_version,
        known_schema=SCHEMA_VERSION,
        filesystem=kind,
        is_network=is_shared(kind),
        is_allowed=is_allowed,
        run_directory=str(directory),
        has_run_directory=directory.is_dir(),
        copies=[str(copy) for copy in (path.with_name(f"{path.name}.v{migration.OLDER}"),) if copy.exists()],
    )
    changes: dict[str, object] = {}
    try:
        if not path.is_file():
            raise FileNotFoundError(f"There is no file {path}")
        changes = _surroundings(path, directory)  # before SQLite opens it, which makes a -wal and a -shm
        with closing(_open(path)) as connection:
            changes |= _content(connection, directory, is_deep=is_deep)
    except sqlite3.Error as error:
        changes["trouble"] = str(translate(error, path))
    except (OSError, BrokerError) as error:
        changes["trouble"] = str(error)
    return msgspec.structs.replace(facts, **changes)


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=_TIMEOUT, isolation_level=None)
    connection.execute("PRAGMA query_only = 1")
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    return connection


def _surroundings(path: Path, directory: Path) -> dict[str, object]:
    disk = os.statvfs(path.parent)
    shm = path.with_name(path.name + "-shm")
    wal = path.with_name(path.name + "-wal")
    return {
        "free_bytes": disk.f_bavail * disk.f_frsize,
        "size_bytes": path.stat().st_size,
        "files": [_file(each) for each in (path, wal, shm, directory) if each.exists()],
        "wal_backlog_bytes": _backlog(shm),
        "readers": readers(shm),
    }


def _file(path: Path) -> FileFacts:
    found = path.stat()
    return FileFacts(
        path=str(path),
        owner=found.st_uid,
        mode=found.st_mode & 0o7777,
        is_usable=os.access(path, os.R_OK | os.W_OK),
    )


def _backlog(shm: Path) -> int | None:
    """Return how many bytes of the WAL are not in the database yet.

    Another process reads the file: to open and close it here would let go of this process's locks on it.

    Source: https://sqlite.org/walformat.html, the WAL-index header: page size at byte 14, last frame at 16, frames
    copied at 96; numbers in the machine's own order.
    """
    if not shm.exists():
        return 0
    try:
        ran = subprocess.run(["head", "-c", "100", str(shm)], capture_output=True, timeout=_TIMEOUT, check=True)
        page, frames, copied = (
            int(struct.unpack_from(form, ran.stdout, at)[0]) for form, at in (("=H", 14), ("=I", 16), ("=I", 96))
        )
    except (OSError, subprocess.SubprocessError, struct.error):
        return None
    return max(0, frames - copied) * ((65536 if page == 1 else page) + 24)


def _content(connection: sqlite3.Connection, directory: Path, *, is_deep: bool) -> dict[str, object]:
    tables = {name for (name,) in connection.execute(_TABLES)}
    found: dict[str, object] = {"other_tables": sorted(name for name in tables if not name.startswith("dibs_"))}
    if is_deep:
        said = [str(line) for (line,) in connection.execute(f"PRAGMA quick_check({_MOST_DAMAGE})")]
        found["damage"] = [] if said == ["ok"] else said
    if "dibs_meta" not in tables:
        return found
    found["schema"] = version = (connection.execute(_VERSION).fetchone() or (None,))[0]
    if version == SCHEMA_VERSION:
        (found["strange_rows"],) = connection.execute(_STRANGE).fetchone()
        workers = [Worker(*row) for row in connection.execute(counts.WORKERS).fetchall()]
        found["workers"] = [_lodger(connection, directory, worker) for worker in workers]
    return found


def _lodger(connection: sqlite3.Connection, directory: Path, worker: Worker) -> Lodger:
    (held,) = connection.execute(_HELD, receipts_of(worker.id)).fetchone()
    with examine(directory, worker) as standing:
        is_alive = standing is Standing.ALIVE
    return Lodger(
        id=worker.id,
        host=worker.host,
        pid=worker.pid,
        lock=str(lock_path(directory, worker.id)),
        held=held,
        is_unproven=standing is Standing.UNKNOWN,
        is_stopped=is_alive and worker.host == socket.gethostname() and _is_stopped(worker.pid),
    )


def _is_stopped(pid: int) -> bool:
    """Tell whether a process of this machine stands still. Source: proc(5), the third field of /proc/pid/stat."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return state.rpartition(") ")[2][:1] in {"T", "t"}
