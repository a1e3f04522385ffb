"""taskito on SQLite."""

from __future__ import annotations

from collections.abc import Sequence

from bench.system import Kind, Load, Store, System


def _worker(load: Load) -> Sequence[Sequence[str]]:
    return [["taskito", "worker", "--app", "bench.apps.taskito:queue"]] * load.executors


SYSTEMS = (
    System(
        name="taskito",
        kind=Kind.PEER,
        store=Store.SQLITE,
        app="bench.apps.taskito",
        requirements=("taskito",),
        packages=("taskito",),
        statement="from taskito import Queue",
        worker=_worker,
        durability="`synchronous=NORMAL`, and no option for more",
        configuration="`workers=SLOTS` threads; a process for each executor",
        weaker="what it accepted is not synced: a power cut may lose it",
        help_command=("taskito", "--help"),
    ),
)
