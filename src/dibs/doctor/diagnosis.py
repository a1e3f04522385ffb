"""All checks, and their findings in one list."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from dibs.doctor import backlog, clock, dead, file, ledger, rights, server, topology, workers
from dibs.doctor.finding import SEVERITIES, Finding
from dibs.doctor.scene import Scene

_CHECKS: tuple[Callable[[Scene], Iterable[Finding]], ...] = (
    file.check,
    server.check,
    topology.check,
    rights.check,
    ledger.check,
    backlog.check,
    workers.check,
    dead.check,
    clock.check,
)


def diagnose(scene: Scene) -> list[Finding]:
    """Return what is wrong, the worst first."""
    found = [finding for check in _CHECKS for finding in check(scene)]
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))
