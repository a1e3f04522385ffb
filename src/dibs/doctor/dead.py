"""What is wrong with jobs that fail: dead letters, and jobs that kill their executors."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator

from dibs.doctor.finding import Finding, count
from dibs.doctor.scene import Scene

_HOUR = 3600 * 1000
#: So many dead letters in an hour are worth a look, should they be so many times those of the hour before.
_MANY, _TIMES = 10, 2


def check(scene: Scene) -> Iterator[Finding]:
    """Yield what is wrong."""
    now = [job for job in scene.dead if (job.ended or 0) > scene.now - _HOUR]
    before = len(scene.dead) - len(now)
    if len(now) >= _MANY and len(now) > _TIMES * before:
        (reason, task, queue), most = Counter(
            (job.reason or "unknown", job.task or "plain messages", job.queue) for job in now
        ).most_common(1)[0]
        yield Finding(
            name="dead-letters-grow",
            severity="warning",
            what=f"{len(now)} jobs died in the last hour, {before} in the hour before; {most} of them of {task} "
            f"({reason}).",
            why="Something has changed: a bug that was rolled out, or a service that is down.",
            mend=f"dibs dead list {shlex.quote(queue)} --reason {reason} --newer 1h",
        )
    else:
        yield from _letters(scene)
    yield from _crashes(scene)


def _letters(scene: Scene) -> Iterator[Finding]:
    for queue in scene.queues:
        if queue.dead:
            name = shlex.quote(queue.name)
            yield Finding(
                name="dead-letters",
                severity="note",
                what=f"{count(queue.dead, 'dead letter')} in queue {queue.name!r}.",
                why="They were set aside, and wait for somebody to decide.",
                mend=f"dibs dead list {name}, then dibs dead replay or drop",
            )


def _crashes(scene: Scene) -> Iterator[Finding]:
    guilty = {job.id: job.task or "a plain message" for job in (*scene.waiting, *scene.dead) if job.crashes}
    if guilty:
        tasks = ", ".join(f"{task} ({number})" for task, number in Counter(guilty.values()).most_common(3))
        yield Finding(
            name="crashes",
            severity="warning",
            what=f"{count(len(guilty), 'job')} killed an executor: {tasks}.",
            why="It ran out of memory, or called something that crashes. After three times such a job is dead.",
            mend=f"dibs job {next(iter(guilty))}, which shows the signal and the memory in use",
        )
