"""Looks at what there is in a server, for `dibs doctor`. Changes nothing, on a connection of its own.

Rights and forms are found out by asking for what the server refuses whatever the answer: it says first what is not
allowed, then what does not fit. Knows facts, not what is wrong with them.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from pika import exceptions

from dibs.broker import Queue
from dibs.brokers.rabbitmq import faults, fields, login
from dibs.brokers.rabbitmq.channel import Channel, Connection, Letter
from dibs.brokers.rabbitmq.link import Link
from dibs.brokers.rabbitmq.topology import LEVELS, QUORUM, Names, level_arguments
from dibs.errors import AccessRefused
from dibs.facts import Denial, Difference, Right, ServerFacts
from dibs.url import Address

#: Seconds that the server may take to say that it takes a message, or why not.
_ALARM_TIMEOUT = 3.0
#: The server refuses both, behind its look at the rights: a queue is not made, nothing is consumed.
_NO_QUEUE = {"x-expires": 0}
_NO_CONSUMER = {"x-priority": "none"}
_DIFFERENCE = re.compile(r"inequivalent arg '([^']+)' for .*?: received (.*?) but current is (.*)", re.DOTALL)


class _Reply(NamedTuple):
    """What the server said to one method: a refusal, or an answer."""

    code: int
    text: str
    answer: Any = None


class Examination:
    """One look at one namespace."""

    def __init__(self, address: Address, names: Names, queues: Sequence[Queue], *, uses_ledger: bool) -> None:
        self._address = address
        self._names = names
        self._queues = queues
        self._uses_ledger = uses_ledger

    def look(self, timeout: float) -> ServerFacts:
        """Return what there is.

        Raises:
            BrokerError: the server can't be reached, or lets this login do nothing.
        """
        link = Link(self._address, "doctor", self)
        try:
            return link.run(self._look, timeout, "being examined")
        finally:
            link.close()

    # What follows runs on the I/O thread.

    def on_open(self, connection: Connection) -> None:
        """Do nothing: `look` asks."""

    def on_lost(self, error: BaseException) -> None:
        """Do nothing: `look` is told."""

    def on_refused(self, error: AccessRefused) -> None:
        """Do nothing: `look` is told."""

    async def _look(self, connection: Connection) -> ServerFacts:
        names = self._names
        has_exchange, has_ledger, has_control, has_reply, has_roll, lost = await asyncio.gather(
            _has_exchange(connection, names.exchange),
            _has_queue(connection, names.ledger),
            _has_queue(connection, names.control),
            _has_exchange(connection, names.reply),
            _has_exchange(connection, names.roll),
            _try(connection, "queue_declare", queue=names.lost_queue, passive=True),
        )
        streams = {names.ledger: has_ledger, names.control: has_control} if self._uses_ledger else {}
        there = [queue for queue in self._queues if await _has_queue(connection, names.stored(queue.name))]
        is_fresh = not (has_exchange or there or has_ledger or has_control)
        denials = await self._denials(connection, there, [name for name in streams if streams[name]])
        differences = await asyncio.gather(*(self._compare(connection, queue) for queue in there))
        missing_levels, other_levels = await self._levels(connection)
        return ServerFacts(
            version=str((connection.server_properties or {}).get("version", "0")),
            user=login.credentials(self._address)[0],
            virtual_host=self._address.path or "/",
            prefix=names.exchange.removesuffix("dibs"),
            is_fresh=is_fresh,
            differences=[each for pair in differences for each in pair] + other_levels,
            denials=denials,
            missing_levels=missing_levels,
            lost=0 if lost.answer is None else int(lost.answer.message_count),
            missing_streams=[name for name, is_there in streams.items() if not is_there],
            has_ledger=bool(streams) and has_ledger,
            has_roll=has_reply and has_roll,
            alarm=await _alarm(connection, names.exchange if has_exchange else "amq.direct"),  # last: it may block
        )

    async def _compare(self, connection: Connection, queue: Queue) -> list[Difference]:
        """Declare a queue that is there as dibs would, and its dead letters: the server says what differs."""
        stored = self._names.stored(queue.name)
        arguments = {} if queue.type == "classic" else QUORUM
        found = [await _difference(connection, stored, arguments)]
        dead = self._names.dead(queue.name)
        if await _has_queue(connection, dead):
            found.append(await _difference(connection, dead, QUORUM))
        return [each for each in found if each is not None]

    async def _denials(self, connection: Connection, there: Sequence[Queue], streams: Sequence[str]) -> list[Denial]:
        """Return what a worker of these queues needs and this login lacks."""
        names = self._names
        stored = [names.stored(queue.name) for queue in there]
        asked = [_denial(connection, "write", names.exchange)]
        asked += [_denial(connection, "read", name) for name in (*stored, *streams)]
        asked += [_denial(connection, "write", name) for name in streams]
        asked += [_denial(connection, "configure", name) for queue in there for name in _pair(names, queue)]
        asked += [_denial(connection, "configure", f"{name}.x") for name in (names.roll, names.reply)]
        return [denial for denial in await asyncio.gather(*asked) if denial is not None]

    async def _levels(self, connection: Connection) -> tuple[list[str], list[Difference]]:
        """Return the delay levels that are missing, and those of another form."""
        levels = [self._names.level(number) for number in range(LEVELS)]
        is_whole = await asyncio.gather(*(self._has_level(connection, name) for name in levels))
        if not any(is_whole):
            return [], []
        highest = max(number for number, found in enumerate(is_whole) if found)
        missing = [name for name, found in zip(levels[:highest], is_whole, strict=False) if not found]
        ends = (self._names.due, self._names.lost)
        missing += [name for name in ends if not await _has_exchange(connection, name)]
        compared = await asyncio.gather(
            *(
                _difference(connection, name, level_arguments(self._names, number))
                for number, (name, found) in enumerate(zip(levels, is_whole, strict=True))
                if found
            )
        )
        return missing, [each for each in compared if each is not None]

    async def _has_level(self, connection: Connection, name: str) -> bool:
        return all(await asyncio.gather(_has_exchange(connection, name), _has_queue(connection, name)))


def _pair(names: Names, queue: Queue) -> tuple[str, str]:
    return names.stored(queue.name), names.dead(queue.name)


async def _try(connection: Connection, method: str, **arguments: Any) -> _Reply:
    """Call a method on a channel of its own, which the server may close."""
    channel = await Channel.open(connection)
    try:
        answer = await channel.call(getattr(channel.raw, method), **arguments)
    except exceptions.ChannelClosedByBroker as error:
        return _Reply(faults.code_of(error), faults.text_of(error))
    await channel.close()
    return _Reply(0, "", answer)


async def _has_queue(connection: Connection, name: str) -> bool:
    """Tell whether it is there; whoever may not ask (from 4.3 on) takes it for granted."""
    return (await _try(connection, "queue_declare", queue=name, passive=True)).code != faults.NOT_FOUND


async def _has_exchange(connection: Connection, name: str) -> bool:
    return (await _try(connection, "exchange_declare", exchange=name, passive=True)).code != faults.NOT_FOUND


async def _difference(connection: Connection, name: str, arguments: Mapping[str, Any]) -> Difference | None:
    reply = await _try(connection, "queue_declare", queue=name, durable=True, arguments=arguments)
    if reply.code != faults.PRECONDITION_FAILED or (said := _DIFFERENCE.search(reply.text)) is None:
        return None  # it is as it should be; or this login may not ask, which `denials` tells
    argument, wanted, found = said.group(1), _value(said[2]), _value(said[3])
    if argument == "x-queue-type" and found == "none":
        found = "classic"  # what a queue is that says nothing
    return Difference(name=name, argument=argument, wanted=wanted, found=found)


def _value(text: str) -> str:
    """Return a value without the server's words around it: "the value 'quorum' of type 'longstr'"."""
    quoted = re.search(r"'([^']*)'", text)
    return quoted[1] if quoted else text.strip()


async def _denial(connection: Connection, right: Right, name: str) -> Denial | None:
    """Ask for what takes this right, and can't be done besides."""
    match right:
        case "configure":
            ask = partial(_try, connection, "queue_declare", queue=name, durable=True, arguments=_NO_QUEUE)
        case "read":
            ask = partial(
                _try, connection, "basic_consume", queue=name, on_message_callback=_ignore, arguments=_NO_CONSUMER
            )
        case "write":  # there is no such binding, which is no error
            key = os.urandom(8).hex()
            ask = partial(_try, connection, "exchange_unbind", destination=name, source="amq.fanout", routing_key=key)
    reply = await ask()
    is_denied = reply.code == faults.ACCESS_REFUSED and f"'{name}'" in reply.text
    return Denial(right=right, name=name) if is_denied else None


def _ignore(*_: Any) -> None:
    """Take a message that can't come."""


async def _alarm(connection: Connection, exchange: str) -> str | None:
    """Publish what leads nowhere, and return what the server says where it takes nothing; None: it takes it."""
    said: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()

    def tell(reason: str | None) -> None:
        if not said.done():
            said.set_result(reason)

    connection.add_on_connection_blocked_callback(lambda _, frame: tell(str(frame.method.reason)))
    channel = await Channel.open(connection)
    channel.watch(lambda _: tell(None))  # it was refused, but taken in
    await channel.confirm(lambda _: tell(None))
    header = fields.encode({"app_id": "dibs"})
    channel.publish([Letter(exchange, f"dibs.doctor.{os.urandom(8).hex()}", header, b"", "")])
    try:
        async with asyncio.timeout(_ALARM_TIMEOUT):
            return await said
    except TimeoutError:
        return f"it gave no answer within {_ALARM_TIMEOUT:g} s to a message"
