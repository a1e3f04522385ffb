"""What is wrong with the record of jobs, and what could not be looked at."""

from __future__ import annotations

from collections.abc import Iterator

from dibs.doctor.finding import Finding
from dibs.doctor.scene import Scene


def check(scene: Scene) -> Iterator[Finding]:
    """Yield what is wrong."""
    server = scene.facts.rabbitmq
    if server is not None and not server.is_fresh:
        for name in server.missing_streams:
            yield Finding(
                name="no-ledger",
                severity="warning",
                what=f"There is no stream {name}.",
                why="What became of jobs, or what is paused and cancelled, is recorded nowhere.",
                mend="allow workers to declare and write it (docs/guides/rabbitmq.md, Rights) and restart one; or "
                "add ledger=off to the URL",
            )
    if scene.unread is not None:
        read, total = scene.unread
        yield Finding(
            name="ledger-unread",
            severity="note",
            what=f"{read:,} of {total:,} records of the ledger were read; the rest takes longer than a look may.",
            why="So nothing was said of jobs: tasks that nobody knows, dead letters, clocks.",
            mend="dibs jobs, which reads all of it, then dibs doctor again",
        )
    for trouble in scene.troubles:
        yield Finding(
            name="unreadable",
            severity="warning",
            what=trouble,
            why="So a part of the examination was left out.",
            mend="mend what is said, or ask with another login; then dibs doctor again",
        )
