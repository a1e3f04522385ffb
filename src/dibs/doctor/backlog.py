"""What is wrong with what waits: nobody takes it, nobody knows it, or it does not come."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator

from dibs.doctor.finding import Finding, count
from dibs.doctor.scene import Scene, waits_since

#: A job that is not in its queue so many ms after its time is overdue.
_LATE = 60_000


def check(scene: Scene) -> Iterator[Finding]:
    """Yield what is wrong."""
    yield from _unconsumed(scene)
    yield from _unknown(scene)
    yield from _stuck(scene)
    yield from _overdue(scene)


def _unconsumed(scene: Scene) -> Iterator[Finding]:
    served = {queue for worker in scene.workers for queue in worker.queues}
    for queue in scene.queues:
        waiting = queue.ready + (queue.delayed or 0)
        name = shlex.quote(queue.name)
        if queue.is_paused and waiting:
            yield Finding(
                name="paused",
                severity="warning",
                what=f"Queue {queue.name!r} is paused; {count(waiting, 'job')} in it.",
                why="Nothing of it is started until it is resumed.",
                mend=f"dibs resume {name}",
            )
        elif queue.ready and not queue.consumers and queue.name not in served:
            yield Finding(
                name="nobody-consumes",
                severity="problem",
                what=f"{count(queue.ready, 'job')} ready in queue {queue.name!r}, and nobody consumes it.",
                why="They are not started before a worker of that queue is.",
                mend=f"dibs worker module:app -q {name}",
            )


def _unknown(scene: Scene) -> Iterator[Finding]:
    lost: Counter[tuple[str, str]] = Counter()
    for job in scene.waiting:
        known = [worker.tasks for worker in scene.workers if job.queue in worker.queues]
        if job.task is None or not known or any(tasks is None for tasks in known):
            continue
        if not any(job.task in (tasks or ()) for tasks in known):
            lost[job.task, job.queue] += 1
    for (task, queue), number in sorted(lost.items()):
        yield Finding(
            name="unknown-task",
            severity="problem",
            what=f"{count(number, 'job')} of task {task!r} in queue {queue!r}, and no worker there knows it"
            + (" (nor does the app)." if scene.tasks is not None and task not in scene.tasks else "."),
            why="Such a job is put off for an hour, and is dead then.",
            mend=f"start a worker whose app has {task}: dibs worker module:app -q {shlex.quote(queue)}",
        )


def _stuck(scene: Scene) -> Iterator[Finding]:
    for job in scene.stuck:
        seconds = (scene.now - waits_since(job)) // 1000
        yield Finding(
            name="stuck",
            severity="problem",
            what=f"Job {job.id} waits in queue {job.queue!r} for {seconds} s, and a worker there is idle.",
            why="An idle worker takes what is ready at once: it does not see this, or can't.",
            mend="restart the workers of that queue, and look at what they log",
        )


def _overdue(scene: Scene) -> Iterator[Finding]:
    """Look for delayed jobs that ought to be in their queue by now, where the queue itself has nothing."""
    empty = {queue.name for queue in scene.queues if not queue.ready and queue.delayed is None}
    late = [
        job
        for job in scene.waiting
        if job.due is not None and job.due < scene.now - _LATE and job.queue in empty and job.status == "ready"
    ]
    for queue, number in sorted(Counter(job.queue for job in late).items()):
        yield Finding(
            name="overdue",
            severity="warning",
            what=f"{count(number, 'delayed job')} of queue {queue!r} over a minute late, and the queue is empty.",
            why="Their delay has not ended, or they are in the hands of a worker that does not say so.",
            mend="dibs workers, dibs dead list dibs; then look at the queues dibs.delay.… in the server",
        )
