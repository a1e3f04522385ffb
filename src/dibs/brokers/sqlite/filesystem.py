"""Refuse file systems on which SQLite's WAL mode corrupts a database though every lock seems to work.

The WAL index is shared memory: processes on two machines, or on two sides of a shared folder, each see their own.
"""

from __future__ import annotations

import re
from pathlib import Path

from dibs.errors import StoreUnusable

_MOUNTS = Path("/proc/self/mountinfo")
#: Types, or beginnings of types, that another kernel may write to as well.
_SHARED = (
    "nfs",
    "cifs",
    "smb",
    "9p",
    "fuse",
    "virtiofs",
    "afs",
    "ceph",
    "gluster",
    "lustre",
    "ocfs2",
    "gfs2",
    "vboxsf",
)
#: Served by a program of this machine for its own disks.
_LOCAL_FUSE = {"fuseblk", "fusectl"}


def check_filesystem(directory: Path) -> None:
    """Raise if `directory` lies on a network or shared-folder file system.

    Raises:
        StoreUnusable: names the type, and says what to do.
    """
    kind = find_filesystem(directory)
    if is_shared(kind):
        raise StoreUnusable(
            f"{directory} is on a {kind} file system, where SQLite can corrupt a database that several processes "
            "write. Keep the file on a local disk, use RabbitMQ (amqp://…) for several machines, or add ?unsafe_fs=1 "
            "if only one kernel ever sees it."
        )


def is_shared(kind: str) -> bool:
    """Tell whether other kernels may write to a file system of this type as well."""
    return kind.startswith(_SHARED) and kind not in _LOCAL_FUSE


def find_filesystem(directory: Path) -> str:
    """Return the type of the file system that holds `directory`, or "" where it can't be told."""
    return filesystem_of(directory, _MOUNTS.read_text() if _MOUNTS.exists() else "")


def filesystem_of(directory: Path, mountinfo: str) -> str:
    """Return the type of the file system that holds `directory`, or "" where it can't be told.

    Source: proc(5), /proc/pid/mountinfo: the mount point is field 5, the type follows a lone dash. The longest
    mount point counts, and of two the later one, which covers the earlier.
    """
    best, kind = -1, ""
    for line in mountinfo.splitlines():
        fields, _, tail = line.partition(" - ")
        mount = Path(re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), fields.split(" ")[4]))
        if len(mount.parts) >= best and directory.is_relative_to(mount):
            best, kind = len(mount.parts), tail.split(" ")[0]
    return kind
