"""What is wrong with the clocks: of this machine, of the workers and of the server."""

from __future__ import annotations

from collections.abc import Iterator

from dibs.doctor.finding import Finding
from dibs.doctor.scene import Scene

#: Clocks may differ by so many ms: records are as exact as a second, and on their way for a moment.
_ALLOWED = 5000


def check(scene: Scene) -> Iterator[Finding]:
    """Yield what is wrong."""
    for worker in scene.workers:
        ahead = max(worker.at, worker.started) - scene.now
        if ahead > _ALLOWED:
            yield _skew(f"The clock of worker {worker.worker} is {ahead / 1000:.0f} s ahead of this machine's.")
    early = {
        job.worker: job.enqueued - job.started
        for job in scene.started
        if job.started is not None and job.enqueued is not None and job.started < job.enqueued - _ALLOWED
    }
    for name, gap in early.items():
        yield _skew(
            f"A job was started by worker {name or 'unknown'} {gap / 1000:.0f} s before it was handed over: a clock "
            "is wrong, or was set."
        )
    server = scene.facts.rabbitmq
    offset = server.management.clock_offset if server is not None and server.management is not None else None
    if offset is not None and abs(offset) * 1000 > _ALLOWED:
        yield _skew(
            f"The server's clock is {abs(offset):.0f} s {'ahead of' if offset > 0 else 'behind'} this machine's."
        )


def _skew(what: str) -> Finding:
    return Finding(
        name="clock-skew",
        severity="warning",
        what=what,
        why="Delays, expires= and the times in the ledger go by the clocks of the day.",
        mend="timedatectl set-ntp true, on each machine",
    )
