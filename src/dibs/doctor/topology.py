"""What is wrong with what there is in a RabbitMQ server: queues in another form, delay levels that are missing."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from dibs.doctor.finding import Finding, count
from dibs.doctor.scene import Scene
from dibs.facts import Difference

#: What a queue lacks that has another value of an argument.
_LACKS = {
    "x-queue-type": "It is on one node, a crash of its worker is not counted, and the server's limit on running "
    "times holds.",
    "x-delivery-limit": "The server drops a job after so many returns, 20 from RabbitMQ 4.0 on where none is set; "
    "looking at dead letters counts.",
    "durable": "It and what is in it end with the server.",
}
_ELSE = "dibs uses it as it is, without what that argument is for."


def check(scene: Scene) -> Iterator[Finding]:
    """Yield what is wrong."""
    server = scene.facts.rabbitmq
    if server is None:
        return
    for difference in server.differences:
        is_level = difference.name.startswith(f"{server.prefix}dibs.delay.")
        yield _level(difference) if is_level else _form(difference)
    if server.missing_levels:
        yield Finding(
            name="missing-levels",
            severity="problem",
            what=f"Delayed jobs pass by what is not there: {', '.join(server.missing_levels)}.",
            why="A job that is to wait there is dropped, or never comes out.",
            mend="restart the producers and workers: each makes the levels anew with its first delayed job",
        )
    if server.lost:
        yield Finding(
            name="lost-jobs",
            severity="problem",
            what=f"{count(server.lost, 'delayed job')} found no queue any more: it was deleted meanwhile.",
            why="They are in dibs.dead, and nobody runs them.",
            mend="dibs dead list dibs",
        )


def _level(difference: Difference) -> Finding:
    name = shlex.quote(difference.name)
    return Finding(
        name="other-level",
        severity="problem",
        what=f"The delay level {difference.name!r} has {difference.argument}={difference.found!r}, where dibs would "
        f"give it {difference.wanted!r}.",
        why="Jobs wait there for another time than was asked for, go elsewhere, or are lost.",
        mend=f"stop producers and workers, move what is in it, rabbitmqctl delete_queue {name}; it is made anew "
        "with the next delayed job after they are started",
    )


def _form(difference: Difference) -> Finding:
    name = shlex.quote(difference.name)
    return Finding(
        name="other-form",
        severity="warning",
        what=f"Queue {difference.name!r} has {difference.argument}={difference.found!r}, where dibs would give it "
        f"{difference.wanted!r}.",
        why=_LACKS.get(difference.argument, _ELSE),
        mend=f"let workers empty it and stop them, then rabbitmqctl delete_queue {name}; it is made anew. Or keep "
        f"it, and say so in the app: app.queue({difference.name!r}, type='classic')",
    )
