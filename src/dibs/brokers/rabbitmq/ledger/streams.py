"""The ledger's streams in the server: what they are made with, and why there are none where there are none.

Two streams, each behind an exchange of its own name. Neither is bound to anything that carries jobs: a stream would
satisfy `mandatory` for a job whose queue is gone.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from pika import exceptions

from dibs.brokers.rabbitmq import faults
from dibs.brokers.rabbitmq.channel import Channel, Connection
from dibs.brokers.rabbitmq.topology import Names
from dibs.errors import LedgerUnavailable
from dibs.settings import Keeping

_log = logging.getLogger("dibs.rabbitmq")

#: The largest segment of a stream. What is old goes segment by segment.
_SEGMENT_BYTES = 50 * 1000 * 1000
#: Of how many segments the ledger has room for at the least.
_SEGMENTS = 4


class Streams:
    """Those of one namespace. Shared by the connections of a process."""

    def __init__(self, names: Names, keeping: Keeping, *, may_declare: bool) -> None:
        self.names = names
        self._keeping = keeping
        self.may_declare = may_declare
        #: What the server said when it knew no streams at all. Whoever only reads does not find out.
        self.absence: BaseException | None = None
        #: What was said to be missing here.
        self._told: set[str] = set()

    async def declare(self, connection: Connection) -> None:
        """Make both streams, where they don't exist. Existing ones are used as they are.

        Raises:
            AMQPError: the server refused it, or the connection was lost.
            LedgerUnavailable: this app may not declare anything.
        """
        if not self.may_declare:
            raise LedgerUnavailable(
                f"{self.names.ledger} does not exist, and this app may not make it (declare=False)"
            )
        segment = min(_SEGMENT_BYTES, max(1, self._keeping.size_bytes // _SEGMENTS))
        common = {"x-queue-type": "stream", "x-stream-max-segment-size-bytes": segment}
        limits = {"x-max-age": self._keeping.age, "x-max-length-bytes": self._keeping.size_bytes}
        await _declare(connection, self.names.control, common | {"x-stream-max-segment-size-bytes": _SEGMENT_BYTES})
        await _declare(connection, self.names.ledger, common | limits)

    def tell(self, missing: str, reason: str) -> None:
        """Say once that this program goes on without the ledger, or without a part of it."""
        if missing not in self._told:
            level = logging.INFO if self._told else logging.WARNING  # most have one cause, and one warning will do
            self._told.add(missing)
            text = "%s. All else works. Allow this user what the guide to RabbitMQ says, or add ledger=off. error=%s"
            _log.log(level, text, missing, reason)


async def _declare(connection: Connection, name: str, arguments: Mapping[str, object]) -> None:
    """Make a stream and the exchange that leads to it."""
    channel = await Channel.open(connection)
    await channel.call(channel.raw.exchange_declare, exchange=name, exchange_type="fanout", durable=True)
    try:
        await channel.call(channel.raw.queue_declare, queue=name, durable=True, arguments=arguments)
    except exceptions.ChannelClosedByBroker as error:
        if error.reply_code != faults.PRECONDITION_FAILED or "inequivalent arg 'x-queue-type'" in error.reply_text:
            raise
        if "inequivalent" not in error.reply_text:
            raise  # the server has no streams
        _log.info("A stream exists with other limits, and is used as it is. difference=%s", error.reply_text)
        channel = await Channel.open(connection)
    await channel.call(channel.raw.queue_bind, queue=name, exchange=name, routing_key="")
    await channel.close()


def refusal(location: str, name: str, error: BaseException) -> LedgerUnavailable:
    """Return what is told to who would read a ledger and may not."""
    return LedgerUnavailable(
        f"{location} does not let this user read the ledger {name}: {faults.text_of(error)}. Everything else works. "
        f"Grant the right to read it; it takes RabbitMQ 3.9 or later with streams enabled."
    )
