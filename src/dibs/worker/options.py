"""How a worker is to run."""

from __future__ import annotations

import math
import os
from pathlib import Path

import msgspec

from dibs.errors import BadOption

#: Seconds that running jobs get to finish after SIGTERM: less than the 30 s that Kubernetes waits by default.
GRACE = 25.0


#: Seconds that a run gets to end after it was asked to, as its time limit was reached.
TIMEOUT_PATIENCE = 5.0


class WorkerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What `dibs worker` was told.

    Raises:
        BadOption: a value is out of bounds.
    """

    #: `module:app`.
    app: str
    #: Overrides the app's own URL.
    url: str | None = None
    #: Only these queues; empty: all that the app names.
    queues: tuple[str, ...] = ()
    #: Jobs that an executor runs at a time.
    slots: int = 1
    #: Executors; None: one per CPU that this process may use.
    processes: int | None = None
    #: End when nothing is ready.
    is_burst: bool = False
    #: Seconds that running jobs get to finish when the worker is told to stop.
    grace: float = GRACE

    #: An executor that has more memory in use (RSS) is replaced, in units of a million bytes; None: however much.
    max_memory: int | None = None
    #: An executor that has done so many jobs is replaced; None: however many.
    max_jobs: int | None = None
    #: Where it is to be asked how it is, as `[HOST:]PORT`; None: nowhere.
    metrics: str | None = None

    def __post_init__(self) -> None:
        if self.slots < 1:
            raise BadOption(f"-c {self.slots}: an executor needs at least 1 slot.")
        if self.processes is not None and self.processes < 1:
            raise BadOption(f"-p {self.processes}: a worker needs at least 1 executor.")
        if not 0 <= self.grace < math.inf:
            raise BadOption(f"--grace {self.grace}: must be 0 seconds or more.")
        if self.max_jobs is not None and self.max_jobs < 1:
            raise BadOption(f"--max-jobs {self.max_jobs}: must be 1 or more.")
        if self.max_memory is not None and self.max_memory < 1:
            raise BadOption(f"--max-memory {self.max_memory}: must be 1 MB or more.")
        if self.max_memory is not None and not Path("/proc/self/statm").exists():
            raise BadOption("--max-memory: this system does not tell how much memory a process uses (no /proc).")

    @property
    def executors(self) -> int:
        """How many executors there are to be."""
        return self.processes or usable_cpus()


def usable_cpus() -> int:
    """Return how many CPUs this process may use: its affinity, and its cgroup's quota rounded up."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_quota()
    return max(1, min(affinity, math.ceil(quota) if quota else affinity))


def _cgroup_quota() -> float | None:
    """Return the CPUs that the cgroup (version 2, then 1) grants; None: no limit, or no cgroup to be seen."""
    for read in (_quota_v2, _quota_v1):
        try:
            if quota := read():
                return quota
        except (OSError, ValueError, IndexError):
            continue  # not that version, or hidden from us
    return None


def _quota_v2() -> float | None:
    group = Path("/proc/self/cgroup").read_text().strip().rpartition("::")[2]
    quotas = []
    folder = Path("/sys/fs/cgroup") / group.lstrip("/")
    while folder.is_relative_to("/sys/fs/cgroup"):
        limit = folder / "cpu.max"
        if limit.exists():
            quota, period = limit.read_text().split()[:2]
            if quota != "max":
                quotas.append(int(quota) / int(period))
        folder = folder.parent
    return min(quotas, default=None)


def _quota_v1() -> float | None:
    folder = Path("/sys/fs/cgroup/cpu")
    quota = int((folder / "cpu.cfs_quota_us").read_text())
    return quota / int((folder / "cpu.cfs_period_us").read_text()) if quota > 0 else None
