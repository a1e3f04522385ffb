"""What is wrong with the workers."""

from __future__ import annotations

from collections.abc import Iterator

from dibs.doctor.finding import Finding
from dibs.doctor.scene import Scene


def check(scene: Scene) -> Iterator[Finding]:
    """Yield what is wrong."""
    versions = sorted({worker.version for worker in scene.workers} | {scene.version})
    if len(versions) > 1:
        others = ", ".join(f"{worker.worker} {worker.version}" for worker in scene.workers)
        yield Finding(
            name="versions-differ",
            severity="warning",
            what=f"dibs is {scene.version} here; the workers: {others}.",
            why="What one version writes another one may not understand yet.",
            mend="install one version everywhere, and restart the workers",
        )
    if not scene.facts.has_workers:
        return
    served = {queue for worker in scene.workers for queue in worker.queues}
    for queue in scene.queues:
        if queue.consumers and queue.name not in served:
            yield Finding(
                name="silent-consumer",
                severity="note",
                what=f"Somebody consumes queue {queue.name!r}, and is no worker that says how it is.",
                why="It is another program, or a worker that hangs, is stopped or was started a moment ago.",
                mend="dibs workers, on each machine that should run one",
            )
