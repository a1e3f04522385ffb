"""What a login lacks in a RabbitMQ server, and the line that gives it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from dibs.doctor.finding import Finding
from dibs.doctor.scene import Scene
from dibs.facts import Denial, ServerFacts


def check(scene: Scene) -> Iterator[Finding]:
    """Yield what is wrong."""
    server = scene.facts.rabbitmq
    if server is None:
        return
    denials = [each for each in server.denials if scene.may_declare or not _is_for_declaring(each, server)]
    if not denials:
        return
    exchange = f"{server.prefix}dibs"
    is_mute = Denial(right="write", name=exchange) in denials
    lacks = "; ".join(
        f"{right} {', '.join(names)}"
        for right in ("configure", "write", "read")
        if (names := [each.name for each in denials if each.right == right])
    )
    yield Finding(
        name="missing-rights",
        severity="problem" if is_mute else "warning",
        what=f"User {server.user!r} may not {lacks}.",
        why="It can't hand jobs over."
        if is_mute
        else "That will do for a producer. A worker, or who looks, needs more, as the guide to RabbitMQ says.",
        mend=_line(scene, server),
    )


def _is_for_declaring(denial: Denial, server: ServerFacts) -> bool:
    """Tell whether an app that declares nothing can do without this right."""
    own = tuple(f"{server.prefix}dibs.{kind}." for kind in ("roll", "reply", "lease"))
    return denial.right == "configure" and not denial.name.startswith(own)


def _line(scene: Scene, server: ServerFacts) -> str:
    """Return the command that gives a worker what it needs, and no more. See docs/guides/rabbitmq.md, Rights."""
    dibs = re.escape(f"{server.prefix}dibs")
    names = sorted(re.escape(server.prefix + queue) for queue in scene.named)
    queues = f"({'|'.join(names)})" if names else ".*"
    if scene.may_declare:
        everything = f"^({queues}(\\.dead)?|{dibs}.*)$"
        patterns = [everything] * 3
    else:
        patterns = [
            f"^{dibs}\\.(roll|reply|lease)\\..*$",
            f"^{dibs}(\\.ledger|\\.control|\\.delay\\..*|\\.reply.*|\\.roll.*|\\.lease\\..*)?$",
            f"^({queues}(\\.dead)?|{dibs}|{dibs}\\.(dead|ledger|control|reply.*|roll.*|lease\\..*))$",
        ]
    words = ["rabbitmqctl", "set_permissions", "-p", server.virtual_host, server.user, *patterns]
    return shlex.join(words)
