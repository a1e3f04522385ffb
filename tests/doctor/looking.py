"""Examining a broker as `dibs doctor` does, in this process."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import closing
from importlib.metadata import version

from dibs.broker import Queue
from dibs.brokers import connect
from dibs.doctor.diagnosis import diagnose
from dibs.doctor.finding import Finding
from dibs.doctor.scene import Scene, gather


def look(
    url: str,
    queues: Sequence[Queue] = (),
    *,
    namespace: str = "",
    tasks: Collection[str] | None = None,
    may_declare: bool = True,
    is_deep: bool = False,
) -> Scene:
    """Return all that is known, asked for through a broker that may make nothing."""
    broker = connect(url, namespace=namespace, handover_timeout=10, may_declare=False, may_create=False)
    with closing(broker):
        return gather(broker, queues, tasks=tasks, version=version("dibs"), may_declare=may_declare, is_deep=is_deep)


def found(scene: Scene) -> dict[str, Finding]:
    """Return what is wrong, by its name."""
    return {finding.name: finding for finding in diagnose(scene)}
