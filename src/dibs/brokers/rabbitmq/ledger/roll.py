"""The roll call: whoever wants to know how the workers are asks all of them, and each answers with what it last said.

Nobody asks: it costs nothing. This is the answering side, on the consumer's connection.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any

import msgspec
from pika import exceptions

from dibs.brokers.rabbitmq import faults, fields
from dibs.brokers.rabbitmq.channel import Channel, Connection, Encoded
from dibs.brokers.rabbitmq.ledger.answers import Answer
from dibs.brokers.rabbitmq.ledger.streams import Streams
from dibs.brokers.rabbitmq.publisher import Publisher
from dibs.ledger.snapshot import Snapshot


class Roll:
    """One worker's place in it."""

    def __init__(self, streams: Streams, publisher: Callable[[], Publisher]) -> None:
        self._streams = streams
        self._names = streams.names
        self._publisher = publisher
        #: What this worker last said of itself. Set by the owner's thread.
        self.snapshot: Snapshot | None = None

    async def join(self, connection: Connection) -> None:
        """Answer by this connection from now on. Where that can't be, it says so, once."""
        queue = f"{self._names.roll}.{os.urandom(6).hex()}"
        try:
            channel = await Channel.open(connection)
            raw = channel.raw
            if self._streams.may_declare:
                await channel.call(
                    raw.exchange_declare, exchange=self._names.roll, exchange_type="fanout", durable=True
                )
            arguments = {"x-queue-type": "classic"}
            await channel.call(raw.queue_declare, queue=queue, exclusive=True, arguments=arguments)
            await channel.call(raw.queue_bind, queue=queue, exchange=self._names.roll, routing_key="")
            await channel.call(raw.basic_consume, queue=queue, on_message_callback=self._on_call, auto_ack=True)
            if self._streams.may_declare:
                await self._make_way_back(connection)
        except exceptions.AMQPError as error:
            if connection.is_open:
                self._streams.tell("This worker can't be asked how it is", faults.text_of(error))

    async def _make_way_back(self, connection: Connection) -> None:
        """Make the exchange that answers go by, so that who may make nothing can ask as well.

        Where that is not allowed, who asks and may make it does.
        """
        channel = await Channel.open(connection)
        with contextlib.suppress(exceptions.ChannelClosedByBroker):
            await channel.call(channel.raw.exchange_declare, exchange=self._names.reply, durable=True)
            await channel.close()

    def _on_call(self, _channel: Any, _method: Any, properties: Encoded, _body: bytes) -> None:
        asked = fields.decode(properties.data)
        queue = asked.get("reply_to", "")
        if self.snapshot is None or not queue.startswith(f"{self._names.reply}."):
            return
        answer = Answer(queue, msgspec.json.encode(self.snapshot), asked.get("correlation_id"))
        publisher = self._publisher()
        publisher.link.post(publisher.answers.send, [answer])
