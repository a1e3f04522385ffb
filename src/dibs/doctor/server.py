"""What is wrong with a RabbitMQ server: its version, its alarms, the policies of its administrators."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from dibs.doctor.finding import Finding
from dibs.doctor.scene import Scene
from dibs.facts import PolicyFacts, ServerFacts

#: The oldest version that dibs is tested with, and the first that knows a limit on running times of a queue's own.
_OLDEST, _OWN_LIMIT = (3, 10), (3, 12)
#: What a policy may say that takes jobs away, and how.
_DROPPING = {
    "message-ttl": "what waits longer than {} ms is dropped",
    "expires": "the queue and all that is in it is deleted after {} ms without use",
    "max-length": "what is beyond {} messages is dropped, or refused",
    "max-length-bytes": "what is beyond {} bytes is dropped, or refused",
    "delivery-limit": "what was returned {} times is dropped",
    "consumer-timeout": "what runs longer than {} ms is given to another worker while it runs",
}


def check(scene: Scene) -> Iterator[Finding]:
    """Yield what is wrong."""
    server = scene.facts.rabbitmq
    if server is None:
        return
    alarms = [server.alarm] if server.alarm is not None else []
    alarms += server.management.alarms if server.management is not None else []
    if alarms:
        yield Finding(
            name="alarm",
            severity="problem",
            what=f"The server takes nothing from producers: {'; '.join(alarms)}.",
            why="enqueue waits, then raises BrokerBusy. Workers go on with what is there.",
            mend="rabbitmq-diagnostics alarms, on the server; then give it memory or disk",
        )
    yield from _version(server)
    for policy in server.management.policies if server.management is not None else []:
        yield from _policy(policy, server)


def _version(server: ServerFacts) -> Iterator[Finding]:
    major, minor = (int(part) for part in re.findall(r"\d+", server.version + ".0.0")[:2])
    if (major, minor) < _OLDEST:
        yield Finding(
            name="server-too-old",
            severity="problem",
            what=f"The server is RabbitMQ {server.version}.",
            why="dibs is tested with 3.10 and later.",
            mend="upgrade the server",
        )
    elif (major, minor) < _OWN_LIMIT:
        yield Finding(
            name="consumer-timeout",
            severity="note",
            what=f"RabbitMQ {server.version} takes jobs away that run longer than its consumer_timeout (30 minutes).",
            why="Workers renew their hold on such a job every 20 minutes, which takes the right to declare "
            "dibs.lease.* and write to it.",
            mend="consumer_timeout = 31536000000 in rabbitmq.conf, or RabbitMQ 3.12 and later",
        )


def _policy(policy: PolicyFacts, server: ServerFacts) -> Iterator[Finding]:
    harm = [text.format(policy.definition[key]) for key, text in _DROPPING.items() if key in policy.definition]
    if harm:
        yield Finding(
            name="dropping-policy",
            severity="problem",
            what=f"Policy {policy.name!r} applies to {policy.queue}: {'; '.join(harm)}.",
            why="What the server drops is lost: neither dibs nor a producer is told.",
            mend=f"rabbitmqctl clear_policy -p {shlex.quote(server.virtual_host)} {shlex.quote(policy.name)}, or "
            "give it a pattern that leaves dibs' queues out",
        )
