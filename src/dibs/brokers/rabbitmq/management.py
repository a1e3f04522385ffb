"""Asks RabbitMQ's management API for what AMQP does not tell, for `dibs doctor`. Reads only.

It is looked for where it usually is: at the port of AMQP plus 10,000, with the same login.
"""

from __future__ import annotations

import base64
import email.utils
import http.client
import time
from collections.abc import Collection
from urllib.parse import quote

import msgspec

from dibs.brokers.rabbitmq import login
from dibs.brokers.rabbitmq.topology import Names
from dibs.facts import ManagementFacts, PolicyFacts
from dibs.url import Address

#: Seconds for one answer.
_TIMEOUT = 2.0
_PORT_OFFSET = 10000


class _Unavailable(Exception):
    """It is not there, or does not let this login in."""


class _QueueRow(msgspec.Struct, frozen=True):
    """What the API says of a queue, as far as it is read here."""

    name: str
    policy: str | None = None
    operator_policy: str | None = None
    effective_policy_definition: dict[str, str | int] | list[object] | None = None


class _Health(msgspec.Struct, frozen=True):
    """The answer of a health check."""

    status: str = ""
    reason: str = ""
    alarms: list[dict[str, object]] = []


def ask(address: Address, names: Names, queues: Collection[str]) -> tuple[ManagementFacts | None, str]:
    """Return what it says, or None and why it was not asked.

    Args:
        address: of the server, by AMQP.
        names: of the namespace.
        queues: those that are looked at, as they are stored, besides dibs' own.
    """
    try:
        with_own = {*queues, *(f"{queue}.dead" for queue in queues)}
        return _ask(address, names, with_own), ""
    except (OSError, http.client.HTTPException, msgspec.DecodeError, _Unavailable) as error:
        return None, str(error) or type(error).__name__


def _ask(address: Address, names: Names, queues: Collection[str]) -> ManagementFacts:
    parameters = login.parameters(address, "doctor")[0]
    host, port = parameters.host, int(parameters.port) + _PORT_OFFSET
    if parameters.ssl_options is None:
        connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT)
    else:
        connection = http.client.HTTPSConnection(host, port, timeout=_TIMEOUT, context=parameters.ssl_options.context)
    token = base64.b64encode(":".join(login.credentials(address)).encode()).decode()
    api = _Api(connection, {"Authorization": f"Basic {token}"})
    try:
        vhost = quote(address.path or "/", safe="")
        columns = "name,policy,operator_policy,effective_policy_definition"
        rows = msgspec.json.decode(api.get(f"/api/queues/{vhost}?columns={columns}"), type=list[_QueueRow])
        own = names.exchange + "."
        policies = [_policy(row) for row in rows if row.name in queues or row.name.startswith(own)]
        return ManagementFacts(
            clock_offset=api.clock_offset,
            policies=[
                each for each in policies if each.definition and each.queue not in {names.ledger, names.control}
            ],
            alarms=_alarms(api.get("/api/health/checks/alarms", others=(503, 401, 403))),
        )
    finally:
        connection.close()


def _policy(row: _QueueRow) -> PolicyFacts:
    definition = row.effective_policy_definition
    name = row.policy or row.operator_policy or ""
    return PolicyFacts(name=name, queue=row.name, definition=definition if isinstance(definition, dict) else {})


def _alarms(body: bytes) -> list[str]:
    health = msgspec.json.decode(body, type=_Health)
    if health.status != "failed":
        return []
    return [" ".join(f"{key} {value}" for key, value in sorted(alarm.items())) for alarm in health.alarms] or [
        health.reason
    ]


class _Api:
    """One connection to it."""

    def __init__(self, connection: http.client.HTTPConnection, headers: dict[str, str]) -> None:
        self._connection = connection
        self._headers = headers
        #: How far the server's clock is ahead, in seconds.
        self.clock_offset: float | None = None

    def get(self, path: str, *, others: Collection[int] = ()) -> bytes:
        """Return the body of an answer; those with other codes than 200 only where they are named."""
        self._connection.request("GET", path, headers=self._headers)
        answer = self._connection.getresponse()
        body = answer.read()
        date = email.utils.parsedate_to_datetime(answer.headers["Date"]) if "Date" in answer.headers else None
        if date is not None:
            self.clock_offset = date.timestamp() + 0.5 - time.time()  # it says whole seconds
        if answer.status != 200 and answer.status not in others:
            raise _Unavailable(f"the management API answered {answer.status} {answer.reason}")
        return body
